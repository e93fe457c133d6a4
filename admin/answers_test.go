package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/pamsidecar/pamsidecar/cache"
)

// answer is one row of the table: a request and what comes of it.
type answer struct {
	request string // method and target
	body    string
	err     error // of the Lifecycle
	status  int
	code    string // of the problem
	holds   string // in the answer
	call    string // of the Lifecycle, none if empty
}

var rule = cache.Rule{ID: 14, Match: "temp-.*", Reason: "over", Since: now}

var answers = []answer{
	{request: "GET /livez", status: 200, holds: `{"live":true}`},
	{request: "HEAD /livez", status: 200},
	{request: "GET /", status: 404, code: CodeNotFound},
	{request: "GET /v1/grants/", status: 400, code: CodeBadRequest, holds: "name is empty"},
	{request: "GET /v1/grants/checkout/", status: 404, code: CodeNotFound},
	{request: "GET /v1/grants/checkout/unblock/x", status: 404, code: CodeNotFound},
	{request: "POST /v1/grants", body: "{}", status: 405, code: CodeMethod, holds: "GET, HEAD"},
	{request: "GET /v1/revoke", status: 405, code: CodeMethod},
	{request: "OPTIONS /v1/grants/x", status: 405, code: CodeMethod, holds: "DELETE, GET, HEAD, PUT"},

	{request: "GET /v1/grants", status: 200, holds: `"name":"old"`},
	{request: "GET /v1/grants?state=&prefix=&limit=&cursor=", status: 200, holds: `"name":"old"`},
	{request: "GET /v1/grants?state=fresh", status: 200, holds: `"name":"checkout"`},
	{request: "GET /v1/grants?state=pending", status: 200, holds: `{"items":[]}`},
	{request: "GET /v1/grants?limit=2", status: 200, holds: `"next":"checkout"`},
	{request: "GET /v1/grants?state=dead", status: 400, code: CodeBadRequest, holds: "blocked, ended, fresh, failing, expired, pending"},
	{request: "GET /v1/grants?limit=0", status: 400, code: CodeBadRequest, holds: "1 to 1000"},
	{request: "GET /v1/grants?limit=1001", status: 400, code: CodeBadRequest},
	{request: "GET /v1/grants?limit=ten", status: 400, code: CodeBadRequest},
	{request: "GET /v1/grants?page=2", status: 400, code: CodeBadRequest, holds: `this path takes state, prefix, limit, cursor`},
	{request: "GET /v1/grants?limit=1&limit=2", status: 400, code: CodeBadRequest, holds: "given 2 times"},
	{request: "GET /v1/grants?prefix=%ff", status: 400, code: CodeBadRequest, holds: "UTF-8"},
	{request: "GET /v1/grants?prefix=a;limit=1", status: 400, code: CodeBadRequest},
	{request: "GET /v1/status?x=1", status: 400, code: CodeBadRequest, holds: "takes none"},

	{request: "GET /v1/grants/a%2Fb%20%C3%BC", status: 200, holds: `"name":"a/b ü"`},
	{request: "GET /v1/grants/nobody", status: 404, code: CodeUnknownName},
	{request: "GET /v1/grants/%ff", status: 400, code: CodeBadRequest, holds: "UTF-8"},
	{request: "GET /v1/grants/a%00", status: 400, code: CodeBadRequest, holds: "control character"},

	{request: "PUT /v1/grants/new", body: `{"note":"x"}`, status: 201, holds: `"name":"new"`, call: `put "new" note="x"`},
	{request: "PUT /v1/grants/new", body: " {} \n", status: 201, call: `put "new" note=""`},
	{request: "PUT /v1/grants/old", body: `{"name":"old"}`, status: 201, call: `put "old" note=""`},
	{request: "PUT /v1/grants/checkout", body: `{"name":"checkout"}`, status: 200, call: `put "checkout" note=""`},
	{request: "PUT /v1/grants/a%2Fb", body: `{"uuid":"u"}`, status: 201, holds: `"name":"a/b"`, call: `put "a/b" note=""`},
	{request: "PUT /v1/grants/a", body: `{"name":"b"}`, status: 400, code: CodeBadRequest, holds: `\"a\"`},
	{request: "PUT /v1/grants/a", body: `{"what":"b"}`, status: 400, code: CodeInvalidGrant, holds: `"faults":["json: unknown field \"what\"","ttl: is required"]`},
	{request: "PUT /v1/grants/a", body: `{"name":"a","name":"a"}`, status: 400, code: CodeBadRequest, holds: "twice"},
	{request: "PUT /v1/grants/a", status: 400, code: CodeBadRequest, holds: "body is required"},
	{request: "PUT /v1/grants/a", body: `{}`, err: fmt.Errorf("put: %w", cache.ErrInFile), status: 409, code: CodeInFile, call: `put "a" note=""`},
	{request: "PUT /v1/grants/a", body: `{}`, err: cache.ErrDegraded, status: 507, code: CodeNotDurable, call: `put "a" note=""`},

	{request: "DELETE /v1/grants/a", status: 202, call: `delete "a" revoke=false`},
	{request: "DELETE /v1/grants/a?revoke=true", status: 202, call: `delete "a" revoke=true`},
	{request: "DELETE /v1/grants/a?revoke=1", status: 400, code: CodeBadRequest, holds: "true or false"},
	{request: "DELETE /v1/grants/a", body: "{}", status: 400, code: CodeBadRequest, holds: "takes no body"},
	{request: "DELETE /v1/grants/a", err: cache.ErrInFile, status: 409, code: CodeInFile, call: `delete "a" revoke=false`},
	{request: "DELETE /v1/grants/a", err: cache.ErrUnknown, status: 404, code: CodeUnknownName, call: `delete "a" revoke=false`},

	{request: "POST /v1/grants/checkout/refresh", status: 200, holds: `"name":"checkout"`, call: `refresh "checkout"`},
	{request: "POST /v1/grants/a%2Fb%20%C3%BC/refresh", status: 200, call: `refresh "a/b ü"`},
	{request: "POST /v1/grants/x%2Frefresh/refresh", err: cache.ErrUnknown, status: 404, code: CodeUnknownName, call: `refresh "x/refresh"`},
	{request: "POST /v1/grants/mallory/refresh", err: fmt.Errorf("x: %w", cache.ErrBlocked), status: 409, code: CodeBlocked, call: `refresh "mallory"`},
	{request: "POST /v1/grants/old/refresh", err: cache.ErrEnded, status: 409, code: CodeEnded, call: `refresh "old"`},
	{request: "POST /v1/grants/checkout/refresh", err: context.DeadlineExceeded, status: 503, code: CodeTimeout, call: `refresh "checkout"`},
	{request: "POST /v1/grants/checkout/refresh", err: errors.New("what\never"), status: 500, code: CodeInternal, holds: "what ever", call: `refresh "checkout"`},

	{request: "POST /v1/grants/mallory/unblock", status: 200, holds: `"name":"mallory"`, call: `unblock ["mallory"]`},
	{request: "POST /v1/grants/gone/unblock", status: 200, holds: `{"names":["gone"]}`, call: `unblock ["gone"]`},
	{request: "POST /v1/grants/checkout/unblock", err: fmt.Errorf("%q: %w", "checkout", cache.ErrNotBlocked), status: 409, code: CodeNotBlocked, call: `unblock ["checkout"]`},
	{request: "POST /v1/grants/temp-1/unblock", err: &cache.RuleBlockedError{Name: "temp-1", Rule: rule}, status: 409, code: CodeRuleBlocked,
		holds: `DELETE /v1/blocks/14 removes the rule","block_rule":{"id":14,"match":"temp-.*","reason":"over"`, call: `unblock ["temp-1"]`},

	{request: "POST /v1/unblock", body: `{"names":["a","b","a"]}`, status: 200, holds: `{"names":["a","b"]}`, call: `unblock ["a" "b"]`},
	{request: "POST /v1/unblock", body: `{"accept_lost_blocks":true}`, status: 200, holds: `{"accept_lost_blocks":true}`, call: `accept lost blocks`},
	{request: "POST /v1/unblock", body: `{"accept_lost_blocks":false}`, status: 400, code: CodeBadRequest},
	{request: "POST /v1/unblock", body: `{"accept_lost_blocks":true,"names":["a"]}`, status: 400, code: CodeBadRequest, holds: "exactly one"},
	{request: "POST /v1/unblock", body: `{}`, status: 400, code: CodeBadRequest, holds: "exactly one"},
	{request: "POST /v1/unblock", body: `{"names":[]}`, status: 400, code: CodeBadRequest, holds: "names is empty"},
	{request: "POST /v1/unblock", body: `{"names":["a",""]}`, status: 400, code: CodeBadRequest, holds: "names[1]: name is empty"},

	{request: "GET /v1/blocks", status: 200, holds: `{"id":14,"match":"temp-.*","reason":"temporary accounts are over","since":"2026-03-01T11:00:00Z"},{"id":12,"name":"mallory"`},
	{request: "DELETE /v1/blocks/14", status: 200, holds: `"match":"temp-.*"`, call: "remove rule 14"},
	{request: "DELETE /v1/blocks/12", status: 200, holds: `"name":"mallory"`, call: `unblock ["mallory"]`},
	{request: "DELETE /v1/blocks/99", status: 404, code: CodeUnknownBlock},
	{request: "DELETE /v1/blocks/0", status: 400, code: CodeBadRequest},
	{request: "DELETE /v1/blocks/mallory", status: 400, code: CodeBadRequest},
	{request: "DELETE /v1/blocks/14", err: cache.ErrDegraded, status: 507, code: CodeNotDurable, call: "remove rule 14"},

	{request: "GET /v1/revocations", status: 200, holds: `"phase":"effective"`},
	{request: "GET /v1/revocations?open=yes", status: 400, code: CodeBadRequest},
	{request: "GET /v1/audit?after=-1", status: 400, code: CodeBadRequest},
	{request: "GET /v1/audit?after=x", status: 400, code: CodeBadRequest},
	{request: "GET /v1/audit", status: 200, holds: `{"items":[]}`},

	{request: "POST /v1/reload", status: 200, holds: `{"added":[],"changed":[],"narrowed":[],"removed":[],"unchanged":0}`, call: "reload force=false"},
	{request: "POST /v1/reload", body: `{"force":true}`, status: 200, call: "reload force=true"},
	{request: "POST /v1/reload", body: `{"Force":true}`, status: 400, code: CodeBadRequest, holds: `unknown field \"Force\"`},
	{request: "POST /v1/reload", err: &FaultyConfigurationError{errors.Join(errors.New("a.yaml:3:1: ttl"), errors.New("a.yaml:9:1: uuid"))}, status: 422, code: CodeReloadFailed,
		holds: `"faults":["a.yaml:3:1: ttl","a.yaml:9:1: uuid"]`, call: "reload force=false"},
	{request: "POST /v1/reload", err: &FaultyConfigurationError{fmt.Errorf("open a.yaml: %w", fs.ErrNotExist)}, status: 422, code: CodeReloadFailed,
		holds: `"faults":["open a.yaml: file does not exist"]`, call: "reload force=false"},
	{request: "POST /v1/reload", err: errors.New("apply: no"), status: 500, code: CodeInternal, call: "reload force=false"},
	{request: "POST /v1/reload", err: cache.ErrDegraded, status: 507, code: CodeNotDurable, call: "reload force=false"},
	{request: "GET /v1/status", status: 200, holds: `"version":"1.2.3"`},
}

func TestAnswers(t *testing.T) {
	for _, row := range answers {
		t.Run(row.request+" "+row.body, func(t *testing.T) {
			b := newBench(t)
			b.lifecycle.err = row.err
			method, target, _ := strings.Cut(row.request, " ")
			b.check(newRequest(method, target, row.body), row)
		})
	}
}

// check serves a request and compares the answer with a row.
func (b *bench) check(r *http.Request, row answer) {
	b.Helper()
	w := b.serve(r)
	if w.Code != row.status {
		b.Errorf("status %d, want %d: %s", w.Code, row.status, w.Body)
	}
	if row.code != "" {
		var p RevokeProblem
		b.into(w, &p)
		if p.Code != row.code || p.Problem.Status != row.status || p.Title != http.StatusText(row.status) || p.Detail == "" {
			b.Errorf("problem %+v, want code %s", p.Problem, row.code)
		}
	}
	if !strings.Contains(w.Body.String(), row.holds) {
		b.Errorf("the answer does not hold %s: %s", row.holds, w.Body)
	}
	var calls []string
	if row.call != "" {
		calls = []string{row.call}
	}
	if !slices.Equal(b.lifecycle.calls, calls) {
		b.Errorf("calls %q, want %q", b.lifecycle.calls, calls)
	}
	if row.call != "" && b.lifecycle.by.Via != "admin" {
		b.Errorf("decided by %+v", b.lifecycle.by)
	}
}

// What a page of a browser sends is refused before anything else is looked at.
func TestWebPagesAreRefused(t *testing.T) {
	headers := map[string]string{"Origin": "null", "Sec-Fetch-Site": "cross-site"}
	for key, value := range headers {
		b := newBench(t)
		r := newRequest("POST", "/v1/reload", "")
		r.Header.Set(key, value)
		b.check(r, answer{status: 403, code: CodeCrossOrigin})
	}
	b := newBench(t)
	r := newRequest("GET", "/v1/grants", "")
	r.Header.Set("Sec-Fetch-Site", "none")
	b.check(r, answer{status: 200})
}

func TestAllowHeader(t *testing.T) {
	w := newBench(t).serve(newRequest("PATCH", "/v1/grants/x", ""))
	if got := w.Header().Get("Allow"); got != "DELETE, GET, HEAD, PUT" {
		t.Errorf("Allow %q", got)
	}
}

func TestReadErrors(t *testing.T) {
	for _, path := range []string{"/v1/grants", "/v1/grants/checkout", "/v1/blocks", "/v1/revocations", "/v1/audit", "/v1/status"} {
		b := newBench(t)
		b.records.err = errors.New("read: disk on fire")
		b.check(newRequest("GET", path, ""), answer{status: 500, code: CodeInternal, holds: "disk on fire"})
	}
}

func TestReloadThatWouldChangeTooMuch(t *testing.T) {
	b := newBench(t)
	b.lifecycle.err = fmt.Errorf("reload: %w", &TooManyChangesError{errors.New("7 of 9 grants")})
	b.lifecycle.reload = ReloadResult{Removed: []string{"a", "b"}, Narrowed: []string{"c"}, Changed: []string{"c"}, Unchanged: 2}
	w := b.serve(newRequest("POST", "/v1/reload", ""))
	var p ReloadProblem
	b.into(w, &p)
	if w.Code != 409 || p.Code != CodeTooManyChanges || !slices.Equal(p.Removed, []string{"a", "b"}) || p.Unchanged != 2 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
