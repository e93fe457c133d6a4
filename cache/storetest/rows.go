package storetest

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func testGet(t *testing.T, s cache.Store) {
	holds(t, s, cache.Row{Name: "a"})
	put(t, s, cache.Row{Name: "a", Due: noon, Data: []byte("one")})
	holds(t, s, cache.Row{Name: "a", Revision: 1, Due: noon, Data: []byte("one")})
	holds(t, s, cache.Row{Name: ""})
	holds(t, s, cache.Row{Name: "ab"})
	holds(t, s, cache.Row{Name: strings.Repeat("a", 40_000)})
}

func testNames(t *testing.T, s cache.Store) {
	names := []string{
		"\x00", "\x00\x00", "\x00clock", " ", "..", "/", "a", "a/b", "a\x00b", "Zoë", "名前", "\x80", "\xff", "\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		strings.Repeat("n", cache.MaxRowName), strings.Repeat("\x00", cache.MaxRowName),
	}
	for _, name := range names {
		put(t, s, cache.Row{Name: name, Due: noon, Data: []byte(name)})
	}
	for _, name := range names {
		holds(t, s, cache.Row{Name: name, Revision: 1, Due: noon, Data: []byte(name)})
	}
	for _, name := range names {
		put(t, s, cache.Row{Name: name, Revision: 1})
		holds(t, s, cache.Row{Name: name})
	}
	rows, err := s.Due(noon, 100)
	list(t, "Due of nothing", rows, err)
}

func testRevisions(t *testing.T, s cache.Store) {
	commit(t, s, []cache.Row{{Name: "a", Revision: 1, Data: []byte("x")}}, []error{cache.ErrConflict})
	holds(t, s, cache.Row{Name: "a"})
	for revision := range uint64(5) {
		put(t, s, cache.Row{Name: "a", Revision: revision, Data: []byte{byte(revision)}})
		holds(t, s, cache.Row{Name: "a", Revision: revision + 1, Data: []byte{byte(revision)}})
	}
	for _, revision := range []uint64{0, 1, 4, 6, math.MaxUint64 - 1} {
		commit(t, s, []cache.Row{{Name: "a", Revision: revision, Data: []byte("x")}}, []error{cache.ErrConflict})
	}
	holds(t, s, cache.Row{Name: "a", Revision: 5, Data: []byte{4}})
}

func testDelete(t *testing.T, s cache.Store) {
	commit(t, s, []cache.Row{{Name: "a"}}, []error{nil})
	commit(t, s, []cache.Row{{Name: "a", Revision: 1}}, []error{cache.ErrConflict})
	put(t, s, cache.Row{Name: "a", Due: noon, Data: []byte("1")})
	put(t, s, cache.Row{Name: "a", Revision: 1, Due: noon, Data: []byte("2")})
	commit(t, s, []cache.Row{{Name: "a"}, {Name: "a", Revision: 1}}, []error{cache.ErrConflict, cache.ErrConflict})
	holds(t, s, cache.Row{Name: "a", Revision: 2, Due: noon, Data: []byte("2")})
	put(t, s, cache.Row{Name: "a", Revision: 2})
	holds(t, s, cache.Row{Name: "a"})
	commit(t, s, []cache.Row{{Name: "a", Revision: 2, Data: []byte("3")}}, []error{cache.ErrConflict})
	put(t, s, cache.Row{Name: "a", Data: []byte("4")})
	holds(t, s, cache.Row{Name: "a", Revision: 1, Data: []byte("4")})
	rows, err := s.Due(noon, 10)
	list(t, "Due", rows, err)
}

func testEachRow(t *testing.T, s cache.Store) {
	commit(t, s, nil, nil)
	put(t, s, cache.Row{Name: "b", Data: []byte("old")}, cache.Row{Name: "d", Data: []byte("old")})
	commit(t, s, []cache.Row{
		{Name: "a", Data: []byte("new")},
		{Name: "b", Data: []byte("new")},
		{Name: "c", Revision: 1},
		{Name: "d", Revision: 1, Data: []byte("new")},
		{Name: "", Data: []byte("new")},
		{Name: "e", Data: []byte("new")},
	}, []error{nil, cache.ErrConflict, cache.ErrConflict, nil, cache.ErrInvalidRow, nil})
	holds(t, s, cache.Row{Name: "a", Revision: 1, Data: []byte("new")})
	holds(t, s, cache.Row{Name: "b", Revision: 1, Data: []byte("old")})
	holds(t, s, cache.Row{Name: "c"})
	holds(t, s, cache.Row{Name: "d", Revision: 2, Data: []byte("new")})
	holds(t, s, cache.Row{Name: "e", Revision: 1, Data: []byte("new")})
}

func testSameName(t *testing.T, s cache.Store) {
	commit(t, s, []cache.Row{
		{Name: "a", Data: []byte("1"), Due: noon},
		{Name: "a", Data: []byte("x")},
		{Name: "a", Revision: 1, Data: []byte("2"), Due: noon.Add(time.Hour)},
		{Name: "a", Revision: 2},
		{Name: "a", Revision: 2, Data: []byte("x")},
		{Name: "a", Data: []byte("3"), Due: noon.Add(time.Minute)},
		{Name: "a", Revision: 1, Data: []byte("4"), Due: noon.Add(time.Minute)},
	}, []error{nil, cache.ErrConflict, nil, nil, cache.ErrConflict, nil, nil})
	want := cache.Row{Name: "a", Revision: 2, Data: []byte("4"), Due: noon.Add(time.Minute)}
	holds(t, s, want)
	rows, err := s.Due(noon.Add(time.Hour), 10)
	list(t, "Due", rows, err, "a")

	commit(t, s, []cache.Row{{Name: "a", Revision: 2}, {Name: "a"}}, []error{nil, nil})
	holds(t, s, cache.Row{Name: "a"})
	rows, err = s.Due(noon.Add(time.Hour), 10)
	list(t, "Due", rows, err)
}

func testRefused(t *testing.T, s cache.Store) {
	long := strings.Repeat("n", cache.MaxRowName+1)
	commit(t, s, []cache.Row{
		{Name: "", Data: []byte("x")},
		{Name: ""},
		{Name: long, Data: []byte("x")},
		{Name: long},
		{Name: "big", Data: make([]byte, cache.MaxRowData+1)},
		{Name: "last", Revision: math.MaxUint64, Data: []byte("x")},
	}, []error{
		cache.ErrInvalidRow, cache.ErrInvalidRow, cache.ErrInvalidRow, cache.ErrInvalidRow, cache.ErrInvalidRow, cache.ErrInvalidRow,
	})
	rows, err := s.Scan("", 10)
	list(t, "Scan", rows, err)
	holds(t, s, cache.Row{Name: long})
}

func testData(t *testing.T, s cache.Store) {
	revision := uint64(0)
	for _, size := range []int{0, 1, 15, 16, 17, 1000, 4095, 4096, 5000, 70_000, 1 << 20, 3, cache.MaxRowData, 0} {
		data := bytes.Repeat([]byte{byte(size), 0, 1}, size/3+1)[:size]
		put(t, s, cache.Row{Name: "a", Revision: revision, Data: data})
		revision++
		holds(t, s, cache.Row{Name: "a", Revision: revision, Data: data})
	}

	given := []byte("given")
	put(t, s, cache.Row{Name: "b", Due: noon, Data: given})
	given[0] = 'X'
	first, err := s.Get("b")
	if err != nil {
		t.Fatal(err)
	}
	_ = append(first.Data, "longer"...)
	first.Data[1] = 'X'
	rows, err := s.Scan("a", 1)
	list(t, "Scan", rows, err, "b")
	for _, row := range rows {
		row.Data[2] = 'X'
	}
	rows, err = s.Due(noon, 1)
	list(t, "Due", rows, err, "b")
	for _, row := range rows {
		row.Data[3] = 'X'
	}
	holds(t, s, cache.Row{Name: "b", Revision: 1, Due: noon, Data: []byte("given")})
}
