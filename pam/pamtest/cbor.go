package pamtest

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
)

// The part of CBOR (RFC 8949) that tokens use, with definite lengths and the shortest heads. A library would
// need as much code for byte-string keys and a fixed order.

// Major types of CBOR, in place.
const (
	majorUint  = 0 << 5
	majorNeg   = 1 << 5
	majorBytes = 2 << 5
	majorText  = 3 << 5
	majorArray = 4 << 5
	majorMap   = 5 << 5
)

// Simple values of CBOR.
const (
	cborFalse   = 0xf4
	cborTrue    = 0xf5
	cborNull    = 0xf6
	cborFloat64 = 0xfb
)

// appendHead appends the head of an item: its major type and its value or length.
func appendHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n <= math.MaxUint8:
		return append(b, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

func appendUint(b []byte, n uint64) []byte { return appendHead(b, majorUint, n) }

func appendBytes(b []byte, s string) []byte {
	return append(appendHead(b, majorBytes, uint64(len(s))), s...)
}

func appendText(b []byte, s string) []byte {
	return append(appendHead(b, majorText, uint64(len(s))), s...)
}

// appendValue appends a JSON value decoded with numbers as json.Number, as meta may hold.
func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, cborNull)
	case bool:
		if v {
			return append(b, cborTrue)
		}
		return append(b, cborFalse)
	case string:
		return appendText(b, v)
	case json.Number:
		return appendNumber(b, v.String())
	case []any:
		b = appendHead(b, majorArray, uint64(len(v)))
		for _, item := range v {
			b = appendValue(b, item)
		}
		return b
	case map[string]any:
		b = appendHead(b, majorMap, uint64(len(v)))
		for _, key := range slices.Sorted(maps.Keys(v)) {
			b = appendValue(appendText(b, key), v[key])
		}
		return b
	}
	panic(fmt.Sprintf("pamtest: no CBOR for %T", v)) // json.Decoder makes nothing else
}

// appendNumber keeps whole numbers whole; numbers with a fraction or an exponent become float64.
func appendNumber(b []byte, text string) []byte {
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return appendUint(b, n)
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		if n >= 0 { // "-0"
			return appendUint(b, uint64(n))
		}
		return appendHead(b, majorNeg, uint64(-1-n))
	}
	f, _ := strconv.ParseFloat(text, 64)
	return binary.BigEndian.AppendUint64(append(b, cborFloat64), math.Float64bits(f))
}

// readUint reads an integer written by appendUint.
func readUint(b []byte) uint64 {
	switch b[0] &^ (7 << 5) {
	case 24:
		return uint64(b[1])
	case 25:
		return uint64(binary.BigEndian.Uint16(b[1:]))
	case 26:
		return uint64(binary.BigEndian.Uint32(b[1:]))
	case 27:
		return binary.BigEndian.Uint64(b[1:])
	}
	return uint64(b[0])
}
