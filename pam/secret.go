package pam

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
)

// Secret is text that must not be seen: a secret key or a token. However it is
// printed, logged or marshalled to text or JSON it shows only a short hash, such
// as "#3f9a1c02"; Reveal gives the text itself. Encoders that look at the kind
// of a value and not at its methods, such as CBOR, store the text.
//
// Two ways remain open. Package fmt cannot call methods on an unexported field, so a
// struct that keeps a Secret in one needs its own String method. And encoding/json
// writes the keys of a map as they are, so a Secret must not be one.
type Secret string

// Reveal returns the text.
func (s Secret) Reveal() string { return string(s) }

// ID returns the first 8 hexadecimal digits of the SHA-256 of the text, enough
// to tell two secrets apart and useless for anything else. It is "" for the
// empty secret.
func (s Secret) ID() string {
	if s == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:4])
}

// String returns "#" and the ID, or "" for the empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "#" + s.ID()
}

// GoString is String, so that %#v shows no more than %v.
func (s Secret) GoString() string { return s.String() }

// Format writes String whatever the verb and the flags are.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }

// LogValue makes slog show String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns String. It never fails.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON returns String as a JSON string. It never fails.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }
