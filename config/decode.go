package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// decoder collects what is wrong with one file while its values are read.
type decoder struct {
	file   string
	dir    string // where relative paths begin, absolute
	o      Options
	faults Faults
	hints  []Finding
	hidden []string // paths of values that were hidden and then asked for
}

// fault reports a value.
func (d *decoder) fault(n *node, format string, args ...any) {
	d.report(n.line, n.column, n.path(), labelled(n, format, args))
}

// faultKey reports the key of a value.
func (d *decoder) faultKey(n *node, format string, args ...any) {
	at := n
	if n.key != nil {
		at = n.key
	}
	d.report(at.line, at.column, n.path(), fmt.Sprintf(format, args...))
}

// faultEnv reports a variable of the environment, which has no place in the file.
func (d *decoder) faultEnv(name, format string, args ...any) {
	d.faults = append(d.faults, Fault{Path: name, Message: redact(name + ": " + fmt.Sprintf(format, args...))})
}

func (d *decoder) report(line, column int, path, message string) {
	d.faults = append(d.faults, Fault{File: d.file, Line: line, Column: column, Path: redact(path), Message: redact(message)})
}

// hint remembers a lint finding about a value.
func (d *decoder) hint(n *node, format string, args ...any) {
	d.hints = append(d.hints, Finding{File: d.file, Line: n.line, Column: n.column,
		Path: n.path(), Message: fmt.Sprintf(format, args...)})
}

func labelled(n *node, format string, args []any) string {
	message := fmt.Sprintf(format, args...)
	switch label := n.label(); {
	case n.key == nil && n.parent == nil:
		return message
	case n.named():
		return say(strconv.Quote(label), message)
	default:
		return say(label, message)
	}
}

// say puts what a message is about before it, as the subject of its sentence or
// else with a colon.
func say(subject, message string) string {
	verb, _, _ := strings.Cut(message, " ")
	switch verb {
	case subject:
		return message
	case "is", "has", "holds", "must", "lies", "looks", "grants":
		return subject + " " + message
	}
	return subject + ": " + message
}

// secretPrefix begins every secret key that PubNub hands out.
const secretPrefix = "sec-c-"

var secretText = regexp.MustCompile(`(?i)sec-c-[^.\s"'\\][^\s"'\\]*`)

// redact takes whatever looks like a secret key out of a message.
func redact(s string) string {
	if !strings.Contains(strings.ToLower(s), secretPrefix) {
		return s
	}
	return secretText.ReplaceAllString(s, secretPrefix+"...")
}

// refuseSecrets reports every secret key in the file and hides it from what
// follows. The value of a key secret_key is reported with that key.
func (d *decoder) refuseSecrets(n *node) {
	const advice = "a secret key (sec-c-...) does not belong in this file: put it alone into a file of mode 0600 and name that file as secret_key_file; if others could read this file, replace the key in the PubNub portal"
	if n.key != nil && strings.Contains(strings.ToLower(n.key.text), secretPrefix) {
		d.report(n.key.line, n.key.column, n.parent.path(), advice)
		n.key.kind, n.key.text = redactedKind, redact(n.key.text)
	}
	if n.kind != mappingKind && n.kind != listKind && strings.Contains(strings.ToLower(n.text), secretPrefix) {
		if n.label() != "secret_key" {
			d.report(n.line, n.column, n.path(), advice)
		}
		n.kind, n.text = redactedKind, ""
	}
	for _, c := range n.children {
		d.refuseSecrets(c)
	}
}

// fields says what to do with the value of each known key of a mapping.
type fields struct {
	known map[string]func(*node)
	// refused are keys that people write for good reasons and that cannot be
	// taken; the text says why and what to do.
	refused map[string]string
}

// mapping hands the value of every known key to its function, and reports
// unknown and duplicate keys. It reports whether n is a mapping.
func (d *decoder) mapping(n *node, f fields) bool {
	if !d.is(n, mappingKind) {
		return false
	}
	first := make(map[string]*node, len(n.children))
	for _, v := range n.children {
		key := v.key.text
		read := f.known[key]
		why, refused := f.refused[key]
		switch earlier := first[key]; {
		case v.key.kind == redactedKind:
			d.hidden = append(d.hidden, v.path())
		case earlier != nil:
			d.faultKey(v, "duplicate key %q: it already stands at line %d:%d: remove one of them", key, earlier.key.line, earlier.key.column)
		case refused:
			d.faultKey(v, "%s: %s", key, why)
		case read == nil:
			d.faultKey(v, "unknown key %s: %s", strconv.Quote(key), suggest(key, f.known))
		default:
			first[key] = v
			read(v)
		}
	}
	return true
}

// suggest names the known key that was probably meant, or all of them.
func suggest(key string, known map[string]func(*node)) string {
	best, distance := "", 3
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if n := editDistance(strings.ToLower(key), name, distance); n < distance && n < len(name) {
			best, distance = name, n
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return "remove it, or use one of " + strings.Join(names, ", ")
}

// editDistance counts the insertions, deletions, replacements and swaps of
// neighbours that turn a into b; it gives limit when there are at least so many.
func editDistance(a, b string, limit int) int {
	if len(a) > len(b)+limit || len(b) > len(a)+limit {
		return limit
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return min(last[len(b)], limit)
}

// is reports whether a value is of the kind wanted, and reports it if not.
func (d *decoder) is(n *node, want kind) bool {
	switch {
	case n.kind == want:
		return true
	case n.kind == redactedKind:
		d.hidden = append(d.hidden, n.path())
	case n.kind == nullKind:
		d.fault(n, "has no value: give it %s, or remove the key", want)
	case want == textKind && (n.kind == numberKind || n.kind == boolKind):
		d.fault(n, "must be text: put it in quotes")
	case want == boolKind && n.kind == textKind:
		d.fault(n, "must be true or false, without quotes")
	case want == numberKind && n.kind == textKind:
		d.fault(n, "must be a number, without quotes")
	default:
		d.fault(n, "must be %s, not %s", want, n.kind)
	}
	return false
}

// text reads text that is not empty.
func (d *decoder) text(n *node) (string, bool) {
	if !d.is(n, textKind) {
		return "", false
	}
	if n.text == "" {
		d.fault(n, "is empty: give it a value, or remove the key")
		return "", false
	}
	return n.text, true
}

// setText makes a function that reads text into dst.
func (d *decoder) setText(dst *string) func(*node) {
	return func(n *node) {
		if s, ok := d.text(n); ok {
			*dst = s
		}
	}
}

// setBool makes a function that reads true or false into dst.
func (d *decoder) setBool(dst *bool) func(*node) {
	return func(n *node) {
		if d.is(n, boolKind) {
			*dst = n.text == "true"
		}
	}
}

// setPath makes a function that reads a path into dst. A relative path begins at
// the directory of the file.
func (d *decoder) setPath(dst *string) func(*node) {
	return func(n *node) {
		s, ok := d.text(n)
		if !ok {
			return
		}
		if strings.ContainsRune(s, 0) {
			d.fault(n, "a path cannot contain a NUL character")
			return
		}
		if !filepath.IsAbs(s) {
			s = filepath.Join(d.dir, s)
		}
		*dst = filepath.Clean(s)
	}
}

// number reads a number between two bounds, both included.
func (d *decoder) number(n *node, least, most float64) (float64, bool) {
	if !d.is(n, numberKind) {
		return 0, false
	}
	var f float64
	switch v, _ := decimal(n.text); v := v.(type) {
	case int64:
		f = float64(v)
	case float64:
		f = v
	default:
		d.fault(n, "write it as a plain decimal number")
		return 0, false
	}
	if f < least || f > most {
		d.fault(n, "must be between %v and %v", least, most)
		return 0, false
	}
	return f, true
}

// setInt makes a function that reads a whole number into dst.
func (d *decoder) setInt(dst *int, least, most int) func(*node) {
	return func(n *node) {
		f, ok := d.number(n, float64(least), float64(most))
		switch {
		case !ok:
		case f != float64(int(f)):
			d.fault(n, "must be a whole number")
		default:
			*dst = int(f)
		}
	}
}
