package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

var _ Records = (*cache.Cache)(nil)

// now is the server's time in every test.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// tokens are the raw tokens in the fake records: no answer and no log may
// contain one.
var tokens = []string{"p0F2AkF0GqAAAAone", "p0F2AkF0GqAAAAtwo", "p0F2AkF0GqAAAAthree", "p0F2AkF0GqAAAAfour"}

// fakeRecords are records in memory with the rules that block them.
type fakeRecords struct {
	records map[string]*cache.Record
	rules   map[string]*cache.Rule // by the name they block
	journal []cache.Decision
	err     error
	queries []cache.Query
}

func (f *fakeRecords) Record(name string) (*cache.Record, error) {
	if f.err != nil {
		return nil, f.err
	}
	if r := f.records[name]; r != nil {
		return r.Clone(), nil
	}
	return nil, fmt.Errorf("%q: %w", name, cache.ErrUnknown)
}

func (f *fakeRecords) Records(q cache.Query, now time.Time) ([]*cache.Record, string, error) {
	f.queries = append(f.queries, q)
	if f.err != nil {
		return nil, "", f.err
	}
	var recs []*cache.Record
	for _, name := range slices.Sorted(maps.Keys(f.records)) {
		r := f.records[name]
		if name <= q.After || !strings.HasPrefix(name, q.Prefix) || q.State != "" && f.StateOf(r, now) != q.State {
			continue
		}
		if len(recs) == q.Limit {
			return recs, recs[q.Limit-1].Name, nil
		}
		recs = append(recs, r.Clone())
	}
	return recs, "", nil
}

func (f *fakeRecords) StateOf(r *cache.Record, now time.Time) cache.State {
	if f.rules[r.Name] != nil {
		return cache.Blocked
	}
	return r.State(now)
}

func (f *fakeRecords) RuleFor(name string) *cache.Rule { return f.rules[name] }

func (f *fakeRecords) Blocks() ([]cache.BlockInfo, error) {
	var all []cache.BlockInfo
	for _, name := range slices.Sorted(maps.Keys(f.rules)) {
		r := f.rules[name]
		all = append(all, cache.BlockInfo{ID: r.ID, Match: r.Match, Reason: r.Reason, Since: r.Since})
	}
	for _, name := range slices.Sorted(maps.Keys(f.records)) {
		if b := f.records[name].Block; b != nil {
			all = append(all, cache.BlockInfo{ID: b.Decision, Name: name, Reason: b.Reason, Since: b.Since})
		}
	}
	return all, f.err
}

func (f *fakeRecords) Journal(after uint64, limit int) ([]cache.Decision, error) {
	var found []cache.Decision
	for _, d := range f.journal {
		if d.Seq > after && len(found) < limit {
			found = append(found, d)
		}
	}
	return found, f.err
}

// fakeLifecycle notes what it is told and answers as it is told to.
type fakeLifecycle struct {
	records *fakeRecords
	calls   []string
	by      cache.Actor
	order   cache.Revocation
	ctxErr  error
	bounded bool // the context has a deadline

	result cache.RevokeResult
	reload ReloadResult
	err    error
	panics any
}

func (f *fakeLifecycle) note(ctx context.Context, by cache.Actor, format string, args ...any) error {
	if f.panics != nil {
		panic(f.panics)
	}
	_, f.bounded = ctx.Deadline()
	f.calls, f.by, f.ctxErr = append(f.calls, fmt.Sprintf(format, args...)), by, ctx.Err()
	return f.err
}

func (f *fakeLifecycle) Refresh(ctx context.Context, name string, by cache.Actor) error {
	return f.note(ctx, by, "refresh %q", name)
}

func (f *fakeLifecycle) Revoke(ctx context.Context, r cache.Revocation) (cache.RevokeResult, error) {
	f.order = r
	err := f.note(ctx, r.By, "revoke names=%q uuids=%q match=%q all=%t token=%v regrant=%t dry=%t reason=%q",
		r.Names, r.UUIDs, r.Match, r.All, r.Token, r.Regrant, r.DryRun, r.Reason)
	return f.result, err
}

func (f *fakeLifecycle) Unblock(ctx context.Context, names []string, by cache.Actor) error {
	return f.note(ctx, by, "unblock %q", names)
}

func (f *fakeLifecycle) AcceptLostBlocks(ctx context.Context, by cache.Actor) error {
	return f.note(ctx, by, "accept lost blocks")
}

func (f *fakeLifecycle) RemoveRule(ctx context.Context, id uint64, by cache.Actor) error {
	return f.note(ctx, by, "remove rule %d", id)
}

func (f *fakeLifecycle) Put(ctx context.Context, g cache.Grant, by cache.Actor) error {
	err := f.note(ctx, by, "put %q note=%q", g.Name, g.Note)
	if err == nil {
		f.records.records[g.Name] = &cache.Record{Name: g.Name, Grant: &g, Source: cache.FromAdmin}
	}
	return err
}

func (f *fakeLifecycle) Delete(ctx context.Context, name string, revoke bool, by cache.Actor) (cache.RevokeResult, error) {
	return f.result, f.note(ctx, by, "delete %q revoke=%t", name, revoke)
}

func (f *fakeLifecycle) Reload(ctx context.Context, force bool, by cache.Actor) (ReloadResult, error) {
	return f.reload, f.note(ctx, by, "reload force=%t", force)
}

// parseGrant stands for the strict decoder of the command: a name and a note.
func parseGrant(body []byte) (cache.Grant, error) {
	var in struct{ Name, UUID, Note string }
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return cache.Grant{}, errors.Join(err, errors.New("ttl: is required"))
	}
	g := cache.Grant{Name: in.Name, Note: in.Note}
	g.UUID, g.TTL = in.UUID, 15*time.Minute
	return g, nil
}

// channel gives a grant one channel without naming the type of permissions.
func channel[P ~uint64](to *map[string]P, name string, p P) { *to = map[string]P{name: p} }

// someRecords are one record of each kind.
func someRecords() *fakeRecords {
	grant := func(name string) *cache.Grant {
		g := &cache.Grant{Name: name, Note: "note of " + name}
		g.UUID, g.TTL = name, 15*time.Minute
		channel(&g.Resources.Channels, "orders", 3)
		channel(&g.Patterns.Channels, "^a<b&c$", 1)
		return g
	}
	checkout := &cache.Record{
		Name: "checkout", Grant: grant("checkout"), Source: cache.FromFile, Generation: 7,
		Current:     &cache.Token{Generation: 7, Raw: "p0F2AkF0GqAAAAone", Issued: now.Add(-5 * time.Minute), TTL: 15 * time.Minute},
		Superseded:  []cache.Token{{Generation: 6, Raw: "p0F2AkF0GqAAAAtwo", Issued: now.Add(-14 * time.Minute), TTL: 15 * time.Minute}},
		LastAttempt: now.Add(-5 * time.Minute), LastSuccess: now.Add(-5 * time.Minute),
		NextAttempt: now.Add(3*time.Minute + 1234567*time.Nanosecond),
		Events:      []cache.Event{{At: now.Add(-5 * time.Minute), Text: "granted generation 7"}},
	}
	failing := &cache.Record{
		Name: "a/b ü", Grant: grant("a/b ü"), Source: cache.FromAdmin, Generation: 3, Attempts: 2,
		Current:     &cache.Token{Generation: 3, Raw: "p0F2AkF0GqAAAAthree", Issued: now.Add(-time.Minute), TTL: 15 * time.Minute},
		Failure:     &cache.Failure{At: now.Add(-time.Second), Reason: "Access Manager: 403 Invalid signature: check the secret key"},
		NextAttempt: now.Add(time.Minute), UnaccountedUntil: now.Add(9 * time.Minute),
		Withdrawn: []cache.Withdrawal{
			{Token: cache.Token{Generation: 1, Issued: now.Add(-time.Hour), TTL: 15 * time.Minute}, ID: "0b0b0b0b", Reason: "laptop stolen",
				Since: now.Add(-time.Hour), Phase: cache.Confirmed, Closed: now.Add(-59 * time.Minute), Attempts: 1},
			{Token: cache.Token{Generation: 2, Raw: "p0F2AkF0GqAAAAfour", Issued: now.Add(-5 * time.Minute), TTL: 15 * time.Minute}, ID: "1c1c1c1c",
				Reason: "replaced by a narrower grant", Since: now.Add(-time.Minute), Phase: cache.Waiting, Attempts: 1,
				Next: now.Add(4 * time.Second), Failure: "Access Manager: 500"},
		},
	}
	blocked := &cache.Record{
		Name: "mallory", Grant: grant("mallory"), Source: cache.FromFile, Generation: 2,
		Block:            &cache.Block{Decision: 12, Reason: "account closed", Since: now.Add(-time.Hour)},
		UnaccountedUntil: now.Add(-time.Minute),
	}
	ruled := &cache.Record{Name: "temp-1", Grant: grant("temp-1"), Source: cache.FromFile, NextAttempt: now}
	removed := &cache.Record{Name: "old", Generation: 4, EndedAt: now.Add(-time.Hour)}
	f := &fakeRecords{
		records: map[string]*cache.Record{},
		rules: map[string]*cache.Rule{
			"temp-1": {ID: 14, Match: "temp-.*", Reason: "temporary accounts are over", Since: now.Add(-time.Hour)},
		},
	}
	for _, r := range []*cache.Record{checkout, failing, blocked, ruled, removed} {
		f.records[r.Name] = r
	}
	return f
}

// bench is a handler with its fakes.
type bench struct {
	*testing.T
	records   *fakeRecords
	lifecycle *fakeLifecycle
	config    Config
	log       *bytes.Buffer
}

func newBench(t *testing.T) *bench {
	b := &bench{T: t, records: someRecords(), log: &bytes.Buffer{}}
	b.lifecycle = &fakeLifecycle{records: b.records}
	b.config = Config{
		Records: b.records, Lifecycle: b.lifecycle, Now: func() time.Time { return now }, ParseGrant: parseGrant,
		Info: func() Info {
			return Info{Version: "1.2.3", Origin: "https://ps.pndsn.com", StartedAt: now.Add(-time.Hour)}
		},
		Log: slog.New(slog.NewJSONHandler(b.log, nil)),
	}
	return b
}

// newRequest builds a request as the server would hand it over.
func newRequest(method, path, body string) *http.Request {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

// serve answers a request and checks what holds for every answer.
func (b *bench) serve(r *http.Request) *httptest.ResponseRecorder {
	b.Helper()
	w := httptest.NewRecorder()
	NewHandler(b.config).ServeHTTP(w, r)
	for _, token := range tokens {
		if strings.Contains(w.Body.String(), token) || strings.Contains(b.log.String(), token) {
			b.Fatalf("%s %s: a token is in the answer or in the log", r.Method, r.URL)
		}
	}
	want := MediaJSON
	if w.Code >= 400 {
		want = MediaProblem
	}
	if got := w.Header().Get("Content-Type"); got != want {
		b.Errorf("%s %s: status %d with Content-Type %q", r.Method, r.URL, w.Code, got)
	}
	if w.Header().Get("Cache-Control") != "no-store" {
		b.Errorf("%s %s: the answer may be cached", r.Method, r.URL)
	}
	return w
}

// into decodes an answer strictly.
func (b *bench) into(w *httptest.ResponseRecorder, v any) {
	b.Helper()
	dec := json.NewDecoder(bytes.NewReader(w.Body.Bytes()))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		b.Fatalf("decode %s: %v", w.Body, err)
	}
}
