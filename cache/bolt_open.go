package cache

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	boltLockTimeout = time.Second
	boltLockPoll    = 20 * time.Millisecond
	boltNewSuffix   = ".new" // a file being prepared to take the place of another
)

// OpenBolt opens the state file, creating it (mode 0600) if it is missing or empty; its directory must exist. The file
// stays locked until Close.
//
// It reads the whole structure of the file before it trusts it. Damage that is proved that way (and only that) moves
// the file aside, to path + ".corrupt-" + UTC time, of which the two newest are kept, and begins a new one: see
// Quarantined. In all other cases of failure the file is left as it is: ErrLocked, ErrNewerFormat, ErrForeign, and the
// file system's errors (no permission, I/O error, no space). With BoltOptions.ReadOnly, damage is ErrDamaged.
//
// A file that others could read is made private, with a warning. A due index that does not agree with the rows is built
// again, with a warning. A file of over 1 MiB of which more than half is free is compacted.
//
// No second process ever works on the same file, or on one that is being replaced: the lock is on the file itself, it
// counts only if after taking it the path still leads to that file, and a new file is locked before it gets the path.
func OpenBolt(path string, o BoltOptions) (*Bolt, error) {
	b, err := newBoltOpener(path, o).open(true)
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	return b, nil
}

// boltOpener is one call of OpenBolt or CompactFile.
type boltOpener struct {
	path        string
	o           BoltOptions
	log         *slog.Logger
	deadline    time.Time
	repair      bool        // damage moves the file aside
	suspect     os.FileInfo // the file that bbolt found to be damaged although the verifier did not
	suspicion   error
	quarantined string
}

func newBoltOpener(path string, o BoltOptions) *boltOpener {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // so that replacing replaces the file, not the link
	}
	return &boltOpener{
		path: path, o: o,
		log:      cmp.Or(o.Log, slog.New(slog.DiscardHandler)).With("path", path),
		deadline: time.Now().Add(cmp.Or(o.LockTimeout, boltLockTimeout)),
		repair:   !o.ReadOnly,
	}
}

// open opens, verifies and maps the file; with compact it also compacts it if that pays.
func (c *boltOpener) open(compact bool) (*Bolt, error) {
	for {
		f, err := c.lock()
		if err != nil {
			return nil, err
		}
		report, err := c.prepare(f)
		if errors.Is(err, ErrDamaged) && c.repair {
			f, err = c.quarantine(f, err)
			if err == nil && f == nil {
				continue
			}
			report = boltReport{empty: true, indexed: true}
		}
		if err != nil {
			return nil, errors.Join(err, closeBoltFile(f))
		}
		b, err := c.load(f, report)
		if err == nil && compact && !c.o.ReadOnly && report.wasteful(b.Size()) {
			b, err = c.compact(b)
		}
		if errors.Is(err, ErrDamaged) && c.repair && c.suspicion == nil && c.suspect != nil {
			c.suspicion = err
			continue
		}
		return b, err
	}
}

// lock opens the file and returns it locked, and still being what the path leads to.
func (c *boltOpener) lock() (*os.File, error) {
	for {
		f, err := c.openFile()
		if err != nil {
			return nil, err
		}
		err = lockBoltFile(f, !c.o.ReadOnly)
		if err == nil && c.isCurrent(f) {
			return f, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, errBoltBusy) {
			return nil, fmt.Errorf("lock %s: %w", c.path, err)
		}
		if !time.Now().Before(c.deadline) {
			return nil, c.locked()
		}
		time.Sleep(boltLockPoll)
	}
}

func (c *boltOpener) locked() error {
	return fmt.Errorf("%w: %s (stop the other one, or give this one its own state_dir)", ErrLocked, c.path)
}

func (c *boltOpener) openFile() (*os.File, error) {
	for {
		info, err := os.Stat(c.path)
		if err == nil && !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%w: %s is not a regular file: move it away", ErrForeign, c.path)
		}
		if _, link := os.Readlink(c.path); err != nil && link == nil {
			return nil, fmt.Errorf("%w (a symbolic link that leads nowhere)", err)
		}
		how := os.O_RDWR
		if c.o.ReadOnly {
			how = os.O_RDONLY
		} else if errors.Is(err, fs.ErrNotExist) {
			how |= os.O_CREATE | os.O_EXCL
		}
		f, err := os.OpenFile(c.path, how, 0o600)
		switch {
		case err == nil:
			return f, nil
		case errors.Is(err, fs.ErrPermission):
			return nil, fmt.Errorf("%w (run as the owner of the file, or give it to the user that runs this)", err)
		case errors.Is(err, fs.ErrNotExist) && !c.o.ReadOnly && !c.hasDir():
			return nil, fmt.Errorf("%w (create the directory first)", err)
		case errors.Is(err, fs.ErrExist), errors.Is(err, fs.ErrNotExist) && how == os.O_RDWR:
			// It appeared or vanished just now.
		default:
			return nil, err
		}
		if !time.Now().Before(c.deadline) {
			return nil, c.locked()
		}
	}
}

func (c *boltOpener) hasDir() bool {
	_, err := os.Stat(filepath.Dir(c.path))
	return err == nil
}

func (c *boltOpener) isCurrent(f *os.File) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	current, err := os.Stat(c.path)
	return err == nil && os.SameFile(mine, current)
}

// prepare looks at the locked file before bbolt does.
func (c *boltOpener) prepare(f *os.File) (boltReport, error) {
	info, err := f.Stat()
	if err != nil {
		return boltReport{}, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		c.makePrivate(f, info.Mode().Perm())
	}
	if !c.o.ReadOnly {
		// Left by a process that was killed while it prepared a new file; only the holder of the lock makes one.
		if err := os.Remove(c.path + boltNewSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.log.Warn("unfinished copy of the state file could not be removed: it may hold tokens", "error", err)
		}
	}
	if info.Size() == 0 {
		if c.o.ReadOnly {
			return boltReport{}, fmt.Errorf("%s is empty: %w (start the sidecar once)", c.path, fs.ErrNotExist)
		}
		return boltReport{empty: true, indexed: true}, nil
	}
	if c.suspect != nil && os.SameFile(c.suspect, info) {
		return boltReport{}, c.suspicion
	}
	report, err := verifyBolt(f, info.Size())
	if err != nil {
		return report, fmt.Errorf("%s: %w%s", c.path, err, boltAdvice(err))
	}
	return report, nil
}

func boltAdvice(err error) string {
	switch {
	case errors.Is(err, ErrNewerFormat):
		return " (run that version again, or begin with an empty state_dir)"
	case errors.Is(err, ErrForeign):
		return " (correct state_dir, or move the file away)"
	}
	return ""
}

func (c *boltOpener) makePrivate(f *os.File, mode fs.FileMode) {
	if c.o.ReadOnly {
		c.log.Warn("state file can be read by others: it holds tokens", "mode", mode)
		return
	}
	if err := f.Chmod(0o600); err != nil {
		c.log.Warn("state file can be read by others and cannot be made private: it holds tokens", "mode", mode, "error", err)
		return
	}
	c.log.Warn("state file could be read by others: mode set to 0600; it holds tokens", "was", mode)
}

// load gives the file to bbolt and brings it into order.
func (c *boltOpener) load(f *os.File, report boltReport) (*Bolt, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, closeBoltFile(f))
	}
	db, err := c.mapFile(f)
	if err != nil {
		c.suspect = info
		return nil, err
	}
	b := c.newBolt(db, f)
	if c.o.ReadOnly {
		return b, nil
	}
	if report.empty {
		err = b.initialize()
		if err == nil && !c.o.NoSync {
			err = syncBoltDir(filepath.Dir(c.path))
		}
	} else if !report.indexed {
		c.log.Warn("due index did not agree with the rows: building it again")
		err = b.buildIndex()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare %s: %w", c.path, err), b.Close())
	}
	return b, nil
}

func (c *boltOpener) newBolt(db *bbolt.DB, f *os.File) *Bolt {
	return &Bolt{
		quarantined: c.quarantined, pageSize: db.Info().PageSize, readOnly: c.o.ReadOnly,
		db: db, file: f, writer: make(chan struct{}, 1), commit: (*bbolt.Tx).Commit,
	}
}

// mapFile lets bbolt open a file that is open and locked already. If it fails, the file is closed.
func (c *boltOpener) mapFile(f *os.File) (db *bbolt.DB, err error) {
	defer boltFaults()()
	defer boltRecover(&err, func(damage error) {
		releaseBoltFile(f)
		if errors.Is(damage, errBoltFault) {
			// The verifier could read every page a moment ago: this is the disk, and proves nothing about the content.
			err = fmt.Errorf("%s: %w", c.path, errBoltFault)
		}
	})
	db, err = bbolt.Open(f.Name(), 0o600, &bbolt.Options{
		Timeout:      max(time.Until(c.deadline), time.Millisecond),
		ReadOnly:     c.o.ReadOnly,
		NoSync:       c.o.NoSync,
		FreelistType: bbolt.FreelistMapType, // the array's search is linear in the free pages, for each page needed
		OpenFile:     func(string, int, fs.FileMode) (*os.File, error) { return f, nil },
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, c.locked()
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum):
		return nil, fmt.Errorf("%s: %w: %v", c.path, ErrDamaged, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", c.path, err)
	}
	return db, nil
}

func (b *Bolt) initialize() error {
	return b.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{boltMeta, boltRows, boltDue} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return tx.Bucket(boltMeta).Put(boltFormatKey, binary.BigEndian.AppendUint64(nil, boltFormat))
	})
}

// buildIndex makes the due index anew from the headers of the rows.
func (b *Bolt) buildIndex() (err error) {
	defer boltFaults()()
	defer boltRecover(&err, func(damage error) { b.noWrites.Store(&damage) })
	return b.db.Update(func(tx *bbolt.Tx) error {
		if err := tx.DeleteBucket(boltDue); err != nil {
			return err
		}
		index, err := tx.CreateBucket(boltDue)
		if err != nil {
			return err
		}
		return tx.Bucket(boltRows).ForEach(func(name, value []byte) error {
			_, due, _, err := decodeBoltHeader(string(name), value)
			if err != nil || due == [8]byte{} {
				return err
			}
			return index.Put(boltDueKey(due, string(name)), nil)
		})
	})
}

// newFile makes the file that is going to replace the one at the path, and locks it.
func (c *boltOpener) newFile() (*os.File, error) {
	f, err := os.OpenFile(c.path+boltNewSuffix, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockBoltFile(f, true); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

func closeBoltFile(f *os.File) error {
	if f == nil {
		return nil
	}
	if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}
