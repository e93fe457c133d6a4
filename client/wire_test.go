package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

var document = TokenDocument{
	Name: "checkout", AuthorizedUUID: new("checkout"), Token: "qEF2AkF0-secret", Generation: 7,
	IssuedAt:  time.Date(2026, 3, 1, 11, 59, 0, 0, time.UTC),
	ExpiresAt: time.Date(2026, 3, 1, 12, 14, 0, 0, time.UTC),
	RefreshAt: new(time.Date(2026, 3, 1, 12, 7, 0, 0, time.UTC)),
	TTL:       15, ExpiresIn: 839,
}

func TestTokenDocumentJSON(t *testing.T) {
	const want = `{"name":"checkout","authorized_uuid":"checkout","token":"qEF2AkF0-secret","generation":7,` +
		`"issued_at":"2026-03-01T11:59:00Z","expires_at":"2026-03-01T12:14:00Z","refresh_at":"2026-03-01T12:07:00Z","ttl":15,"expires_in":839}`
	got, err := json.Marshal(document)
	if err != nil || string(got) != want {
		t.Errorf("%s, %v, want\n%s", got, err, want)
	}
}

func TestTokenIsNotPrinted(t *testing.T) {
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		fmt.Fprintf(&out, verb+" ", document)
		fmt.Fprintf(&out, verb+" ", &document)
		fmt.Fprintf(&out, verb+" ", []TokenDocument{document})
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("got", "document", document)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("got", "document", document)
	if got := out.String(); strings.Contains(got, "secret") || !strings.Contains(got, "checkout") {
		t.Errorf("printed: %s", got)
	}
}

func TestZeroTimesAreLeftOut(t *testing.T) {
	got, err := json.Marshal([]any{Problem{Title: "Gone", Status: 410, Code: CodeRevoked}, Readiness{Ready: true}, Missing{Name: "x"}})
	const want = `[{"title":"Gone","status":410,"code":"revoked"},{"ready":true},{"name":"x","state":""}]`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
}
