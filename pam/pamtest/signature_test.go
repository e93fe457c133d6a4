package pamtest

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/pamsidecar/pamsidecar/pam"
)

type signatureVector struct {
	Source     string `json:"source"`
	Method     string `json:"method"`
	PublishKey string `json:"publish_key"`
	SecretKey  string `json:"secret_key"`
	Path       string `json:"path"`
	Query      string `json:"query"`
	Body       string `json:"body"`
	Signature  string `json:"signature"`
}

func signatureVectors(t *testing.T) []signatureVector {
	t.Helper()
	text, err := os.ReadFile("../../testdata/signatures/signature-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vectors []signatureVector `json:"vectors"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Vectors) == 0 {
		t.Fatal("no signature vectors")
	}
	return file.Vectors
}

// The emulator's own signature and pam.Sign are both held against the vectors, so neither can be wrong in the other's company.
func TestSignatureVectors(t *testing.T) {
	for _, v := range signatureVectors(t) {
		params, ok := parseQuery(v.Query)
		if !ok {
			t.Errorf("%s: query not parsed", v.Source)
			continue
		}
		keyset := pam.Keyset{PublishKey: v.PublishKey, SecretKey: pam.Secret(v.SecretKey)}
		if got := signature(keyset, v.Method, v.Path, params, []byte(v.Body)); got != v.Signature {
			t.Errorf("%s: signature = %s, want %s", v.Source, got, v.Signature)
		}
		if got := pam.Sign(keyset.SecretKey, v.Method, v.PublishKey, v.Path, v.Query, []byte(v.Body)); got != v.Signature {
			t.Errorf("%s: pam.Sign = %s, want %s", v.Source, got, v.Signature)
		}
	}
}

func TestStrictEncode(t *testing.T) {
	for in, want := range map[string]string{
		"~user/1_2.3-4":    "%7Euser%2F1_2.3-4",
		" !*'()[],~":       "%20%21%2A%27%28%29%5B%5D%2C%7E",
		"£":                "%C2%A3",
		"unescaped-_.AZaz": "unescaped-_.AZaz",
		"":                 "",
	} {
		if got := strictEncode(in); got != want {
			t.Errorf("strictEncode(%q) = %q, want %q", in, got, want)
		}
		if got := pam.EncodeValue(in); got != want {
			t.Errorf("pam.EncodeValue(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestParseQueryRefuses(t *testing.T) {
	for _, query := range []string{"a=1&a=2", "a=%", "%zz=1", "a=1&b=2&a="} {
		if _, ok := parseQuery(query); ok {
			t.Errorf("parseQuery(%q) accepted", query)
		}
	}
}
