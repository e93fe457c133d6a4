package socket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/client"
)

// noon is when the tests without a running clock happen.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 500_000_000, time.UTC)

var testKeyset = client.Keyset{PublishKey: "pub-c-1", SubscribeKey: "sub-c-1", Origin: "https://ps.pndsn.com"}

// memory is a store that keeps rows in a map and never refuses.
type memory struct {
	mu   sync.Mutex
	rows map[string]cache.Row
}

func (m *memory) Get(name string) (cache.Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	row, ok := m.rows[name]
	if !ok {
		return cache.Row{}, cache.ErrNotFound
	}
	return row, nil
}

func (m *memory) Scan(after string, limit int) ([]cache.Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var rows []cache.Row
	for name, row := range m.rows {
		if name > after {
			rows = append(rows, row)
		}
	}
	slices.SortFunc(rows, func(a, b cache.Row) int { return strings.Compare(a.Name, b.Name) })
	return rows[:min(limit, len(rows))], nil
}

func (m *memory) Due(time.Time, int) ([]cache.Row, error) { return nil, nil }

func (m *memory) Commit(_ context.Context, rows []cache.Row) []error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, row := range rows {
		row.Revision++
		m.rows[row.Name] = row
	}
	return make([]error, len(rows))
}

func (m *memory) Close() error { return nil }

// world is a cache that tests fill, with the handler in front of it.
type world struct {
	t     testing.TB
	cache *cache.Cache
	cfg   Config
}

func newWorld(t testing.TB, now func() time.Time) *world {
	t.Helper()
	c, err := cache.Open(&memory{rows: map[string]cache.Row{}}, t.TempDir(), cache.Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &world{t, c, Config{Reader: c, Now: now, Keyset: testKeyset}}
}

func atNoon() time.Time { return noon }

// set changes the record of a name, which is made if it is not there yet.
func (w *world) set(name string, change func(r *cache.Record)) {
	w.t.Helper()
	r, err := w.cache.Record(name)
	if errors.Is(err, cache.ErrUnknown) {
		r = cache.NewRecord(name)
		r.Source = cache.FromFile
		g := cache.Grant{Name: name}
		g.UUID, g.TTL = name, 15*time.Minute
		r.Grant = &g
	} else if err != nil {
		w.t.Fatal(err)
	}
	change(r)
	if err := w.cache.Stage(r); err != nil {
		w.t.Fatal(err)
	}
}

// give gives a name its next token, issued at a time.
func (w *world) give(name string, issued time.Time) {
	w.t.Helper()
	w.set(name, func(r *cache.Record) { giveToken(r, issued) })
}

func giveToken(r *cache.Record, issued time.Time) {
	r.Generation++
	token := cache.Token{Generation: r.Generation, Issued: issued.Truncate(time.Second), TTL: r.Grant.TTL}
	token.Raw = "token-of-" + "test"
	r.Current, r.Failure = &token, nil
	r.NextAttempt = token.Issued.Add(8*time.Minute + 123*time.Millisecond)
}

// fill makes one name of each kind, as of noon.
func (w *world) fill() *world {
	w.t.Helper()
	issued := noon.Add(-time.Minute)
	w.give("fresh", issued)
	w.give("a/watch", issued)
	w.set("unbound", func(r *cache.Record) {
		r.Grant.UUID, r.Grant.AnyUUID, r.Grant.Loopback = "", true, true
		giveToken(r, issued)
		r.NextAttempt = time.Time{}
	})
	w.set("failing", func(r *cache.Record) {
		giveToken(r, issued)
		r.Failure = &cache.Failure{At: noon, Reason: "Access Manager: 503"}
	})
	w.set("pending", func(r *cache.Record) {
		r.NextAttempt = noon.Add(30 * time.Second)
		r.Failure = &cache.Failure{At: noon, Reason: "Access Manager: 403 Invalid signature: check the secret key"}
	})
	w.set("expired", func(r *cache.Record) {
		giveToken(r, noon.Add(-time.Hour))
		r.NextAttempt = noon.Add(90*time.Second + time.Millisecond)
	})
	w.set("blocked", func(r *cache.Record) {
		giveToken(r, issued)
		r.Current = nil
		r.Block = &cache.Block{Reason: "laptop stolen", Since: noon}
	})
	w.set("ended", func(r *cache.Record) {
		giveToken(r, issued)
		r.EndedAt = noon
	})
	return w
}

// ask sends a request to a handler of the world's configuration. header has pairs.
func (w *world) ask(method, uri string, header ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	return ask(NewHandler(w.cfg), method, uri, header...)
}

func ask(h http.Handler, method, uri string, header ...string) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, request(method, uri, header...))
	return rec
}

// request is a request as the server hands it over: with the target as it was sent.
func request(method, uri string, header ...string) *http.Request {
	r := httptest.NewRequest(method, "/", nil)
	r.RequestURI = uri
	r.RemoteAddr, r.Host = "127.0.0.1:4242", "127.0.0.1:7070"
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

// decode reads a body strictly: unknown fields and trailing data are faults.
func decode[T any](t testing.TB, body []byte) T {
	t.Helper()
	var v T
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("decode %s: %v", body, err)
	}
	if d.More() {
		t.Fatalf("more than one document: %s", body)
	}
	return v
}

func problemOf(t testing.TB, rec *httptest.ResponseRecorder) client.Problem {
	t.Helper()
	if got := rec.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("content type %q of %s", got, rec.Body)
	}
	if got := rec.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control of a problem is %q", got)
	}
	p := decode[client.Problem](t, rec.Body.Bytes())
	if p.Status != rec.Code || p.Title != http.StatusText(rec.Code) || p.Detail == "" {
		t.Errorf("problem %+v in an answer with status %d", p, rec.Code)
	}
	return p
}
