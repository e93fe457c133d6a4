package pam

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
)

func TestParseVectors(t *testing.T) {
	valid, invalid := tokenVectors(t)
	for _, v := range valid {
		token, err := Parse(v.Token)
		if err != nil {
			t.Errorf("%s: %v", v.Source, err)
			continue
		}
		checkDecoded(t, v, token)
	}
	for _, v := range invalid {
		token, err := Parse(v.Token)
		if err == nil {
			t.Errorf("%s: accepted %s", v.Source, v.Note)
			continue
		}
		checkParseError(t, v.Token, token, err)
	}
}

func checkDecoded(t *testing.T, v tokenVector, token Token) {
	t.Helper()
	want := v.Decoded
	uuid := ""
	if want.AuthorizedUUID != nil {
		uuid = *want.AuthorizedUUID
	}
	if token.Raw.Reveal() != v.Token || token.Version != want.Version || token.Issued.Unix() != want.Timestamp ||
		token.TTL != time.Duration(want.TTL)*time.Minute || token.UUID != uuid {
		t.Errorf("%s: got %#v", v.Source, token)
	}
	if !token.Expires().Equal(time.Unix(want.Timestamp+want.TTL*60, 0)) {
		t.Errorf("%s: expires %s", v.Source, token.Expires())
	}
	if got := hex.EncodeToString(token.Signature); got != want.SignatureHex {
		t.Errorf("%s: signature %s", v.Source, got)
	}
	checkSide(t, v.Source, token.Resources, want.Resources)
	checkSide(t, v.Source, token.Patterns, want.Patterns)
	got, err := json.Marshal(token.Meta)
	if err != nil {
		t.Fatal(err)
	}
	var meta map[string]any
	if err := json.Unmarshal(got, &meta); err != nil {
		t.Fatal(err)
	}
	if len(meta)+len(want.Meta) > 0 && !reflect.DeepEqual(meta, want.Meta) {
		t.Errorf("%s: meta %v, want %v", v.Source, meta, want.Meta)
	}
}

func checkSide(t *testing.T, source string, got Permissions, want map[string]map[string]Permission) {
	t.Helper()
	for _, s := range got.sections() {
		if !maps.Equal(s.entries, want[s.name]) {
			t.Errorf("%s: %s are %v, want %v", source, s.name, s.entries, want[s.name])
		}
	}
}

func checkParseError(t *testing.T, raw string, token Token, err error) {
	t.Helper()
	if !errors.Is(err, ErrToken) || !strings.HasPrefix(err.Error(), "token: ") || strings.ContainsAny(err.Error(), "\r\n") {
		t.Errorf("bad error for a token: %q", err)
	}
	if len(raw) > 6 && strings.Contains(err.Error(), raw) {
		t.Errorf("the error holds the token: %q", err)
	}
	if !reflect.DeepEqual(token, Token{}) {
		t.Errorf("a token came with the error %v", err)
	}
}

// encode writes content as a token; keys of maps are text strings, those of type
// cbor.ByteString byte strings.
func encode(t testing.TB, content any) string {
	t.Helper()
	data, err := cbor.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	return base64.URLEncoding.EncodeToString(data)
}

type fields map[string]any

// with returns the content of a small valid token, changed.
func with(changes fields) fields {
	content := fields{
		"v": 2, "t": 1700000000, "ttl": 60,
		"res": fields{"chan": fields{"room": 3}}, "pat": fields{}, "meta": fields{}, "uuid": "alice", "sig": make([]byte, 32),
	}
	for key, value := range changes {
		if value == nil {
			delete(content, key)
		} else {
			content[key] = value
		}
	}
	return content
}

func TestParseAccepts(t *testing.T) {
	nested := fields{"a": []any{fields{"b": 1}, "x", 1.5, nil, true, -3}}
	for name, content := range map[string]fields{
		"plain":               with(nil),
		"unknown keys":        with(fields{"new": fields{"x": []any{1, 2}}}),
		"unknown section":     with(fields{"res": fields{"chan": fields{"room": 3}, "new": fields{"x": "y"}}}),
		"no meta, sig, uuid":  with(fields{"meta": nil, "sig": nil, "uuid": nil}),
		"nested meta":         with(fields{"meta": nested}),
		"any mask":            with(fields{"res": fields{"chan": fields{"room": uint64(math.MaxUint64)}}}),
		"mask above the bits": with(fields{"res": fields{"grp": fields{"room": 256}}}),
		"name of control":     with(fields{"res": fields{"chan": fields{"a\nb": 1}}}),
		"old ttl":             with(fields{"ttl": 525600}),
	} {
		raw := encode(t, content)
		if _, err := Parse(raw); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		standard := strings.NewReplacer("-", "+", "_", "/").Replace(raw)
		if _, err := Parse(standard); err != nil {
			t.Errorf("%s in the standard alphabet: %v", name, err)
		}
		if _, err := Parse(strings.TrimRight(raw, "=")); err != nil {
			t.Errorf("%s without padding: %v", name, err)
		}
	}
}

func TestParseByteStrings(t *testing.T) {
	type raw = cbor.ByteString
	token, err := Parse(encode(t, map[raw]any{
		"v": 2, "t": 1700000000, "ttl": 60, "uuid": raw("alice"), "sig": []byte{1},
		"res":  map[raw]any{"chan": map[raw]int{"room": 3}},
		"pat":  map[raw]any{"uuid": map[raw]int{"^a": 32}},
		"meta": map[raw]any{"k": raw("v"), "n": map[raw]any{"deep": raw("x")}, "bin": raw("\xff")},
	}))
	if err != nil {
		t.Fatal(err)
	}
	meta := map[string]any{"k": "v", "n": map[string]any{"deep": "x"}, "bin": []byte{0xff}}
	if token.UUID != "alice" || token.Resources.Channels["room"] != 3 || token.Patterns.UUIDs["^a"] != 32 || !reflect.DeepEqual(token.Meta, meta) {
		t.Errorf("got %q %v %v %v", token.UUID, token.Resources, token.Patterns, token.Meta)
	}
}

func TestParseRefuses(t *testing.T) {
	good := encode(t, with(nil))
	deep := any(1)
	for range 64 {
		deep = []any{deep}
	}
	binary := func(hexText string) string {
		data, err := hex.DecodeString(strings.ReplaceAll(hexText, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(data)
	}
	const head = "6176 02 6174 1a6553f100 6374746c 183c " // v, t, ttl
	for _, c := range []struct{ name, raw, message string }{
		{"empty", "", "is empty"},
		{"blank", " ", "not base64url"},
		{"space before", " " + good, "not base64url"},
		{"newline after", good + "\n", "not base64url"},
		{"newline inside", good[:8] + "\n" + good[8:], "not base64url: line break at position 9"},
		{"bad character", good[:8] + "*" + good[9:], "not base64url: unexpected character at position 9"},
		{"padding inside", good[:8] + "=" + good[9:], "not base64url"},
		{"too much padding", strings.TrimRight(good, "=") + "===", "wrong padding"},
		{"too long", strings.Repeat("A", maxTokenText+4), "longer than 65536"},
		{"trailing bytes", binary("a5" + head + "63726573a0 63706174a0 00"), "CBOR: 1 bytes of extraneous data"},
		{"cut", binary("a5" + head + "63726573a0 63706174"), "CBOR: cut short"},
		{"indefinite map", binary("bf" + head + "63726573a0 63706174a0 ff"), "indefinite"},
		{"indefinite section", binary("a5" + head + "63726573bfff 63706174a0"), "indefinite"},
		{"tag", binary("c1 a5" + head + "63726573a0 63706174a0"), "tag"},
		{"tag on t", binary("a5 6176 02 6174 c1 1a6553f100 6374746c 183c 63726573a0 63706174a0"), "tag"},
		{"repeated key", binary("a6" + head + "63726573a0 63706174a0 6176 02"), "same key twice"},
		{"repeated key, other string", binary("a6" + head + "63726573a0 63706174a0 4176 02"), "same key twice"},
		{"repeated name", binary("a5" + head + "63726573a1 6463 68616e a2 6161 01 6161 03 63706174a0"), "same key twice"},
		{"repeated name, other string", binary("a5" + head + "63726573a1 6463 68616e a2 6161 01 4161 03 63706174a0"), "same key twice"},
		{"repeated section", binary("a5" + head + "63726573a2 63677270 a0 43677270 a0 63706174a0"), "same key twice"},
		{"name not UTF-8, text", binary("a5" + head + "63726573a1 6463 68616e a1 61ff 01 63706174a0"), "UTF-8"},
		{"name not UTF-8, bytes", binary("a5" + head + "63726573a1 6463 68616e a1 41ff 01 63706174a0"), "not valid UTF-8"},
		{"an array", binary("83010203"), "wrong type"},
		{"a number", binary("01"), "wrong type"},
		{"no v", encode(t, with(fields{"v": nil})), "field v is missing"},
		{"no t", encode(t, with(fields{"t": nil})), "field t is missing"},
		{"no ttl", encode(t, with(fields{"ttl": nil})), "field ttl is missing"},
		{"no res", encode(t, with(fields{"res": nil})), "field res is missing"},
		{"no pat", encode(t, with(fields{"pat": nil})), "field pat is missing"},
		{"version 3", encode(t, with(fields{"v": 3})), "version 3 is not supported"},
		{"capital key", encode(t, with(fields{"ttl": nil, "TTL": 60})), "field ttl is missing"},
		{"text t", encode(t, with(fields{"t": "x"})), "field t has the wrong type"},
		{"negative ttl", encode(t, with(fields{"ttl": -1})), "field ttl has the wrong type"},
		{"float ttl", encode(t, with(fields{"ttl": 1.5})), "field ttl has the wrong type"},
		{"t too large", encode(t, with(fields{"t": uint64(math.MaxUint64)})), "field t is out of range"},
		{"ttl too large", encode(t, with(fields{"ttl": uint64(math.MaxUint64)})), "field ttl is out of range"},
		{"end too far", encode(t, with(fields{"t": maxTokenTime, "ttl": 1})), "field ttl is out of range"},
		{"res is a list", encode(t, with(fields{"res": []int{1}})), "field res has the wrong type"},
		{"mask is text", encode(t, with(fields{"res": fields{"chan": fields{"a": "x"}}})), "wrong type"},
		{"mask is negative", encode(t, with(fields{"res": fields{"chan": fields{"a": -1}}})), "wrong type"},
		{"numeric name", encode(t, with(fields{"res": fields{"chan": map[int]int{1: 1}}})), "wrong type"},
		{"uuid is a number", encode(t, with(fields{"uuid": 7})), "field uuid has the wrong type"},
		{"uuid not UTF-8", encode(t, with(fields{"uuid": cbor.ByteString("\xff")})), "field uuid is not valid UTF-8"},
		{"meta is a list", encode(t, with(fields{"meta": []int{1}})), "field meta has the wrong type"},
		{"meta too deep", encode(t, with(fields{"meta": fields{"a": deep}})), "nested level"},
		{"meta not a number", encode(t, with(fields{"meta": fields{"a": math.NaN()}})), "NaN"},
		{"meta key not UTF-8", encode(t, with(fields{"meta": map[cbor.ByteString]any{"\xff": 1}})), "not valid UTF-8"},
	} {
		token, err := Parse(c.raw)
		if err == nil || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.message)
			continue
		}
		checkParseError(t, c.raw, token, err)
	}
}

func FuzzParse(f *testing.F) {
	valid, invalid := tokenVectors(f)
	for _, v := range append(valid, invalid...) {
		f.Add(v.Token)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		token, err := Parse(raw)
		if err != nil {
			checkParseError(t, raw, token, err)
			return
		}
		if len(raw) > maxTokenText || token.Raw.Reveal() != raw || token.TTL < 0 || token.Expires().Before(token.Issued) {
			t.Fatalf("accepted beyond the limits: %d characters, ttl %s, ends %s", len(raw), token.TTL, token.Expires())
		}
		again, err := Parse(raw)
		if err != nil || !reflect.DeepEqual(again, token) {
			t.Fatalf("the second reading differs: %v", err)
		}
		if _, err := json.Marshal(token); err != nil {
			t.Fatalf("cannot be written as JSON: %v", err)
		}
		unpadded, err := Parse(strings.TrimRight(raw, "="))
		if unpadded.Raw = token.Raw; err != nil || !reflect.DeepEqual(unpadded, token) {
			t.Fatalf("differs without padding: %v", err)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	valid, _ := tokenVectors(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := Parse(valid[i%len(valid)].Token); err != nil {
			b.Fatal(err)
		}
	}
}
