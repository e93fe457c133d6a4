package pam

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
)

// fingerprintFormat opens the text that is hashed. A change of the format would
// make every stored token look outdated, so it never changes.
const fingerprintFormat = "pam grant 1"

// Fingerprint returns a hash of all a token for g depends on. It is the same for
// a grant and its folded form and for any order of entries, for an absent and an
// empty map, and for a number in Meta whatever its Go type; it stays the same
// across releases.
func (g Grant) Fingerprint() [32]byte {
	g = g.Folded()
	b := appendText(nil, fingerprintFormat)
	b = binary.AppendVarint(b, int64(g.TTL))
	b = strconv.AppendBool(b, g.AnyUUID)
	b = appendText(b, g.UUID)
	for _, side := range [...]Permissions{g.Resources, g.Patterns} {
		for _, s := range side.sections() {
			b = binary.AppendUvarint(b, uint64(len(s.entries)))
			for _, name := range slices.Sorted(maps.Keys(s.entries)) {
				b = appendText(b, name)
				b = binary.AppendUvarint(b, uint64(s.entries[name]))
			}
		}
	}
	b = binary.AppendUvarint(b, uint64(len(g.Meta)))
	for _, key := range slices.Sorted(maps.Keys(g.Meta)) {
		b = appendText(b, key)
		b = appendText(b, metaText(g.Meta[key]))
	}
	return sha256.Sum256(b)
}

// appendText appends s with its length before it, so that no two lists of texts
// give the same bytes.
func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// metaText is one text for each value that the service can tell apart.
func metaText(value any) string {
	switch v := value.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case string:
		return "s" + v
	case float32:
		return floatText(float64(v))
	case float64:
		return floatText(v)
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return strconv.FormatInt(i, 10)
		}
		if f, err := v.Float64(); err == nil {
			return floatText(f)
		}
		return string(v)
	}
	return fmt.Sprint(value)
}

// floatText writes a whole number as an integer: JSON cannot tell 1 from 1.0.
func floatText(f float64) string {
	const exact = 1 << 53
	if f == math.Trunc(f) && math.Abs(f) <= exact {
		return strconv.FormatInt(int64(f), 10)
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// EstimatedTokenSize returns how many bytes the text of a token for g has at
// most, to warn before it grows too long for a URL. It follows the CBOR layout of
// tokens recorded since 2022: all five sections on both sides, a signature of 32
// bytes, base64 with padding.
func (g Grant) EstimatedTokenSize() int {
	g = g.Folded()
	const fixed = 1 + // map
		2 + 1 + // v
		2 + 9 + // t
		4 + 3 + // ttl
		4 + 1 + 4 + 1 + // res, pat
		4 + 2 + 32 // sig
	size := fixed + len("uuid") + 1 + stringSize(g.authorized())
	for _, side := range [...]Permissions{g.Resources, g.Patterns} {
		for _, s := range side.sections() {
			size += len("chan") + 1 + headSize(len(s.entries))
			for name, mask := range s.entries {
				size += stringSize(name) + headSize(int(min(mask, math.MaxInt32)))
			}
		}
	}
	size += len("meta") + 1 + headSize(len(g.Meta))
	for key, value := range g.Meta {
		size += stringSize(key) + metaSize(value)
	}
	return (size + 2) / 3 * 4
}

// headSize is the length of a CBOR head that holds n.
func headSize(n int) int {
	switch {
	case n < 24:
		return 1
	case n < 1<<8:
		return 2
	case n < 1<<16:
		return 3
	}
	return 5
}

func stringSize(s string) int { return headSize(len(s)) + len(s) }

func metaSize(value any) int {
	switch v := value.(type) {
	case nil, bool:
		return 1
	case string:
		return stringSize(v)
	}
	return 9 // the longest number
}
