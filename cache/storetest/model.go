package storetest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// The first and the last due time that a store keeps as it is.
var (
	firstDue = time.Unix(0, math.MinInt64+1).UTC()
	lastDue  = time.Unix(0, math.MaxInt64).UTC()
)

// Model returns an empty cache.Store in memory that does what the contract says in the plainest way. It survives
// nothing, so it serves comparison and tests of the layers above.
func Model() cache.Store {
	return &model{rows: make(map[string]cache.Row)}
}

type model struct {
	mu     sync.Mutex
	closed bool
	rows   map[string]cache.Row
}

func (m *model) Get(name string) (cache.Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return cache.Row{}, cache.ErrClosed
	}
	row, ok := m.rows[name]
	if !ok {
		return cache.Row{}, fmt.Errorf("get %q: %w", name, cache.ErrNotFound)
	}
	return clone(row), nil
}

func (m *model) Scan(after string, limit int) ([]cache.Row, error) {
	return m.list(limit,
		func(r cache.Row) bool { return r.Name > after },
		func(a, b cache.Row) int { return strings.Compare(a.Name, b.Name) })
}

func (m *model) Due(before time.Time, limit int) ([]cache.Row, error) {
	before = stored(before)
	return m.list(limit,
		func(r cache.Row) bool { return !r.Due.IsZero() && !r.Due.After(before) },
		func(a, b cache.Row) int { return cmp.Or(a.Due.Compare(b.Due), strings.Compare(a.Name, b.Name)) })
}

func (m *model) list(limit int, belongs func(cache.Row) bool, compare func(a, b cache.Row) int) ([]cache.Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, cache.ErrClosed
	}
	var rows []cache.Row
	for row := range maps.Values(m.rows) {
		if belongs(row) {
			rows = append(rows, clone(row))
		}
	}
	slices.SortFunc(rows, compare)
	return rows[:min(len(rows), max(limit, 0))], nil
}

func (m *model) Commit(ctx context.Context, rows []cache.Row) []error {
	errs := make([]error, len(rows))
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, row := range rows {
		if err := m.commit(ctx, row); err != nil {
			errs[i] = fmt.Errorf("commit %q: %w", row.Name, err)
		}
	}
	return errs
}

func (m *model) commit(ctx context.Context, row cache.Row) error {
	switch {
	case m.closed:
		return cache.ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	case row.Name == "", len(row.Name) > cache.MaxRowName, len(row.Data) > cache.MaxRowData,
		row.Data != nil && row.Revision == math.MaxUint64:
		return cache.ErrInvalidRow
	case m.rows[row.Name].Revision != row.Revision:
		return cache.ErrConflict
	case row.Data == nil:
		delete(m.rows, row.Name)
		return nil
	}
	row.Revision++
	row.Due = stored(row.Due)
	m.rows[row.Name] = clone(row)
	return nil
}

func (m *model) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

func clone(row cache.Row) cache.Row {
	row.Data = append([]byte{}, row.Data...)
	return row
}

// stored is a due time as a store keeps it.
func stored(t time.Time) time.Time {
	switch {
	case t.IsZero():
		return time.Time{}
	case t.Before(firstDue):
		return firstDue
	case t.After(lastDue):
		return lastDue
	}
	return t.UTC().Round(0)
}
