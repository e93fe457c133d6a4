package socket

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/client"
)

func TestTokenDocument(t *testing.T) {
	const want = `{"name":"fresh","authorized_uuid":"fresh","token":"token-of-test","generation":1,` +
		`"issued_at":"2026-03-01T11:59:00Z","expires_at":"2026-03-01T12:14:00Z","refresh_at":"2026-03-01T12:07:00Z",` +
		`"ttl":15,"expires_in":839}` + "\n"
	rec := newWorld(t, atNoon).fill().ask("GET", "/v1/tokens/fresh")
	if rec.Code != http.StatusOK || rec.Body.String() != want {
		t.Errorf("status %d, document\n%s, want\n%s", rec.Code, rec.Body, want)
	}
	for key, want := range map[string]string{
		"Content-Type":  "application/json",
		"Cache-Control": "no-store",
		"Etag":          `"1.` + etagHash(t) + `"`,
	} {
		if got := rec.Header().Get(key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	decode[client.TokenDocument](t, rec.Body.Bytes())
}

// etagHash is the short hash of the token that giveToken gives.
func etagHash(t *testing.T) string {
	t.Helper()
	w := newWorld(t, atNoon)
	w.give("x", noon)
	v, err := w.cache.View("x")
	if err != nil {
		t.Fatal(err)
	}
	return v.Token().ID()
}

func TestUnboundTokenHasNullUUID(t *testing.T) {
	rec := newWorld(t, atNoon).fill().ask("GET", "/v1/tokens/unbound")
	doc := decode[client.TokenDocument](t, rec.Body.Bytes())
	if doc.AuthorizedUUID != nil || doc.RefreshAt != nil {
		t.Errorf("document %s, want null for authorized_uuid and refresh_at", rec.Body)
	}
}

// TestAnswers is the conformance table of token reads that do not wait.
func TestAnswers(t *testing.T) {
	tag := `"1.` + etagHash(t) + `"`
	tests := []struct {
		about, uri string
		header     []string
		status     int
		body       string // of answers that are no problem and no document
		problem    client.Problem
		retryAfter string
	}{
		{about: "document", uri: "/v1/tokens/fresh", status: 200},
		{about: "failing has a live token", uri: "/v1/tokens/failing?wait=0s", status: 200},
		{about: "escaped slash is a name", uri: "/v1/tokens/a%2Fwatch", status: 200},
		{about: "absolute form", uri: "http://localhost/v1/tokens/fresh", status: 200},
		{about: "plain text", uri: "/v1/tokens/fresh", header: []string{"Accept", "text/plain"}, status: 200, body: "token-of-test"},
		{about: "same tag", uri: "/v1/tokens/fresh", header: []string{"If-None-Match", tag}, status: 304},
		{about: "tag in two lines", uri: "/v1/tokens/fresh", header: []string{"If-None-Match", `"0.x"`, "If-None-Match", "W/" + tag}, status: 304},
		{about: "other tag", uri: "/v1/tokens/fresh", header: []string{"If-None-Match", `"0.x"`}, status: 200},
		{about: "any tag", uri: "/v1/tokens/fresh", header: []string{"If-None-Match", "*"}, status: 304},
		{about: "enough life", uri: "/v1/tokens/fresh?min_ttl=5m", status: 200},
		{about: "min_ttl over a third", uri: "/v1/tokens/fresh?min_ttl=5m1s", status: 400,
			problem: client.Problem{Code: client.CodeBadRequest}},
		{about: "pending", uri: "/v1/tokens/pending?wait=0s", status: 503, retryAfter: "30",
			problem: client.Problem{Code: client.CodeNotReady, State: "pending", RetryAt: noon.Add(30 * time.Second).Truncate(time.Second),
				Reason: "Access Manager: 403 Invalid signature: check the secret key"}},
		{about: "any tag of nothing", uri: "/v1/tokens/pending?wait=0s", header: []string{"If-None-Match", "*"}, status: 503, retryAfter: "30",
			problem: client.Problem{Code: client.CodeNotReady, State: "pending", RetryAt: noon.Add(30 * time.Second).Truncate(time.Second),
				Reason: "Access Manager: 403 Invalid signature: check the secret key"}},
		{about: "expired", uri: "/v1/tokens/expired", status: 503, retryAfter: "90",
			problem: client.Problem{Code: client.CodeExpired, State: "expired", RetryAt: noon.Add(90 * time.Second).Truncate(time.Second)}},
		{about: "blocked", uri: "/v1/tokens/blocked?wait=5m", status: 410,
			problem: client.Problem{Code: client.CodeRevoked, State: "blocked", Reason: "laptop stolen"}},
		{about: "ended", uri: "/v1/tokens/ended?wait=5m", status: 410, problem: client.Problem{Code: client.CodeEnded, State: "ended"}},
		{about: "unknown does not wait", uri: "/v1/tokens/nobody?wait=5m", status: 404, problem: client.Problem{Code: client.CodeUnknownName}},
	}
	w := newWorld(t, atNoon).fill()
	for _, test := range tests {
		t.Run(test.about, func(t *testing.T) {
			var reads []int
			w.cfg.Reads = func(status int) { reads = append(reads, status) }
			rec := w.ask("GET", test.uri, test.header...)
			if rec.Code != test.status {
				t.Fatalf("status %d, want %d: %s", rec.Code, test.status, rec.Body)
			}
			if len(reads) != 1 || reads[0] != test.status {
				t.Errorf("hook was told %v", reads)
			}
			if got := rec.Header().Get("Retry-After"); got != test.retryAfter {
				t.Errorf("Retry-After %q, want %q", got, test.retryAfter)
			}
			checkAnswer(t, rec, test.body, test.problem, tag)
		})
	}
}

func checkAnswer(t *testing.T, rec *httptest.ResponseRecorder, body string, want client.Problem, tag string) {
	t.Helper()
	switch {
	case rec.Code >= 400:
		got := problemOf(t, rec)
		got.Title, got.Status, got.Detail = "", 0, ""
		if got != want {
			t.Errorf("problem %+v, want %+v", got, want)
		}
	case rec.Header().Get("Etag") != tag || rec.Header().Get("Cache-Control") != "no-store":
		t.Errorf("headers %v", rec.Header())
	case rec.Code == http.StatusNotModified && rec.Body.Len() > 0:
		t.Errorf("304 with a body: %s", rec.Body)
	case body != "" && rec.Body.String() != body:
		t.Errorf("body %q, want %q", rec.Body, body)
	}
}

func TestNeverADeadToken(t *testing.T) {
	now := noon
	w := newWorld(t, func() time.Time { return now })
	w.give("x", noon)
	w.set("until", func(r *cache.Record) {
		giveToken(r, noon)
		r.Grant.Until = noon.Add(time.Minute)
	})
	now = noon.Truncate(time.Second).Add(15*time.Minute - cache.EndMargin)
	if rec := w.ask("GET", "/v1/tokens/x"); rec.Code != http.StatusServiceUnavailable {
		t.Errorf("status %d at the token's end", rec.Code)
	}
	if rec := w.ask("GET", "/v1/tokens/until"); rec.Code != http.StatusGone {
		t.Errorf("status %d past until", rec.Code)
	}
	now = now.Add(-time.Millisecond)
	doc := decode[client.TokenDocument](t, w.ask("GET", "/v1/tokens/x").Body.Bytes())
	if doc.ExpiresIn != 1 {
		t.Errorf("expires_in %d just before the end", doc.ExpiresIn)
	}
}

func TestBlockRule(t *testing.T) {
	w := newWorld(t, atNoon).fill()
	if _, err := w.cache.Decide(cache.Decision{Action: cache.ActRevoke, Match: "fr.*", Reason: "drill"}); err != nil {
		t.Fatal(err)
	}
	if p := problemOf(t, w.ask("GET", "/v1/tokens/fresh")); p.Code != client.CodeRevoked || p.Reason != "drill" {
		t.Errorf("problem %+v", p)
	}
}

func TestShortLife(t *testing.T) {
	now := noon.Add(10 * time.Minute)
	w := newWorld(t, func() time.Time { return now })
	w.give("x", noon)
	rec := w.ask("GET", "/v1/tokens/x?min_ttl=5m")
	if p := problemOf(t, rec); p.Code != client.CodeNotReady || p.State != "fresh" || p.RetryAt.IsZero() {
		t.Errorf("problem %+v", p)
	}
	if got := rec.Header().Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After %q for an attempt that is overdue", got)
	}
}

func TestHead(t *testing.T) {
	w := newWorld(t, atNoon).fill()
	server := httptest.NewServer(NewHandler(w.cfg))
	defer server.Close()
	for _, path := range []string{"/v1/tokens/fresh", "/v1/tokens/blocked", "/v1/tokens", "/v1/keyset", "/livez", "/readyz"} {
		streamed := path == "/v1/tokens" // its length is not known beforehand
		get, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		get.Body.Close()
		head, err := http.Head(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		head.Body.Close()
		if head.StatusCode != get.StatusCode || !streamed && head.ContentLength != get.ContentLength ||
			head.Header.Get("Content-Type") != get.Header.Get("Content-Type") {
			t.Errorf("%s: HEAD %d %d %v, GET %d %d %v", path, head.StatusCode, head.ContentLength, head.Header, get.StatusCode, get.ContentLength, get.Header)
		}
	}
}

// broken is a Reader that cannot read.
type broken struct{ cache.Reader }

func (broken) View(string) (cache.View, error) { return cache.View{}, errors.New("read: I/O error") }
func (broken) List(string, int) ([]cache.View, error) {
	return nil, errors.New("read: I/O error")
}

func TestReaderFault(t *testing.T) {
	w := newWorld(t, atNoon)
	w.cfg.Reader = broken{w.cache}
	for _, uri := range []string{"/v1/tokens/x", "/v1/tokens", "/readyz", "/readyz?name=x"} {
		if p := problemOf(t, w.ask("GET", uri)); p.Status != 500 || p.Code != client.CodeInternal {
			t.Errorf("%s: %+v", uri, p)
		}
	}
	if rec := w.ask("GET", "/livez"); rec.Code != http.StatusOK {
		t.Errorf("livez depends on the store: %d", rec.Code)
	}
}
