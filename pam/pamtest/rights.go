package pamtest

import (
	"maps"
	"regexp"
	"slices"

	"github.com/pamsidecar/pamsidecar/pam"
)

// maxRights is how many decoded tokens are kept.
const maxRights = 256

// rights is what a token allows. It does not change.
type rights struct {
	uuid     string // empty: anybody
	exact    map[pam.ResourceType]map[string]pam.Permission
	patterns map[pam.ResourceType][]patternRight
}

type patternRight struct {
	re   *regexp.Regexp
	perm pam.Permission
}

// rightsOf decodes a token that unseal has recognised.
func (s *Server) rightsOf(seal sealed, raw string) (*rights, error) {
	s.mu.Lock()
	r := s.rights[seal.sum]
	s.mu.Unlock()
	if r != nil {
		return r, nil
	}
	token, err := pam.Parse(raw)
	if err != nil {
		return nil, err
	}
	r = newRights(token)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.rights) >= maxRights {
		clear(s.rights)
	}
	s.rights[seal.sum] = r
	return r, nil
}

// newRights sorts a token's entries by type. Spaces count as channels and users as UUIDs.
func newRights(t pam.Token) *rights {
	r := &rights{
		uuid:     t.UUID,
		exact:    make(map[pam.ResourceType]map[string]pam.Permission),
		patterns: make(map[pam.ResourceType][]patternRight),
	}
	r.add(pam.ResourceChannel, t.Resources.Channels, t.Patterns.Channels)
	r.add(pam.ResourceChannel, t.Resources.Spaces, t.Patterns.Spaces)
	r.add(pam.ResourceGroup, t.Resources.Groups, t.Patterns.Groups)
	r.add(pam.ResourceUUID, t.Resources.UUIDs, t.Patterns.UUIDs)
	r.add(pam.ResourceUUID, t.Resources.Users, t.Patterns.Users)
	return r
}

func (r *rights) add(kind pam.ResourceType, exact, patterns map[string]pam.Permission) {
	if r.exact[kind] == nil {
		r.exact[kind] = make(map[string]pam.Permission)
	}
	for name, perm := range exact {
		r.exact[kind][name] |= perm
	}
	for _, pattern := range slices.Sorted(maps.Keys(patterns)) {
		if re, err := regexp.Compile(pattern); err == nil {
			r.patterns[kind] = append(r.patterns[kind], patternRight{re, patterns[pattern]})
		}
	}
}

// allow reports whether the exact name, or one pattern, gives all bits of perm. A pattern matches anywhere unless it is anchored. Whether the
// service adds the bits of several entries up is not known; this does not.
func (r *rights) allow(kind pam.ResourceType, name string, perm pam.Permission) bool {
	if r.exact[kind][name]&perm == perm {
		return true
	}
	return slices.ContainsFunc(r.patterns[kind], func(p patternRight) bool { return p.perm&perm == perm && p.re.MatchString(name) })
}

// missing returns the part of needs that is not allowed.
func (r *rights) missing(needs []need) []need {
	var refused []need
	for _, n := range needs {
		names := slices.DeleteFunc(slices.Clone(n.names), func(name string) bool { return n.anyOf(r, name) })
		if len(names) > 0 {
			refused = append(refused, need{kind: n.kind, perm: n.perm, alt: n.alt, names: names})
		}
	}
	return refused
}

func (n need) anyOf(r *rights, name string) bool {
	return r.allow(n.kind, name, n.perm) || n.alt != 0 && r.allow(n.kind, name, n.alt)
}
