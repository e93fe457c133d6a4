package cache_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/cache/storetest"
)

func names(recs []*cache.Record) []string {
	var list []string
	for _, r := range recs {
		list = append(list, r.Name)
	}
	return list
}

// plan commits or stages a name whose next attempt is in so many minutes.
func (w *world) plan(name string, minutes int, stage bool) {
	w.t.Helper()
	r := w.recordOrNew(name)
	g := grantOf(name)
	r.Grant, r.NextAttempt = &g, w.now.Add(time.Duration(minutes)*time.Minute)
	if stage {
		mustDo(w.t, w.cache.Stage(r))
		return
	}
	mustDo(w.t, w.cache.Commit(context.Background(), r)[0])
}

func (w *world) wantDue(limit int, want string, next time.Time) {
	w.t.Helper()
	recs, got, err := w.cache.Due(w.now, limit)
	if err != nil || strings.Join(names(recs), " ") != want || !got.Equal(next) {
		w.t.Errorf("limit %d: due %v, next %v, %v; want %q, %v", limit, names(recs), got, err, want, next)
	}
}

func TestDue(t *testing.T) {
	inWorld(t, func(w *world) {
		after := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
		w.wantDue(10, "", time.Time{})
		for i, name := range []string{"d", "c", "b", "a"} {
			w.plan(name, -i, false)
		}
		w.plan("later", 5, false)
		w.plan("later still", 6, false)
		w.wantDue(10, "a b c d", after(5))
		w.wantDue(5, "a b c d", after(5))
		w.wantDue(4, "a b c d", after(5))
		w.wantDue(3, "a b c", noon)
		w.wantDue(1, "a", noon)

		// What memory is ahead with counts instead of what is on disk.
		w.plan("a", 3, true)
		w.wantDue(10, "b c d", after(3))
		w.wantDue(3, "b c d", after(3))
		w.wantDue(2, "b c", noon)
		w.plan("later", -9, true)
		w.wantDue(10, "later b c d", after(3))
		w.wantDue(2, "later b c", noon) // the limit is for what is on disk
		w.plan("new", -2, true)
		w.wantDue(10, "later b new c d", after(3))
		w.plan("a", 7, true)
		w.plan("later", 8, true)
		w.plan("new", 9, true)
		w.wantDue(10, "b c d", after(5)) // not later than true: "later" is due then on disk
		mustDo(t, w.cache.Flush())
		w.wantDue(10, "b c d", after(6))
		for _, name := range []string{"b", "c"} { // more of them than the limit hide the one that is due
			w.plan(name, 20, true)
		}
		w.wantDue(1, "d", after(6))
		for _, name := range []string{"b", "c"} {
			w.plan(name, -3, false)
		}
		w.now = after(10)
		w.wantDue(10, "b c d later still a later new", time.Time{})
	})
}

// A rule stops grants, but a name that was due stays so: somebody has to see that
// nothing comes of an attempt that may have been under way.
func TestDueUnderRule(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 1)
		w.plan("b", -1, false)
		w.decide(cache.Decision{Action: cache.ActRevoke, Match: "a|b|c", Reason: "x"})
		w.plan("c", -1, false)
		w.plan("d", -1, false)
		w.wantDue(10, "b c d a", time.Time{}) // a has a token to revoke
	})
}

// A wrapper whose answers to Due change between two calls, as the store's do.
type shiftingStore struct {
	cache.Store
	between func()
}

func (s *shiftingStore) Due(before time.Time, limit int) ([]cache.Row, error) {
	rows, err := s.Store.Due(before, limit)
	if s.between != nil {
		between := s.between
		s.between = nil
		between()
	}
	return rows, err
}

// Commits between the two looks into the index neither hide the next moment nor
// something that is due by now.
func TestDueWhileCommitted(t *testing.T) {
	inWorld(t, func(w *world) {
		for i, name := range []string{"a", "b", "c", "d"} {
			w.plan(name, i-1, false) // a and b are due
		}
		shifting := &shiftingStore{Store: w.store.Store}
		w.store.Store = shifting
		shifting.between = func() { w.plan("a", 30, false) }
		w.wantDue(10, "a b", noon.Add(time.Minute))
		shifting.between = func() { w.plan("a", -1, false) }
		w.wantDue(10, "b", noon)
	})
}

// listModel is what Records and List should say, from plain values.
type listModel map[string]*cache.Record

func (m listModel) names(keep func(*cache.Record) bool) []string {
	var list []string
	for name, r := range m {
		if keep(r) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// edgeNames are names where prefixes and the order of bytes go wrong first.
var edgeNames = []string{" ", "a", "a ", "a/", "aa", "aa\U0010ffff", "ab", "aé", "aê", "b", "é", "éa", "ê", "\u07ff", "\u0800", "\uffff", "\U00010000", "\U0010ffff", "\U0010ffff\U0010ffff"}

// Pages of names, with and without state and prefix, are those of a plain model,
// with any part of the names in memory only.
func TestPagesRandomly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(rt *rapid.T) {
			c, err := cache.Open(storetest.Model(), t.TempDir(), cache.Options{Identity: identity, Now: func() time.Time { return noon }})
			if err != nil {
				rt.Fatal(err)
			}
			defer c.Close()
			model := listModel{}
			for range rapid.IntRange(0, 25).Draw(rt, "changes") {
				changeOne(rt, c, model)
			}
			checkList(rt, c, model)
			checkRecords(rt, c, model)
			if rapid.Bool().Draw(rt, "flush") && c.Flush() != nil {
				rt.Fatal("flush")
			}
			checkList(rt, c, model)
			checkRecords(rt, c, model)
		})
	})
}

// inBubble hides the deadline of a test, which nobody may ask for in a bubble.
type inBubble struct{ testing.TB }

// changeOne commits, stages or deletes one name.
func changeOne(rt *rapid.T, c *cache.Cache, model listModel) {
	name := rapid.SampledFrom(edgeNames).Draw(rt, "name")
	r, err := c.Record(name)
	if errors.Is(err, cache.ErrUnknown) {
		r, err = cache.NewRecord(name), nil
	}
	if err != nil {
		rt.Fatal(err)
	}
	g := grantOf(name)
	r.Grant, r.Block, r.Current, r.Generation = &g, nil, nil, 0
	switch rapid.SampledFrom([]string{"pending", "blocked", "expired", "delete"}).Draw(rt, "change") {
	case "blocked":
		r.Block = &cache.Block{Reason: "x"}
	case "expired":
		r.Generation = 1
	case "delete":
		r.Grant = nil
	}
	if model[name] = r; rapid.Bool().Draw(rt, "stage") {
		err = c.Stage(r)
		if r.Grant == nil && err == nil { // listed until it is written
			err = c.Flush()
		}
	} else {
		err = c.Commit(context.Background(), r)[0]
	}
	if err != nil {
		rt.Fatal(err)
	}
	if r.Grant == nil {
		delete(model, name)
	}
}

func checkList(rt *rapid.T, c *cache.Cache, model listModel) {
	after := rapid.SampledFrom(append(edgeNames, "", "\x00", "\x00meta", "\x7f", "zzz")).Draw(rt, "after")
	limit := rapid.IntRange(1, len(edgeNames)+1).Draw(rt, "limit")
	want := model.names(func(r *cache.Record) bool { return r.Name > after })
	var got []string
	for {
		views, err := c.List(after, limit)
		if err != nil || len(views) > limit {
			rt.Fatalf("list: %d of %d, %v", len(views), limit, err)
		}
		for _, v := range views {
			got = append(got, v.Name())
			after = v.Name()
			if v.State(noon) != model[v.Name()].State(noon) {
				rt.Fatalf("%q is listed as %s", v.Name(), v.State(noon))
			}
		}
		if len(views) < limit {
			break
		}
	}
	if !slices.Equal(got, want) {
		rt.Fatalf("listed %q, want %q", got, want)
	}
}

func checkRecords(rt *rapid.T, c *cache.Cache, model listModel) {
	q := cache.Query{
		State:  rapid.SampledFrom([]cache.State{"", cache.Pending, cache.Blocked, cache.Expired}).Draw(rt, "state"),
		Prefix: rapid.SampledFrom([]string{"", "a", "aa", "é", "\xc3", "\U0010ffff", "zzz", "\x00", "a\x00"}).Draw(rt, "prefix"),
		After:  rapid.SampledFrom(append(edgeNames, "", "\x00")).Draw(rt, "after"),
		Limit:  rapid.IntRange(1, len(edgeNames)).Draw(rt, "limit"),
	}
	want := model.names(func(r *cache.Record) bool {
		return r.Name > q.After && strings.HasPrefix(r.Name, q.Prefix) && (q.State == "" || r.State(noon) == q.State)
	})
	var got []string
	for {
		recs, next, err := c.Records(q, noon)
		if err != nil || len(recs) > q.Limit || (next != "" && len(recs) < q.Limit) {
			rt.Fatalf("records: %d of %d, next %q, %v", len(recs), q.Limit, next, err)
		}
		got = append(got, names(recs)...)
		if next == "" {
			break
		}
		q.After = next
	}
	if !slices.Equal(got, want) {
		rt.Fatalf("%+v: got %q, want %q", q, got, want)
	}
}

// Many names: more than one page inside, default and largest limit.
func TestRecordsLimits(t *testing.T) {
	inWorld(t, func(w *world) {
		var recs []*cache.Record
		for i := range 1203 {
			r := cache.NewRecord(fmt.Sprintf("n%04d", i))
			g := grantOf(r.Name)
			r.Grant = &g
			recs = append(recs, r)
		}
		for _, err := range w.cache.Commit(t.Context(), recs...) {
			mustDo(t, err)
		}
		for limit, want := range map[int]int{0: 100, -1: 100, 7: 7, 1000: 1000, 5000: cache.MaxListed} {
			got, next, err := w.cache.Records(cache.Query{Limit: limit}, w.now)
			if err != nil || len(got) != want || next != fmt.Sprintf("n%04d", want-1) {
				t.Errorf("limit %d: %d records, next %q, %v", limit, len(got), next, err)
			}
		}
		got, next, err := w.cache.Records(cache.Query{Prefix: "n12", Limit: 3}, w.now)
		if err != nil || len(got) != 3 || next != "" {
			t.Errorf("the last three: %d records, next %q, %v", len(got), next, err)
		}
		blocks, err := w.cache.Blocks()
		if err != nil || len(blocks) != 0 {
			t.Errorf("blocks: %v, %v", blocks, err)
		}
	})
}

// A name that is flushed while a page is read is listed as it was at the call or
// later, never as it was before it was staged.
func TestPageWhileFlushed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 1)
		_, err := w.cache.Decide(cache.Decision{Action: cache.ActRevoke, Names: []string{"a"}, Reason: "stolen"})
		mustDo(t, err)
		w.store.Store = scanFirst{w.store.Store, func() { mustDo(t, w.cache.Flush()) }}
		views, err := w.cache.List("", 10)
		if err != nil || len(views) != 1 || views[0].State(w.now) != cache.Blocked {
			t.Errorf("listed %v, %v", views[0].State(w.now), err)
		}
	})
}

// scanFirst does something after each scan, before its caller gets the rows.
type scanFirst struct {
	cache.Store
	then func()
}

func (s scanFirst) Scan(after string, limit int) ([]cache.Row, error) {
	rows, err := s.Store.Scan(after, limit)
	s.then()
	return rows, err
}
