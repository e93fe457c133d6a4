package pam

import (
	"time"
)

// Grant is what to ask Access Manager for.
type Grant struct {
	// TTL is the life of the token: whole minutes, 1 to 43,200 (30 days).
	TTL time.Duration
	// UUID is the only user id that may use the token: UTF-8, at most 92 code
	// points, no control characters.
	UUID string
	// AnyUUID asks for a token that every user id may use. UUID is empty then.
	AnyUUID bool
	// Resources are named exactly, Patterns by RE2 expressions without capturing
	// groups. The service does not anchor a pattern: write ^ and $.
	Resources Permissions
	Patterns  Permissions
	// Meta is put into the token as it is: strings, booleans, nil, integers of any
	// type, finite floats.
	Meta map[string]any
}

// Bounds of a grant, from PubNub's documentation and recorded answers.
const (
	MinTTL        = time.Minute
	MaxTTL        = 43200 * time.Minute
	MaxUUIDLength = 92 // code points
)

// Folded returns the grant with spaces written as channels and users as uuids,
// which is how it is sent. Where both name the same thing the bits are joined. It
// does not change g; maps may be shared with it.
func (g Grant) Folded() Grant {
	g.Resources = g.Resources.folded()
	g.Patterns = g.Patterns.folded()
	return g
}

// Narrower reports whether g takes something away from who holds t: an entry of
// t, by its text, is missing in g or has fewer bits there, or g is bound to
// another UUID than t. A pattern is compared by its text, never by what it
// matches, so the answer errs towards true. Lifetimes are not compared.
func (g Grant) Narrower(t Token) bool {
	if g.authorized() != t.UUID {
		return true
	}
	asked := g.Folded()
	return lacks(asked.Resources, t.Resources.folded()) || lacks(asked.Patterns, t.Patterns.folded())
}

// authorized is the UUID a token for g carries, "" for an unbound one.
func (g Grant) authorized() string {
	if g.AnyUUID {
		return ""
	}
	return g.UUID
}

// lacks reports whether an entry of want is missing in have or has fewer bits.
func lacks(have, want Permissions) bool {
	from := have.sections()
	for i, s := range want.sections() {
		for name, mask := range s.entries {
			if from[i].entries[name]&mask != mask {
				return true
			}
		}
	}
	return false
}
