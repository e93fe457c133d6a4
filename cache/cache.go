package cache

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Errors of the cache.
var (
	// ErrUnknown: nothing is kept under that name.
	ErrUnknown = errors.New("unknown name")
	// ErrDegraded is wrapped when the disk refused a write: the change holds in
	// memory and is written again by Flush.
	ErrDegraded = errors.New("the disk refuses")
	// ErrNotBlocked: the name has no block to lift.
	ErrNotBlocked = errors.New("not blocked")
	// ErrInFile: the configuration file has this name, so only it can change it.
	ErrInFile = errors.New("the configuration file has this name")
)

// Cache is the durable truth about each name with a view of it in memory. It is
// safe for concurrent use; see the package comment for who writes.
type Cache struct {
	store   Store
	journal *journal
	now     func() time.Time
	log     *slog.Logger

	mu       sync.RWMutex
	views    map[string]*block
	dirty    map[string]*Record // memory is ahead of the disk
	salvaged map[string]*Record // made anew for a row that cannot be read
	waiters  map[string]*waiter
	deletes  uint64 // rows deleted so far, for a look-up that races with one
	changes  uint64 // source of version.memory

	rules          atomic.Pointer[[]*Rule]
	storeRefuses   refusal
	journalRefuses refusal

	commits committer

	lostDatabase bool      // tokens may be out there that nobody holds
	doubtful     time.Time // grants due until then may have been in flight at a crash

	decideMu sync.Mutex // decisions are applied one after another
	flushMu  sync.Mutex // one Flush at a time
	lineMu   sync.Mutex // one writer of journal lines at a time

	journalMu    sync.Mutex
	nextSeq      uint64
	unwritten    []Decision // decisions that have no line yet
	written      uint64     // decisions up to here have their lines
	applied      uint64     // decisions up to here are staged or stored
	appliedRules []Rule     // the block rules after that decision

	metaWrite    sync.Mutex // one writer of the meta row at a time
	metaRevision uint64

	metaMu      sync.Mutex // never held during a write: readers may wait for it
	meta        meta
	metaChanges uint64 // changes in memory
	metaSaved   uint64 // of them on disk
}

type waiter struct {
	ch   chan struct{}
	refs int
}

// View returns the view of a name. The first call for a name may look up one
// record in the store, later ones touch memory only.
func (c *Cache) View(name string) (View, error) {
	c.mu.RLock()
	b := c.views[name]
	c.mu.RUnlock()
	if b == nil {
		var err error
		if b, err = c.lookUp(name); err != nil {
			return View{}, err
		}
	}
	return c.ruled(View{b}), nil
}

// ruled blocks a view that a rule matches.
func (c *Cache) ruled(v View) View {
	if v.b.blocked {
		return v
	}
	if rule := c.RuleFor(v.b.name); rule != nil {
		return v.underRule(rule)
	}
	return v
}

func (c *Cache) lookUp(name string) (*block, error) {
	if ValidName(name) != nil {
		return nil, fmt.Errorf("%q: %w", name, ErrUnknown)
	}
	for {
		deletes := c.deleted()
		r, err := c.read(name)
		if err != nil {
			return nil, err
		}
		if r.Lost && r.Block == nil {
			return nil, fmt.Errorf("%q: %w", name, ErrRecord)
		}
		c.mu.Lock()
		b := c.views[name]
		if b == nil && deletes == c.deletes {
			b = newBlock(r)
			c.views[name] = b
		}
		c.mu.Unlock()
		if b != nil {
			return b, nil
		}
	}
}

// read fetches a record from the store alone.
func (c *Cache) read(name string) (*Record, error) {
	deletes := c.deleted()
	row, err := c.store.Get(name)
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("%q: %w", name, ErrUnknown)
	}
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", name, err)
	}
	return c.decode(row, deletes), nil
}

// deleted is how many rows have been deleted; it is asked before a row is read.
func (c *Cache) deleted() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.deletes
}

// inFlight is how long after its timestamp the service may still take a request
// (PubNub REST docs, grant token).
const inFlight = time.Minute

// decode turns a row into a record. A grant that was due when the last process
// died may have been in flight: then a token may exist that nobody holds. A row
// that cannot be decoded costs this name alone: see salvage.
func (c *Cache) decode(row Row, deletes uint64) *Record {
	r, err := decodeRecord(row.Name, row.Data)
	if err != nil {
		return c.salvage(row, err)
	}
	r.version = c.versionOf(row, deletes)
	if r.Grant != nil && !r.NextAttempt.IsZero() && !r.NextAttempt.After(c.doubtful) {
		if until := c.doubtful.Add(r.Grant.TTL + inFlight); until.After(r.UnaccountedUntil) {
			r.UnaccountedUntil = until
		}
	}
	return r
}

// versionOf tells the state that a row holds: the one that readers see, if that
// is what the row has.
func (c *Cache) versionOf(row Row, deletes uint64) version {
	c.mu.RLock()
	defer c.mu.RUnlock()
	b := c.views[row.Name]
	if b != nil && c.dirty[row.Name] == nil && c.deletes == deletes && b.version.disk == row.Revision {
		return b.version
	}
	return version{disk: row.Revision, deletes: deletes}
}

// Record returns the caller's copy of a name's record, ErrUnknown if there is
// none. A record that cannot be read any more costs this name alone: it comes
// back Lost, with its block and with a generation that was never used.
func (c *Cache) Record(name string) (*Record, error) {
	if r := c.dirtyRecord(name); r != nil {
		return r.Clone(), nil
	}
	if ValidName(name) != nil {
		return nil, fmt.Errorf("%q: %w", name, ErrUnknown)
	}
	return c.read(name)
}

// Changed returns a channel that is closed at the next change of the name's view
// and a function that must be called when the channel is of no more interest.
func (c *Cache) Changed(name string) (<-chan struct{}, func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.waiters[name]
	if w == nil {
		w = &waiter{ch: make(chan struct{})}
		c.waiters[name] = w
	}
	w.refs++
	return w.ch, sync.OnceFunc(func() { c.release(name, w) })
}

func (c *Cache) release(name string, w *waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.refs--
	if w.refs == 0 && c.waiters[name] == w {
		delete(c.waiters, name)
	}
}

// Waited reports whether a reader waits for a change of the name.
func (c *Cache) Waited(name string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.waiters[name] != nil
}

// wakeLocked tells those who wait for name to look again. c.mu is held.
func (c *Cache) wakeLocked(name string) {
	if w := c.waiters[name]; w != nil {
		close(w.ch)
		delete(c.waiters, name)
	}
}

// wakeAll tells everybody who waits to look again.
func (c *Cache) wakeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.waiters {
		c.wakeLocked(name)
	}
}
