package cache

import (
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
)

// refusal is why the store or the journal takes no writes at present.
type refusal struct{ cause atomic.Pointer[error] }

// note keeps how the last write went, and tells when that changes.
func (f *refusal) note(c *Cache, err error) {
	if err == nil {
		if f.cause.Swap(nil) != nil {
			c.log.Info("the disk takes writes again")
		}
		return
	}
	if f.cause.Swap(&err) == nil {
		c.log.Error("the disk refuses: tokens are served from memory", "error", err)
	}
}

func (f *refusal) err() error {
	if cause := f.cause.Load(); cause != nil {
		return *cause
	}
	return nil
}

// Degraded is why the disk refuses to take writes, nil while it takes them.
func (c *Cache) Degraded() error {
	if err := c.storeRefuses.err(); err != nil {
		return err
	}
	return c.journalRefuses.err()
}

// Unsaved counts the changes that hold in memory only.
func (c *Cache) Unsaved() int {
	c.mu.RLock()
	n := len(c.dirty)
	c.mu.RUnlock()
	if c.isMetaStale() {
		n++
	}
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
	c.journalMu.Lock()
	applied, rules := c.applied, c.appliedRules
	c.journalMu.Unlock()
	// Records go on without their lines where they need none.
	if err := errors.Join(c.writeLines(), c.flushRecords()); err != nil {
		return err
	}
	if c.readMetaCopy().Applied >= applied && !c.isMetaStale() && c.Degraded() == nil {
		return nil
	}
	return c.updateMeta(func(m *meta) {
		if applied > m.Applied {
			m.Applied, m.Rules = applied, storeRules(rules)
		}
	})
}

// writeLines appends the decisions that have no line yet.
func (c *Cache) writeLines() error {
	c.lineMu.Lock()
	defer c.lineMu.Unlock()
	c.journalMu.Lock()
	ds := c.unwritten
	c.journalMu.Unlock()
	if len(ds) == 0 {
		return nil
	}
	err := c.journal.append(ds)
	c.journalRefuses.note(c, err)
	if err != nil {
		return err
	}
	c.journalMu.Lock()
	defer c.journalMu.Unlock()
	c.unwritten, c.written = c.unwritten[len(ds):], ds[len(ds)-1].Seq
	return nil
}

// lineWritten makes sure that the journal has the line of a decision: a record
// that a decision has changed must not reach the disk before it.
func (c *Cache) lineWritten(seq uint64) error {
	c.journalMu.Lock()
	written := c.written >= seq
	c.journalMu.Unlock()
	if written {
		return nil
	}
	return c.writeLines()
}

// flushRecords writes the records that memory was ahead with at the call. What
// the disk refuses does not keep the others from being written.
func (c *Cache) flushRecords() error {
	var refused error
	rest := c.dirtyRecords()
	for len(rest) > 0 {
		var recs []*Record
		for name, r := range rest {
			recs = append(recs, r)
			delete(rest, name)
			if len(recs) == flushBatch {
				break
			}
		}
		for i, err := range c.commits.commit(recs) {
			switch {
			case err == nil:
			case errors.Is(err, ErrConflict):
				// Moved on meanwhile: what it is now has to be written, if anything.
				now := c.dirtyRecord(recs[i].Name)
				if now == recs[i] {
					refused = errors.Join(refused, fmt.Errorf("memory and disk disagree: %w", err))
				} else if now != nil {
					rest[now.Name] = now
				}
			case refused == nil:
				refused = err
			}
		}
	}
	return refused
}

func (c *Cache) dirtyRecord(name string) *Record {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.dirty[name]
}

// dirtyRecords are the records that memory is ahead of the disk with. They must
// not be changed.
func (c *Cache) dirtyRecords() map[string]*Record {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return maps.Clone(c.dirty)
}
