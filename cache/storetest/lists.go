package storetest

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

func testScan(t *testing.T, s cache.Store) {
	rows, err := s.Scan("", 10)
	list(t, "Scan of an empty store", rows, err)
	for _, name := range []string{"b", "\x00own", "a", "\xff", "ab", "a\x00"} {
		put(t, s, cache.Row{Name: name, Data: []byte(name)})
	}
	order := []string{"\x00own", "a", "a\x00", "ab", "b", "\xff"}
	for _, test := range []struct {
		after string
		limit int
		want  []string
	}{
		{"", 10, order},
		{"", math.MaxInt, order},
		{"", 6, order},
		{"", 5, order[:5]},
		{"", 1, order[:1]},
		{"", 0, nil},
		{"", -1, nil},
		{"\x00", 2, order[:2]},
		{"\x00own", 2, order[1:3]},
		{"a", 2, order[2:4]},
		{"aa", 2, order[3:5]},
		{"b", 10, order[5:]},
		{"\xff", 10, nil},
		{"\xff\xff", 10, nil},
	} {
		rows, err := s.Scan(test.after, test.limit)
		list(t, fmt.Sprintf("Scan after %q, limit %d", test.after, test.limit), rows, err, test.want...)
		for _, row := range rows {
			if diff := difference(row, cache.Row{Name: row.Name, Revision: 1, Data: []byte(row.Name)}); diff != "" {
				t.Errorf("Scan: %s", diff)
			}
		}
	}
}

func testDue(t *testing.T, s cache.Store) {
	rows, err := s.Due(noon, 10)
	list(t, "Due of an empty store", rows, err)
	put(t, s,
		cache.Row{Name: "never", Data: []byte("x")},
		cache.Row{Name: "late", Due: noon.Add(time.Hour), Data: []byte("x")},
		cache.Row{Name: "b", Due: noon, Data: []byte("x")},
		cache.Row{Name: "\x00own", Due: noon, Data: []byte("x")},
		cache.Row{Name: "a", Due: noon, Data: []byte("x")},
		cache.Row{Name: "z", Due: noon.Add(-time.Nanosecond), Data: []byte("x")},
		cache.Row{Name: "soon", Due: noon.Add(time.Nanosecond), Data: []byte("x")},
	)
	order := []string{"z", "\x00own", "a", "b", "soon", "late"}
	for _, test := range []struct {
		before time.Time
		limit  int
		want   []string
	}{
		{noon, 10, order[:4]},
		{noon, 4, order[:4]},
		{noon, 3, order[:3]},
		{noon, 0, nil},
		{noon, -1, nil},
		{noon.Add(-time.Nanosecond), 10, order[:1]},
		{noon.Add(-2 * time.Nanosecond), 10, nil},
		{noon.Add(time.Nanosecond), 10, order[:5]},
		{noon.Add(time.Hour).In(time.FixedZone("east", 3600)), math.MaxInt, order},
		{time.Time{}, 10, nil},
		{lastDue.Add(time.Hour), 10, order},
	} {
		rows, err := s.Due(test.before, test.limit)
		list(t, fmt.Sprintf("Due before %v, limit %d", test.before, test.limit), rows, err, test.want...)
		for _, row := range rows {
			holds(t, s, row)
		}
	}
}

func testDueTimes(t *testing.T, s cache.Store) {
	times := []time.Time{ // in order; those outside of what can be stored fall together
		firstDue.Add(-time.Hour), firstDue, firstDue.Add(1),
		time.Date(1969, 12, 31, 23, 59, 59, 999999999, time.UTC), time.Unix(0, 0), time.Unix(0, 1),
		noon, time.Now(), lastDue.Add(-1), lastDue, lastDue.Add(time.Hour),
	}
	var names []string
	for i, due := range append([]time.Time{{}, time.Time{}.Add(1)}, append(times, time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC))...) {
		name := fmt.Sprintf("%02d", i)
		row := cache.Row{Name: name, Due: due.In(time.FixedZone("west", -7200)), Data: []byte("x")}
		put(t, s, row)
		holds(t, s, cache.Row{Name: name, Revision: 1, Due: stored(row.Due), Data: row.Data})
		if i > 0 {
			names = append(names, name)
		}
	}
	rows, err := s.Due(lastDue, 100)
	list(t, "Due before the last time", rows, err, names...)
	rows, err = s.Due(time.Unix(0, 0), 100)
	list(t, "Due before 1970", rows, err, names[:6]...)
	rows, err = s.Due(firstDue, 100)
	list(t, "Due before the first time", rows, err, names[:3]...)
}

func testDueIndex(t *testing.T, s cache.Store) {
	steps := []struct {
		row  cache.Row
		want []string // due before noon + 1 h afterwards
	}{
		{cache.Row{Name: "a", Due: noon, Data: []byte("1")}, []string{"a"}},
		{cache.Row{Name: "b", Due: noon, Data: []byte("1")}, []string{"a", "b"}},
		{cache.Row{Name: "a", Revision: 1, Due: noon.Add(time.Minute), Data: []byte("2")}, []string{"b", "a"}},
		{cache.Row{Name: "a", Revision: 2, Due: noon.Add(time.Minute), Data: []byte("3")}, []string{"b", "a"}},
		{cache.Row{Name: "a", Revision: 3, Due: noon.Add(2 * time.Hour), Data: []byte("4")}, []string{"b"}},
		{cache.Row{Name: "b", Revision: 1, Data: []byte("2")}, nil},
		{cache.Row{Name: "b", Revision: 2, Due: noon.Add(-time.Hour), Data: []byte("3")}, []string{"b"}},
		{cache.Row{Name: "b", Revision: 3}, nil},
		{cache.Row{Name: "a", Revision: 4, Due: noon, Data: []byte("5")}, []string{"a"}},
		{cache.Row{Name: "a", Revision: 5}, nil},
		{cache.Row{Name: "a", Due: noon.Add(time.Hour), Data: []byte("6")}, []string{"a"}},
	}
	for i, step := range steps {
		put(t, s, step.row)
		rows, err := s.Due(noon.Add(time.Hour), 10)
		list(t, fmt.Sprintf("Due after step %d", i), rows, err, step.want...)
		for _, row := range rows {
			holds(t, s, row)
		}
	}
	commit(t, s, []cache.Row{{Name: "a", Due: noon, Data: []byte("x")}}, []error{cache.ErrConflict})
	rows, err := s.Due(noon, 10)
	list(t, "Due after a conflict", rows, err)
}

func testManyRows(t *testing.T, s cache.Store) {
	const n = 3000
	rows := make([]cache.Row, n)
	for i := range rows {
		rows[i] = cache.Row{Name: fmt.Sprintf("name-%04d", i*7919%n), Due: noon.Add(time.Duration(i%97) * time.Second), Data: make([]byte, i%700)}
	}
	put(t, s, rows...)
	var gone []cache.Row
	for i := range rows {
		rows[i].Revision = 1
		if i%3 == 0 {
			gone = append(gone, cache.Row{Name: rows[i].Name, Revision: 1})
		}
	}
	put(t, s, gone...)
	want := slices.DeleteFunc(rows, func(r cache.Row) bool {
		return slices.ContainsFunc(gone, func(g cache.Row) bool { return g.Name == r.Name })
	})

	slices.SortFunc(want, func(a, b cache.Row) int { return strings.Compare(a.Name, b.Name) })
	samePages(t, "Scan", want, func(last cache.Row, limit int) ([]cache.Row, error) { return s.Scan(last.Name, limit) })

	slices.SortFunc(want, func(a, b cache.Row) int {
		if c := a.Due.Compare(b.Due); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	got, err := s.Due(noon.Add(time.Hour), n)
	if err != nil || len(got) != len(want) {
		t.Fatalf("Due: %d rows, %v; want %d", len(got), err, len(want))
	}
	for i := range got {
		if diff := difference(got[i], want[i]); diff != "" {
			t.Fatalf("Due, row %d: %s", i, diff)
		}
	}
}

// samePages reads a list in pages and compares it with want.
func samePages(t *testing.T, what string, want []cache.Row, next func(last cache.Row, limit int) ([]cache.Row, error)) {
	t.Helper()
	var got []cache.Row
	var last cache.Row
	for {
		page, err := next(last, 100)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got = append(got, page...)
		if len(page) < 100 {
			break
		}
		last = page[len(page)-1]
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d rows, want %d", what, len(got), len(want))
	}
	for i := range got {
		if diff := difference(got[i], want[i]); diff != "" {
			t.Fatalf("%s, row %d: %s", what, i, diff)
		}
	}
}
