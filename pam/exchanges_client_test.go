package pam_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
)

// answering is a service that answers everything as recorded.
type answering struct {
	t    *testing.T
	x    exchange
	seen []*http.Request
	body []string
}

func (a *answering) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		body, _ = io.ReadAll(req.Body)
		req.Body.Close()
	}
	a.seen, a.body = append(a.seen, req), append(a.body, string(body))
	header := http.Header{"Date": {time.Now().UTC().Format(http.TimeFormat)}}
	for key, value := range a.x.Response.Headers {
		header[key] = []string{value}
	}
	text := strings.NewReplacer("{token}", a.x.Token, "{timetoken}", "17000000001234567", "{any}", "Something.").Replace(a.x.Response.Body)
	return &http.Response{
		StatusCode: a.x.Response.Status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: header,
		Body: io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text)), Request: req,
	}, nil
}

func TestExchangesToClient(t *testing.T) {
	for _, x := range exchanges(t) {
		if x.Client == nil {
			continue
		}
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { replayToClient(t, x) }) // for the pauses between quick retries
		})
	}
}

func replayToClient(t *testing.T, x exchange) {
	service := &answering{t: t, x: x}
	client, err := pam.NewClient(pam.ClientConfig{Keyset: exchangeKeys, Transport: service})
	if err != nil {
		t.Fatal(err)
	}
	asked := pam.Grant{TTL: time.Hour, UUID: "alice", Resources: pam.Permissions{Channels: map[string]pam.Permission{"orders": pam.Read}}}
	if x.Client.SameRequest && x.Client.Op == pam.OpGrant {
		asked = grantOf(t, x.Request.Body)
	}
	const sent = "p0F2AkF0-_x9w=="
	var token pam.Token
	switch x.Client.Op {
	case pam.OpGrant:
		token, err = client.Grant(t.Context(), asked)
	case pam.OpRevoke:
		err = client.Revoke(t.Context(), sent)
	case pam.OpTime:
		var now time.Time
		if now, err = client.Time(t.Context()); err == nil && now.UnixNano() != 1700000000123456700 {
			t.Errorf("time %s", now)
		}
	default:
		t.Fatalf("unknown op %q", x.Client.Op)
	}
	x.checkOutcome(t, token, err)
	if len(service.seen) != x.Client.WireRequests {
		t.Errorf("%d requests on the wire, want %d", len(service.seen), x.Client.WireRequests)
	}
	if x.Client.SameRequest {
		x.checkSameRequest(t, service, sent)
	}
}

func (x exchange) checkOutcome(t *testing.T, token pam.Token, err error) {
	t.Helper()
	if x.Client.Outcome != "error" {
		if err != nil {
			t.Fatal(err)
		}
		if x.Client.Outcome == "token" && token.Raw.Reveal() != x.Token {
			t.Errorf("got %s", token)
		}
		return
	}
	e, ok := errors.AsType[*pam.Error](err)
	if !ok {
		t.Fatalf("got %v, want an *Error", err)
	}
	got := made{
		Op: e.Op, Outcome: "error", WireRequests: x.Client.WireRequests, Class: e.Class().String(), Code: e.Code, Detail: e.Detail, Location: e.Location,
		MayHaveActed: e.MayHaveActed, FeatureDisabled: e.FeatureDisabled(), InvalidSignature: e.InvalidSignature(),
	}
	if e.Retry != 0 {
		got.Retry = e.Retry.String()
	}
	if x.Client.Detail == "{any}" && got.Detail != "" {
		got.Detail = "{any}"
	}
	if got != *x.Client {
		t.Errorf("got\n%+v, want\n%+v", got, *x.Client)
	}
	if e.Status != x.Response.Status {
		t.Errorf("status %d, want %d", e.Status, x.Response.Status)
	}
}

// checkSameRequest checks what the Client sent against what was recorded; bodies as JSON, since neither blanks nor order matter there.
func (x exchange) checkSameRequest(t *testing.T, service *answering, token string) {
	t.Helper()
	req := service.seen[0]
	want := fill(x.Request.Path, pam.EncodeValue(token))
	if req.Method != x.Request.Method || req.URL.EscapedPath() != want {
		t.Errorf("sent %s %s, want %s %s", req.Method, req.URL.EscapedPath(), x.Request.Method, want)
	}
	for key, value := range x.Request.Headers {
		if req.Header.Get(key) != value {
			t.Errorf("header %s: %q, want %q", key, req.Header.Get(key), value)
		}
	}
	if signed := req.URL.Query().Has("signature"); signed != (x.Request.SignedWith != "") {
		t.Errorf("signed is %t", signed)
	}
	if x.Request.Body == "" && service.body[0] == "" {
		return
	}
	var sent, recorded any
	if err := json.Unmarshal([]byte(service.body[0]), &sent); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(x.Request.Body), &recorded); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(sent, recorded) {
		t.Errorf("sent\n%s, want\n%s", service.body[0], x.Request.Body)
	}
}

// grantOf reads the body of a grant.
func grantOf(t *testing.T, body string) pam.Grant {
	t.Helper()
	var wire struct {
		TTL         int64
		Permissions struct {
			Resources, Patterns struct {
				Channels, Groups, UUIDs map[string]pam.Permission
			}
			Meta map[string]any
			UUID string
		}
	}
	if err := json.Unmarshal([]byte(body), &wire); err != nil {
		t.Fatal(err)
	}
	p := wire.Permissions
	return pam.Grant{
		TTL: time.Duration(wire.TTL) * time.Minute, UUID: p.UUID, AnyUUID: p.UUID == "", Meta: p.Meta,
		Resources: pam.Permissions{Channels: p.Resources.Channels, Groups: p.Resources.Groups, UUIDs: p.Resources.UUIDs},
		Patterns:  pam.Permissions{Channels: p.Patterns.Channels, Groups: p.Patterns.Groups, UUIDs: p.Patterns.UUIDs},
	}
}
