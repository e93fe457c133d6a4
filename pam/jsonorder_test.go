package pam_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// inKeyOrder sorts the members of all objects of a JSON text by their keys and leaves every blank where it is. What is not JSON stays as it is.
func inKeyOrder(text string) string {
	if !json.Valid([]byte(text)) {
		return text
	}
	s := sorter{text: text}
	out := s.blanks() + s.value()
	return out + text[s.at:]
}

// sorter walks over a JSON text that is known to be valid.
type sorter struct {
	text string
	at   int
}

func (s *sorter) blanks() string {
	start := s.at
	for s.at < len(s.text) && strings.IndexByte(" \t\r\n", s.text[s.at]) >= 0 {
		s.at++
	}
	return s.text[start:s.at]
}

func (s *sorter) value() string {
	switch s.text[s.at] {
	case '{':
		return s.object()
	case '[':
		return s.array()
	case '"':
		return s.str()
	}
	start := s.at
	for s.at < len(s.text) && strings.IndexByte(",]} \t\r\n", s.text[s.at]) < 0 {
		s.at++
	}
	return s.text[start:s.at]
}

func (s *sorter) str() string {
	start := s.at
	for s.at++; s.text[s.at] != '"'; s.at++ {
		if s.text[s.at] == '\\' {
			s.at++
		}
	}
	s.at++
	return s.text[start:s.at]
}

func (s *sorter) array() string {
	var out strings.Builder
	for {
		out.WriteByte(s.text[s.at]) // bracket or comma
		s.at++
		out.WriteString(s.blanks())
		if s.text[s.at] != ']' {
			out.WriteString(s.value() + s.blanks())
		}
		if s.text[s.at] == ']' {
			s.at++
			return out.String() + "]"
		}
	}
}

// object keeps the blanks in their places and sorts what is between them.
func (s *sorter) object() string {
	type member struct{ key, value string }
	var members []member
	var blanks [][4]string // before and after the key, before and after the value
	s.at++
	for s.text[s.at] != '}' {
		if s.text[s.at] == ',' {
			s.at++
		}
		var b [4]string
		b[0] = s.blanks()
		if s.text[s.at] == '}' {
			s.at++
			return "{" + b[0] + "}"
		}
		var m member
		m.key = s.str()
		b[1] = s.blanks()
		s.at++ // the colon
		b[2] = s.blanks()
		m.value = s.value()
		b[3] = s.blanks()
		members, blanks = append(members, m), append(blanks, b)
	}
	s.at++
	slices.SortFunc(members, func(a, b member) int { return strings.Compare(a.key, b.key) })
	parts := make([]string, len(members))
	for i, m := range members {
		b := blanks[i]
		parts[i] = b[0] + m.key + b[1] + ":" + b[2] + m.value + b[3]
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func TestInKeyOrder(t *testing.T) {
	for in, want := range map[string]string{
		`{"b":1,"a":{"d":[1, {"f":2,"e":3}],"c":"x\"}{"}}`: `{"a":{"c":"x\"}{","d":[1, {"e":3,"f":2}]},"b":1}`,
		"{\"b\": 1, \"a\": 2}\n":                           "{\"a\": 2, \"b\": 1}\n",
		`[1,"Sent","1"]`:                                   `[1,"Sent","1"]`,
		`{}`:                                               `{}`,
		`{ }`:                                              `{ }`,
		`[ ]`:                                              `[ ]`,
		`not {"b":1,"a":2}`:                                `not {"b":1,"a":2}`,
	} {
		if got := inKeyOrder(in); got != want {
			t.Errorf("%q\ngives %q\n want %q", in, got, want)
		}
	}
}
