package cache

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
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

// Options of Open.
type Options struct {
	// Identity the state must belong to; a new state takes it.
	Identity Identity
	// Now is server time. It is called often and must be fast.
	Now func() time.Time
	// Measured, when set, is called once with the clock offset that the state has
	// kept, before Now is used.
	Measured func(offset time.Duration)
	// Quarantined is where a damaged database was moved, empty if none was: its
	// blocks then have to come from the journal.
	Quarantined string
	// Log; nil discards.
	Log *slog.Logger
}

// Cache is the durable truth about each name with a view of it in memory. It is
// safe for concurrent use; see the package comment for who writes.
type Cache struct {
	store   Store
	journal *journal
	now     func() time.Time
	log     *slog.Logger

	mu      sync.RWMutex
	views   map[string]*block
	dirty   map[string]*Record // memory is ahead of the disk
	waiters map[string]*waiter
	deletes uint64 // rows deleted so far, for a look-up that races with one
	changes uint64 // source of version.memory

	rules   atomic.Pointer[[]*Rule]
	refused atomic.Pointer[error]

	commits committer

	lostDatabase bool // tokens may be out there that nobody holds

	decideMu  sync.Mutex
	flushMu   sync.Mutex
	journalMu sync.Mutex
	nextSeq   uint64
	unwritten []Decision // decisions that hold in memory and have no line yet
	applied   uint64     // highest decision whose changes are staged or stored

	metaMu       sync.Mutex
	meta         meta
	metaRevision uint64
	metaStale    bool
}

type waiter struct {
	ch   chan struct{}
	refs int
}

// Open opens the truth kept in store and the journal audit.log in dir, and
// replays the decisions that the store does not have yet. The cache owns the
// store from then on, also when Open fails.
func Open(store Store, dir string, o Options) (*Cache, error) {
	c := &Cache{
		store: store, now: o.Now, log: o.Log,
		views: map[string]*block{}, dirty: map[string]*Record{}, waiters: map[string]*waiter{},
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.commits.write = c.writeBatch
	if err := c.open(dir, o); err != nil {
		store.Close()
		if c.journal != nil {
			c.journal.close()
		}
		return nil, err
	}
	return c, nil
}

func (c *Cache) open(dir string, o Options) error {
	m, revision, had, err := readMeta(c.store)
	if err != nil && !errors.Is(err, ErrRecord) {
		return err
	}
	if had && m.Identity != o.Identity {
		return &OtherIdentityError{m.Identity, o.Identity}
	}
	if err != nil {
		c.log.Error("the store's own record is damaged and is made anew", "error", err)
	}
	path := filepath.Join(dir, "audit.log")
	hadJournal, err := fileExists(path)
	if err != nil {
		return fmt.Errorf("look for the journal: %w", err)
	}
	c.meta, c.metaRevision = m, revision
	if m.OffsetKnown && o.Measured != nil {
		o.Measured(time.Duration(m.Offset))
	}
	c.setRules(m.Rules)
	var found journalState
	if c.journal, found, err = openJournal(path, m.Applied); err != nil {
		return err
	}
	c.reportJournal(found, had)
	c.nextSeq = max(found.lastSeq, m.Applied) + 1
	c.applied = m.Applied
	c.lostDatabase = !had && (found.lines > 0 || o.Quarantined != "")
	lost := !had && (len(found.damaged) > 0 || (o.Quarantined != "" && !hadJournal))
	if err := c.begin(o, lost); err != nil {
		return err
	}
	if err := c.replay(found.after); err != nil {
		return err
	}
	if !hadJournal || found.lines == 0 {
		return c.beginJournal(path)
	}
	return nil
}

// begin marks the store as in use and counts a start after an unclean stop.
func (c *Cache) begin(o Options, lost bool) error {
	return c.updateMeta(func(m *meta) {
		m.Format, m.Identity = metaFormat, o.Identity
		if m.Running {
			m.Unclean++
			m.Doubtful = instantOf(c.now())
		}
		m.Running = true
		if lost {
			m.LostBlocks = true
		}
	})
}

func (c *Cache) reportJournal(found journalState, hadDatabase bool) {
	if found.tornTail {
		c.log.Warn("journal: an incomplete last line, never acknowledged, was cut off", "path", c.journal.path)
	}
	if len(found.damaged) > 0 {
		c.log.Error("journal: unreadable lines", "path", c.journal.path, "lines", found.damaged)
	}
	if !hadDatabase && found.lines > 0 {
		c.log.Warn("journal without a database: decisions are applied again", "path", c.journal.path, "decisions", found.lines)
	}
}

// Close writes what is still only in memory, marks the stop as clean and closes
// the store and the journal.
func (c *Cache) Close() error {
	err := c.Flush()
	if err == nil {
		err = c.updateMeta(func(m *meta) { m.Running, m.Unclean = false, 0 })
	}
	return errors.Join(err, c.journal.close(), c.store.Close())
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
		c.mu.RLock()
		deletes := c.deletes
		c.mu.RUnlock()
		r, err := c.read(name)
		if err != nil {
			return nil, err
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
	row, err := c.store.Get(name)
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("%q: %w", name, ErrUnknown)
	}
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", name, err)
	}
	return c.decode(row)
}

// decode turns a row into a record. A grant that was due when the last process
// died may have been in flight: then a token may exist that nobody holds.
func (c *Cache) decode(row Row) (*Record, error) {
	r, err := decodeRecord(row.Name, row.Data)
	if err != nil {
		return nil, err
	}
	r.version = c.versionOf(row)
	doubtful := c.doubtful()
	if !r.Removed() && c.RuleFor(r.Name) == nil && !r.NextAttempt.IsZero() && !r.NextAttempt.After(doubtful) {
		if until := doubtful.Add(r.Grant.TTL); until.After(r.UnaccountedUntil) {
			r.UnaccountedUntil = until
		}
	}
	return r, nil
}

// versionOf is the version of the state in a row: the one it was staged with, if
// it came to the disk that way.
func (c *Cache) versionOf(row Row) version {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if b := c.views[row.Name]; b != nil && b.version.disk == row.Revision && c.dirty[row.Name] == nil {
		return b.version
	}
	return version{disk: row.Revision}
}

func (c *Cache) doubtful() time.Time {
	c.metaMu.Lock()
	defer c.metaMu.Unlock()
	return c.meta.Doubtful.time()
}

// Record returns the caller's copy of a name's record, ErrUnknown if there is
// none. A record that cannot be read any more costs this name alone: it comes
// back empty but for its block, with a generation that was never used.
func (c *Cache) Record(name string) (*Record, error) {
	c.mu.RLock()
	r := c.dirty[name]
	c.mu.RUnlock()
	if r != nil {
		return r.Clone(), nil
	}
	if ValidName(name) != nil {
		return nil, fmt.Errorf("%q: %w", name, ErrUnknown)
	}
	r, err := c.read(name)
	if errors.Is(err, ErrRecord) {
		return c.salvage(name, err)
	}
	return r, err
}

// salvage makes the record that stands for one that cannot be decoded.
func (c *Cache) salvage(name string, cause error) (*Record, error) {
	row, err := c.store.Get(name)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", name, err)
	}
	c.log.Error("record cannot be read and is made anew", "name", name, "error", cause)
	// Each generation took at least one commit, so the revision is above them all.
	r := &Record{Name: name, Generation: row.Revision, Lost: true, version: version{disk: row.Revision}}
	r.Block, err = c.blockFromJournal(name)
	return r, err
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
	return w.ch, func() { c.release(name, w) }
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

// wake tells those who wait for name to look again. c.mu is held.
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

// Due returns records whose work is due at now, earliest first, at most limit
// but for those that memory is ahead with, and the moment at which the next one
// is due (zero: none; now itself when limit cut the list).
func (c *Cache) Due(now time.Time, limit int) ([]*Record, time.Time, error) {
	ahead := c.dirtyRecords()
	rows, err := c.store.Due(now, limit+len(ahead))
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read due names: %w", err)
	}
	due := make([]*Record, 0, len(rows))
	var next time.Time
	for _, row := range rows {
		if ahead[row.Name] != nil {
			continue
		}
		r, err := c.decode(row)
		if errors.Is(err, ErrRecord) {
			r, err = c.salvage(row.Name, err)
		}
		if err != nil {
			return nil, time.Time{}, err
		}
		due = append(due, r)
	}
	for _, r := range ahead {
		if d := r.Due(c.RuleFor(r.Name) != nil); !d.IsZero() && !d.After(now) {
			due = append(due, r.Clone())
		} else if !d.IsZero() && (next.IsZero() || d.Before(next)) {
			next = d
		}
	}
	if len(rows) >= limit {
		return due, now, nil
	}
	if after, err := c.nextDue(now, len(rows)); err == nil && !after.IsZero() && (next.IsZero() || after.Before(next)) {
		next = after
	}
	return due, next, nil
}

// nextDue is the first due time in the store behind the n rows due at now.
func (c *Cache) nextDue(now time.Time, n int) (time.Time, error) {
	rows, err := c.store.Due(now.Add(100*365*24*time.Hour), n+1)
	if err != nil || len(rows) <= n {
		return time.Time{}, err
	}
	return rows[n].Due, nil
}

func (c *Cache) dirtyRecords() map[string]*Record {
	c.mu.RLock()
	defer c.mu.RUnlock()
	ahead := make(map[string]*Record, len(c.dirty))
	for name, r := range c.dirty {
		ahead[name] = r
	}
	return ahead
}

// List returns up to limit views of names after the given one, in byte order.
func (c *Cache) List(after string, limit int) ([]View, error) {
	recs, err := c.page(after, limit)
	if err != nil {
		return nil, err
	}
	views := make([]View, len(recs))
	for i, r := range recs {
		views[i] = c.ruled(View{newBlock(r)})
	}
	return views, nil
}

// page returns up to limit records after a name, in byte order, with what memory
// is ahead with.
func (c *Cache) page(after string, limit int) ([]*Record, error) {
	// The cache's own rows come first in the order.
	if after == "" {
		after = "\x00\xff"
	}
	rows, err := c.store.Scan(after, limit)
	if err != nil {
		return nil, fmt.Errorf("list names: %w", err)
	}
	ahead := c.dirtyRecords()
	last, whole := "", len(rows) < limit
	recs := make([]*Record, 0, len(rows))
	for _, row := range rows {
		last = row.Name
		if ahead[row.Name] != nil {
			continue
		}
		r, err := c.decode(row)
		if errors.Is(err, ErrRecord) {
			r, err = c.salvage(row.Name, err)
		}
		if err != nil {
			return nil, err
		}
		recs = append(recs, r)
	}
	for name, r := range ahead {
		if name > after && (whole || name <= last) {
			recs = append(recs, r.Clone())
		}
	}
	slices.SortFunc(recs, func(a, b *Record) int { return strings.Compare(a.Name, b.Name) })
	return recs[:min(limit, len(recs))], nil
}

// Records returns the records a query selects and the cursor for the next page,
// empty at the end.
func (c *Cache) Records(q Query, now time.Time) ([]*Record, string, error) {
	limit := q.Limit
	if limit <= 0 {
		limit = 100
	}
	after := q.After
	if q.Prefix != "" {
		after = max(after, before(q.Prefix))
	}
	var found []*Record
	for {
		recs, err := c.page(after, 500)
		if err != nil {
			return nil, "", err
		}
		for _, r := range recs {
			after = r.Name
			if !strings.HasPrefix(r.Name, q.Prefix) {
				if r.Name > q.Prefix {
					return found, "", nil
				}
				continue
			}
			if q.State != "" && c.StateOf(r, now) != q.State {
				continue
			}
			if len(found) == limit {
				return found, found[limit-1].Name, nil
			}
			found = append(found, r)
		}
		if len(recs) < 500 {
			return found, "", nil
		}
	}
}

// before is a key between every name below the prefix and every name with it:
// names are UTF-8 without control characters, so no name has the byte 0xff.
func before(prefix string) string {
	b := []byte(prefix)
	b[len(b)-1]--
	return string(b) + "\xff"
}

// StateOf is what a reader of the record's name gets at now, rules included.
func (c *Cache) StateOf(r *Record, now time.Time) State {
	if c.RuleFor(r.Name) != nil {
		return Blocked
	}
	return r.State(now)
}

// Degraded is why the disk refuses to take writes, nil while it takes them.
func (c *Cache) Degraded() error {
	if err := c.refused.Load(); err != nil {
		return *err
	}
	return nil
}
