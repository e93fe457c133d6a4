package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// printable replaces whatever could move a terminal's cursor or the direction
// of its text: control and format characters and bytes that are not UTF-8 are
// shown as Go escapes.
func printable(s string) string {
	if clean(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		if strconv.IsPrint(r) && !(r == utf8.RuneError && size == 1) {
			b.WriteString(s[:size])
		} else {
			quoted := strconv.QuoteToASCII(s[:size])
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		s = s[size:]
	}
	return b.String()
}

func clean(s string) bool {
	for _, r := range s {
		if !strconv.IsPrint(r) {
			return false
		}
	}
	return utf8.ValidString(s)
}

// showName returns a name as it may stand in a line of other words: in quotes
// when it has spaces, quotes, commas or anything not printable in it.
func showName(name string) string {
	if name == "" || !clean(name) || strings.ContainsAny(name, " \"',:") {
		return strconv.Quote(name)
	}
	return name
}

// showNames joins names, at most ten of them.
func showNames(names []string) string {
	const most = 10
	shown := make([]string, 0, most+1)
	for i, n := range names {
		if i == most {
			shown = append(shown, fmt.Sprintf("and %d more", len(names)-most))
			break
		}
		shown = append(shown, showName(n))
	}
	return strings.Join(shown, ", ")
}

// shortSpan prints a duration in at most two units: 45s, 12m, 2h05m, 3d04h.
func shortSpan(d time.Duration) string {
	if d < 0 {
		return "-" + shortSpan(-d)
	}
	s := int64(d.Round(time.Second) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 600 && s%60 != 0:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 3600:
		return fmt.Sprintf("%dm", s/60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
	}
}

// clock prints a moment as operators read it: UTC, whole seconds.
func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// count prints a number with its noun.
func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
