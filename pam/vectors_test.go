package pam

import (
	"encoding/json"
	"os"
	"testing"
)

type tokenVector struct {
	Source  string       `json:"source"`
	Token   string       `json:"token"`
	Valid   bool         `json:"valid"`
	Decoded *decodedWire `json:"decoded"`
	Note    string       `json:"note"`
}

type decodedWire struct {
	Version        uint64                           `json:"version"`
	Timestamp      int64                            `json:"timestamp"`
	TTL            int64                            `json:"ttl"`
	AuthorizedUUID *string                          `json:"authorized_uuid"`
	Resources      map[string]map[string]Permission `json:"resources"`
	Patterns       map[string]map[string]Permission `json:"patterns"`
	Meta           map[string]any                   `json:"meta"`
	SignatureHex   string                           `json:"signature_hex"`
}

type signatureVector struct {
	Source     string            `json:"source"`
	Method     string            `json:"method"`
	PublishKey string            `json:"publish_key"`
	SecretKey  string            `json:"secret_key"`
	Path       string            `json:"path"`
	Params     map[string]string `json:"params"`
	Query      string            `json:"query"`
	Body       string            `json:"body"`
	Signature  string            `json:"signature"`
}

type encodingVector struct {
	Input   string `json:"input"`
	Encoded string `json:"encoded"`
}

type errorVector struct {
	Status int    `json:"status"`
	Body   string `json:"body"`
	Source string `json:"source"`
	Expect struct {
		Message   string        `json:"message"`
		Source    string        `json:"source"`
		Details   []errorDetail `json:"details"`
		Service   string        `json:"service"`
		Retryable bool          `json:"retryable"`
		Channels  []string      `json:"channels"`
	} `json:"expect"`
}

// readVectors fails the test when the file is missing or holds nothing.
func readVectors(t testing.TB, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func tokenVectors(t testing.TB) (valid, invalid []tokenVector) {
	t.Helper()
	var file struct{ Vectors []tokenVector }
	readVectors(t, "../testdata/tokens/token-vectors.json", &file)
	for _, v := range file.Vectors {
		if v.Valid {
			valid = append(valid, v)
		} else {
			invalid = append(invalid, v)
		}
	}
	if len(valid) == 0 || len(invalid) == 0 {
		t.Fatal("token vectors: valid or invalid ones are missing")
	}
	return valid, invalid
}

func signatureVectors(t testing.TB) ([]signatureVector, []encodingVector) {
	t.Helper()
	var file struct {
		Vectors  []signatureVector
		Encoding []encodingVector
	}
	readVectors(t, "../testdata/signatures/signature-vectors.json", &file)
	if len(file.Vectors) == 0 || len(file.Encoding) == 0 {
		t.Fatal("signature vectors: signatures or encodings are missing")
	}
	return file.Vectors, file.Encoding
}

func errorVectors(t testing.TB) []errorVector {
	t.Helper()
	var file struct{ Errors []errorVector }
	readVectors(t, "../testdata/errors/error-bodies.json", &file)
	if len(file.Errors) == 0 {
		t.Fatal("error bodies: none")
	}
	return file.Errors
}
