package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pamsidecar/pamsidecar/cache"
)

func TestBodies(t *testing.T) {
	const path, ok = "/v1/unblock", `{"names":["a"]}`
	request := func(body, media string) *http.Request {
		r := httptest.NewRequest("POST", path, strings.NewReader(body))
		if media != "" {
			r.Header.Set("Content-Type", media)
		}
		return r
	}
	unsized := request(`{"names":["`+strings.Repeat("a", MaxBody)+`"]}`, "application/json")
	unsized.ContentLength = -1
	broken := request(ok, "application/json")
	broken.Body = io.NopCloser(io.MultiReader(strings.NewReader(ok), failingReader{}))
	for name, row := range map[string]struct {
		request *http.Request
		want    answer
	}{
		"charset":       {request(ok, "application/json; charset=UTF-8"), answer{status: 200, call: `unblock ["a"]`}},
		"other charset": {request(ok, "application/json; charset=latin1"), answer{status: 415, code: CodeMediaType}},
		"form":          {request(ok, "application/x-www-form-urlencoded"), answer{status: 415, code: CodeMediaType}},
		"text":          {request(ok, "text/plain"), answer{status: 415, code: CodeMediaType}},
		"no media type": {request(ok, ""), answer{status: 415, code: CodeMediaType}},
		"largest":       {request(ok+strings.Repeat(" ", MaxBody-len(ok)), "application/json"), answer{status: 200, call: `unblock ["a"]`}},
		"too large":     {request(ok+strings.Repeat(" ", MaxBody-len(ok)+1), "application/json"), answer{status: 413, code: CodeTooLarge}},
		"endless":       {unsized, answer{status: 413, code: CodeTooLarge}},
		"cut off":       {broken, answer{status: 400, code: CodeBadRequest, holds: "to its end"}},
	} {
		t.Run(name, func(t *testing.T) { newBench(t).check(row.request, row.want) })
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// The log has one line for a request that changes something, always with the
// same keys and never with what was sent.
func TestLog(t *testing.T) {
	keys := []string{"code", "decision", "level", "ms", "msg", "name", "op", "pid", "status", "time", "uid"}
	for _, row := range []struct {
		method, path, body string
		line               string // part of it, none if empty
	}{
		{"GET", "/v1/grants", "", ""},
		{"GET", "/v1/grants/checkout", "", ""},
		{"GET", "/v1/nothing", "", ""},
		{"POST", "/v1/revoke", `{"names":["checkout"],"reason":"secret reason"}`, `"op":"revoke","name":"","status":202,"code":"","decision":77`},
		{"POST", "/v1/revoke", `{"token":"` + tokens[0] + `","reason":"secret reason","x":1}`, `"op":"revoke","name":"","status":400,"code":"bad_request"`},
		{"POST", "/v1/grants/checkout/refresh", "", `"op":"refresh","name":"checkout","status":200`},
		{"POST", "/v1/grants/" + strings.Repeat(tokens[0], 8) + "/refresh", "", `"op":"refresh","name":"","status":400`},
		{"PUT", "/v1/grants/new", `{"note":"secret reason"}`, `"op":"put","name":"new","status":201`},
		{"DELETE", "/v1/blocks/14", "", `"op":"lift","name":"14","status":200`},
	} {
		b := newBench(t)
		b.lifecycle.result.Decision = 77
		b.serve(newRequest(row.method, row.path, row.body))
		line := b.log.String()
		if row.line == "" {
			if line != "" {
				t.Errorf("%s %s is logged: %s", row.method, row.path, line)
			}
			continue
		}
		var got map[string]any
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%s %s: %v in %q", row.method, row.path, err, line)
		}
		var have []string
		for k := range got {
			have = append(have, k)
		}
		if slices.Sort(have); !slices.Equal(have, keys) || !strings.Contains(line, row.line) || strings.Contains(line, "secret reason") {
			t.Errorf("%s %s: %s", row.method, row.path, line)
		}
	}
}

func TestPanic(t *testing.T) {
	b := newBench(t)
	b.lifecycle.panics = errors.New("with " + tokens[0])
	b.check(newRequest("POST", "/v1/grants/checkout/refresh", ""), answer{status: 500, code: CodeInternal})
	if log := b.log.String(); !strings.Contains(log, "panicked") || !strings.Contains(log, "fake_test.go") {
		t.Errorf("log %s", log)
	}
}

// A decision is carried out although the one who took it hung up, but not for ever.
func TestHangUp(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.serve(newRequest("POST", "/v1/grants/checkout/refresh", "").WithContext(ctx))
	if b.lifecycle.ctxErr != nil || !b.lifecycle.bounded {
		t.Errorf("context error %v, bounded %t", b.lifecycle.ctxErr, b.lifecycle.bounded)
	}
}

// Every name that a grant can have reaches every route of its own unharmed.
func FuzzNames(f *testing.F) {
	for _, name := range []string{"a", "a/b", "a/unblock", "..", ".", "%2F", "a b", "ü", `a"b{`, "?x=1", "#", "a;b", "+"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if cache.ValidName(name) != nil || !utf8.ValidString(name) {
			t.Skip()
		}
		b := newBench(t)
		b.records.records[name] = &cache.Record{Name: name}
		var d GrantDetail
		b.into(b.serve(newRequest("GET", GrantPath(name), "")), &d)
		if d.Name != name {
			t.Fatalf("%q came back as %q", name, d.Name)
		}
		b.check(newRequest("POST", GrantPath(name)+"/refresh", ""), answer{status: 200, call: "refresh " + quote(name)})
	})
}

func quote(s string) string {
	var f fakeLifecycle
	f.note(context.Background(), cache.Actor{}, "%q", s)
	return f.calls[0]
}
