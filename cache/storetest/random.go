package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pamsidecar/pamsidecar/cache"
)

// RunModel performs random operations on a store and on Model and compares every answer. open returns a new empty
// store each time it is called; it is called once for each of rapid's checks (100, see its flag -rapid.checks).
func RunModel(t *testing.T, open func(t *testing.T) cache.Store) {
	rapid.Check(t, func(r *rapid.T) {
		p := pair{store: open(t), model: Model()}
		defer p.store.Close()
		r.Repeat(map[string]func(*rapid.T){
			"commit": p.commit,
			"get":    p.get,
			"scan":   p.scan,
			"due":    p.due,
			"":       p.same,
		})
	})
}

type pair struct{ store, model cache.Store }

var (
	someNames = rapid.OneOf(
		rapid.SampledFrom([]string{"a", "b", "\x00", "\x00a", "a\x00", "\xff", "name-1", "name-2"}),
		rapid.StringN(0, 3, -1),
	)
	someTimes = rapid.Custom(func(r *rapid.T) time.Time {
		if rapid.IntRange(0, 3).Draw(r, "never") == 0 {
			return time.Time{}
		}
		return rapid.OneOf(
			rapid.Map(rapid.Int64Range(-3, 3), func(n int64) time.Time { return noon.Add(time.Duration(n)) }),
			rapid.Map(rapid.Int64(), func(n int64) time.Time { return time.Unix(0, n) }),
			rapid.Map(rapid.Int64Range(-1e11, 1e11), func(n int64) time.Time { return time.Unix(n, n&0xffff) }),
		).Draw(r, "time")
	})
	someLimits = rapid.IntRange(-1, 12)
)

func (p pair) commit(r *rapid.T) {
	rows := rapid.SliceOfN(rapid.Custom(p.row), 0, 6).Draw(r, "rows")
	got, want := p.store.Commit(context.Background(), rows), p.model.Commit(context.Background(), rows)
	if len(got) != len(want) {
		r.Fatalf("Commit gave %d errors for %d rows", len(got), len(rows))
	}
	for i := range want {
		if kind(got[i]) != kind(want[i]) {
			r.Fatalf("Commit of row %d, %q at revision %d: %v, want %v", i, rows[i].Name, rows[i].Revision, got[i], want[i])
		}
	}
}

// row is mostly at the revision that the store has.
func (p pair) row(r *rapid.T) cache.Row {
	row := cache.Row{Name: someNames.Draw(r, "name"), Due: someTimes.Draw(r, "due")}
	if stored, err := p.model.Get(row.Name); err == nil {
		row.Revision = stored.Revision
	}
	if rapid.IntRange(0, 4).Draw(r, "other revision") == 0 {
		row.Revision = rapid.Uint64Range(0, 4).Draw(r, "revision")
	}
	if rapid.IntRange(0, 3).Draw(r, "delete") != 0 {
		row.Data = make([]byte, rapid.IntRange(0, 3000).Draw(r, "size"))
		for i := range row.Data {
			row.Data[i] = byte(len(row.Data) + i)
		}
	}
	return row
}

func (p pair) get(r *rapid.T) {
	name := someNames.Draw(r, "name")
	got, err := p.store.Get(name)
	want, wanted := p.model.Get(name)
	if kind(err) != kind(wanted) {
		r.Fatalf("Get %q: %v, want %v", name, err, wanted)
	}
	if err == nil {
		sameRows(r, "Get", []cache.Row{got}, []cache.Row{want})
	}
}

func (p pair) scan(r *rapid.T) {
	after, limit := someNames.Draw(r, "after"), someLimits.Draw(r, "limit")
	got, err := p.store.Scan(after, limit)
	if err != nil {
		r.Fatalf("Scan: %v", err)
	}
	want, _ := p.model.Scan(after, limit)
	sameRows(r, fmt.Sprintf("Scan after %q, limit %d", after, limit), got, want)
}

func (p pair) due(r *rapid.T) {
	before, limit := someTimes.Draw(r, "before"), someLimits.Draw(r, "limit")
	got, err := p.store.Due(before, limit)
	if err != nil {
		r.Fatalf("Due: %v", err)
	}
	want, _ := p.model.Due(before, limit)
	sameRows(r, fmt.Sprintf("Due before %v, limit %d", before, limit), got, want)
}

// same compares everything; rapid calls it after each operation.
func (p pair) same(r *rapid.T) {
	got, err := p.store.Scan("", 1e6)
	if err != nil {
		r.Fatalf("Scan: %v", err)
	}
	want, _ := p.model.Scan("", 1e6)
	sameRows(r, "Scan of all", got, want)
	if got, err = p.store.Due(lastDue, 1e6); err != nil {
		r.Fatalf("Due: %v", err)
	}
	want, _ = p.model.Due(lastDue, 1e6)
	sameRows(r, "Due of all", got, want)
}

func sameRows(r *rapid.T, what string, got, want []cache.Row) {
	if len(got) != len(want) {
		r.Fatalf("%s: %d rows, want %d", what, len(got), len(want))
	}
	for i := range got {
		if diff := difference(got[i], want[i]); diff != "" {
			r.Fatalf("%s, row %d: %s", what, i, diff)
		}
	}
}

// kind is the sentinel of an error.
func kind(err error) error {
	for _, sentinel := range []error{cache.ErrNotFound, cache.ErrConflict, cache.ErrInvalidRow, cache.ErrClosed, cache.ErrDamaged} {
		if errors.Is(err, sentinel) {
			return sentinel
		}
	}
	return err
}
