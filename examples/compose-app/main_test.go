package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/pamsidecar/pamsidecar/pam"
)

const secret = "qEF2AkF0GmsC4HlDdHRsAg" // what every token here begins with

// sidecar answers one request after the other as its script says.
type sidecar struct {
	t      *testing.T
	script []reply
}

type reply struct {
	ifNoneMatch string // what the app has to send
	status      int
	token       string
}

func (s *sidecar) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if r.URL.RequestURI() == "/v1/keyset" {
		w.WriteString(`{"publish_key":"pub","subscribe_key":"sub","origin":"https://ps.pndsn.com"}`)
		return w.Result(), nil
	}
	now := s.script[0]
	s.script = s.script[1:]
	if got := r.URL.RequestURI(); got != "/v1/tokens/check%2Fout?wait=30s" {
		s.t.Errorf("asked for %s", got)
	}
	if got := r.Header.Get("If-None-Match"); got != now.ifNoneMatch {
		s.t.Errorf("If-None-Match %q, want %q", got, now.ifNoneMatch)
	}
	switch now.status {
	case http.StatusOK:
		w.Header().Set("ETag", `"`+now.token+`"`)
		w.WriteString(`{"token":"` + secret + now.token + `","generation":` + now.token + `,"expires_at":"2027-01-02T03:04:05Z"}`)
	case http.StatusNotModified:
		w.WriteHeader(now.status)
	default:
		w.Header().Set("Retry-After", "40")
		w.WriteHeader(now.status)
		w.WriteString(`{"code":"expired","detail":"no successor yet","reason":"unreachable"}`)
	}
	return w.Result(), nil
}

// The app takes each token once, tells a trouble once, and never prints a token.
func TestApp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sidecar{t, []reply{
			{"", http.StatusOK, "1"},
			{`"1"`, http.StatusNotModified, ""},
			{`"1"`, http.StatusOK, "2"},
			{`"2"`, http.StatusServiceUnavailable, ""},
			{"", http.StatusServiceUnavailable, ""},
			{"", http.StatusOK, "3"},
		}}
		var out bytes.Buffer
		a := newApp("check/out", &http.Client{Transport: s}, nil, &out)
		etag := ""
		for len(s.script) > 0 {
			etag = a.step(t.Context(), etag)
		}
		if strings.Contains(out.String(), secret) {
			t.Errorf("a token was printed:\n%s", out.String())
		}
		line := func(n string) string {
			return "generation " + n + "  token #" + pam.Secret(secret+n).ID() + "  expires_at 2027-01-02T03:04:05Z\n"
		}
		want := line("1") + line("2") + "no token: 503 expired: no successor yet (unreachable)\n" + line("3")
		if out.String() != want {
			t.Errorf("printed\n%swant\n%s", out.String(), want)
		}
	})
}
