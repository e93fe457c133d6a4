package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pamsidecar/pamsidecar/pam"
)

// MaxNameLength is the longest name, in Unicode code points. It equals the
// longest User ID the service documents.
const MaxNameLength = 92

// Grant says what to keep a token for: the permissions and lifetime that are
// asked of Access Manager, and how the sidecar handles the name. It is the entry
// of the configuration file, the body of an administrator's PUT and what a
// record keeps. A Grant is a value; its maps must not be changed once it was
// handed to this package.
type Grant struct {
	// Name is the key of the grant everywhere; ValidName says what it may be.
	// Configuration fills it with the UUID when it is not given.
	Name string
	// Grant is what Access Manager is asked for. When Until is near, a shorter
	// TTL is asked for.
	pam.Grant
	// Note is free text for operators.
	Note string
	// Loopback allows the loopback listener to serve this name.
	Loopback bool
	// Required makes readiness depend on the name. Nil means the default of its
	// source: true for grants of the file, false for others.
	Required *bool
	// RegrantAt is an optional cron expression of moments at which the token is
	// replaced whatever life it has left.
	RegrantAt string
	// Until, when set, is the moment after which the name has no token.
	Until time.Time
}

// ValidName reports why s cannot be a name, nil if it can: 1 to MaxNameLength
// code points of valid UTF-8 without control characters.
func ValidName(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("name is empty")
	case !utf8.ValidString(s):
		return fmt.Errorf("name is not valid UTF-8")
	case utf8.RuneCountInString(s) > MaxNameLength:
		return fmt.Errorf("name is longer than %d characters", MaxNameLength)
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return fmt.Errorf("name contains the control character %U", r)
		}
	}
	return nil
}

// IsRequired reports whether readiness depends on the grant, given its source.
func (g Grant) IsRequired(src Source) bool {
	if g.Required != nil {
		return *g.Required
	}
	return src == FromFile
}

// Fingerprint identifies the whole grant: two grants with the same fingerprint
// need no work when one replaces the other.
func (g Grant) Fingerprint() [32]byte {
	h := sha256.New()
	token := g.Grant.Fingerprint()
	h.Write(token[:])
	for _, s := range []string{g.Name, g.Note, g.RegrantAt} {
		h.Write(binary.AppendUvarint(nil, uint64(len(s))))
		h.Write([]byte(s))
	}
	required := byte(2)
	if g.Required != nil {
		required = boolByte(*g.Required)
	}
	h.Write([]byte{boolByte(g.Loopback), required})
	if !g.Until.IsZero() {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(g.Until.Unix())))
	}
	return [32]byte(h.Sum(nil))
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// MarshalJSON writes the grant in the form of the configuration file, so that
// what an operator reads can be put back as it is.
func (g Grant) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Name      string         `json:"name"`
		UUID      string         `json:"uuid,omitempty"`
		AnyUUID   bool           `json:"any_uuid,omitempty"`
		TTL       string         `json:"ttl"`
		Note      string         `json:"note,omitempty"`
		Resources jsonSide       `json:"resources,omitzero"`
		Patterns  jsonSide       `json:"patterns,omitzero"`
		Meta      map[string]any `json:"meta,omitempty"`
		Loopback  bool           `json:"loopback,omitempty"`
		Required  *bool          `json:"required,omitempty"`
		RegrantAt string         `json:"regrant_at,omitempty"`
		Until     time.Time      `json:"until,omitzero"`
	}{
		g.Name, g.UUID, g.AnyUUID, shortDuration(g.TTL), g.Note,
		jsonSideOf(g.Resources), jsonSideOf(g.Patterns), g.Meta,
		g.Loopback, g.Required, g.RegrantAt, g.Until,
	})
}

// jsonSide is one side of a grant (resources or patterns) as people write it.
type jsonSide struct {
	Channels map[string][]string `json:"channels,omitempty"`
	Groups   map[string][]string `json:"groups,omitempty"`
	UUIDs    map[string][]string `json:"uuids,omitempty"`
	Users    map[string][]string `json:"users,omitempty"`
	Spaces   map[string][]string `json:"spaces,omitempty"`
}

// IsZero reports whether the side has no entry at all.
func (s jsonSide) IsZero() bool {
	return len(s.Channels)+len(s.Groups)+len(s.UUIDs)+len(s.Users)+len(s.Spaces) == 0
}

func jsonSideOf(p pam.Permissions) jsonSide {
	return jsonSide{
		Channels: permissionNames(p.Channels), Groups: permissionNames(p.Groups),
		UUIDs: permissionNames(p.UUIDs), Users: permissionNames(p.Users), Spaces: permissionNames(p.Spaces),
	}
}

func permissionNames(m map[string]pam.Permission) map[string][]string {
	if len(m) == 0 {
		return nil
	}
	names := make(map[string][]string, len(m))
	for k, p := range m {
		names[k] = p.Names()
	}
	return names
}

// shortDuration prints whole minutes as people write them: 15m, not 15m0s.
func shortDuration(d time.Duration) string {
	if d > 0 && d%time.Hour == 0 {
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	if d%time.Minute == 0 {
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}
