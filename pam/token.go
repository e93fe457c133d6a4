package pam

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// Token is a parsed token. It prints and logs as its short hash, because its
// fields together are as good as its text.
type Token struct {
	Raw     Secret        // exactly as granted, padding included: a revoke needs it so
	Version uint64        // 2
	Issued  time.Time     // UTC, whole seconds, by the clock of the service
	TTL     time.Duration // whole minutes
	UUID    string        // the authorized UUID, "" when any may use the token
	// Resources and Patterns hold any mask, also bits no table documents.
	Resources Permissions
	Patterns  Permissions
	// Meta values are string, bool, nil, int64, uint64 above that, float64, []byte,
	// []any and map[string]any: the service passes on what was granted.
	Meta      map[string]any
	Signature []byte // 32 bytes in every recorded token; nil when absent
}

// Expires returns Issued plus TTL, the first moment at which the token is dead.
func (t Token) Expires() time.Time { return t.Issued.Add(t.TTL) }

// String returns "token #3f9a1c02", "token" for the zero Token.
func (t Token) String() string {
	if t.Raw == "" {
		return "token"
	}
	return "token " + t.Raw.String()
}

// GoString is String.
func (t Token) GoString() string { return t.String() }

// LogValue makes slog show String.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// ResourceType is a type of resource that permissions are given for.
type ResourceType string

// The types of resources. A space counts as a channel and a user as a UUID.
const (
	ResourceChannel ResourceType = "channel"
	ResourceGroup   ResourceType = "group"
	ResourceUUID    ResourceType = "uuid"
)

// ParseResourceType takes "channel", "group" or "uuid", the older words "space"
// and "user", and the plural of each.
func ParseResourceType(word string) (ResourceType, error) {
	switch word {
	case "channel", "channels", "space", "spaces":
		return ResourceChannel, nil
	case "group", "groups":
		return ResourceGroup, nil
	case "uuid", "uuids", "user", "users":
		return ResourceUUID, nil
	}
	return "", fmt.Errorf("%q is not a resource type: use channel, group or uuid", word)
}

// named returns the sections that count for a type of resource.
func (p Permissions) named(r ResourceType) []section {
	all := p.sections()
	switch r {
	case ResourceChannel:
		return []section{all[0], all[4]}
	case ResourceGroup:
		return []section{all[1]}
	case ResourceUUID:
		return []section{all[2], all[3]}
	}
	return nil
}

// Allows reports whether one entry of t gives all bits of p for the resource, and
// which: `resources.channels["orders"]` or `patterns.channels["^receipts"]`. The
// exact name is looked up first, then the patterns in the order of their text;
// spaces count as channels and users as UUIDs. Entries are not added up. A pattern
// matches as the service does it, anywhere in the id unless it is anchored; one
// that is not RE2 never matches. An empty p is never allowed.
//
// The lifetime of the token is not looked at, nor who may use it.
func (t Token) Allows(r ResourceType, id string, p Permission) (entry string, ok bool) {
	if p == 0 {
		return "", false
	}
	for _, s := range t.Resources.named(r) {
		if s.entries[id]&p == p {
			return entryText("resources", s.name, id), true
		}
	}
	for _, s := range t.Patterns.named(r) {
		for _, pattern := range slices.Sorted(maps.Keys(s.entries)) {
			if s.entries[pattern]&p == p && matches(pattern, id) {
				return entryText("patterns", s.name, pattern), true
			}
		}
	}
	return "", false
}

func entryText(side, section, name string) string {
	return side + "." + section + "[" + strconv.Quote(name) + "]"
}

func matches(pattern, id string) bool {
	re, err := regexp.Compile(pattern)
	return err == nil && re.MatchString(id)
}

// Satisfies returns nil when t carries what g asks for: its UUID (none for
// AnyUUID), its ttl, and each of its entries with at least the bits asked. The
// error otherwise is one line that says what differs first.
func (t Token) Satisfies(g Grant) error {
	switch {
	case g.AnyUUID && t.UUID != "":
		return fmt.Errorf("the token is bound to uuid %q, asked for one bound to none", t.UUID)
	case !g.AnyUUID && t.UUID == "":
		return fmt.Errorf("the token is bound to no uuid, asked for %q", g.UUID)
	case t.UUID != g.authorized():
		return fmt.Errorf("the token is bound to uuid %q, asked for %q", t.UUID, g.UUID)
	case t.TTL != g.TTL:
		return fmt.Errorf("the token has a ttl of %d minutes, asked for %d", t.TTL/time.Minute, g.TTL/time.Minute)
	}
	asked := g.Folded()
	if err := missing("resources", t.Resources.folded(), asked.Resources); err != nil {
		return err
	}
	return missing("patterns", t.Patterns.folded(), asked.Patterns)
}

// missing names the first entry of want, in text order, that have does not carry.
func missing(side string, have, want Permissions) error {
	from := have.sections()
	for i, s := range want.sections() {
		for _, name := range slices.Sorted(maps.Keys(s.entries)) {
			if lost := s.entries[name] &^ from[i].entries[name]; lost != 0 {
				return fmt.Errorf("the token lacks %s for %s", lost, entryText(side, s.name, name))
			}
		}
	}
	return nil
}

// The JSON of a parsed token as PubNub documents it for parse_token.
type (
	tokenJSON struct {
		Version        uint64         `json:"version"`
		Timestamp      int64          `json:"timestamp"` // seconds
		TTL            int64          `json:"ttl"`       // minutes
		AuthorizedUUID *string        `json:"authorized_uuid"`
		Resources      sideJSON       `json:"resources"`
		Patterns       sideJSON       `json:"patterns"`
		Meta           map[string]any `json:"meta"`
		Signature      string         `json:"signature"`
	}
	sideJSON struct {
		Channels map[string]flagsJSON `json:"channels"`
		Groups   map[string]flagsJSON `json:"groups"`
		UUIDs    map[string]flagsJSON `json:"uuids"`
		Users    map[string]flagsJSON `json:"users,omitempty"`
		Spaces   map[string]flagsJSON `json:"spaces,omitempty"`
	}
	flagsJSON struct {
		Read   bool `json:"read"`
		Write  bool `json:"write"`
		Manage bool `json:"manage"`
		Delete bool `json:"delete"`
		Get    bool `json:"get"`
		Update bool `json:"update"`
		Join   bool `json:"join"`
		Create bool `json:"create,omitempty"`
	}
)

// MarshalJSON writes what the parse_token of PubNub's SDKs documents: version,
// timestamp in seconds, ttl in minutes, authorized_uuid (null when any), resources
// and patterns with an object of booleans for each name, meta, and the signature
// in base64url without padding. The sections users and spaces appear only when
// they hold something, the flag create only when it is set. The text of the token
// is not part of it, but the content is all there: do not log it.
func (t Token) MarshalJSON() ([]byte, error) {
	out := tokenJSON{
		Version:   t.Version,
		Timestamp: t.Issued.Unix(),
		TTL:       int64(t.TTL / time.Minute),
		Resources: newSideJSON(t.Resources),
		Patterns:  newSideJSON(t.Patterns),
		Meta:      t.Meta,
		Signature: base64.RawURLEncoding.EncodeToString(t.Signature),
	}
	if t.UUID != "" {
		out.AuthorizedUUID = &t.UUID
	}
	if out.Meta == nil {
		out.Meta = map[string]any{}
	}
	return json.Marshal(out)
}

func newSideJSON(p Permissions) sideJSON {
	return sideJSON{
		Channels: newFlags(p.Channels),
		Groups:   newFlags(p.Groups),
		UUIDs:    newFlags(p.UUIDs),
		Users:    newFlags(p.Users),
		Spaces:   newFlags(p.Spaces),
	}
}

func newFlags(entries map[string]Permission) map[string]flagsJSON {
	flags := make(map[string]flagsJSON, len(entries))
	for name, p := range entries {
		flags[name] = flagsJSON{
			Read: p&Read != 0, Write: p&Write != 0, Manage: p&Manage != 0, Delete: p&Delete != 0,
			Get: p&Get != 0, Update: p&Update != 0, Join: p&Join != 0, Create: p&Create != 0,
		}
	}
	return flags
}
