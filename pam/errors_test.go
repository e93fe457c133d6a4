package pam

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestErrorBodyVectors(t *testing.T) {
	for _, v := range errorVectors(t) {
		body := parseErrorBody([]byte(v.Body))
		if body.Message != v.Expect.Message || body.Source != v.Expect.Source || body.Service != v.Expect.Service ||
			!slices.Equal(body.Details, v.Expect.Details) || !slices.Equal(body.Channels, v.Expect.Channels) {
			t.Errorf("%s: got %+v", v.Source, body)
		}
		client := newTestClient(t, ClientConfig{Transport: &script{steps: []step{reply(v.Status, v.Body), reply(v.Status, v.Body), reply(v.Status, v.Body)}}})
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Millisecond) // no quick retries
		_, err := client.Grant(ctx, smallGrant())
		cancel()
		e := asError(t, err)
		retryable := e.Class() == Transient || e.Class() == Throttled
		if e.Status != v.Status || e.Code != v.Expect.Message || retryable != v.Expect.Retryable {
			t.Errorf("%s: %v is %s", v.Source, e, e.Class())
		}
		if len(v.Expect.Details) > 0 && (e.Detail != v.Expect.Details[0].Message || e.Location != v.Expect.Details[0].Location) {
			t.Errorf("%s: detail %q at %q", v.Source, e.Detail, e.Location)
		}
		if v.Expect.Message == "" && !strings.HasSuffix(e.Error(), http.StatusText(v.Status)) {
			t.Errorf("%s: %v", v.Source, e)
		}
	}
}

func TestErrorBodyShapes(t *testing.T) {
	for body, want := range map[string]string{
		"":                            "",
		" \n":                         "",
		"null":                        "",
		"true":                        "",
		`"text"`:                      "",
		"<html><body>502</body>":      "",
		"{}":                          "",
		"[]":                          "",
		`[0,"Invalid Key","17000"]`:   "Invalid Key",
		`[0,{"a":1}]`:                 "",
		`{"error":"broken"}`:          "broken",
		`{"error":1,"message":"one"}`: "one",
		`{"error":true}`:              "",
		`{"error":false,"message":7}`: "",
		`{"error":null,"error_message":"old form"}`:                    "old form",
		`{"error":{"error_message":"inner"}}`:                          "inner",
		`{"error":{"message":{"a":1}},"message":"outer"}`:              "outer",
		`{"error":{"message":"in"},"message":"out"}`:                   "in",
		`{"message":["x"],"error_message":"second"}`:                   "second",
		`{"message":"trailing"} x`:                                     "",
		`{"error":{"message":"m","details":{"message":"one object"}}}`: "m",
		`{"error":{"message":"m","details":["text",7,null,{}]}}`:       "m",
		`{"payload":{"channels":"x"},"message":"odd payload"}`:         "odd payload",
	} {
		if got := parseErrorBody([]byte(body)); got.Message != want {
			t.Errorf("%s: got %q, want %q", body, got.Message, want)
		}
	}
	many := parseErrorBody([]byte(`{"error":{"details":[` + strings.Repeat(`{"message":"x"},`, 500) + `{}]},"payload":{"channels":["a"` + strings.Repeat(`,"b"`, 500) + `]}}`))
	if len(many.Details) != maxErrorItems || len(many.Channels) != maxErrorItems {
		t.Errorf("%d details, %d channels", len(many.Details), len(many.Channels))
	}
	denied := parseErrorBody([]byte(`{"message":"Forbidden","payload":{"channels":["a"],"channel-groups":["g"]}}`))
	if got := denied.detail(); got != "denied: a, g" {
		t.Errorf("got %q", got)
	}
}

func FuzzErrorBody(f *testing.F) {
	for _, v := range errorVectors(f) {
		f.Add([]byte(v.Body))
	}
	f.Add([]byte(`[0,"text","17000"]`))
	f.Add([]byte(`{"error":"text","error_message":1,"payload":{"channels":["a"]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		body := parseErrorBody(data)
		if len(body.Details) > maxErrorItems || len(body.Channels) > maxErrorItems || len(body.Groups) > maxErrorItems {
			t.Fatal("a list is too long")
		}
		const secret = "sec-c-something-long-enough"
		for _, text := range []string{body.Message, body.detail(), body.location(), body.Message + secret + body.Service} {
			got := clean(text, secret)
			if utf8.RuneCountInString(got) > maxText || !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) ||
				strings.Contains(got, secret) || strings.Contains(got, "/v3/pam") {
				t.Fatalf("not clean: %q", got)
			}
		}
	})
}

func TestReasons(t *testing.T) {
	signed := time.Unix(1700000000, 0)
	near, late := signed.Add(10*time.Second), signed.Add(90*time.Second)
	for _, c := range []struct {
		err    Error
		class  Class
		text   string
		reason string
	}{
		{
			Error{Op: OpGrant, Status: 403, Code: "Invalid signature", Detail: "Client and server differ.", Location: "signature", Date: near, Signed: signed}, Refused,
			"grant: Access Manager: 403 Invalid signature: Client and server differ. (signature)", "Access Manager: 403 Invalid signature: check the secret key",
		},
		{
			Error{Op: OpGrant, Status: 403, Code: "Invalid signature", Date: late, Signed: signed}, Clock,
			"grant: Access Manager: 403 Invalid signature", "Access Manager: 403 Invalid signature: the local clock is 1m30s slow",
		},
		{
			Error{Op: OpGrant, Status: 400, Code: "Bad timestamp.", Date: signed.Add(-time.Hour), Signed: signed}, Clock,
			"grant: Access Manager: 400 Bad timestamp.", "Access Manager: 400 Bad timestamp.: the local clock is 1h0m0s fast",
		},
		{
			Error{Op: OpRevoke, Status: 400, Code: "Feature disabled", Detail: "Token revocation is disabled.", Signed: signed}, Refused,
			"revoke: Access Manager: 400 Feature disabled: Token revocation is disabled.", `Access Manager: 400 Feature disabled: enable "Revoke v3 Token" in the PubNub admin portal`,
		},
		{
			Error{Op: OpGrant, Status: 400, Code: "Invalid ttl", Detail: "Range should be 1 to 43200 minute(s)."}, Refused,
			"grant: Access Manager: 400 Invalid ttl: Range should be 1 to 43200 minute(s).", "Access Manager: 400 Invalid ttl: Range should be 1 to 43200 minute(s).",
		},
		{
			Error{Op: OpGrant, Status: 403, Code: "Forbidden"}, Refused,
			"grant: Access Manager: 403 Forbidden", "Access Manager: 403 Forbidden: check the keys, and that Access Manager is enabled for them",
		},
		{
			Error{Op: OpGrant, Status: 404}, Refused,
			"grant: Access Manager: 404 Not Found", "Access Manager: 404 Not Found: check the origin and the subscribe key",
		},
		{
			Error{Op: OpGrant, Status: 301}, Refused,
			"grant: Access Manager: 301 Moved Permanently", "Access Manager: 301 Moved Permanently: redirects are not followed: check the origin",
		},
		{
			Error{Op: OpGrant, Status: 429, Retry: 5 * time.Second}, Throttled,
			"grant: Access Manager: 429 Too Many Requests", "Access Manager: 429 Too Many Requests: asked to send nothing for 5s",
		},
		{
			Error{Op: OpGrant, Status: 503, Retry: time.Minute}, Throttled,
			"grant: Access Manager: 503 Service Unavailable", "Access Manager: 503 Service Unavailable: asked to send nothing for 1m0s",
		},
		{
			Error{Op: OpGrant, Status: 503}, Transient,
			"grant: Access Manager: 503 Service Unavailable", "Access Manager: 503 Service Unavailable: a fault on its side",
		},
		{
			Error{Op: OpGrant, Status: 200, Err: errors.New("the answer holds no token")}, Malformed,
			"grant: Access Manager: 200 OK: the answer holds no token", "Access Manager: 200 OK: the answer makes no sense: check the origin and any proxy",
		},
		{
			Error{Op: OpGrant, Err: errRefused}, Transient,
			"grant: dial tcp: connection refused", "Access Manager unreachable: connection refused",
		},
		{
			Error{Op: OpGrant, Err: &net.DNSError{Err: "no such host", Name: "ps.pndsn.com"}}, Transient,
			"grant: lookup ps.pndsn.com: no such host", "Access Manager unreachable: no such host",
		},
		{
			Error{Op: OpGrant, Err: context.DeadlineExceeded, MayHaveActed: true}, Transient,
			"grant: context deadline exceeded", "Access Manager did not answer in time",
		},
		{
			Error{Op: OpGrant, Err: fmt.Errorf("dial: %w", syscall.ETIMEDOUT)}, Transient,
			"grant: dial: connection timed out", "Access Manager was not reached in time",
		},
		{
			Error{Op: OpGrant, Err: context.Canceled}, Canceled,
			"grant: context canceled", "the request was canceled",
		},
		{
			Error{Op: OpRevoke, Err: fmt.Errorf("%w: no token given", errRequest)}, Refused,
			"revoke: invalid request: no token given", "invalid request: no token given",
		},
	} {
		if c.err.Class() != c.class || c.err.Error() != c.text || c.err.Reason() != c.reason {
			t.Errorf("%s: %q, %q", c.err.Class(), c.err.Error(), c.err.Reason())
		}
	}
}

func TestClockClass(t *testing.T) {
	now := time.Unix(1700000000, 0)
	for ahead, class := range map[time.Duration]Class{0: Refused, 30 * time.Second: Refused, -30 * time.Second: Refused, 31 * time.Second: Clock, -31 * time.Second: Clock} {
		date := now.Add(-ahead).UTC().Format(http.TimeFormat)
		for _, status := range []int{400, 403} {
			client := newTestClient(t, ClientConfig{Now: func() time.Time { return now }, Transport: &script{steps: []step{reply(status, "{}", "Date", date)}}})
			if e := asError(t, client.Revoke(t.Context(), "some-token-text")); e.Class() != class || !e.Signed.Equal(now) || !e.Date.Equal(now.Add(-ahead)) {
				t.Errorf("%s ahead: %v is %s", ahead, e, e.Class())
			}
		}
	}
}

func TestClean(t *testing.T) {
	const secret = "sec-c-ZmFrZS1zZWNyZXQta2V5"
	token := "qEF2AkF0GmEI03xDdHRsGDxDcmVz+/pURjaGFu=="
	for text, want := range map[string]string{
		"plain text.":                                       "plain text.",
		"a\x00b\r\nc\u0085d":                                "abcd",
		"\u202eabc\u2028\u200b\xff":                         "abc",
		"key " + secret + " is wrong":                       "key [redacted] is wrong",
		"k\x00ey sec-c-Zm\nFrZS1zZWNyZXQta2V5!":             "key [redacted]!",
		"key=" + EncodeValue(secret):                        "key=[redacted]",
		"part ZmFrZS1zZWNyZXQ...":                           "part [redacted]",
		"token " + token + ".":                              "token [redacted].",
		"token " + EncodeValue(token):                       "token [redacted]",
		"token " + token[:30]:                               "token [redacted]",
		"other p0F2AkF0GmOX59NDdHRs":                        "other [redacted]",
		"GET /v3/pam/sub/grant/x 414":                       "GET [redacted] 414",
		"https://h/v3/pam/x?a":                              "[redacted]",
		"a=b&signature=v2.x&timestamp":                      "[redacted]",
		strings.Repeat("é", 400):                            strings.Repeat("é", 300),
		"ps.pndsn.com:443 permissions.patterns.uuids.^a.*$": "ps.pndsn.com:443 permissions.patterns.uuids.^a.*$",
	} {
		if got := clean(text, secret, Secret(token)); got != want {
			t.Errorf("clean(%q)\ngot  %q\nwant %q", text, got, want)
		}
	}
	if got := clean("demo keys demonstrate", "demo", ""); got != "[redacted] keys demonstrate" {
		t.Errorf("got %q", got)
	}
}

func TestCleanError(t *testing.T) {
	wrapped := &url.Error{Op: "Delete", URL: "https://h/v3/pam/x", Err: &url.Error{Op: "Get", URL: "https://i", Err: errRefused}}
	if got := cleanError(wrapped); got != error(errRefused) {
		t.Errorf("got %v", got)
	}
	timeout := fmt.Errorf("sending /v3/pam/x: %w", context.DeadlineExceeded)
	if got := cleanError(timeout); strings.Contains(got.Error(), "/v3/pam") || !errors.Is(got, context.DeadlineExceeded) {
		t.Errorf("got %v", got)
	}
	if cleanError(nil) != nil {
		t.Error("no error became one")
	}
}
