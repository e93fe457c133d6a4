package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam"
)

// noon is server time in these tests, where they do not move it.
var noon = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

var identity = cache.Identity{SubscribeKey: "sub-c-1", Origin: "https://ps.pndsn.com"}

var errDisk = errors.New("no space left on device")

// world is a cache over a real state directory, in a bubble of virtual time in
// which no commit waits for another.
type world struct {
	t           *testing.T
	dir         string
	now         time.Time
	identity    cache.Identity
	quarantined string
	bolt        *cache.Bolt
	store       *probe
	cache       *cache.Cache
	logs        *bytes.Buffer
}

// inWorld runs a test in a bubble, over a new state directory.
func inWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, dir: t.TempDir(), now: noon, identity: identity, logs: &bytes.Buffer{}}
		w.open()
		test(w)
	})
}

// tryOpen opens the state as it is on disk.
func (w *world) tryOpen() error {
	w.t.Helper()
	bolt, err := cache.OpenBolt(filepath.Join(w.dir, "tokens.db"), cache.BoltOptions{NoSync: true})
	mustDo(w.t, err)
	w.t.Cleanup(func() { bolt.Close() })
	w.bolt, w.store = bolt, &probe{Store: bolt}
	if w.quarantined == "" {
		w.quarantined = bolt.Quarantined()
	}
	w.cache, err = cache.Open(w.store, w.dir, cache.Options{
		Identity: w.identity, Now: func() time.Time { return w.now }, Quarantined: w.quarantined,
		Log: slog.New(slog.NewTextHandler(w.logs, nil)),
	})
	return err
}

func (w *world) open() {
	w.t.Helper()
	mustDo(w.t, w.tryOpen())
}

// crash ends the process without a word; what is on disk stays.
func (w *world) crash() {
	w.t.Helper()
	mustDo(w.t, w.bolt.Close())
}

// reopen is a crash and a start.
func (w *world) reopen() {
	w.t.Helper()
	w.crash()
	w.open()
}

// stop and start again in order.
func (w *world) restart() {
	w.t.Helper()
	mustDo(w.t, w.cache.Close())
	w.open()
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// copyState copies the files of the state as they are now to a new directory and
// returns a world there, not yet opened.
func (w *world) copyState(files ...string) *world {
	w.t.Helper()
	if len(files) == 0 {
		files = []string{"tokens.db", "audit.log"}
	}
	other := &world{t: w.t, dir: w.t.TempDir(), now: w.now, identity: w.identity, logs: &bytes.Buffer{}}
	for _, name := range files {
		data, err := os.ReadFile(w.path(name))
		mustDo(w.t, err)
		mustDo(w.t, os.WriteFile(other.path(name), data, 0o600))
	}
	return other
}

// put commits a record with a grant, and with a token of that generation unless
// it is 0. The grant is due in an hour.
func (w *world) put(name string, generation uint64) {
	w.t.Helper()
	r := w.recordOrNew(name)
	g := grantOf(name)
	r.Grant, r.Source, r.Generation, r.NextAttempt = &g, cache.FromFile, generation, w.now.Add(time.Hour)
	if generation > 0 {
		r.Current = new(w.token(name, generation))
	}
	mustDo(w.t, w.cache.Commit(context.Background(), r)[0])
}

// token is a token of a name that lives for another 10 minutes.
func (w *world) token(name string, generation uint64) cache.Token {
	return cache.Token{Generation: generation, Raw: pam.Secret(fmt.Sprintf("token.%s.%d", name, generation)), Issued: w.now, TTL: 10 * time.Minute}
}

func grantOf(name string) cache.Grant {
	return cache.Grant{Name: name, Grant: pam.Grant{
		TTL: 10 * time.Minute, UUID: "uuid-" + name, Resources: pam.Permissions{Channels: map[string]pam.Permission{"c": pam.Read}},
	}}
}

func (w *world) recordOrNew(name string) *cache.Record {
	w.t.Helper()
	r, err := w.cache.Record(name)
	if errors.Is(err, cache.ErrUnknown) {
		return cache.NewRecord(name)
	}
	mustDo(w.t, err)
	return r
}

func (w *world) record(name string) *cache.Record {
	w.t.Helper()
	r, err := w.cache.Record(name)
	mustDo(w.t, err)
	return r
}

// decide makes a decision durable.
func (w *world) decide(d cache.Decision) cache.Outcome {
	w.t.Helper()
	out, err := w.cache.Decide(d)
	mustDo(w.t, err)
	mustDo(w.t, w.cache.Flush())
	return out
}

func (w *world) block(names ...string) cache.Outcome {
	w.t.Helper()
	return w.decide(cache.Decision{Action: cache.ActRevoke, Names: names, Reason: "stolen"})
}

// wantState fails unless readers get exactly that; "unknown" is a state here. It
// also fails if a reader gets a token without a live state.
func (w *world) wantState(name string, want cache.State) {
	w.t.Helper()
	got, token := w.state(name)
	if got != want {
		w.t.Errorf("%s is %s (token %q), want %s", name, got, token.Reveal(), want)
	}
}

func (w *world) state(name string) (cache.State, pam.Secret) {
	w.t.Helper()
	v, err := w.cache.View(name)
	if errors.Is(err, cache.ErrUnknown) {
		return "unknown", ""
	}
	mustDo(w.t, err)
	s := v.State(w.now)
	if !s.Live() {
		return s, ""
	}
	return s, v.Token()
}

// wantRow fails unless the database has the name or has it not.
func (w *world) wantRow(name string, want bool) {
	w.t.Helper()
	_, err := w.bolt.Get(name)
	if want != (err == nil) || (err != nil && !errors.Is(err, cache.ErrNotFound)) {
		w.t.Errorf("row %q is there: %v, want %v", name, err == nil, want)
	}
}

func (w *world) logged(text string) bool { return strings.Contains(w.logs.String(), text) }

// refuseJournal makes every write of the journal fail, or none.
func (w *world) refuseJournal(yes bool) {
	cache.WrapJournal(w.cache, func(f cache.JournalFile) cache.JournalFile {
		if broken, ok := f.(brokenJournal); ok {
			f = broken.JournalFile
		}
		if yes {
			f = brokenJournal{f}
		}
		return f
	})
}

type brokenJournal struct{ cache.JournalFile }

func (brokenJournal) Write([]byte) (int, error) { return 0, errDisk }

func mustDo(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// probe is a store that tells what is done with it, and fails and waits on demand.
type probe struct {
	cache.Store

	mu      sync.Mutex
	gets    int
	commits [][]string
	before  func(names []string) error // of a commit: an error refuses it
	after   func(names []string)       // when it is on disk and has not returned
	got     func(name string)          // when a row was read and Get has not returned
}

func (p *probe) Get(name string) (cache.Row, error) {
	p.mu.Lock()
	p.gets++
	got := p.got
	p.mu.Unlock()
	row, err := p.Store.Get(name)
	if got != nil {
		got(name)
	}
	return row, err
}

func (p *probe) Commit(ctx context.Context, rows []cache.Row) []error {
	var names []string
	for _, row := range rows {
		names = append(names, row.Name)
	}
	p.mu.Lock()
	p.commits = append(p.commits, names)
	before, after := p.before, p.after
	p.mu.Unlock()
	if before != nil {
		if err := before(names); err != nil {
			return slices.Repeat([]error{err}, len(rows))
		}
	}
	errs := p.Store.Commit(ctx, rows)
	if after != nil {
		after(names)
	}
	return errs
}

// hook sets what happens around commits.
func (p *probe) hook(before func([]string) error, after func([]string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before, p.after = before, after
}

// refuse makes every commit fail, or none.
func (p *probe) refuse(yes bool) {
	if yes {
		p.hook(func([]string) error { return errDisk }, nil)
		return
	}
	p.hook(nil, nil)
}

// taken returns the names in each commit so far, sorted, and forgets them.
func (p *probe) taken() [][]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	commits := p.commits
	p.commits = nil
	for _, names := range commits {
		slices.Sort(names)
	}
	return commits
}

func (p *probe) countGets() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gets
}
