package cache

import (
	"context"
	"errors"
	"time"
)

// Bounds of one row. A row outside them is refused by Commit with ErrInvalidRow.
const (
	// MaxRowName is the longest Row.Name in bytes; the shortest is one byte.
	MaxRowName = 512
	// MaxRowData is the longest Row.Data in bytes.
	MaxRowData = 16 << 20
)

// Errors of a Store. They arrive wrapped: compare with errors.Is.
var (
	// ErrNotFound: Get found no row of that name.
	ErrNotFound = errors.New("no such row")
	// ErrConflict: the stored row is not at the revision given to Commit (somebody else wrote it, created it or
	// deleted it since it was read).
	ErrConflict = errors.New("row was changed since it was read")
	// ErrClosed: the store has been closed.
	ErrClosed = errors.New("store is closed")
	// ErrInvalidRow: the row can never be stored: its name is empty or over MaxRowName, its data over MaxRowData,
	// or its revision is the last one there is.
	ErrInvalidRow = errors.New("row cannot be stored")
	// ErrDamaged: what the store holds cannot be read; it says nothing about other rows, which may still be readable.
	ErrDamaged = errors.New("store is damaged")
)

// Row is what a Store moves: opaque data under a name, with the revision that fences its writers and the moment at
// which somebody wants to look at it.
type Row struct {
	// Name is any byte string of 1 to MaxRowName bytes; it need not be UTF-8, and it may hold NUL bytes.
	Name string
	// Revision of a row that was read is at least 1 and counts its commits. In a Row given to Commit it is the
	// revision that was read; 0 says that the row must not exist.
	Revision uint64
	// Due is the moment of the row's next work, kept to the nanosecond; the zero time keeps the row out of Due.
	// Times before 1677-09-21 or after 2262-04-11 are stored as the first or last moment between. Rows that were
	// read have it in UTC.
	Due time.Time
	// Data is what is stored. In a Row given to Commit, nil deletes the row; empty data that is not nil is stored as
	// such. Rows that were read always have data that is not nil and that belongs to the caller.
	Data []byte
}

// Store keeps rows on behalf of Cache. Encoding, checksums and encryption of the data are the business of the layer
// above, the due index is the business of the store. All methods may be called concurrently. Every Store passes the
// suite of package storetest.
//
// Reads see what was committed when they began: all rows of a Commit or none of them, and every Commit that returned
// before the read was called. A read never waits for a Commit.
//
// After Close every method but Close returns ErrClosed. A store that meets damage returns ErrDamaged instead of
// panicking.
type Store interface {
	// Get returns the row of that name, or ErrNotFound (also for names that can not exist).
	Get(name string) (Row, error)

	// Scan returns the rows whose names are greater than after, at most limit of them, in the order of the bytes of
	// their names. after need not exist; the empty string begins at the first row. A limit below 1 gives no rows.
	// Fewer rows than limit means that there are no more.
	Scan(after string, limit int) ([]Row, error)

	// Due returns the rows with a due time not after before, at most limit of them, the earliest first and rows of
	// the same time in the order of their names. A limit below 1 gives no rows.
	Due(before time.Time, limit int) ([]Row, error)

	// Commit compares the revision of each row on its own and writes the rows that pass as one durable transaction:
	// when it returns, they survive a crash and a power failure. It answers with one error for each row, in the
	// order of rows:
	//
	//   - nil: the row is stored with Revision+1 and with its Due (or is deleted, if Data is nil);
	//   - ErrConflict: the stored row is at another revision; this row was not written, the others were;
	//   - ErrInvalidRow: likewise, and trying again is pointless;
	//   - the context's error, ErrClosed or any other error, the same for all rows that would have passed: nothing is
	//     changed, neither for readers nor for the next Commit. Only if the process ends after such an error and
	//     before the next Commit that succeeds may a later Open find the rows written: as after a crash in the
	//     middle of Commit, either all of them or none.
	//
	// Deleting a row compares its revision too. Deleting a row that does not exist at revision 0 passes and changes
	// nothing. A name that was deleted begins again: it is created with revision 0 and then has revision 1. If one
	// name occurs more than once, each occurrence is compared with the result of the one before it.
	//
	// ctx is honoured while Commit waits for its turn; a transaction that has begun is finished. Commit keeps nothing
	// of rows after it returned. Commits happen one after another.
	Commit(ctx context.Context, rows []Row) []error

	// Close waits for running calls and releases the store. The second call does nothing and returns nil.
	Close() error
}
