package cache

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"
)

// view runs fn on one consistent view and turns what bbolt throws at damage into ErrDamaged.
func (b *Bolt) view(op string, fn func(boltView) error) (err error) {
	b.life.RLock()
	defer b.life.RUnlock()
	if b.closed.Load() {
		return fmt.Errorf("%s: %w", op, ErrClosed)
	}
	if stuck := b.noReads.Load(); stuck != nil {
		return fmt.Errorf("%s: %w", op, *stuck)
	}
	begun := false
	defer boltFaults()()
	defer boltRecover(&err, func(damage error) {
		if !begun {
			b.noReads.CompareAndSwap(nil, &damage)
		}
	})
	early := b.hidden.Load()
	tx, err := b.db.Begin(false)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	begun = true
	defer tx.Rollback()
	v := boltView{tx: tx, rows: tx.Bucket(boltRows), hidden: b.hidden.Load().rowsFor(tx.ID())}
	if v.hidden == nil {
		v.hidden = early.rowsFor(tx.ID())
	}
	if v.rows == nil {
		return fmt.Errorf("%s: %w: bucket rows is missing", op, ErrDamaged)
	}
	if err := fn(v); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

// boltView is what one read sees: a transaction, and the rows that must be seen otherwise.
type boltView struct {
	tx     *bbolt.Tx
	rows   *bbolt.Bucket
	hidden map[string]Row
}

func (v boltView) index() (*bbolt.Bucket, error) {
	due := v.tx.Bucket(boltDue)
	if due == nil {
		return nil, fmt.Errorf("%w: bucket due is missing", ErrDamaged)
	}
	return due, nil
}

func (v boltView) get(name string) (Row, bool, error) {
	if row, ok := v.hidden[name]; ok {
		return cloneBoltRow(row), row.Revision > 0, nil
	}
	value := v.rows.Get([]byte(name))
	if value == nil {
		return Row{}, false, nil
	}
	row, err := decodeBoltRow(name, value)
	return row, err == nil, err
}

func (v boltView) scan(after string, limit int) ([]Row, error) {
	var rows []Row
	c := v.rows.Cursor()
	name, value := c.Seek([]byte(after))
	if name != nil && string(name) == after {
		name, value = c.Next()
	}
	for ; name != nil && len(rows) < limit; name, value = c.Next() {
		if _, ok := v.hidden[string(name)]; ok {
			continue
		}
		row, err := decodeBoltRow(string(name), value)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return v.merge(rows, limit,
		func(r Row) bool { return r.Name > after },
		func(a, b Row) int { return strings.Compare(a.Name, b.Name) }), nil
}

func (v boltView) dueRows(before time.Time, limit int) ([]Row, error) {
	index, err := v.index()
	if err != nil {
		return nil, err
	}
	var rows []Row
	last := encodeBoltDue(before)
	c := index.Cursor()
	for key, _ := c.First(); key != nil && len(rows) < limit; key, _ = c.Next() {
		if len(key) <= 8 {
			return nil, fmt.Errorf("%w: an entry of the due index is too short", ErrDamaged)
		}
		if bytes.Compare(key[:8], last[:]) > 0 {
			break
		}
		name := string(key[8:])
		if _, ok := v.hidden[name]; ok {
			continue
		}
		value := v.rows.Get(key[8:])
		if value == nil {
			return nil, fmt.Errorf("%w: row %q of the due index does not exist", ErrDamaged, name)
		}
		row, err := decodeBoltRow(name, value)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	until := decodeBoltDue(last)
	return v.merge(rows, limit,
		func(r Row) bool { return !r.Due.IsZero() && !r.Due.After(until) },
		func(a, b Row) int { return cmp.Or(a.Due.Compare(b.Due), strings.Compare(a.Name, b.Name)) }), nil
}

// merge adds the hidden rows that belong to an answer.
func (v boltView) merge(rows []Row, limit int, belongs func(Row) bool, compare func(a, b Row) int) []Row {
	n := len(rows)
	for _, row := range v.hidden {
		if row.Revision > 0 && belongs(row) {
			rows = append(rows, cloneBoltRow(row))
		}
	}
	if len(rows) > n {
		slices.SortFunc(rows, compare)
	}
	return rows[:min(len(rows), max(limit, 0))]
}

// boltFaults makes memory faults of this goroutine panics and returns what undoes it.
func boltFaults() func() {
	before := debug.SetPanicOnFault(true)
	return func() { debug.SetPanicOnFault(before) }
}

// errBoltFault: reading the memory map failed. It comes with ErrDamaged, except where it is told apart.
var errBoltFault = errors.New("the file cannot be read through memory (is it shorter than it was, or the disk failing?)")

// boltRecover is deferred around everything that touches the memory map, inside of boltFaults: it turns a panic (a page
// that is nonsense) or a memory fault into ErrDamaged. then, if not nil, is called with that error.
func boltRecover(err *error, then func(error)) {
	p := recover()
	if p == nil {
		return
	}
	if _, fault := p.(interface{ Addr() uintptr }); fault {
		*err = fmt.Errorf("%w: %w", ErrDamaged, errBoltFault)
	} else {
		*err = fmt.Errorf("%w: %v", ErrDamaged, p)
	}
	if then != nil {
		then(*err)
	}
}
