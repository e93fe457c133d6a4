package pam

import (
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestSignVectors(t *testing.T) {
	vectors, _ := signatureVectors(t)
	for _, v := range vectors {
		if got := Sign(Secret(v.SecretKey), v.Method, v.PublishKey, v.Path, v.Query, []byte(v.Body)); got != v.Signature {
			t.Errorf("%s: %s %s\ngot  %s\nwant %s", v.Source, v.Method, v.Path, got, v.Signature)
		}
		if v.Params == nil {
			continue
		}
		var pairs []string
		for _, key := range slices.Sorted(maps.Keys(v.Params)) {
			pairs = append(pairs, key+"="+EncodeValue(v.Params[key]))
		}
		if got := strings.Join(pairs, "&"); got != v.Query {
			t.Errorf("%s: query\ngot  %s\nwant %s", v.Source, got, v.Query)
		}
	}
}

func TestEncodeValue(t *testing.T) {
	_, vectors := signatureVectors(t)
	for _, v := range vectors {
		if got := EncodeValue(v.Input); got != v.Encoded {
			t.Errorf("EncodeValue(%q) = %q, want %q", v.Input, got, v.Encoded)
		}
	}
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	decoded, err := url.PathUnescape(EncodeValue(string(every)))
	if err != nil || decoded != string(every) {
		t.Errorf("not all bytes survive encoding: %v", err)
	}
}

func BenchmarkSign(b *testing.B) {
	vectors, _ := signatureVectors(b)
	v := vectors[0]
	body := []byte(v.Body)
	b.ReportAllocs()
	for b.Loop() {
		Sign(Secret(v.SecretKey), v.Method, v.PublishKey, v.Path, v.Query, body)
	}
}
