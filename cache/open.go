package cache

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
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

// Open opens the truth kept in store and the journal audit.log in dir, and
// replays the decisions that the store does not have yet. The cache owns the
// store from then on, also when Open fails.
//
// Errors: *OtherIdentityError, ErrNewerFormat, those of the store and of the file
// system. The first two leave everything as it was.
func Open(store Store, dir string, o Options) (*Cache, error) {
	c := &Cache{
		store: store, now: o.Now, log: o.Log,
		views: map[string]*block{}, dirty: map[string]*Record{}, salvaged: map[string]*Record{}, waiters: map[string]*waiter{},
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
	damaged := errors.Is(err, ErrRecord) && !errors.Is(err, ErrNewerFormat)
	if err != nil && !damaged {
		return err
	}
	if had && m.Identity != o.Identity {
		return &OtherIdentityError{m.Identity, o.Identity}
	}
	if damaged {
		c.log.Error("the store's own record is damaged and is made anew", "error", err)
	}
	moved := o.Quarantined != ""
	if !had && !moved {
		// Or the process ended between moving it and taking note of that.
		if moved, err = hasQuarantined(dir); err != nil {
			return err
		}
	}
	c.meta, c.metaRevision = m, revision
	if m.OffsetKnown && o.Measured != nil {
		o.Measured(time.Duration(m.Offset))
	}
	c.appliedRules = m.rules()
	c.setRules(c.appliedRules)
	path := filepath.Join(dir, "audit.log")
	var found journalState
	if c.journal, found, err = openJournal(path, m.Applied); err != nil {
		return err
	}
	c.reportJournal(found, had)
	c.applied, c.written = m.Applied, max(found.lastSeq, m.Applied)
	c.nextSeq = c.written + 1
	lost := lostState{
		database: !had && !damaged && (found.lines+len(found.damaged) > 0 || moved),
		blocks:   found.lost || (!had && found.lines == 0 && (moved || damaged)),
	}
	if err := c.begin(o.Identity, lost, found.lastSeq); err != nil {
		return err
	}
	if err := c.replay(found.after); err != nil {
		return err
	}
	if found.lines == 0 || found.lastSeq < m.Applied {
		return c.beginJournal()
	}
	return nil
}

// lostState is what a start found to be missing.
type lostState struct {
	database bool // tokens may live that nobody holds
	blocks   bool // decisions to block may be missing
}

// begin marks the store as in use and counts a start after an unclean stop.
func (c *Cache) begin(id Identity, lost lostState, lastSeq uint64) error {
	err := c.updateMeta(func(m *meta) {
		m.Format, m.Identity = metaFormat, id
		if m.Running {
			m.Unclean++
			m.Doubtful = instantOf(c.now())
		}
		m.Running = true
		m.LostDatabase = m.LostDatabase || lost.database
		if lost.blocks {
			m.LostBlocks, m.LostSince = true, lastSeq
		}
	})
	m := c.readMetaCopy()
	c.doubtful, c.lostDatabase = m.Doubtful.time(), m.LostDatabase
	return err
}

// hasQuarantined reports whether a damaged database was once moved aside in dir.
func hasQuarantined(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, fmt.Errorf("look for damaged databases: %w", err)
	}
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.Contains(e.Name(), boltAsideSuffix) }), nil
}

func (c *Cache) reportJournal(found journalState, hadDatabase bool) {
	path := c.journal.path
	if found.tornTail {
		c.log.Warn("journal: an incomplete last line, never acknowledged, was cut off", "path", path)
	}
	if len(found.damaged) > 0 {
		c.log.Error("journal: unreadable lines", "path", path, "lines", found.damaged)
	}
	if found.gaps {
		c.log.Error("journal: lines are missing", "path", path)
	}
	if found.lost {
		c.log.Error("decisions to block may be lost: nothing is granted until that is accepted", "path", path)
	}
	if !hadDatabase && found.lines > 0 {
		c.log.Warn("journal without a database: decisions are applied again", "path", path, "decisions", found.lines)
	}
}

// replay applies decisions that are in the journal and not in the store.
func (c *Cache) replay(ds []Decision) error {
	if len(ds) == 0 {
		return nil
	}
	for _, d := range ds {
		if err := c.replayOne(d); err != nil {
			return fmt.Errorf("replay journal line %d: %w", d.Seq, err)
		}
		c.applied, c.appliedRules = d.Seq, c.ruleValues()
	}
	c.log.Info("journal replayed", "decisions", len(ds), "last", c.applied)
	if err := c.Flush(); err != nil {
		c.log.Error("replayed decisions hold in memory only", "error", err)
	}
	return nil
}

// replayOne applies one decision again. One that makes no sense must not keep the
// sidecar from starting.
func (c *Cache) replayOne(d Decision) error {
	err := d.check()
	if err == nil {
		_, err = c.apply(d)
		return err
	}
	c.log.Error("journal: a decision cannot be applied", "decision", d.Seq, "error", err)
	if d.Action == ActRevoke && d.Match != "" && !d.Regrant {
		c.addRule(d.rule()) // which blocks every name
	}
	return nil
}

// beginJournal writes the first line of a new journal, or of one that has lost
// its end: the blocks and block rules that stand.
func (c *Cache) beginJournal() error {
	d := Decision{Action: ActStanding, Rules: c.ruleValues(), LostBlocks: c.LostBlocks(), By: Actor{Via: "start"}}
	err := c.each(func(r *Record) error {
		c.nextSeq = max(c.nextSeq, r.Decision+1)
		if r.Block != nil {
			d.Blocks = append(d.Blocks, StandingBlock{r.Name, *r.Block})
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.Seq, d.Time = c.nextSeq, c.now().UTC().Truncate(time.Millisecond)
	c.nextSeq++
	if err := c.journal.append([]Decision{d}); err != nil {
		return err
	}
	c.applied, c.written = d.Seq, d.Seq
	return errors.Join(syncBoltDir(filepath.Dir(c.journal.path)), c.Flush())
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
