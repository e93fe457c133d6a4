package cache

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pamsidecar/pamsidecar/pam"
)

// Select resolves whom a revoke is for to names, except for Match and All, which
// stay as they are and give the names they hit now. Unknown names are an
// *UnknownNamesError and nothing else is selected.
func (c *Cache) Select(s Selector) ([]string, error) {
	switch {
	case s.Match != "" || s.All:
		d := Decision{Match: s.Match, All: s.All}
		re, err := CompileMatch(d.matchExpr())
		if err != nil {
			return nil, err
		}
		return c.namesWhere(func(r *Record) bool { return re.MatchString(r.Name) })
	case len(s.UUIDs) > 0:
		return c.selectUUIDs(s.UUIDs)
	case s.Token != "":
		names, err := c.namesWhere(func(r *Record) bool { return r.Holds(s.Token) })
		if err == nil && len(names) == 0 {
			err = fmt.Errorf("token #%s: no name holds it: %w", s.Token.ID(), ErrUnknown)
		}
		return names, err
	}
	var unknown []string
	for _, name := range s.Names {
		if _, err := c.Record(name); errors.Is(err, ErrUnknown) {
			unknown = append(unknown, name)
		} else if err != nil {
			return nil, err
		}
	}
	if len(unknown) > 0 {
		return nil, &UnknownNamesError{unknown}
	}
	return s.Names, nil
}

func (c *Cache) selectUUIDs(uuids []string) ([]string, error) {
	seen := map[string]bool{}
	names, err := c.namesWhere(func(r *Record) bool {
		hit := false
		for _, uuid := range r.uuids() {
			if slices.Contains(uuids, uuid) {
				hit, seen[uuid] = true, true
			}
		}
		return hit
	})
	unknown := slices.DeleteFunc(slices.Clone(uuids), func(u string) bool { return seen[u] })
	if err == nil && len(unknown) > 0 {
		err = &UnknownNamesError{unknown}
	}
	return names, err
}

// uuids are those of the record's grant and of the tokens it holds, which differ
// for a while after the grant has changed.
func (r *Record) uuids() []string {
	var uuids []string
	if r.Grant != nil && r.Grant.UUID != "" {
		uuids = append(uuids, r.Grant.UUID)
	}
	for _, t := range r.tokens() {
		if tok, err := pam.Parse(t.Raw.Reveal()); err == nil && tok.UUID != "" {
			uuids = append(uuids, tok.UUID)
		}
	}
	return uuids
}

// tokens are all tokens the record holds the text of, in whatever role.
func (r *Record) tokens() []Token {
	tokens := slices.Clone(r.Superseded)
	if r.Current != nil {
		tokens = append(tokens, *r.Current)
	}
	for _, w := range r.Withdrawn {
		tokens = append(tokens, w.Token)
	}
	return slices.DeleteFunc(tokens, func(t Token) bool { return t.Raw == "" })
}

func (c *Cache) namesWhere(match func(*Record) bool) ([]string, error) {
	var names []string
	err := c.each(func(r *Record) error {
		if match(r) {
			names = append(names, r.Name)
		}
		return nil
	})
	return names, err
}

// Holds reports whether the record knows the token, in whatever role. Padding
// makes no difference.
func (r *Record) Holds(s pam.Secret) bool {
	bare := func(s pam.Secret) string { return strings.TrimRight(s.Reveal(), "=") }
	return slices.ContainsFunc(r.tokens(), func(t Token) bool { return bare(t.Raw) == bare(s) })
}
