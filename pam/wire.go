package pam

import (
	"encoding/json"
	"time"
)

// The body of a grant request. All five sections are sent on both sides, and meta
// even when empty: the form of most SDKs, and the one every recording shows
// accepted.
type grantBody struct {
	TTL         int64            `json:"ttl"` // minutes
	Permissions grantPermissions `json:"permissions"`
}

type grantPermissions struct {
	Resources grantSide      `json:"resources"`
	Patterns  grantSide      `json:"patterns"`
	Meta      map[string]any `json:"meta"`
	UUID      string         `json:"uuid,omitempty"`
}

type grantSide struct {
	Channels map[string]Permission `json:"channels"`
	Groups   map[string]Permission `json:"groups"`
	UUIDs    map[string]Permission `json:"uuids"`
	Users    map[string]Permission `json:"users"`
	Spaces   map[string]Permission `json:"spaces"`
}

// requestBody returns the JSON of a valid grant; it is the same for equal grants.
func (g Grant) requestBody() ([]byte, error) {
	folded := g.Folded()
	meta := g.Meta
	if meta == nil {
		meta = map[string]any{}
	}
	return json.Marshal(grantBody{
		TTL: int64(g.TTL / time.Minute),
		Permissions: grantPermissions{
			Resources: newGrantSide(folded.Resources),
			Patterns:  newGrantSide(folded.Patterns),
			Meta:      meta,
			UUID:      g.authorized(),
		},
	})
}

func newGrantSide(p Permissions) grantSide {
	return grantSide{
		Channels: present(p.Channels),
		Groups:   present(p.Groups),
		UUIDs:    present(p.UUIDs),
		Users:    present(p.Users),
		Spaces:   present(p.Spaces),
	}
}

// present returns m, or an empty map for nil, so that JSON shows {} and not null.
func present(m map[string]Permission) map[string]Permission {
	if m == nil {
		return map[string]Permission{}
	}
	return m
}

// The answer to a grant or a revoke; the text of a token is there for a grant.
type answerBody struct {
	Data *struct {
		Message string `json:"message"`
		Token   string `json:"token"`
	} `json:"data"`
	Status int `json:"status"`
}
