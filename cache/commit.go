package cache

import (
	"context"
	"errors"
	"fmt"
	"time"
)

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
	if !c.stageLocked(r) {
		return fmt.Errorf("stage %q: %w", r.Name, ErrConflict)
	}
	return nil
}

// stageLocked lets memory be ahead with r, unless r is not based on the present
// state of its name. c.mu is held.
func (c *Cache) stageLocked(r *Record) bool {
	disk, ok := c.currentLocked(r)
	known := c.views[r.Name] != nil // a name that is ahead has a view too
	if !ok || !known && disk != 0 && r.version.deletes != c.deletes {
		return false // in doubt too: no store compares the revision here
	}
	c.changes++
	staged := r.Clone()
	staged.version, staged.staged = version{disk: disk, memory: c.changes}, true
	c.dirty[r.Name] = staged
	c.publishLocked(staged)
	return true
}

func (c *Cache) publishLocked(r *Record) {
	c.views[r.Name] = newBlock(r)
	c.wakeLocked(r.Name)
}

// currentLocked reports whether r is based on the present state of its name as
// far as memory knows, and the revision of the row on disk; where memory knows
// nothing, the store compares the revision. c.mu is held.
func (c *Cache) currentLocked(r *Record) (disk uint64, ok bool) {
	if d := c.dirty[r.Name]; d != nil {
		return d.version.disk, d.version.memory == r.version.memory
	}
	b := c.views[r.Name]
	switch {
	case b == nil:
		return r.version.disk, r.version.memory == 0
	case r.version.memory != 0 || b.version.memory == 0:
		return b.version.disk, r.version.same(b.version)
	default:
		// r was read while its row was written, or before, and then its row may have
		// been deleted and made anew since.
		return b.version.disk, r.version.disk == b.version.disk && r.version.deletes == c.deletes
	}
}

// writeBatch writes records and publishes those that passed: in one transaction
// of the store, but for names that occur more than once, which take turns.
func (c *Cache) writeBatch(recs []*Record) []error {
	errs := make([]error, len(recs))
	rest := make([]int, len(recs))
	for i := range recs {
		rest[i] = i
	}
	for len(rest) > 0 {
		var turn, later []int
		taken := make(map[string]bool, len(rest))
		for _, i := range rest {
			if taken[recs[i].Name] {
				later = append(later, i)
				continue
			}
			taken[recs[i].Name] = true
			turn = append(turn, i)
		}
		c.writeTurn(recs, turn, errs)
		rest = later
	}
	return errs
}

// writeTurn writes the records at the given places, all of different names, in
// one transaction. A record that a decision has changed waits for its line.
func (c *Cache) writeTurn(recs []*Record, turn []int, errs []error) {
	rows := make([]Row, 0, len(turn))
	at := make([]int, 0, len(turn)) // rows[i] is of recs[at[i]]
	now := c.now()
	for _, i := range turn {
		r := recs[i]
		c.mu.RLock()
		disk, current := c.currentLocked(r)
		c.mu.RUnlock()
		if !current {
			errs[i] = fmt.Errorf("commit %q: %w", r.Name, ErrConflict)
			continue
		}
		if err := c.lineWritten(r.Decision); err != nil {
			errs[i] = c.refusedWrite(r, err)
			continue
		}
		row, err := c.row(r, disk, now)
		switch {
		case err != nil:
			errs[i] = err
		case row.Data == nil && row.Revision == 0:
			errs[i] = c.published(r, 0, true)
		default:
			rows, at = append(rows, row), append(at, i)
		}
	}
	if len(rows) == 0 {
		return
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
}

func (c *Cache) row(r *Record, disk uint64, now time.Time) (Row, error) {
	row := Row{Name: r.Name, Revision: disk}
	if r.Blank(now) {
		return row, nil
	}
	data, err := encodeRecord(r)
	row.Data, row.Due = data, r.Due()
	return row, err
}

// published makes what is on disk visible. When the name was staged while the
// write was under way, memory stays ahead and the writer is told.
func (c *Cache) published(r *Record, revision uint64, deleted bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.salvaged, r.Name)
	if deleted {
		c.deletes++
		revision = 0
	}
	if d := c.dirty[r.Name]; d != nil && d.version.memory != r.version.memory {
		moved := d.Clone()
		moved.version.disk, moved.staged = revision, true
		c.dirty[r.Name] = moved
		c.views[r.Name] = newBlock(moved)
		return fmt.Errorf("commit %q: overtaken while written: %w", r.Name, ErrConflict)
	}
	delete(c.dirty, r.Name)
	if deleted {
		delete(c.views, r.Name)
		c.wakeLocked(r.Name)
		return nil
	}
	stored := r.Clone()
	stored.version.disk = revision
	if r.staged { // readers have it already
		c.views[r.Name] = newBlock(stored)
		return nil
	}
	c.changes++
	stored.version.memory = c.changes
	c.publishLocked(stored)
	return nil
}

// refusedWrite publishes a record that the disk did not take.
func (c *Cache) refusedWrite(r *Record, cause error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !r.staged && !c.stageLocked(r) { // what Flush writes is ahead already
		return fmt.Errorf("commit %q: %w", r.Name, ErrConflict)
	}
	return fmt.Errorf("commit %q: %w: %w", r.Name, ErrDegraded, cause)
}

// noteWrites keeps whether the store takes writes.
func (c *Cache) noteWrites(results []error) {
	took := false
	for _, err := range results {
		if err != nil && !errors.Is(err, ErrConflict) {
			c.storeRefuses.note(c, err)
			return
		}
		took = took || err == nil
	}
	if took {
		c.storeRefuses.note(c, nil)
	}
}
