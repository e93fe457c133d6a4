package cache

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
)

// Errors of OpenBolt and CompactFile, besides ErrDamaged and the wrapped errors of the file system. None of them comes
// with a change to the file.
var (
	// ErrLocked: another process has the file open. Waiting longer rarely helps; it has to be stopped.
	ErrLocked = errors.New("another pamsidecar uses this state")
	// ErrNewerFormat: the file is sound, but a later version of pamsidecar wrote it.
	ErrNewerFormat = errors.New("state was written by a newer pamsidecar")
	// ErrForeign: the path is not a regular file, or is a sound bbolt database of some other program.
	ErrForeign = errors.New("not a state file of pamsidecar")
	// ErrReadOnly: Commit on a store that was opened with BoltOptions.ReadOnly.
	ErrReadOnly = errors.New("store is open for reading only")
)

// BoltOptions changes how OpenBolt opens a file. The zero value is right for the running sidecar.
type BoltOptions struct {
	// LockTimeout is how long to wait for another process to let go of the file before ErrLocked. 0 is 1 s.
	LockTimeout time.Duration
	// NoSync leaves out every fsync: a power failure may then lose commits or the whole file (a killed process loses
	// nothing). For tests only.
	NoSync bool
	// Log receives warnings about the file (its mode, damage, compaction). nil discards them.
	Log *slog.Logger
	// ReadOnly opens an existing file without changing it: no repair, no moving aside, no compaction. Several readers
	// may share a file, but none can join a process that has it open for writing.
	ReadOnly bool
}

// Bolt is a Store in one bbolt file. Between opening and closing, the file is locked against every other process.
// See OpenBolt.
//
// A commit becomes visible only after it is on the disk: until then, readers are given the rows as they were. bbolt
// alone would show them between its last write and its last fsync, and would go on showing them if that fsync failed.
type Bolt struct {
	quarantined string
	pageSize    int
	readOnly    bool

	db   *bbolt.DB
	file *os.File // the descriptor inside db, to be closed here if db can no longer be closed

	life   sync.RWMutex // held for reading by every call, for writing by Close
	closed atomic.Bool
	once   sync.Once

	writer chan struct{} // holds one element while a Commit runs
	hidden atomic.Pointer[boltHidden]
	commit func(*bbolt.Tx) error // (*bbolt.Tx).Commit, other in tests

	noReads, noWrites atomic.Pointer[error] // set when a panic may have left locks of db held
}

// Get implements Store.
func (b *Bolt) Get(name string) (row Row, err error) {
	err = b.view("get row", func(v boltView) error {
		var ok bool
		if row, ok, err = v.get(name); err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%q: %w", name, ErrNotFound)
		}
		return nil
	})
	return row, err
}

// Scan implements Store.
func (b *Bolt) Scan(after string, limit int) (rows []Row, err error) {
	err = b.view("scan rows", func(v boltView) error {
		rows, err = v.scan(after, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// Due implements Store.
func (b *Bolt) Due(before time.Time, limit int) (rows []Row, err error) {
	err = b.view("read due rows", func(v boltView) error {
		rows, err = v.dueRows(before, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// CheckIndex compares the due index with all rows and returns ErrDamaged with the first difference. It reads the
// whole store; it is meant for tests and for looking into a store, OpenBolt has its own way.
func (b *Bolt) CheckIndex() error {
	return b.view("check due index", func(v boltView) error {
		index, err := v.index()
		if err != nil {
			return err
		}
		want := 0
		err = v.rows.ForEach(func(name, value []byte) error {
			row, err := decodeBoltRow(string(name), value)
			if err != nil || row.Due.IsZero() {
				return err
			}
			want++
			if index.Get(boltDueKey(encodeBoltDue(row.Due), row.Name)) == nil {
				return fmt.Errorf("%w: row %q is missing from the due index", ErrDamaged, name)
			}
			return nil
		})
		if err != nil {
			return err
		}
		got := 0
		err = index.ForEach(func(_, _ []byte) error { got++; return nil })
		if err == nil && got != want {
			err = fmt.Errorf("%w: %d entries in the due index for %d rows", ErrDamaged, got, want)
		}
		return err
	})
}

// Close implements Store: it waits for running calls, then lets go of the file and of its lock.
func (b *Bolt) Close() error {
	var err error
	b.once.Do(func() {
		b.closed.Store(true)
		if b.noReads.Load() == nil {
			b.life.Lock()
			defer b.life.Unlock()
		}
		if b.noReads.Load() != nil || b.noWrites.Load() != nil {
			// Calls may hold locks inside bbolt for ever: its own Close would wait for them.
			err = releaseBoltFile(b.file)
			return
		}
		err = b.db.Close()
	})
	if err != nil {
		return fmt.Errorf("close state: %w", err)
	}
	return nil
}

// Quarantined is the path to which OpenBolt moved a damaged file before it began a new one; "" if it did not. The
// caller should tell the operator loudly: all records are gone but for that file.
func (b *Bolt) Quarantined() string { return b.quarantined }

// Size is the length of the file in bytes, 0 after Close.
func (b *Bolt) Size() int64 {
	b.life.RLock()
	defer b.life.RUnlock()
	if b.closed.Load() {
		return 0
	}
	info, err := b.file.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

// Free is the number of bytes inside the file that later commits will use again (as of the last commit), 0 after Close.
func (b *Bolt) Free() int64 {
	b.life.RLock()
	defer b.life.RUnlock()
	if b.closed.Load() {
		return 0
	}
	s := b.db.Stats()
	return int64(s.FreePageN+s.PendingPageN) * int64(b.pageSize)
}
