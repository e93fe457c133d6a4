package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

const (
	boltCompactSize = 1 << 20 // smaller files are not worth it
	boltCompactTx   = 1 << 20 // bytes copied in one transaction
)

// CompactFile rewrites a state file that no process has open, so that it holds nothing but its rows, and returns its
// size in bytes before and after. The file must exist; ErrLocked says that a sidecar runs on it. On any error the file
// is as it was.
func CompactFile(path string, o BoltOptions) (before, after int64, err error) {
	o.ReadOnly = false
	if _, err := os.Stat(path); err != nil {
		return 0, 0, fmt.Errorf("compact state: %w", err)
	}
	c := newBoltOpener(path, o)
	c.repair = false
	b, err := c.open(false)
	if err != nil {
		return 0, 0, fmt.Errorf("compact state: %w", err)
	}
	before = b.Size()
	compacted, err := c.replace(b)
	if compacted != nil {
		after = compacted.Size()
		err = errors.Join(err, compacted.Close())
	}
	if err != nil {
		return before, after, fmt.Errorf("compact state: %w", err)
	}
	return before, after, nil
}

// wasteful: more than half of a big file is free pages. Space behind the high water mark does not count: bbolt
// allocates it ahead, and would do so again.
func (r boltReport) wasteful(size int64) bool {
	return size > boltCompactSize && r.free > r.pages/2
}

// compact is what OpenBolt does with a wasteful file. If it does not work out (no space for the copy, say), the file
// is used as it is.
func (c *boltOpener) compact(b *Bolt) (*Bolt, error) {
	before := b.Size()
	compacted, err := c.replace(b)
	switch {
	case err != nil && compacted == nil:
		return nil, err
	case err != nil:
		c.log.Warn("state file could not be compacted", "size", before, "error", err)
	default:
		c.log.Info("state file compacted", "was", before, "size", compacted.Size())
	}
	return compacted, nil
}

// replace puts a compacted copy in the place of b's file and returns it open; b is closed then. On an error it returns
// b, still open, and nothing has changed; or nil, with both closed and the file at the path sound.
//
// The copy is locked before it gets the path and stays so, and b's file is locked until after that. Another process
// thus finds a locked file at the path whenever it looks; one that was waiting for the lock of the old file gets it
// only when the path leads elsewhere, sees that, and begins again.
func (c *boltOpener) replace(b *Bolt) (*Bolt, error) {
	db, f, err := c.copyOf(b)
	if err != nil {
		return b, err
	}
	if !boltReplaces {
		return c.reopen(b, db)
	}
	if err := os.Rename(f.Name(), c.path); err != nil {
		return b, errors.Join(err, db.Close(), os.Remove(c.path+boltNewSuffix))
	}
	if err := syncBoltDir(filepath.Dir(c.path)); err != nil {
		// Nobody knows to which file the path leads after a power failure: as long as neither is written to, it
		// does not matter.
		return nil, errors.Join(err, db.Close(), b.Close())
	}
	if err := b.Close(); err != nil {
		c.log.Warn("old state file could not be closed", "error", err)
	}
	return c.newBolt(db, f), nil
}

// copyOf writes b's rows to a new file, syncs it and proves that it is sound. On an error it leaves nothing.
func (c *boltOpener) copyOf(b *Bolt) (*bbolt.DB, *os.File, error) {
	f, err := c.newFile()
	if err != nil {
		return nil, nil, err
	}
	db, err := c.mapFile(f)
	if err != nil {
		return nil, nil, errors.Join(err, os.Remove(c.path+boltNewSuffix))
	}
	db.NoSync = true
	if err = copyBolt(db, b.db); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = sameBoltRows(f, b.file)
	}
	if err != nil {
		return nil, nil, errors.Join(err, db.Close(), os.Remove(c.path+boltNewSuffix))
	}
	db.NoSync = c.o.NoSync
	return db, f, nil
}

func copyBolt(to, from *bbolt.DB) (err error) {
	defer boltFaults()()
	defer boltRecover(&err, nil)
	return bbolt.Compact(to, from, boltCompactTx)
}

func sameBoltRows(a, b *os.File) error {
	var reports [2]boltReport
	for i, f := range []*os.File{a, b} {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if reports[i], err = verifyBolt(f, info.Size()); err != nil {
			return err
		}
	}
	if reports[0].rows != reports[1].rows || !reports[0].indexed {
		return fmt.Errorf("%w: %d rows became %d", ErrDamaged, reports[1].rows, reports[0].rows)
	}
	return nil
}

// reopen is the end of replace where open files cannot be replaced: everything is closed for a moment.
func (c *boltOpener) reopen(b *Bolt, db *bbolt.DB) (*Bolt, error) {
	if err := errors.Join(db.Close(), b.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(c.path+boltNewSuffix, c.path); err != nil {
		return nil, err
	}
	return c.open(false)
}
