package pam

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Fault is one thing wrong with a grant.
type Fault struct {
	// Path leads to it: "ttl", or "resources", "channels" and a name. A name is one
	// element whatever it contains; dots mean nothing.
	Path []string
	// Message says what is wrong and what is right, without repeating the path.
	Message string
}

// Error returns the path, names quoted, and the message on one line:
// `resources.channels["orders"]: ...`.
func (f Fault) Error() string {
	var b strings.Builder
	for i, element := range f.Path {
		last := i > 0 && i == len(f.Path)-1
		switch {
		case last && (i > 1 || f.Path[0] == "meta"):
			b.WriteString("[" + strconv.Quote(element) + "]")
		case i > 0:
			b.WriteString("." + element)
		default:
			b.WriteString(element)
		}
	}
	return b.String() + ": " + f.Message
}

// Faults are all the faults of a grant, in the order of its fields, names sorted.
type Faults []Fault

// Error joins the faults with "; ".
func (f Faults) Error() string {
	texts := make([]string, len(f))
	for i, fault := range f {
		texts[i] = fault.Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap returns the faults as errors.
func (f Faults) Unwrap() []error {
	all := make([]error, len(f))
	for i, fault := range f {
		all[i] = fault
	}
	return all
}

// Validate checks g against what Access Manager accepts and what PubNub documents
// for each type of resource. It returns nil or Faults: every fault at once.
func (g Grant) Validate() error {
	var c checker
	c.ttl(g.TTL)
	c.uuid(g)
	if g.Resources.empty() && g.Patterns.empty() {
		c.add("grants nothing: name at least one resource or pattern", "resources")
	}
	c.bothWords(g)
	c.side("resources", g.Resources, checkName)
	c.side("patterns", g.Patterns, checkPattern)
	c.meta(g.Meta)
	if len(c.faults) == 0 {
		return nil
	}
	return c.faults
}

// checker collects faults.
type checker struct{ faults Faults }

func (c *checker) add(message string, path ...string) {
	c.faults = append(c.faults, Fault{Path: path, Message: message})
}

func (c *checker) ttl(ttl time.Duration) {
	switch {
	case ttl < MinTTL || ttl > MaxTTL:
		c.add(fmt.Sprintf("%s is out of range: use 1 to 43,200 minutes (1m to 720h)", ttl), "ttl")
	case ttl%time.Minute != 0:
		c.add(fmt.Sprintf("%s is not whole minutes: use %dm", ttl, (ttl+time.Minute-1)/time.Minute), "ttl")
	}
}

func (c *checker) uuid(g Grant) {
	switch {
	case g.AnyUUID && g.UUID != "":
		c.add("is set together with a uuid: a token is bound to one or to none", "any_uuid")
	case g.AnyUUID:
	case g.UUID == "":
		c.add("is missing: name the user id the token is for, or set any_uuid", "uuid")
	case !utf8.ValidString(g.UUID):
		c.add("is not valid UTF-8", "uuid")
	case utf8.RuneCountInString(g.UUID) > MaxUUIDLength:
		c.add(fmt.Sprintf("has %d characters: use at most %d", utf8.RuneCountInString(g.UUID), MaxUUIDLength), "uuid")
	case strings.ContainsFunc(g.UUID, unicode.IsControl):
		c.add("holds a control character", "uuid")
	}
}

// bothWords refuses a grant that uses the old and the new word for one thing, as
// most SDKs do: which of the two would count is not documented.
func (c *checker) bothWords(g Grant) {
	pairs := []struct {
		newer, older string
		both         bool
		side         string
	}{
		{"channels", "spaces", len(g.Resources.Channels)+len(g.Patterns.Channels) > 0, olderSide(g.Resources.Spaces, g.Patterns.Spaces)},
		{"uuids", "users", len(g.Resources.UUIDs)+len(g.Patterns.UUIDs) > 0, olderSide(g.Resources.Users, g.Patterns.Users)},
	}
	for _, p := range pairs {
		if p.both && p.side != "" {
			c.add(fmt.Sprintf("%s is the older word for %s, and this grant uses both: keep %s", p.older, p.newer, p.newer), p.side, p.older)
		}
	}
}

// olderSide names the first side that uses the older word, "" for none.
func olderSide(resources, patterns map[string]Permission) string {
	switch {
	case len(resources) > 0:
		return "resources"
	case len(patterns) > 0:
		return "patterns"
	}
	return ""
}

// side checks every entry of one side; text checks the name or the pattern.
func (c *checker) side(side string, p Permissions, text func(string) string) {
	for _, s := range p.sections() {
		for _, name := range slices.Sorted(maps.Keys(s.entries)) {
			if message := text(name); message != "" {
				c.add(message, side, s.name, name)
			}
			if message := checkMask(s, s.entries[name]); message != "" {
				c.add(message, side, s.name, name)
			}
		}
	}
}

func checkMask(s section, mask Permission) string {
	if mask == 0 {
		return fmt.Sprintf("has no permission: a %s takes %s", s.one, listed(s.allowed))
	}
	if extra := mask &^ s.allowed; extra != 0 {
		return fmt.Sprintf("%s is not for a %s: it takes %s", listed(extra), s.one, listed(s.allowed))
	}
	return ""
}

func listed(p Permission) string { return strings.Join(p.Names(), ", ") }

func checkName(name string) string {
	switch {
	case name == "":
		return "the name is empty"
	case !utf8.ValidString(name):
		return "the name is not valid UTF-8"
	}
	return ""
}

// checkPattern parses with the syntax the service uses, RE2.
func checkPattern(pattern string) string {
	if pattern == "" {
		return "the pattern is empty, and would match every name"
	}
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		if e, ok := errors.AsType[*syntax.Error](err); ok {
			return fmt.Sprintf("is not an RE2 expression: %s: %q", e.Code, e.Expr)
		}
		return "is not an RE2 expression"
	}
	if re.MaxCap() > 0 {
		return "has a capturing group, which Access Manager refuses: write `(?:` for `(`"
	}
	return ""
}

func (c *checker) meta(meta map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		if !utf8.ValidString(key) {
			c.add("the key is not valid UTF-8", "meta", key)
		}
		if message := checkMeta(meta[key]); message != "" {
			c.add(message, "meta", key)
		}
	}
}

func checkMeta(value any) string {
	switch v := value.(type) {
	case nil, bool, int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64:
		return ""
	case string:
		if !utf8.ValidString(v) {
			return "is not valid UTF-8"
		}
		return ""
	case float32:
		return checkFloat(float64(v))
	case float64:
		return checkFloat(v)
	case json.Number:
		f, err := v.Float64()
		if err != nil || !json.Valid([]byte(v)) {
			return "is not a number"
		}
		return checkFloat(f)
	}
	return fmt.Sprintf("a %T is not allowed here: use a string, a number, a boolean or null", value)
}

func checkFloat(f float64) string {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return "is not a finite number"
	}
	return ""
}
