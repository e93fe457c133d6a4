package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/pamsidecar/pamsidecar/client"
)

const sampleToken = "qEF2AkF0Gm-sample"

func TestTokenPrintsOnlyTheToken(t *testing.T) {
	f := newFakeSidecar(t)
	f.on("GET /v1/tokens/checkout", 200, client.TokenDocument{Name: "checkout", Token: sampleToken, Generation: 7})
	r := f.command(t, "", "token", "checkout")
	if r.code != 0 || r.stdout != sampleToken+"\n" || r.stderr != "" {
		t.Fatal(r)
	}
	r = f.command(t, "", "token", "--json", "checkout")
	r.wants(t, 0, []string{"{\n  \"name\": \"checkout\",\n", `"token": "` + sampleToken, `"generation": 7`}, nil)
}

// Every valid name reaches the sidecar as one segment of the path.
func TestTokenEscapesNames(t *testing.T) {
	for name, want := range map[string]string{
		"a/b":     "/v1/tokens/a%2Fb",
		"a%2Fb":   "/v1/tokens/a%252Fb",
		"..":      "/v1/tokens/%2E%2E",
		".":       "/v1/tokens/%2E",
		"a.b":     "/v1/tokens/a.b",
		"my app?": "/v1/tokens/my%20app%3F",
		"a;b#c&d": "/v1/tokens/a%3Bb%23c%26d",
		"größe":   "/v1/tokens/gr%C3%B6%C3%9Fe",
		"a/watch": "/v1/tokens/a%2Fwatch",
		"~a+b":    "/v1/tokens/%7Ea%2Bb",
	} {
		f := newFakeSidecar(t)
		f.on("GET "+want, 200, client.TokenDocument{Name: name, Token: sampleToken})
		r := f.command(t, "", "token", "--", name)
		if r.code != 0 {
			t.Errorf("%q: asked %q\n%v", name, f.requests(), r)
		}
	}
}

func TestTokenPassesItsLimitsOn(t *testing.T) {
	f := newFakeSidecar(t)
	f.on("GET /v1/tokens/a?min_ttl=2m0s&wait=30s", 200, client.TokenDocument{Token: sampleToken})
	f.on("GET /v1/tokens/a?wait=0s", 200, client.TokenDocument{Token: sampleToken})
	f.command(t, "", "token", "--wait", "30s", "--min-ttl", "2m", "a").wants(t, 0, []string{sampleToken}, nil)
	f.command(t, "", "token", "--wait", "0s", "a").wants(t, 0, []string{sampleToken}, nil)
}

func TestTokenProblems(t *testing.T) {
	for _, c := range []struct {
		name    string
		status  int
		problem client.Problem
		want    []string
	}{
		{"pending", 503, client.Problem{
			Detail: "no token yet", Code: client.CodeNotReady, RetryAt: testNow,
			Reason: "Access Manager: 403 Invalid signature: check the secret key",
		}, []string{
			"pamsidecar: a: no token yet: Access Manager: 403 Invalid signature: check the secret key\n",
			"pamsidecar: the sidecar tries again at 2026-11-22T12:00:00Z",
		}},
		{"blocked", 410, client.Problem{Detail: "an operator revoked it", Code: client.CodeRevoked, Reason: "left"}, []string{"an operator revoked it: left", "pamsidecar unblock NAME"}},
		{"unknown", 404, client.Problem{Title: "Not Found", Code: client.CodeUnknownName}, []string{"a: Not Found", "add a grant of this name"}},
		{"control characters", 503, client.Problem{Detail: "x\x1b[2Jy\u202ez", Code: client.CodeExpired}, []string{`x\x1b[2Jy\u202ez`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFakeSidecar(t)
			f.on("GET /v1/tokens/a", c.status, c.problem)
			f.command(t, "", "token", "a").wants(t, 1, nil, c.want)
		})
	}
}

// What answers on the socket need not be a sidecar.
func TestTokenStrangeAnswers(t *testing.T) {
	for body, want := range map[string]string{
		"<html>":              "read the sidecar's answer",
		"{}":                  "answered without a token",
		`{"token": 12}`:       "read the sidecar's answer",
		`{"token":"\u001b["}`: "answered without a token",
	} {
		f := newFakeSidecar(t)
		f.on("GET /v1/tokens/a", 200, body)
		r := f.command(t, "", "token", "a")
		r.wants(t, 1, nil, []string{want})
		if r.stdout != "" {
			t.Errorf("%s: printed %q", body, r.stdout)
		}
	}
	f := newFakeSidecar(t)
	f.on("GET /v1/tokens/a", 500, "oops")
	f.command(t, "", "token", "a").wants(t, 1, nil, []string{"a: the sidecar answered 500 Internal Server Error"})
}

func TestNames(t *testing.T) {
	f := newFakeSidecar(t)
	for _, args := range [][]string{{"token", ""}, {"token", "a\nb"}, {"token", strings.Repeat("x", 93)}, {"token", "\xff"}, {"token", "a", "b"}, {"refresh"}} {
		r := f.command(t, "", args...)
		r.wants(t, 2, nil, []string{"pamsidecar " + args[0] + " --help"})
	}
	if asked := f.requests(); len(asked) != 0 {
		t.Errorf("asked the sidecar %q", asked)
	}
}

func TestWait(t *testing.T) {
	f := newFakeSidecar(t)
	missing := client.Readiness{Missing: []client.Missing{{Name: "a b", State: "pending", Reason: "403 no", RetryAt: testNow}}, Others: 2}
	f.on("GET /readyz", 503, missing)
	f.on("GET /readyz", 200, client.Readiness{Ready: true})
	f.command(t, "", "wait", "--timeout", "0").wants(t, 1, nil, []string{
		`pamsidecar: "a b": no live token (pending): 403 no, next attempt 2026-11-22T12:00:00Z`,
		"pamsidecar: 2 more names without a live token",
		"`pamsidecar status` says why",
	})
	f.command(t, "", "wait", "--timeout", "10s").wants(t, 0, nil, nil)
}

func TestWaitAsksAgainUntilReady(t *testing.T) {
	f := newFakeSidecar(t)
	f.on("GET /readyz?name=a%2Fb", http.StatusServiceUnavailable, client.Readiness{Missing: []client.Missing{{Name: "a/b", State: "pending"}}})
	f.on("GET /readyz?name=a%2Fb", 200, client.Readiness{Ready: true})
	f.on("GET /readyz?name=c", 200, client.Readiness{Ready: true})
	f.command(t, "", "wait", "a/b", "c").wants(t, 0, nil, nil)
	if asked := f.requests(); !slices.Equal(asked, []string{"GET /readyz?name=a%2Fb", "GET /readyz?name=c", "GET /readyz?name=a%2Fb", "GET /readyz?name=c"}) {
		t.Errorf("asked %q", asked)
	}
}
