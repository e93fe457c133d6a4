package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// The command decodes every token that is known from PubNub's own sources, and
// refuses every text that only looks like one.
func TestParseVectors(t *testing.T) {
	text, err := os.ReadFile("../../testdata/tokens/token-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vectors []struct {
			Source, Token string
			Valid         bool
			Decoded       *struct {
				Version, Timestamp, TTL uint64
				UUID                    *string `json:"authorized_uuid"`
				Resources, Patterns     struct{ Channels, Groups, UUIDs map[string]uint64 }
			}
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Vectors) < 50 {
		t.Fatalf("only %d vectors", len(file.Vectors))
	}
	for _, v := range file.Vectors {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), []string{"parse"}, strings.NewReader(v.Token), &stdout, &stderr, func(string) string { return "" })
		if !v.Valid {
			if code != 1 || stdout.Len() > 0 || strings.Contains(stderr.String(), v.Token) {
				t.Errorf("%s: exit %d, %s", v.Source, code, stderr.String())
			}
			continue
		}
		var got struct {
			Version, Timestamp, TTL uint64
			UUID                    *string `json:"authorized_uuid"`
			Resources, Patterns     struct{ Channels, Groups, UUIDs map[string]map[string]bool }
		}
		if err := json.Unmarshal(stdout.Bytes(), &got); code != 0 || err != nil {
			t.Errorf("%s: exit %d, %v, %s", v.Source, code, err, stderr.String())
			continue
		}
		want := v.Decoded
		if got.Version != want.Version || got.Timestamp != want.Timestamp || got.TTL != want.TTL {
			t.Errorf("%s: got %+v", v.Source, got)
		}
		if (got.UUID == nil) != (want.UUID == nil) || want.UUID != nil && *got.UUID != *want.UUID {
			t.Errorf("%s: uuid %v, want %v", v.Source, got.UUID, want.UUID)
		}
		samePermissions(t, v.Source, got.Resources.Channels, want.Resources.Channels)
		samePermissions(t, v.Source, got.Resources.Groups, want.Resources.Groups)
		samePermissions(t, v.Source, got.Patterns.Channels, want.Patterns.Channels)
	}
}

func samePermissions(t *testing.T, source string, got map[string]map[string]bool, want map[string]uint64) {
	t.Helper()
	bits := map[string]uint64{"read": 1, "write": 2, "manage": 4, "delete": 8, "get": 32, "update": 64, "join": 128}
	for name, mask := range want {
		for word, bit := range bits {
			if got[name][word] != (mask&bit != 0) {
				t.Errorf("%s: %s: %s is %t, mask %d", source, name, word, got[name][word], mask)
			}
		}
	}
}
