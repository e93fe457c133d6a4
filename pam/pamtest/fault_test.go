package pamtest_test

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// overBoth runs a test in process and over a real socket.
func overBoth(t *testing.T, test func(t *testing.T, g rig)) {
	t.Run("transport", func(t *testing.T) { test(t, newRig(t, pamtest.Config{})) })
	t.Run("socket", func(t *testing.T) {
		g := newRig(t, pamtest.Config{})
		server := httptest.NewServer(g.Server)
		t.Cleanup(server.Close)
		transport := &http.Transport{DisableKeepAlives: true}
		g.rt, g.origin = transport, server.URL
		test(t, g)
	})
}

func TestAnswerFaults(t *testing.T) {
	cases := map[string]struct {
		fault  pamtest.Fault
		status int
		body   string // a part
		header string // "Name: value"
	}{
		"503":         {pamtest.Fault{Status: 503}, 503, `"status":503`, ""},
		"429":         {pamtest.Fault{Status: 429, RetryAfter: "17"}, 429, `{"message":"Too many requests.","error":true,"status":429}`, "Retry-After: 17"},
		"garbage":     {pamtest.Fault{Status: 503, RetryAfter: "soon, -1e999"}, 503, "", "Retry-After: soon, -1e999"},
		"504":         {pamtest.Fault{Status: 504}, 504, `"message":"Service Unavailable"`, ""},
		"403":         {pamtest.Fault{Status: 403}, 403, `"message":"Forbidden"`, ""},
		"200":         {pamtest.Fault{Status: 200}, 200, `{"data":{"message":"Success"},`, ""},
		"body":        {pamtest.Fault{Status: 400, Body: `[0,"text","0"]`}, 400, `[0,"text","0"]`, ""},
		"bad JSON":    {pamtest.Fault{Kind: pamtest.KindBadJSON}, 200, `"token":`, ""},
		"empty":       {pamtest.Fault{Kind: pamtest.KindEmpty, Status: 502}, 502, "", "Content-Length: 0"},
		"HTML":        {pamtest.Fault{Kind: pamtest.KindHTML, Status: 502}, 502, "<h1>Bad Gateway</h1>", "Content-Type: text/html; charset=UTF-8"},
		"no token":    {pamtest.Fault{Kind: pamtest.KindNoToken}, 200, `{"data":{"message":"Success"},"service":"Access Manager","status":200}`, ""},
		"redirect":    {pamtest.Fault{Kind: pamtest.KindRedirect}, 307, "", "Location: /v3/redirected"},
		"redirect302": {pamtest.Fault{Kind: pamtest.KindRedirect, Status: 302}, 302, "", "Location: /v3/redirected"},
	}
	overBoth(t, func(t *testing.T, g rig) {
		for name, c := range cases {
			for _, after := range []bool{false, true} {
				c.fault.AfterWork = after
				issued := g.Stats().Grants
				g.SetFault(c.fault)
				a := g.do(g.grantRequest(simpleGrant))
				if a.StatusCode != c.status || !strings.Contains(a.body, c.body) {
					t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
				}
				if key, value, ok := strings.Cut(c.header, ": "); ok && a.Header.Get(key) != value && !(key == "Content-Length" && a.ContentLength == 0) {
					t.Errorf("%s: %s is %q", name, key, a.Header.Get(key))
				}
				if a.Header.Get("Date") == "" {
					t.Errorf("%s: no Date", name)
				}
				if got := g.Stats().Grants - issued; (got == 1) != after {
					t.Errorf("%s, after work %v: %d tokens issued", name, after, got)
				}
				requests := g.Requests()
				if last := requests[len(requests)-1]; last.Status != c.status || last.Acted != after || last.Fault == "" {
					t.Errorf("%s: record %+v", name, last)
				}
			}
		}
	})
}

func TestCut(t *testing.T) {
	overBoth(t, func(t *testing.T, g rig) {
		for _, after := range []bool{false, true} {
			g.SetFault(pamtest.Fault{Op: pam.OpGrant, Kind: pamtest.KindCut, AfterWork: after})
			before := len(g.Grants())
			_, err := g.try(g.grantRequest(simpleGrant))
			if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("after work %v: %v", after, err)
			}
			if got := len(g.Grants()) - before; (got == 1) != after {
				t.Errorf("after work %v: %d tokens issued", after, got)
			}
		}
		g.ClearFaults()
		token := g.token(g.do(g.grantRequest(simpleGrant)))
		g.SetFault(pamtest.Fault{Op: pam.OpRevoke, Kind: pamtest.KindCut, AfterWork: true})
		if _, err := g.try(g.revokeRequest(token)); err == nil {
			t.Error("a lost answer arrived")
		}
		if g.Live(pam.Secret(token)) {
			t.Error("the revoke did not take effect")
		}
		if got := g.Revocations(); len(got) != 1 || got[0].Status != 0 || !got[0].Acted {
			t.Errorf("revocations %+v", got)
		}
		if got := g.Stats().Answers[pam.OpGrant][0]; got != 2 {
			t.Errorf("%d grants without an answer, want 2", got)
		}
	})
}

func TestTruncatedAndHuge(t *testing.T) {
	overBoth(t, func(t *testing.T, g rig) {
		for _, after := range []bool{false, true} {
			g.SetFault(pamtest.Fault{Kind: pamtest.KindTruncated, AfterWork: after})
			a, err := g.try(g.grantRequest(simpleGrant))
			if err != nil {
				t.Fatal(err)
			}
			if !errors.Is(a.err, io.ErrUnexpectedEOF) || int64(len(a.body)) != a.ContentLength/2 {
				t.Errorf("after work %v: %d of %d bytes, %v", after, len(a.body), a.ContentLength, a.err)
			}
		}
		g.SetFault(pamtest.Fault{Kind: pamtest.KindHugeBody})
		if a := g.do(g.grantRequest(simpleGrant)); len(a.body) != 10<<20 || a.ContentLength != -1 {
			t.Errorf("%d bytes, declared %d", len(a.body), a.ContentLength)
		}
	})
}

func TestRefusedConnection(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	g.SetFault(pamtest.Fault{Kind: pamtest.KindRefused, Count: 1})
	_, err := g.try(g.grantRequest(simpleGrant))
	if e, ok := errors.AsType[*net.OpError](err); !ok || e.Op != "dial" {
		t.Errorf("error %v", err)
	}
	if n := len(g.Requests()); n != 0 {
		t.Errorf("%d requests recorded", n)
	}
	if a := g.do(g.grantRequest(simpleGrant)); a.StatusCode != http.StatusOK {
		t.Errorf("status %d", a.StatusCode)
	}
}

func TestCountEveryAndOrder(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	statuses := func(n int) (got []int) {
		for range n {
			got = append(got, g.do(g.grantRequest(simpleGrant)).StatusCode)
		}
		return got
	}
	expect := func(got []int, want ...int) {
		t.Helper()
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("statuses %v, want %v", got, want)
			}
		}
	}
	g.SetFaults(pamtest.Fault{Status: 503, Count: 2}, pamtest.Fault{Op: pam.OpRevoke, Status: 500}, pamtest.Fault{Op: pam.OpGrant, Status: 429, Count: 1})
	expect(statuses(4), 503, 503, 429, 200)
	if a := g.do(g.revokeRequest("x")); a.StatusCode != 500 {
		t.Errorf("revoke: %d", a.StatusCode)
	}
	g.SetFault(pamtest.Fault{Status: 503, Every: 3, Count: 2})
	expect(statuses(10), 200, 200, 503, 200, 200, 503, 200, 200, 200, 200)
	g.SetFault(pamtest.Fault{Op: pam.OpTime, Status: 500})
	expect(statuses(1), 200)
	if a := g.do(request{method: "GET", path: "/time/0"}); a.StatusCode != 500 {
		t.Errorf("time: %d", a.StatusCode)
	}
}

func TestAlteredTokens(t *testing.T) {
	ask := `{"ttl":15,"permissions":{"resources":{"channels":{"a":3,"b":1}},"patterns":{"uuids":{"^u$":104}},"uuid":"alice"}}`
	g := newRig(t, pamtest.Config{})
	grant := func(kind pamtest.FaultKind) pam.Token {
		t.Helper()
		g.SetFault(pamtest.Fault{Kind: kind})
		token, err := pam.Parse(g.token(g.do(g.grantRequest(ask))))
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	if got := grant(pamtest.KindLess); got.Resources.Channels["a"] != pam.Write || got.UUID != "alice" {
		t.Errorf("less: %+v", got)
	}
	if got := grant(pamtest.KindOtherUUID); got.UUID == "alice" || got.UUID == "" {
		t.Errorf("other UUID: %+v", got)
	}
	if got := grant(pamtest.KindOtherTTL); got.TTL.Minutes() != 7 {
		t.Errorf("other ttl: %+v", got)
	}
	ended := grant(pamtest.KindAlreadyEnded)
	if ended.TTL.Minutes() != 15 || ended.Expires().After(g.Now()) || g.Live(ended.Raw) {
		t.Errorf("already ended: %+v", ended)
	}
	if st := g.Stats(); st.Grants != 4 || st.Live != 3 {
		t.Errorf("stats %+v", st)
	}
	for _, r := range g.Grants()[:3] { // altered tokens are real ones and can be withdrawn
		g.ClearFaults()
		if a := g.do(g.revokeRequest(r.Token.Reveal())); a.StatusCode != http.StatusOK {
			t.Errorf("revoke: %d %s", a.StatusCode, a.body)
		}
	}
	ask = `{"ttl":1,"permissions":{"patterns":{"uuids":{"^u$":64}}}}`
	if got := grant(pamtest.KindLess); len(got.Patterns.UUIDs) != 0 {
		t.Errorf("less of one bit: %+v", got)
	}
	if got := grant(pamtest.KindOtherTTL); got.TTL.Minutes() != 2 {
		t.Errorf("other ttl of 1: %+v", got)
	}
}

func TestFaultValidate(t *testing.T) {
	for _, f := range []pamtest.Fault{
		{}, {Kind: "sulk"}, {Op: "shout", Status: 500}, {Status: 99}, {Status: 600}, {Kind: pamtest.KindHang, Count: -1},
		{Kind: pamtest.KindHang, Status: 500}, {Kind: pamtest.KindCut, RetryAfter: "1"}, {Kind: pamtest.KindHTML, Body: "x"}, {Body: "x", Delay: 1},
		{Kind: pamtest.KindLess, Op: pam.OpRevoke}, {Kind: pamtest.KindLess, Op: pamtest.OpData}, {Kind: pamtest.KindLess, Status: 200}, {Status: 500, Delay: -1}, {Status: 500, Every: -1},
	} {
		if err := f.Validate(); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v", f, err)
		}
	}
}

func TestFaultJSON(t *testing.T) {
	const text = `{"op":"grant","count":1,"every":5,"delay":"1m30s","status":503,"body":"x","retry_after":"?","after_work":true}`
	var f pamtest.Fault
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		t.Fatal(err)
	}
	if err := f.Validate(); err != nil {
		t.Fatal(err)
	}
	if got, err := json.Marshal(f); err != nil || string(got) != text {
		t.Errorf("%s, %v", got, err)
	}
	for _, bad := range []string{`{"knd":"hang"}`, `{"delay":5}`, `{"delay":"soon"}`, `[]`} {
		if err := json.Unmarshal([]byte(bad), &f); err == nil {
			t.Errorf("%s accepted", bad)
		}
	}
}
