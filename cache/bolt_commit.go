package cache

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"

	"go.etcd.io/bbolt"
)

// Commit implements Store.
func (b *Bolt) Commit(ctx context.Context, rows []Row) []error {
	errs := make([]error, len(rows))
	if len(rows) == 0 {
		return errs
	}
	if err := b.write(ctx, rows, errs); err != nil {
		for i := range errs {
			if errs[i] == nil {
				errs[i] = fmt.Errorf("commit: %w", err)
			}
		}
	}
	return errs
}

// write waits for its turn and runs one transaction. It sets the errors of the rows that do not pass, and returns the
// error of all others.
func (b *Bolt) write(ctx context.Context, rows []Row, errs []error) error {
	b.life.RLock()
	defer b.life.RUnlock()
	switch {
	case b.closed.Load():
		return ErrClosed
	case b.readOnly:
		return ErrReadOnly
	}
	select {
	case b.writer <- struct{}{}:
		defer func() { <-b.writer }()
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if stuck := cmp.Or(b.noWrites.Load(), b.noReads.Load()); stuck != nil {
		return *stuck
	}
	return b.transact(rows, errs)
}

// transact is the transaction. A panic while rows are compared and put is answered by a rollback. One in any other
// place leaves bbolt in a state that nobody has thought about: nothing is written any more until the next start.
func (b *Bolt) transact(rows []Row, errs []error) (err error) {
	give := func(damage error) { b.noWrites.CompareAndSwap(nil, &damage) }
	defer boltFaults()()
	defer boltRecover(&err, give)
	tx, err := b.db.Begin(true)
	if err != nil {
		return err
	}
	w, changed, err := b.apply(tx, rows, errs)
	if err != nil || !changed {
		if undo := tx.Rollback(); err == nil {
			err = undo
		}
		return err
	}
	hidden := b.hidden.Load().with(tx.ID(), w.before)
	b.hidden.Store(hidden)
	if err := b.commit(tx); err != nil {
		return err // and b.hidden stays: nobody sees these rows, and the next transaction takes them back
	}
	b.hidden.Store(nil)
	return nil
}

// apply brings the rows into the transaction, after taking back what a commit that failed may have left.
func (b *Bolt) apply(tx *bbolt.Tx, rows []Row, errs []error) (w boltWriter, changed bool, err error) {
	defer boltRecover(&err, nil)
	w = boltWriter{rows: tx.Bucket(boltRows), due: tx.Bucket(boltDue), before: make(map[string]Row, len(rows))}
	if w.rows == nil || w.due == nil {
		return w, false, fmt.Errorf("%w: a bucket is missing", ErrDamaged)
	}
	if h := b.hidden.Load(); h != nil {
		for _, row := range h.rows {
			if err := w.restore(row); err != nil {
				return w, false, err
			}
		}
	}
	for i, row := range rows {
		wrote, refused, err := w.put(row)
		if err != nil {
			return w, false, err
		}
		if refused != nil {
			errs[i] = fmt.Errorf("commit %q: %w", row.Name, refused)
		}
		changed = changed || wrote
	}
	return w, changed, nil
}

// boltWriter writes rows inside of one transaction and keeps them as they were before it.
type boltWriter struct {
	rows, due *bbolt.Bucket
	before    map[string]Row
}

// put compares one row and writes it. refused is the row's own error; err is one of the whole transaction.
func (w boltWriter) put(row Row) (wrote bool, refused, err error) {
	if len(row.Name) == 0 || len(row.Name) > MaxRowName || len(row.Data) > MaxRowData ||
		(row.Data != nil && row.Revision == math.MaxUint64) {
		return false, ErrInvalidRow, nil
	}
	stored := Row{Name: row.Name}
	var due [8]byte
	if value := w.rows.Get([]byte(row.Name)); value != nil {
		if _, due, _, err = decodeBoltHeader(row.Name, value); err == nil {
			stored, err = decodeBoltRow(row.Name, value)
		}
		if err != nil {
			return false, err, nil
		}
	}
	if stored.Revision != row.Revision {
		return false, ErrConflict, nil
	}
	if row.Data == nil && stored.Revision == 0 {
		return false, nil, nil
	}
	if _, ok := w.before[row.Name]; !ok {
		w.before[row.Name] = stored
	}
	if row.Data == nil {
		return true, nil, w.set(row.Name, due, [8]byte{}, nil)
	}
	next := encodeBoltDue(row.Due)
	return true, nil, w.set(row.Name, due, next, encodeBoltRow(row.Revision+1, next, row.Data))
}

// restore writes a row exactly as it was; revision 0 says that it was not there.
func (w boltWriter) restore(row Row) error {
	var was [8]byte
	if value := w.rows.Get([]byte(row.Name)); value != nil {
		var err error
		if _, was, _, err = decodeBoltHeader(row.Name, value); err != nil {
			return err
		}
	}
	if row.Revision == 0 {
		return w.set(row.Name, was, [8]byte{}, nil)
	}
	due := encodeBoltDue(row.Due)
	return w.set(row.Name, was, due, encodeBoltRow(row.Revision, due, row.Data))
}

// set writes a row's value (nil: deletes it) and moves its entry in the due index from was to due.
func (w boltWriter) set(name string, was, due [8]byte, value []byte) error {
	if was != due && was != [8]byte{} {
		if err := w.due.Delete(boltDueKey(was, name)); err != nil {
			return err
		}
	}
	if was != due && due != [8]byte{} {
		if err := w.due.Put(boltDueKey(due, name), nil); err != nil {
			return err
		}
	}
	if value == nil {
		return w.rows.Delete([]byte(name))
	}
	return w.rows.Put([]byte(name), value)
}

// boltHidden is how readers go on seeing some rows (Revision 0: as absent) while the transactions first to last may
// be in the memory map already, but not yet or never on the disk for certain.
type boltHidden struct {
	first, last int
	rows        map[string]Row
}

// with is h and the rows that transaction tx is about to change.
func (h *boltHidden) with(tx int, before map[string]Row) *boltHidden {
	if h == nil {
		return &boltHidden{first: tx, last: tx, rows: before}
	}
	all := maps.Clone(before)
	maps.Copy(all, h.rows)
	return &boltHidden{first: h.first, last: tx, rows: all}
}

// rowsFor is what a reader at transaction tx must see otherwise. A reader who began before the first does not see
// their changes anyway, one who began after the last sees what it left behind.
func (h *boltHidden) rowsFor(tx int) map[string]Row {
	if h == nil || tx < h.first || tx > h.last {
		return nil
	}
	return h.rows
}
