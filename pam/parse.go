package pam

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
)

// ErrToken is in the chain of every error of Parse.
var ErrToken = errors.New("token")

// Limits of Parse, far above any real token: the longest recorded one has 552
// characters, and a token must fit into a URL of 32 KiB to be of use.
const (
	maxTokenText   = 64 << 10
	maxNesting     = 32 // maps and arrays in meta
	maxElements    = 8192
	tokenVersion   = 2
	maxTokenTime   = 253402300799 // the last second of the year 9999
	maxTokenTTL    = math.MaxInt64 / int64(time.Minute)
	minutesSeconds = int64(time.Minute / time.Second)
)

// tokenWire is the CBOR map inside a token. Keys and names are byte strings or
// text strings: real tokens mix both. Unknown keys are skipped.
type tokenWire struct {
	V    *uint64        `cbor:"v"`
	T    *uint64        `cbor:"t"`
	TTL  *uint64        `cbor:"ttl"`
	Res  *sideWire      `cbor:"res"`
	Pat  *sideWire      `cbor:"pat"`
	Meta map[string]any `cbor:"meta"`
	UUID string         `cbor:"uuid"`
	Sig  []byte         `cbor:"sig"`
}

// sideWire is one side of the permissions. Which sections there are depends on
// the age of the token; a missing one is empty.
type sideWire struct {
	Chan map[string]Permission `cbor:"chan"`
	Grp  map[string]Permission `cbor:"grp"`
	UUID map[string]Permission `cbor:"uuid"`
	Usr  map[string]Permission `cbor:"usr"`
	Spc  map[string]Permission `cbor:"spc"`
}

var tokenDecoder = newTokenDecoder()

func newTokenDecoder() cbor.DecMode {
	// A simple value without a meaning of its own would be read as the number that
	// it carries.
	var rejected []func(*cbor.SimpleValueRegistry) error
	for n := range 256 {
		if n < 20 || n > 31 {
			rejected = append(rejected, cbor.WithRejectedSimpleValue(cbor.SimpleValue(n)))
		}
	}
	simple, err := cbor.NewSimpleValueRegistryFromDefaults(rejected...)
	if err != nil {
		panic(err) // the numbers above are constants
	}
	mode, err := cbor.DecOptions{
		SimpleValues:        simple,
		DupMapKey:           cbor.DupMapKeyEnforcedAPF,
		IndefLength:         cbor.IndefLengthForbidden,
		TagsMd:              cbor.TagsForbidden,
		MaxNestedLevels:     maxNesting,
		MaxArrayElements:    maxElements,
		MaxMapPairs:         maxElements,
		FieldNameMatching:   cbor.FieldNameMatchingCaseSensitive,
		FieldNameByteString: cbor.FieldNameByteStringAllowed,
		ByteStringToString:  cbor.ByteStringToStringAllowed,
		DefaultMapType:      reflect.TypeFor[map[string]any](),
		NaN:                 cbor.NaNDecodeForbidden,
		Inf:                 cbor.InfDecodeForbidden,
	}.DecMode()
	if err != nil {
		panic(err) // the options above are constants
	}
	return mode
}

// Parse reads a token. It takes base64url or standard base64, with or without
// padding, but no whitespace, and exactly one CBOR map of definite length without
// tags or repeated keys. The keys v, t, ttl, res and pat are required, and v must
// be 2. Order, unknown keys and missing sections do not matter; any mask is kept.
//
// Parse never verifies the signature, which only PubNub can, and so never
// authorizes anybody. An error is one line without any part of the token and has
// ErrToken in its chain; the Token is then zero.
func Parse(raw string) (Token, error) {
	data, err := decodeBase64(raw)
	if err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	var w tokenWire
	if err := tokenDecoder.Unmarshal(data, &w); err != nil {
		return Token{}, fmt.Errorf("%w: CBOR: %s", ErrToken, cborFault(err))
	}
	if err := w.check(); err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	return Token{
		Raw:       Secret(raw),
		Version:   *w.V,
		Issued:    time.Unix(int64(*w.T), 0).UTC(),
		TTL:       time.Duration(*w.TTL) * time.Minute,
		UUID:      w.UUID,
		Resources: w.Res.permissions(),
		Patterns:  w.Pat.permissions(),
		Meta:      w.Meta,
		Signature: w.Sig,
	}, nil
}

// decodeBase64 accepts both alphabets. Package base64 skips line breaks, which
// have no place in a token.
func decodeBase64(raw string) ([]byte, error) {
	switch {
	case raw == "":
		return nil, errors.New("is empty")
	case len(raw) > maxTokenText:
		return nil, fmt.Errorf("longer than %d characters", maxTokenText)
	}
	if i := strings.IndexAny(raw, "\r\n"); i >= 0 {
		return nil, fmt.Errorf("not base64url: line break at position %d", i+1)
	}
	body := strings.TrimRight(raw, "=")
	if padding := len(raw) - len(body); padding > 0 && (padding > 2 || len(raw)%4 != 0) {
		return nil, errors.New("not base64url: wrong padding")
	}
	if len(body)%4 == 1 {
		return nil, errors.New("not base64url: one character too many or too few")
	}
	text := make([]byte, len(body))
	for i := range len(body) {
		switch c := body[i]; c {
		case '+':
			text[i] = '-'
		case '/':
			text[i] = '_'
		default:
			text[i] = c
		}
	}
	n, err := base64.RawURLEncoding.Decode(text, text)
	if err != nil {
		if at, ok := errors.AsType[base64.CorruptInputError](err); ok {
			return nil, fmt.Errorf("not base64url: unexpected character at position %d", int64(at)+1)
		}
		return nil, errors.New("not base64url")
	}
	return text[:n], nil
}

// check finds what the decoder cannot: missing fields, values out of range, names
// that are not text. It also puts meta into its final form.
func (w *tokenWire) check() error {
	if err := w.checkFields(); err != nil {
		return err
	}
	for _, side := range [...]*sideWire{w.Res, w.Pat} {
		for _, section := range [...]map[string]Permission{side.Chan, side.Grp, side.UUID, side.Usr, side.Spc} {
			for name := range section {
				if !utf8.ValidString(name) {
					return errors.New("a name is not valid UTF-8")
				}
			}
		}
	}
	if !utf8.ValidString(w.UUID) {
		return errors.New("field uuid is not valid UTF-8")
	}
	for key, value := range w.Meta {
		plain, err := plainMeta(key, value)
		if err != nil {
			return err
		}
		w.Meta[key] = plain
	}
	return nil
}

func (w *tokenWire) checkFields() error {
	fields := [...]struct {
		name    string
		present bool
	}{{"v", w.V != nil}, {"t", w.T != nil}, {"ttl", w.TTL != nil}, {"res", w.Res != nil}, {"pat", w.Pat != nil}}
	for _, f := range fields {
		if !f.present {
			return fmt.Errorf("field %s is missing", f.name)
		}
	}
	switch {
	case *w.V != tokenVersion:
		return fmt.Errorf("version %d is not supported, only %d is", *w.V, tokenVersion)
	case *w.T > maxTokenTime:
		return errors.New("field t is out of range")
	case *w.TTL > uint64(maxTokenTTL), int64(*w.T) > maxTokenTime-int64(*w.TTL)*minutesSeconds:
		return errors.New("field ttl is out of range")
	}
	return nil
}

func (s *sideWire) permissions() Permissions {
	return Permissions{Channels: s.Chan, Groups: s.Grp, UUIDs: s.UUID, Users: s.Usr, Spaces: s.Spc}
}

// plainMeta turns what the decoder makes of one value into what encoding/json can
// write: integers that fit become int64, byte strings of valid UTF-8 strings. It
// changes maps and arrays in place.
func plainMeta(key string, value any) (any, error) {
	if !utf8.ValidString(key) {
		return nil, errors.New("a key in field meta is not valid UTF-8")
	}
	switch v := value.(type) {
	case uint64:
		if v <= math.MaxInt64 {
			return int64(v), nil
		}
	case []byte:
		if utf8.Valid(v) {
			return string(v), nil
		}
	case map[string]any:
		for k, inner := range v {
			plain, err := plainMeta(k, inner)
			if err != nil {
				return nil, err
			}
			v[k] = plain
		}
	case []any:
		for i, inner := range v {
			plain, err := plainMeta("", inner)
			if err != nil {
				return nil, err
			}
			v[i] = plain
		}
	case nil, bool, int64, float64, string:
	default:
		return nil, errors.New("field meta holds a value of an unknown type")
	}
	return value, nil
}

// cborFault says on one line what the decoder found, without the keys and Go
// types that its own messages carry.
func cborFault(err error) string {
	if e, ok := errors.AsType[*cbor.UnmarshalTypeError](err); ok {
		field := "a value"
		if i := strings.LastIndexByte(e.StructFieldName, '.'); i >= 0 {
			field = "field " + e.StructFieldName[i+1:]
		}
		return field + " has the wrong type (" + e.CBORType + ")"
	}
	if _, ok := errors.AsType[*cbor.DupMapKeyError](err); ok {
		return "a map has the same key twice"
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return "cut short"
	}
	return strings.TrimPrefix(err.Error(), "cbor: ")
}
