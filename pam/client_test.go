package pam

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var testKeys = Keyset{PublishKey: "pub-c-test", SubscribeKey: "sub-c-test", SecretKey: "sec-c-the-secret-key-of-tests"}

// testToken is a token whose encoding ends in "==".
func testToken(t testing.TB) string {
	t.Helper()
	valid, _ := tokenVectors(t)
	for _, v := range valid {
		if strings.HasSuffix(v.Token, "==") {
			return v.Token
		}
	}
	t.Fatal("no vector ends in ==")
	return ""
}

func grantAnswer(token string) string {
	return `{"data":{"message":"Success","token":"` + token + `"},"service":"Access Manager","status":200}`
}

const revokeAnswer = `{"data":{"message":"Success"},"service":"Access Manager","status":200}`

func smallGrant() Grant {
	return Grant{TTL: time.Minute, UUID: "alice", Resources: Permissions{Channels: perms{"room-1 é<&>": Read | Write}}}
}

// verifySignature checks a request as the service does, from what came over the wire.
func verifySignature(r *http.Request, body []byte) error {
	path, query, _ := strings.Cut(r.RequestURI, "?")
	signed, signature, found := strings.Cut(query, "&signature=")
	if !found {
		return errors.New("no signature")
	}
	if want := Sign(testKeys.SecretKey, r.Method, testKeys.PublishKey, path, signed, body); signature != want {
		return fmt.Errorf("signature %s, want %s", signature, want)
	}
	return nil
}

func newServer(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

func newTestClient(t *testing.T, cfg ClientConfig) *Client {
	t.Helper()
	cfg.Keyset = testKeys
	client, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func asError(t *testing.T, err error) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("not an *Error: %v", err)
	}
	return e
}

func TestGrantOnTheWire(t *testing.T) {
	token := testToken(t)
	now := time.Unix(1700000000, 999)
	server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := verifySignature(r, body); err != nil {
			t.Error(err)
		}
		q := r.URL.Query()
		if r.Method != "POST" || r.URL.Path != "/v3/pam/sub-c-test/grant" || q.Get("timestamp") != "1700000000" ||
			q.Get("pnsdk") != "tests/1~" || q.Get("uuid") == "" || r.Header.Get("Content-Type") != "application/json" || r.UserAgent() != "tests/1~" {
			t.Errorf("%s %s %v", r.Method, r.RequestURI, r.Header)
		}
		var sent grantBody
		if err := json.Unmarshal(body, &sent); err != nil || sent.TTL != 1 || sent.Permissions.UUID != "alice" ||
			sent.Permissions.Resources.Channels["room-1 é<&>"] != 3 || sent.Permissions.Meta == nil {
			t.Errorf("body %s", body)
		}
		w.Header().Set("Content-Type", "text/javascript; charset=UTF-8")
		w.Header().Set("Content-Encoding", "gzip")
		zip := gzip.NewWriter(w)
		io.WriteString(zip, grantAnswer(token))
		zip.Close()
	})
	var order []string
	var seen Exchange
	client := newTestClient(t, ClientConfig{
		Origin: server.URL + "/", UserAgent: "tests/1~",
		Now:           func() time.Time { order = append(order, "time"); return now },
		BeforeRequest: func(_ context.Context, op Op) error { order = append(order, "hook "+string(op)); return nil },
		AfterRequest:  func(x Exchange) { order = append(order, "after"); seen = x },
	})
	got, err := client.Grant(t.Context(), smallGrant())
	if err != nil || got.Raw.Reveal() != token {
		t.Fatalf("got %v, %v", got, err)
	}
	if fmt.Sprint(order) != "[hook grant time after]" {
		t.Errorf("order %v", order)
	}
	if seen.Op != OpGrant || seen.Status != 200 || seen.Date.IsZero() || seen.Err != nil || seen.Duration <= 0 || seen.Received.Before(seen.Sent) {
		t.Errorf("exchange %+v", seen)
	}
	if client.Origin() != server.URL || strings.Contains(fmt.Sprintf("%v %+v %#v", client, client, client), "secret") {
		t.Errorf("the client shows itself as %#v", client)
	}
}

func TestRevokeOnTheWire(t *testing.T) {
	tokens := map[string]string{
		testToken(t): "/v3/pam/sub-c-test/grant/" + strings.Replace(testToken(t), "==", "%3D%3D", 1),
		"unescaped-_.ABCabc123 escaped;,/?:@&=+$#": "/v3/pam/sub-c-test/grant/unescaped-_.ABCabc123%20escaped%3B%2C%2F%3F%3A%40%26%3D%2B%24%23",
		"..":     "/v3/pam/sub-c-test/grant/..",
		"~é\xff": "/v3/pam/sub-c-test/grant/%7E%C3%A9%FF",
	}
	for token, path := range tokens {
		server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if got, _, _ := strings.Cut(r.RequestURI, "?"); r.Method != "DELETE" || got != path || len(body) != 0 {
				t.Errorf("%s %s with %d bytes, want %s", r.Method, got, len(body), path)
			}
			if err := verifySignature(r, nil); err != nil {
				t.Error(err)
			}
			io.WriteString(w, revokeAnswer)
		})
		client := newTestClient(t, ClientConfig{Origin: server.URL})
		if err := client.Revoke(t.Context(), Secret(token)); err != nil {
			t.Errorf("%q: %v", token, err)
		}
	}
}

func TestRevokeOutcomes(t *testing.T) {
	refusal := func(message, detail string) string {
		return `{"error":{"message":"` + message + `","source":"revoke","details":[{"message":"` + detail + `","location":"token","locationType":"path"}]},"service":"Access Manager","status":400}`
	}
	for _, c := range []struct {
		name   string
		status int
		body   string
		class  Class // 0: done
	}{
		{"done", 200, revokeAnswer, 0},
		{"expired", 400, refusal("Invalid token", "Token is expired."), 0},
		{"expired, no period", 400, refusal("Invalid token", "Token is expired"), 0},
		{"expired, flat", 403, `{"error":true,"status":403,"message":"Token is expired."}`, 0},
		{"revoked before", 403, `{"error":true,"status":403,"message":"Token is revoked"}`, 0},
		{"other invalid token", 400, refusal("Invalid token", "Malformed."), Refused},
		{"feature off", 400, refusal("Feature disabled", "Token revocation is disabled."), Refused},
		{"expired with a wrong status", 500, refusal("Invalid token", "Token is expired."), Transient},
		{"a page of somebody else", 200, "<html>hello</html>", Malformed},
		{"other JSON", 200, `{"ok":true}`, Malformed},
		{"data without success", 200, `{"data":{}}`, Malformed},
		{"no content", 204, "", Malformed},
	} {
		client := newTestClient(t, ClientConfig{Transport: &script{steps: []step{reply(c.status, c.body)}}})
		err := client.Revoke(t.Context(), "some-token-text")
		if c.class == 0 {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if e := asError(t, err); e.Class() != c.class || e.MayHaveActed || e.FeatureDisabled() != (c.name == "feature off") {
			t.Errorf("%s: %v is %s", c.name, e, e.Class())
		}
	}
	client := newTestClient(t, ClientConfig{Transport: &script{}})
	if e := asError(t, client.Revoke(t.Context(), "")); e.Class() != Refused {
		t.Errorf("without a token: %v", e)
	}
}

func TestGrantOutcomes(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		class  Class
		acted  bool
	}{
		{"not JSON", 200, "<html>", Malformed, true},
		{"cut JSON", 200, grantAnswer(testToken(t))[:40], Malformed, true},
		{"no token", 200, revokeAnswer, Malformed, true},
		{"no data", 200, "{}", Malformed, true},
		{"bad token", 200, grantAnswer("qEF2AkF0GmEI03xDdHRs"), Malformed, true},
		{"long", 200, grantAnswer(testToken(t)) + strings.Repeat(" ", maxAnswer), Malformed, true},
		{"created", 201, grantAnswer(testToken(t)), Malformed, true},
		{"redirect", 302, "", Refused, false},
		{"bad request", 400, "", Refused, false},
		{"long refusal", 400, strings.Repeat("x", 2*maxAnswer), Refused, false},
		{"not found", 404, "", Refused, false},
		{"request timeout", 408, "", Transient, false},
		{"too long", 414, "", Refused, false},
		{"internal", 500, "", Transient, true},
		{"gateway", 502, "", Transient, true},
		{"gateway timeout", 504, "<html>", Transient, true},
	} {
		transport := &script{steps: []step{reply(c.status, c.body)}}
		client := newTestClient(t, ClientConfig{Transport: transport})
		token, err := client.Grant(t.Context(), smallGrant())
		e := asError(t, err)
		if e.Class() != c.class || e.MayHaveActed != c.acted || e.Status != c.status || token.Raw != "" || transport.sent != 1 {
			t.Errorf("%s: %v is %s, acted %v, after %d requests", c.name, e, e.Class(), e.MayHaveActed, transport.sent)
		}
	}
	transport := &script{}
	client := newTestClient(t, ClientConfig{Transport: transport})
	_, err := client.Grant(t.Context(), Grant{})
	if e := asError(t, err); e.Class() != Refused || e.MayHaveActed || transport.sent != 0 {
		t.Errorf("an invalid grant: %v", e)
	}
	if _, ok := errors.AsType[Faults](err); !ok {
		t.Errorf("the faults are not in %v", err)
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	var other string
	reached := make(chan string, 10)
	target := newServer(t, func(_ http.ResponseWriter, r *http.Request) { reached <- r.RequestURI })
	server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other+r.RequestURI, http.StatusTemporaryRedirect)
	})
	client := newTestClient(t, ClientConfig{Origin: server.URL})
	for _, other = range []string{target.URL, "http://%zz/"} {
		err := client.Revoke(t.Context(), "some-token-text")
		if e := asError(t, err); e.Status != 307 || e.Class() != Refused || len(reached) != 0 {
			t.Errorf("%v, class %s", e, e.Class())
		}
	}
}

func TestTime(t *testing.T) {
	server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "GET" || r.URL.Path != "/time/0" || r.URL.Query().Has("signature") {
			t.Errorf("%s %s", r.Method, r.RequestURI)
		}
		io.WriteString(w, "[17000000001234567]\n")
	})
	client := newTestClient(t, ClientConfig{Origin: server.URL})
	if got, err := client.Time(t.Context()); err != nil || !got.Equal(time.Unix(1700000000, 123456700)) {
		t.Errorf("got %s, %v", got, err)
	}
	for _, body := range []string{"", "{}", "[]", `["x"]`, "[1700000000]", "[-1700000000123456]", "[1.7e16]", "17000000001234567", "[170000000012345678]"} {
		client := newTestClient(t, ClientConfig{Transport: &script{steps: []step{reply(200, body)}}})
		got, err := client.Time(t.Context())
		if e := asError(t, err); e.Class() != Malformed || e.MayHaveActed || !got.IsZero() {
			t.Errorf("%q: %v, %s", body, err, got)
		}
	}
}

func TestNewClientRefuses(t *testing.T) {
	for _, c := range []struct {
		origin   string
		insecure bool
		message  string // "": fine
	}{
		{"", false, ""},
		{"https://ps.pndsn.com", false, ""},
		{"https://ps.pndsn.com:8443/", false, ""},
		{"HTTPS://ps.pndsn.com", false, ""},
		{"http://localhost:8099", false, ""},
		{"http://127.8.9.1", false, ""},
		{"http://[::1]:8099", false, ""},
		{"http://emulator:8099", true, ""},
		{"http://emulator:8099", false, "plain http"},
		{"http://localhost.example.com", false, "plain http"},
		{"http://128.0.0.1", false, "plain http"},
		{"ps.pndsn.com", false, "has no scheme"},
		{"ftp://ps.pndsn.com", true, `scheme "ftp"`},
		{"https://", false, "has no host"},
		{"https://:443", false, "has no host"},
		{"https://ps.pndsn.com/v3", false, "must not have a path"},
		{"https://ps.pndsn.com?a=b", false, "must not have a query"},
		{"https://ps.pndsn.com/#", false, "must not have a query"},
		{"https://user:hunter2@ps.pndsn.com", false, "must not hold a user"},
		{"https://user:hunter2@ps.pn dsn.com", false, "is not a URL"},
	} {
		_, err := NewClient(ClientConfig{Keyset: testKeys, Origin: c.origin, InsecureOrigin: c.insecure})
		if c.message == "" && err != nil || c.message != "" && (err == nil || !strings.Contains(err.Error(), c.message)) {
			t.Errorf("%q: got %v, want %q", c.origin, err, c.message)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the password is in %v", err)
		}
	}
	for _, keys := range []Keyset{{}, {PublishKey: "p", SubscribeKey: "s"}, {PublishKey: "p", SecretKey: "s"}, {PublishKey: "p", SubscribeKey: "s", SecretKey: "key\n"}} {
		if _, err := NewClient(ClientConfig{Keyset: keys}); err == nil {
			t.Errorf("accepted %v", keys)
		}
	}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{empty, empty + ".missing"} {
		if _, err := NewClient(ClientConfig{Keyset: testKeys, CAFile: file}); err == nil || !strings.HasPrefix(err.Error(), "CA file: ") {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestCAFile(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, revokeAnswer) }))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	client := newTestClient(t, ClientConfig{Origin: server.URL, CAFile: file})
	if err := client.Revoke(t.Context(), "some-token-text"); err != nil {
		t.Error(err)
	}
}
