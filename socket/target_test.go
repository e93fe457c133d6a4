package socket

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/client"
)

func TestRoutes(t *testing.T) {
	w := newWorld(t, atNoon).fill()
	tests := []struct {
		method, uri string
		status      int
		code        client.Code
		detail      string // part of it
	}{
		{"GET", "/", 404, client.CodeNotFound, "/v1/tokens/{name}"},
		{"GET", "", 404, client.CodeNotFound, ""},
		{"OPTIONS", "*", 404, client.CodeNotFound, ""},
		{"GET", "/v1", 404, client.CodeNotFound, ""},
		{"GET", "//v1/tokens/fresh", 404, client.CodeNotFound, ""},
		{"GET", "/v1/../v1/tokens/fresh", 404, client.CodeNotFound, ""},
		{"GET", "/v1/%74okens/fresh", 404, client.CodeNotFound, ""},
		{"GET", "/livez/", 404, client.CodeNotFound, ""},
		{"GET", "/v1/tokens/fresh/watch", 404, client.CodeNotFound, "%2F"},
		{"GET", "/v1/tokens/fresh/", 404, client.CodeNotFound, "%2F"},
		{"GET", "/v1/tokens/", 400, client.CodeBadRequest, "empty"},
		{"GET", "/v1/tokens/a%zz", 400, client.CodeBadRequest, "hexadecimal"},
		{"GET", "/v1/tokens/a%2", 400, client.CodeBadRequest, "hexadecimal"},
		{"GET", "/v1/tokens/%ff", 400, client.CodeBadRequest, "UTF-8"},
		{"GET", "/v1/tokens/\xff", 400, client.CodeBadRequest, "UTF-8"},
		{"GET", "/v1/tokens/a%00", 400, client.CodeBadRequest, "control"},
		{"GET", "/v1/tokens/a%0A", 400, client.CodeBadRequest, "control"},
		{"GET", "/v1/tokens/a%C2%85", 400, client.CodeBadRequest, "control"},
		{"GET", "/v1/tokens/" + strings.Repeat("a", 93), 400, client.CodeBadRequest, "92"},
		{"GET", "/v1/tokens/" + strings.Repeat("%C3%A4", 92), 404, client.CodeUnknownName, ""},
		{"GET", "/v1/tokens/..", 404, client.CodeUnknownName, ""},
		{"GET", "/v1/tokens/%2e%2e%2flivez", 404, client.CodeUnknownName, ""},
		{"GET", "/v1/tokens/ü%2Fwatch", 404, client.CodeUnknownName, ""},
		{"GET", "/v1/tokens/fresh?wait=1s&wait=1s", 400, client.CodeBadRequest, "more than once"},
		{"GET", "/v1/tokens/fresh?Wait=1s", 400, client.CodeBadRequest, `"Wait"; known here: wait, min_ttl`},
		{"GET", "/v1/tokens/fresh?wait=5m0.1s", 400, client.CodeBadRequest, "0s to 5m"},
		{"GET", "/v1/tokens/fresh?wait=-1s", 400, client.CodeBadRequest, "0s to 5m"},
		{"GET", "/v1/tokens/fresh?wait=30", 400, client.CodeBadRequest, "30s"},
		{"GET", "/v1/tokens/fresh?wait", 400, client.CodeBadRequest, "duration"},
		{"GET", "/v1/tokens/fresh?wait=%zz", 400, client.CodeBadRequest, "malformed"},
		{"GET", "/v1/tokens/fresh?wait=1s;min_ttl=1s", 400, client.CodeBadRequest, "malformed"},
		{"GET", "/v1/tokens/fresh?min_ttl=241h", 400, client.CodeBadRequest, "240h"},
		{"GET", "/v1/tokens/fresh?", 200, "", ""},
		{"GET", "/v1/tokens?state=fresh", 400, client.CodeBadRequest, "none here"},
		{"GET", "/readyz?name=", 400, client.CodeBadRequest, "empty"},
		{"GET", "/readyz?name=%ff", 400, client.CodeBadRequest, "UTF-8"},
		{"POST", "/v1/tokens/fresh", 405, client.CodeMethodNotAllowed, "GET"},
		{"DELETE", "/v1/keyset", 405, client.CodeMethodNotAllowed, "GET"},
		{"POST", "/v1/nothing", 404, client.CodeNotFound, ""},
	}
	for _, test := range tests {
		t.Run(test.method+" "+test.uri, func(t *testing.T) {
			rec := w.ask(test.method, test.uri)
			if rec.Code != test.status {
				t.Fatalf("status %d, want %d: %s", rec.Code, test.status, rec.Body)
			}
			if test.status == http.StatusOK {
				return
			}
			if p := problemOf(t, rec); p.Code != test.code || !strings.Contains(p.Detail, test.detail) {
				t.Errorf("problem %+v", p)
			}
			if allow := rec.Header().Get("Allow"); (allow == "GET, HEAD") != (test.status == 405) {
				t.Errorf("Allow %q", allow)
			}
		})
	}
}

func TestNamesRoundTrip(t *testing.T) {
	w := newWorld(t, atNoon)
	for _, name := range []string{"a", "..", ".", "a/watch", "/", "//", "a?b=c", "a#b", "a%2Fb", "a b+c", "ü/ä", "a;b", "日本", "*", "\u2028", "<&>"} {
		w.give(name, noon)
		doc := decode[client.TokenDocument](t, w.ask("GET", "/v1/tokens/"+url.PathEscape(name)).Body.Bytes())
		if doc.Name != name || *doc.AuthorizedUUID != name {
			t.Errorf("asked for %q, got %+v", name, doc)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, uri := range []string{"/v1/tokens/a%2Fwatch?wait=1s&min_ttl=2m", "/readyz?name=a", "/v1/tokens/%ff", "http://h/livez", "*", "/v1/tokens?x", "/v1/tokens/a?wait=%zz;"} {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		got, fault := parseTarget(request("GET", uri))
		if fault != nil {
			if fault.Status != 400 && fault.Status != 404 {
				t.Fatalf("%q: %+v", uri, fault)
			}
			return
		}
		if got.wait < 0 || got.wait > MaxWait || got.minTTL < 0 || got.minTTL > maxMinTTL {
			t.Fatalf("%q: out of range: %+v", uri, got)
		}
		if got.route != routeToken {
			return
		}
		if err := cache.ValidName(got.name); err != nil {
			t.Fatalf("%q: accepted %q: %v", uri, got.name, err)
		}
		query := url.Values{"wait": {got.wait.String()}, "min_ttl": {got.minTTL.String()}}
		again, fault := parseTarget(request("GET", tokenPrefix+url.PathEscape(got.name)+"?"+query.Encode()))
		got.waits = true
		if fault != nil || again != got {
			t.Fatalf("%q: %+v came back as %+v, %+v", uri, got, again, fault)
		}
	})
}

func TestParametersOfToken(t *testing.T) {
	got, fault := parseTarget(request("GET", "/v1/tokens/a?min_ttl=90s&wait=1m30s"))
	if want := (target{routeToken, "a", 90 * time.Second, true, 90 * time.Second}); fault != nil || got != want {
		t.Errorf("%+v, %+v", got, fault)
	}
}
