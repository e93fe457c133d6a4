package admin

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

func TestRevokeRequests(t *testing.T) {
	call := func(selector, rest string) string {
		all := map[string]string{"names": "[]", "uuids": "[]", "match": `""`, "all": "false", "token": ""}
		key, value, _ := strings.Cut(selector, "=")
		all[key] = value
		return fmt.Sprintf("revoke names=%s uuids=%s match=%s all=%s token=%s %s",
			all["names"], all["uuids"], all["match"], all["all"], all["token"], rest)
	}
	const plain = `regrant=false dry=false reason="x"`
	unknown := &cache.UnknownNamesError{Names: []string{"b", "c"}}
	for _, row := range []answer{
		{body: `{"names":["a","b","a"],"reason":"x"}`, status: 202, call: call(`names=["a" "b"]`, plain)},
		{body: `{"uuids":["u"],"reason":" x "}`, status: 202, call: call(`uuids=["u"]`, plain)},
		{body: `{"match":"user-[0-9]+","reason":"x"}`, status: 202, call: call(`match="user-[0-9]+"`, plain)},
		{body: `{"all":true,"reason":"x"}`, status: 202, call: call(`all=true`, plain)},
		{body: `{"token":"p0F2AkF0GqAAAAone\n","reason":"x"}`, status: 202, call: call(`token=#f4d2bfb1`, plain)},
		{body: `{"names":["a"],"reason":"x","regrant":true}`, status: 202, call: call(`names=["a"]`, `regrant=true dry=false reason="x"`)},
		{body: `{"names":["a"],"reason":"x","dry_run":true}`, status: 200, holds: `"dry_run":true`, call: call(`names=["a"]`, `regrant=false dry=true reason="x"`)},

		{body: `{"reason":"x"}`, status: 400, code: CodeBadRequest, holds: "give one of names, uuids, match, all, token"},
		{body: `{"all":true,"names":["a"],"reason":"x"}`, status: 400, code: CodeBadRequest, holds: "give only one of all, names"},
		{body: `{"names":[],"reason":"x"}`, status: 400, code: CodeBadRequest, holds: "names is empty"},
		{body: `{"names":null,"reason":"x"}`, status: 400, code: CodeBadRequest, holds: "names is empty"},
		{body: `{"uuids":["a\u0007"],"reason":"x"}`, status: 400, code: CodeBadRequest, holds: "uuids[0]"},
		{body: `{"match":"","reason":"x"}`, status: 400, code: CodeBadRequest, holds: "match is empty"},
		{body: `{"match":"a(","reason":"x"}`, status: 400, code: CodeBadRequest, holds: "missing closing )"},
		{body: `{"match":"a)|(b","reason":"x"}`, status: 400, code: CodeBadRequest, holds: "unexpected )"},
		{body: `{"match":"` + strings.Repeat("a", 4097) + `","reason":"x"}`, status: 400, code: CodeBadRequest, holds: "4096"},
		{body: `{"all":false,"reason":"x"}`, status: 400, code: CodeBadRequest, holds: "all can only be true"},
		{body: `{"token":" ","reason":"x"}`, status: 400, code: CodeBadRequest, holds: "token is empty"},
		{body: `{"names":["a"]}`, status: 400, code: CodeBadRequest, holds: "reason is required"},
		{body: `{"names":["a"],"reason":" "}`, status: 400, code: CodeBadRequest, holds: "reason is required"},
		{body: `{"names":["a"],"reason":"` + strings.Repeat("ü", 501) + `"}`, status: 400, code: CodeBadRequest, holds: "500 characters"},
		{body: `{"names":["a"],"reason":"` + strings.Repeat("ü", 500) + `"}`, status: 202, call: call(`names=["a"]`, `regrant=false dry=false reason="`+strings.Repeat("ü", 500)+`"`)},
		{body: `{"names":["a"],"reason":"x\ny"}`, status: 400, code: CodeBadRequest, holds: "control character"},
		{body: `{"names":["a"],"reason":"x","force":true,"why":1}`, status: 400, code: CodeBadRequest, holds: `unknown field \"force\", \"why\": the fields are names, uuids, match, all, token, reason, regrant, dry_run`},
		{body: `{"Names":["a"],"reason":"x"}`, status: 400, code: CodeBadRequest, holds: `unknown field \"Names\"`},
		{body: `{"names":["a"],"reason":"x","reason":"y"}`, status: 400, code: CodeBadRequest, holds: `\"reason\" is given twice`},
		{body: `{"names":"a","reason":"x"}`, status: 400, code: CodeBadRequest, holds: "names: a JSON string cannot stand here"},
		{body: `{"names":["a"],"reason":"x"} {}`, status: 400, code: CodeBadRequest, holds: "follows"},
		{body: `{"names":["a"],"reason":"x"`, status: 400, code: CodeBadRequest, holds: "not well-formed"},
		{body: `{"names":["a"],}`, status: 400, code: CodeBadRequest, holds: "not well-formed"},
		{body: `["a"]`, status: 400, code: CodeBadRequest, holds: "JSON object"},
		{body: `null`, status: 400, code: CodeBadRequest, holds: "JSON object"},
		{body: "{\"names\":[\"a\xff\"],\"reason\":\"x\"}", status: 400, code: CodeBadRequest, holds: "UTF-8"},

		{body: `{"names":["a","b","c"],"reason":"x"}`, err: unknown, status: 404, code: CodeUnknownName, holds: `"unknown":["b","c"]`, call: call(`names=["a" "b" "c"]`, plain)},
		{body: `{"token":"p0F2AkF0GqAAAAone","reason":"x"}`, err: cache.ErrUnknown, status: 404, code: CodeUnknownToken, call: call(`token=#f4d2bfb1`, plain)},
	} {
		t.Run(row.body, func(t *testing.T) {
			b := newBench(t)
			b.lifecycle.err = row.err
			b.check(newRequest("POST", "/v1/revoke", row.body), row)
		})
	}
}

func TestRevokeStatus(t *testing.T) {
	for _, row := range []struct {
		name     string
		result   cache.RevokeResult
		status   int
		durable  bool
		upstream string
	}{
		{"durable", cache.RevokeResult{Durable: true, Count: 1, Names: []cache.RevokedName{{Name: "a", Open: 1}}}, 200, true, UpstreamPending},
		{"nothing was live", cache.RevokeResult{Durable: true, Count: 1, Names: []cache.RevokedName{{Name: "a", UnaccountedUntil: now.Add(-time.Second)}}}, 200, true, UpstreamNone},
		{"not all are listed", cache.RevokeResult{Durable: true, Count: 2, Names: []cache.RevokedName{{Name: "a"}}}, 200, true, UpstreamPending},
		{"slow disk", cache.RevokeResult{Count: 1, Names: []cache.RevokedName{{Name: "a", Open: 1}}}, 202, false, UpstreamPending},
		{"full disk", cache.RevokeResult{Durable: true, DiskErr: errors.New("no space"), Count: 1, Names: []cache.RevokedName{{Name: "a", Open: 1}}}, 507, false, UpstreamPending},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t)
			b.lifecycle.result = row.result
			w := b.serve(newRequest("POST", "/v1/revoke", `{"names":["a"],"reason":"x"}`))
			var p RevokeProblem
			b.into(w, &p)
			if w.Code != row.status || p.Durable != row.durable || p.Upstream != row.upstream || p.Count != row.result.Count ||
				len(p.Names) != 1 || !p.Names[0].UnaccountedUntil.IsZero() {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if failed := p.Code == CodeNotDurable && strings.Contains(p.Detail, "no space"); failed != (row.status == 507) {
				t.Errorf("problem %+v", p.Problem)
			}
		})
	}
}

func TestRevokeRequestHidesItsToken(t *testing.T) {
	r := RevokeRequest{Token: tokens[0], Reason: "x"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, r); strings.Contains(text, tokens[0]) {
			t.Errorf("%s prints the token: %s", format, text)
		}
	}
}

// Whatever a body is, a revoke that is ordered has exactly one selector and a
// reason, and a body that is refused orders nothing.
func FuzzRevoke(f *testing.F) {
	for _, body := range []string{`{"names":["a"],"reason":"x"}`, `{"match":".*","reason":"x","dry_run":true}`, `{"all":true,"token":"t","reason":""}`, `[]`, `{"uuids":`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		b := newBench(t)
		r := newRequest("POST", "/v1/revoke", string(body))
		r.Header.Set("Content-Type", "application/json")
		w := b.serve(r)
		if w.Code >= 500 || (w.Code >= 400) != (len(b.lifecycle.calls) == 0) {
			t.Fatalf("%d with %d calls", w.Code, len(b.lifecycle.calls))
		}
		if w.Code >= 400 {
			return
		}
		s := b.lifecycle.order.Selector
		given := []bool{len(s.Names) > 0, len(s.UUIDs) > 0, s.Match != "", s.All, s.Token != ""}
		if n := len(slices.DeleteFunc(given, func(is bool) bool { return !is })); n != 1 || b.lifecycle.order.Reason == "" {
			t.Fatalf("%d selectors, reason %q", n, b.lifecycle.order.Reason)
		}
	})
}
