package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// commitInterval is how long the next commit waits after one, so that what
// arrives meanwhile shares its sync to disk.
const commitInterval = 50 * time.Millisecond

// committer gathers rows of concurrent callers into one transaction. It has no
// goroutine: the first caller writes for all who came before it began, and hands
// the lead to the first who came later.
type committer struct {
	mu      sync.Mutex
	queue   []*batch
	leading bool
	last    time.Time
	write   func([]*Record) []error
}

type batch struct {
	recs []*Record
	errs []error
	done chan struct{}
	lead chan struct{} // closed when this batch's caller is to write
}

func (c *committer) commit(recs []*Record) []error {
	b := &batch{recs: recs, done: make(chan struct{}), lead: make(chan struct{})}
	c.mu.Lock()
	c.queue = append(c.queue, b)
	if !c.leading {
		c.leading = true
		close(b.lead)
	}
	c.mu.Unlock()
	select {
	case <-b.done:
	case <-b.lead:
		c.writeQueue()
	}
	return b.errs
}

// writeQueue writes all that is queued, the caller's batch among it, and hands
// the lead on.
func (c *committer) writeQueue() {
	c.mu.Lock()
	wait := time.Until(c.last.Add(commitInterval))
	c.mu.Unlock()
	if wait > 0 {
		time.Sleep(wait)
	}
	c.mu.Lock()
	batches := c.queue
	c.queue = nil
	c.mu.Unlock()

	var recs []*Record
	for _, b := range batches {
		recs = append(recs, b.recs...)
	}
	errs := c.write(recs)
	for _, b := range batches {
		b.errs, errs = errs[:len(b.recs)], errs[len(b.recs):]
		close(b.done)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = time.Now()
	if len(c.queue) > 0 {
		close(c.queue[0].lead)
		return
	}
	c.leading = false
}

// Commit stores changed records and then publishes them. Each is compared with
// the present state of its name: ErrConflict means that the name has moved on
// since the record was loaded and nothing of it was published. An error that
// wraps ErrDegraded means that the disk refused: the record is published all the
// same and Flush writes it later. A record for which nothing is worth keeping is
// deleted. One error for each record, nil when it is on disk.
func (c *Cache) Commit(ctx context.Context, recs ...*Record) []error {
	if err := ctx.Err(); err != nil {
		errs := make([]error, len(recs))
		for i := range errs {
			errs[i] = fmt.Errorf("commit: %w", err)
		}
		return errs
	}
	if len(recs) == 0 {
		return nil
	}
	return c.commits.commit(recs)
}

// Stage publishes a changed record at once, to be written by Flush. It returns
// ErrConflict when the name has moved on since the record was loaded.
func (c *Cache) Stage(r *Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.isCurrentLocked(r) {
		return fmt.Errorf("stage %q: %w", r.Name, ErrConflict)
	}
	c.stageLocked(r)
	return nil
}

func (c *Cache) stageLocked(r *Record) {
	c.changes++
	staged := r.Clone()
	staged.version.memory = c.changes
	c.dirty[r.Name] = staged
	c.publishLocked(staged)
}

func (c *Cache) publishLocked(r *Record) {
	c.views[r.Name] = newBlock(r)
	c.wakeLocked(r.Name)
}

// isCurrentLocked reports whether r is based on the present state of its name as
// far as memory knows; the store compares the revision on disk. c.mu is held.
func (c *Cache) isCurrentLocked(r *Record) bool {
	if d := c.dirty[r.Name]; d != nil {
		return d.version.same(r.version)
	}
	if b := c.views[r.Name]; b != nil {
		return b.version.same(r.version)
	}
	return r.version.memory == 0
}

// revisionLocked is the revision in the store that a record is to follow: a staged
// state may have reached the disk since r was loaded. c.mu is held.
func (c *Cache) revisionLocked(r *Record) uint64 {
	if d := c.dirty[r.Name]; d != nil {
		return d.version.disk
	}
	if b := c.views[r.Name]; b != nil {
		return b.version.disk
	}
	return r.version.disk
}

// writeBatch writes records in one transaction of the store and publishes those
// that passed.
func (c *Cache) writeBatch(recs []*Record) []error {
	errs := make([]error, len(recs))
	rows := make([]Row, 0, len(recs))
	at := make([]int, 0, len(recs)) // rows[i] is of recs[at[i]]
	now := c.now()
	for i, r := range recs {
		c.mu.RLock()
		current, revision := c.isCurrentLocked(r), c.revisionLocked(r)
		c.mu.RUnlock()
		if !current {
			errs[i] = fmt.Errorf("commit %q: %w", r.Name, ErrConflict)
			continue
		}
		row, err := c.row(r, revision, now)
		if err != nil {
			errs[i] = err
			continue
		}
		if row.Data == nil && row.Revision == 0 {
			c.published(r, 0, true)
			continue
		}
		rows, at = append(rows, row), append(at, i)
	}
	if len(rows) == 0 {
		return errs
	}
	results := c.store.Commit(context.Background(), rows)
	for i, err := range results {
		r := recs[at[i]]
		switch {
		case err == nil:
			errs[at[i]] = c.published(r, rows[i].Revision+1, rows[i].Data == nil)
		case errors.Is(err, ErrConflict):
			errs[at[i]] = fmt.Errorf("commit %q: %w", r.Name, ErrConflict)
		default:
			errs[at[i]] = c.refusedWrite(r, err)
		}
	}
	c.noteWrites(results)
	return errs
}

func (c *Cache) row(r *Record, revision uint64, now time.Time) (Row, error) {
	row := Row{Name: r.Name, Revision: revision}
	if r.Blank(now) {
		return row, nil
	}
	data, err := encodeRecord(r)
	row.Data, row.Due = data, r.Due(c.RuleFor(r.Name) != nil)
	return row, err
}

// published makes what is on disk visible. When the name was staged while the
// write was under way, memory stays ahead and the writer is told.
func (c *Cache) published(r *Record, revision uint64, deleted bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.dirty[r.Name]
	if d != nil && !d.version.same(r.version) {
		moved := d.Clone()
		moved.version.disk = revision
		if deleted {
			moved.version.disk = 0
		}
		c.dirty[r.Name] = moved
		c.views[r.Name] = newBlock(moved)
		return fmt.Errorf("commit %q: overtaken while written: %w", r.Name, ErrConflict)
	}
	delete(c.dirty, r.Name)
	if deleted {
		c.deletes++
		delete(c.views, r.Name)
		c.wakeLocked(r.Name)
		return nil
	}
	stored := r.Clone()
	stored.version = version{disk: revision}
	if d == r {
		// Flush wrote the staged state as it is: who works on it need not know.
		stored.version.memory = r.version.memory
	}
	c.publishLocked(stored)
	return nil
}

// refusedWrite publishes a record that the disk did not take.
func (c *Cache) refusedWrite(r *Record, cause error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.isCurrentLocked(r) {
		return fmt.Errorf("commit %q: %w", r.Name, ErrConflict)
	}
	c.stageLocked(r)
	return fmt.Errorf("commit %q: %w: %w", r.Name, ErrDegraded, cause)
}

// noteWrites keeps whether the disk takes writes.
func (c *Cache) noteWrites(results []error) {
	for _, err := range results {
		if err != nil && !errors.Is(err, ErrConflict) {
			c.setRefused(err)
			return
		}
	}
	c.setRefused(nil)
}

func (c *Cache) setRefused(err error) {
	if err == nil {
		if c.refused.Swap(nil) != nil {
			c.log.Info("the disk takes writes again")
		}
		return
	}
	if c.refused.Swap(&err) == nil {
		c.log.Error("the disk refuses: tokens are served from memory", "error", err)
	}
}

// Unsaved counts the changes that hold in memory only.
func (c *Cache) Unsaved() int {
	c.mu.RLock()
	n := len(c.dirty)
	c.mu.RUnlock()
	c.journalMu.Lock()
	defer c.journalMu.Unlock()
	return n + len(c.unwritten)
}

// flushBatch is how many records Flush writes in one transaction.
const flushBatch = 500

// Flush writes what holds in memory only: first the journal lines, then the
// records, then that those lines are applied. It returns nil when all that was
// there at the call is on disk.
func (c *Cache) Flush() error {
	c.flushMu.Lock()
	defer c.flushMu.Unlock()
	applied, err := c.writeJournal()
	if err != nil {
		c.setRefused(err)
		return err
	}
	if err := c.flushRecords(); err != nil {
		return err
	}
	m := c.readMetaCopy()
	if m.Applied == applied && !c.isMetaStale() {
		return nil
	}
	err = c.updateMeta(func(m *meta) {
		m.Applied = applied
		m.Rules = c.ruleValues()
	})
	if err != nil {
		c.setRefused(err)
	}
	return err
}

func (c *Cache) isMetaStale() bool {
	c.metaMu.Lock()
	defer c.metaMu.Unlock()
	return c.metaStale
}

// writeJournal appends the decisions that have no line yet and returns the
// number up to which all are written and staged.
func (c *Cache) writeJournal() (uint64, error) {
	c.journalMu.Lock()
	ds, applied := c.unwritten, c.applied
	c.journalMu.Unlock()
	if len(ds) == 0 {
		return applied, nil
	}
	if err := c.journal.append(ds); err != nil {
		return 0, err
	}
	c.journalMu.Lock()
	defer c.journalMu.Unlock()
	c.unwritten = c.unwritten[len(ds):]
	return applied, nil
}

// flushRecords writes the records that memory was ahead with at the call.
func (c *Cache) flushRecords() error {
	todo := c.dirtyRecords()
	for len(todo) > 0 {
		var recs []*Record
		for name, r := range todo {
			recs = append(recs, r)
			delete(todo, name)
			if len(recs) == flushBatch {
				break
			}
		}
		for i, err := range c.commits.commit(recs) {
			switch {
			case err == nil:
			case errors.Is(err, ErrConflict):
				// Moved on meanwhile: what it is now has to be written, if anything.
				c.mu.RLock()
				now := c.dirty[recs[i].Name]
				c.mu.RUnlock()
				if now != nil {
					todo[recs[i].Name] = now
				}
			default:
				return err
			}
		}
	}
	return nil
}
