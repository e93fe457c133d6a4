package socket

import (
	"net/http"
	"strings"
	"testing"

	"github.com/pamsidecar/pamsidecar/client"
)

func TestGuardLoopback(t *testing.T) {
	w := newWorld(t, atNoon).fill()
	w.cfg.Loopback = true
	open, err := GuardLoopback(NewHandler(w.cfg), LoopbackOptions{TrustNamespace: true})
	if err != nil {
		t.Fatal(err)
	}
	closed, err := GuardLoopback(NewHandler(w.cfg), LoopbackOptions{Bearer: "s3cret"})
	if err != nil {
		t.Fatal(err)
	}
	const token = "/v1/tokens/unbound"
	mark := []string{LoopbackHeader, "1"}
	tests := []struct {
		about   string
		handler http.Handler
		uri     string
		change  func(r *http.Request)
		header  []string
		status  int
		detail  string
	}{
		{"all there", open, token, nil, mark, 200, ""},
		{"no header", open, token, nil, nil, 403, "Pam-Sidecar: 1"},
		{"other value", open, token, nil, []string{LoopbackHeader, "true"}, 403, "Pam-Sidecar: 1"},
		{"twice", open, token, nil, append(mark, mark...), 403, "Pam-Sidecar: 1"},
		{"origin", open, token, nil, append([]string{"Origin", "http://127.0.0.1:7070"}, mark...), 403, "Origin"},
		{"null origin", open, "/livez", nil, []string{"Origin", "null"}, 403, "Origin"},
		{"rebound host", open, token, func(r *http.Request) { r.Host = "evil.example:7070" }, mark, 403, "Host"},
		{"host like a loopback", open, token, func(r *http.Request) { r.Host = "127.0.0.1.evil.example" }, mark, 403, "Host"},
		{"no host", open, "/livez", func(r *http.Request) { r.Host = "" }, nil, 403, "Host"},
		{"localhost", open, token, func(r *http.Request) { r.Host = "LocalHost" }, mark, 200, ""},
		{"other loopback", open, token, func(r *http.Request) { r.Host = "127.9.9.9:1" }, mark, 200, ""},
		{"ipv6", open, token, func(r *http.Request) { r.Host, r.RemoteAddr = "[::1]:7070", "[::1]:4242" }, mark, 200, ""},
		{"ipv6 without port", open, token, func(r *http.Request) { r.Host = "[::1]" }, mark, 200, ""},
		{"remote", open, "/livez", func(r *http.Request) { r.RemoteAddr = "192.0.2.1:4242" }, nil, 403, "this host"},
		{"live", closed, "/livez", nil, nil, 200, ""},
		{"ready", closed, "/readyz?name=unbound", nil, nil, 200, ""},
		{"no bearer", closed, token, nil, mark, 401, "bearer"},
		{"no bearer for keyset", closed, "/v1/keyset", nil, mark, 401, "bearer"},
		{"bearer", closed, token, nil, append([]string{"Authorization", "bearer s3cret"}, mark...), 200, ""},
		{"bearer for keyset", closed, "/v1/keyset", nil, append([]string{"Authorization", "Bearer s3cret"}, mark...), 200, ""},
		{"wrong bearer", closed, token, nil, append([]string{"Authorization", "Bearer s3cre"}, mark...), 401, "bearer"},
		{"other scheme", closed, token, nil, append([]string{"Authorization", "Basic s3cret"}, mark...), 401, "bearer"},
		{"bearer alone", closed, token, nil, []string{"Authorization", "Bearer s3cret"}, 403, "Pam-Sidecar: 1"},
		{"escaped live is no health check", closed, "/v1/tokens/%2Flivez", nil, mark, 401, "bearer"},
	}
	for _, test := range tests {
		t.Run(test.about, func(t *testing.T) {
			r := request("GET", test.uri, test.header...)
			if test.change != nil {
				test.change(r)
			}
			rec := serve(test.handler, r)
			if rec.Code != test.status {
				t.Fatalf("status %d, want %d: %s", rec.Code, test.status, rec.Body)
			}
			if test.status == http.StatusOK {
				return
			}
			want := client.CodeNotAllowed
			if test.status == http.StatusUnauthorized {
				want = client.CodeUnauthorized
			}
			if p := problemOf(t, rec); p.Code != want || !strings.Contains(p.Detail, test.detail) {
				t.Errorf("problem %+v", p)
			}
			if got := rec.Header().Get("WWW-Authenticate"); (got == "Bearer") != (test.status == 401) {
				t.Errorf("WWW-Authenticate %q", got)
			}
		})
	}
}

func TestGuardLoopbackNeedsADecision(t *testing.T) {
	for _, o := range []LoopbackOptions{{}, {Bearer: "x", TrustNamespace: true}} {
		if _, err := GuardLoopback(http.NotFoundHandler(), o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

func TestListenLoopback(t *testing.T) {
	l, err := ListenLoopback("localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if !strings.HasPrefix(l.Addr().String(), "127.0.0.1:") {
		t.Errorf("listens on %s", l.Addr())
	}
	for address, want := range map[string]string{
		l.Addr().String():   "is taken",
		"0.0.0.0:7070":      "not a loopback address",
		":7070":             "not a loopback address",
		"192.0.2.1:7070":    "not a loopback address",
		"app.example:7070":  "not a loopback address",
		"127.0.0.1":         "write it as 127.0.0.1:7070",
		"127.0.0.1:no-port": "listen on loopback",
	} {
		l, err := ListenLoopback(address)
		if err == nil {
			l.Close()
			t.Errorf("%s is accepted", address)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
}
