package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pamsidecar/pamsidecar/admin"
	"github.com/pamsidecar/pamsidecar/cache"
)

// widestName is the longest name that the other columns make room for. Longer
// names are shown whole and push their line to the right.
const widestName = 32

var tableHead = [4]string{"NAME", "STATE", "ENDS IN", "NEXT"}

// writeTable writes a line for each item. With a width, the last column is
// wrapped to fit; without, every item is one line.
func writeTable(b *strings.Builder, items []admin.GrantItem, now time.Time, width int, colour bool) {
	rows := make([][4]string, len(items))
	var wide [4]int
	for c, head := range tableHead {
		wide[c] = len(head)
	}
	for i, g := range items {
		rows[i] = [4]string{showName(g.Name), string(g.State), span(g.ExpiresAt, now), nextText(g, now)}
		for c, text := range rows[i] {
			n := utf8.RuneCountInString(text)
			if c > 0 || n <= widestName {
				wide[c] = max(wide[c], n)
			}
		}
	}
	b.WriteString(tableLine(tableHead, wide, "") + "LAST ERROR\n")
	for i, g := range items {
		tint := ""
		if colour {
			tint = stateColour(g.State)
		}
		line := tableLine(rows[i], wide, tint)
		trouble := printable(errorText(g))
		if trouble == "" {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			continue
		}
		indent := strings.Repeat(" ", utf8.RuneCountInString(tableLine(rows[i], wide, "")))
		if width > 0 && width-len(indent) < 24 {
			b.WriteString(strings.TrimRight(line, " ") + "\n" + wrap(trouble, "    ", "    ", width))
			continue
		}
		b.WriteString(line + strings.TrimPrefix(wrap(trouble, indent, indent, width), indent))
	}
}

func tableLine(cells [4]string, wide [4]int, tint string) string {
	var b strings.Builder
	for c, text := range cells {
		pad := strings.Repeat(" ", max(0, wide[c]-utf8.RuneCountInString(text)))
		if c == 1 && tint != "" {
			text = tint + text + "\x1b[0m"
		}
		b.WriteString(text + pad + "  ")
	}
	return b.String()
}

func stateColour(s cache.State) string {
	switch s {
	case cache.Fresh:
		return "\x1b[32m"
	case cache.Failing:
		return "\x1b[33m"
	case cache.Expired, cache.Pending:
		return "\x1b[31m"
	default:
		return "\x1b[2m"
	}
}

// span is the time from now to a moment, "-" for none.
func span(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return shortSpan(max(0, t.Sub(now)))
}

// nextText is when a grant is tried next.
func nextText(g admin.GrantItem, now time.Time) string {
	switch {
	case g.NextAttempt.IsZero() || g.State == cache.Blocked || g.State == cache.Ended:
		return "-"
	case !g.NextAttempt.After(now):
		return "now"
	}
	return shortSpan(g.NextAttempt.Sub(now))
}

// errorText is the last column: why a name is blocked, or what the last attempt
// met and how often in a row.
func errorText(g admin.GrantItem) string {
	switch {
	case g.Blocked != nil && g.Blocked.Rule > 0:
		return fmt.Sprintf("rule %d: %s", g.Blocked.Rule, g.Blocked.Reason)
	case g.Blocked != nil:
		return g.Blocked.Reason
	case g.LastError == nil:
		return ""
	case g.Attempts > 1:
		return fmt.Sprintf("%s (%d times)", g.LastError.Reason, g.Attempts)
	}
	return g.LastError.Reason
}

// wrap breaks a text at spaces so that its lines fit into width; 0 is no limit.
func wrap(text, first, rest string, width int) string {
	if width <= 0 {
		return first + text + "\n"
	}
	var b strings.Builder
	line, empty := first, true
	for _, word := range strings.Fields(text) {
		if !empty && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			b.WriteString(line + "\n")
			line, empty = rest, true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	b.WriteString(line + "\n")
	return b.String()
}
