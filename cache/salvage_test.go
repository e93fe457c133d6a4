package cache_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam"
)

// A row that cannot be read costs its name alone.
func TestDamagedRecord(t *testing.T) {
	inWorld(t, func(w *world) {
		for g := uint64(1); g <= 5; g++ {
			w.put("b", g)
		}
		w.put("a", 1)
		w.put("c", 1)
		w.block("blocked")
		w.block("free", "free too")
		w.decide(cache.Decision{Action: cache.ActUnblock, Names: []string{"free"}})
		w.put("free", 1)
		w.decide(cache.Decision{Action: cache.ActRevoke, Names: []string{"free"}, Regrant: true, Reason: "rotate"})
		damaged := []string{"b", "blocked", "free"}
		for _, name := range damaged {
			w.overwrite(name, []byte("garbage"))
		}
		w.reopen()
		w.wantState("a", cache.Fresh)
		w.wantState("blocked", cache.Blocked)
		for _, name := range []string{"b", "free"} {
			if _, err := w.cache.View(name); !errors.Is(err, cache.ErrRecord) {
				t.Errorf("view of %s: %v", name, err)
			}
		}
		check := func() {
			t.Helper()
			for _, name := range damaged {
				r := w.record(name)
				if !r.Lost || r.Generation <= 5 || (r.Block != nil) != (name == "blocked") || !r.Removed() {
					t.Errorf("%s: %+v", name, r)
				}
				if !r.UnaccountedUntil.Equal(w.now.Add(pam.MaxTTL)) {
					t.Errorf("%s: unaccounted until %v", name, r.UnaccountedUntil)
				}
			}
			views, err := w.cache.List("", 10)
			if err != nil || len(views) != 6 {
				t.Errorf("%d listed, %v", len(views), err)
			}
			recs, _, err := w.cache.Records(cache.Query{}, w.now)
			if err != nil || strings.Join(names(recs), " ") != "a b blocked c free free too" {
				t.Errorf("records %q, %v", names(recs), err)
			}
			blocks, err := w.cache.Blocks()
			if err != nil || len(blocks) != 2 || blocks[0].Name != "blocked" || blocks[0].Reason != "stolen" {
				t.Errorf("blocks %+v, %v", blocks, err)
			}
		}
		check()
		check()
		if n := strings.Count(w.logs.String(), "made anew"); n != len(damaged) {
			t.Errorf("told %d times, want once for each name", n)
		}
		w.now = noon.Add(2 * time.Hour)
		recs, _, err := w.cache.Due(w.now, 10)
		if err != nil || strings.Join(names(recs), " ") != "free a b c" {
			t.Errorf("due %q, %v", names(recs), err)
		}
		w.now = noon

		// A new grant, committed like any other, puts it right.
		r := w.record("b")
		r.SetGrant(grantOf("b"), cache.FromFile, w.now)
		r.Generation++
		mustDo(t, w.cache.Commit(context.Background(), r)[0])
		w.block("free")
		for range 2 {
			w.wantState("b", cache.Expired)
			w.wantState("free", cache.Blocked)
			if r := w.record("b"); r.Lost || r.Generation <= 6 || r.UnaccountedUntil.IsZero() {
				t.Errorf("b: %+v", r)
			}
			w.reopen()
		}
	})
}

// A record whose row goes bad while the process runs: the token that readers have
// stays known, so that a revoke withdraws it.
func TestDamagedWhileServed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 1)
		w.put("a", 2)
		row := w.row("a")
		w.store.Store = garbling{w.store.Store}
		w.wantState("a", cache.Fresh)
		r := w.record("a")
		if !r.Lost || r.Current == nil || r.Current.Raw != w.token("a", 2).Raw || r.Generation <= row.Revision {
			t.Errorf("salvaged: %+v", r)
		}
		out := w.block("a")
		if generations(out) != "a[2]" {
			t.Errorf("outcome %+v", out)
		}
		w.wantState("a", cache.Blocked)
		w.store.Store = w.bolt
		w.reopen()
		w.wantState("a", cache.Blocked)
		if n := w.record("a").OpenWithdrawals(); n != 1 {
			t.Errorf("%d revokes", n)
		}
	})
}

// garbling damages the data of what is read.
type garbling struct{ cache.Store }

func (g garbling) Get(name string) (cache.Row, error) {
	row, err := g.Store.Get(name)
	if err == nil && name == "a" {
		row.Data[len(row.Data)/2] ^= 1
	}
	return row, err
}

// A generation is never used again, also when the disk has refused for so long
// that many of them share a revision.
func TestSalvagedGeneration(t *testing.T) {
	inWorld(t, func(w *world) {
		w.store.refuse(true)
		for g := uint64(1); g <= 300; g++ {
			r := w.recordOrNew("a")
			grant := grantOf("a")
			r.Grant, r.Generation, r.Current = &grant, g, new(w.token("a", g))
			mustStay(t, w.cache.Commit(t.Context(), r)[0])
		}
		w.store.refuse(false)
		mustDo(t, w.cache.Flush())
		last := uint64(300)
		for range 3 {
			w.overwrite("a", []byte("garbage"))
			w.reopen()
			r := w.record("a")
			if r.Generation <= last {
				t.Errorf("generation %d after %d", r.Generation, last)
			}
			r.SetGrant(grantOf("a"), cache.FromFile, w.now)
			r.Generation++
			last = r.Generation
			mustDo(t, w.cache.Commit(t.Context(), r)[0])
		}
	})
}

// What is read as damaged and written anew meanwhile is not taken for damaged.
func TestSalvageRaces(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 1)
		good := w.row("a")
		w.overwrite("a", []byte("garbage"))
		w.reopen()
		lost := w.record("a")
		w.overwrite("a", good.Data)
		if r := w.record("a"); r.Lost || r.Generation != 1 {
			t.Errorf("got %+v", r)
		}
		if err := w.cache.Commit(t.Context(), lost)[0]; !errors.Is(err, cache.ErrConflict) {
			t.Errorf("commit: %v", err)
		}
	})
}

// A damaged record and a damaged journal: whether the name was blocked cannot be
// known, so it is.
func TestDamagedRecordAndJournal(t *testing.T) {
	tests := []struct {
		about   string
		after   []cache.Decision // the damaged line
		blocked bool
	}{
		{"nothing", nil, true},
		{"another name", []cache.Decision{{Action: cache.ActRevoke, Names: []string{"x"}, Reason: "x"}}, true},
		{"unblocked", []cache.Decision{{Action: cache.ActRevoke, Names: []string{"a"}, Reason: "x"}, {Action: cache.ActUnblock, Names: []string{"a"}}}, false},
		{"accepted", []cache.Decision{{Action: cache.ActAcceptLost}}, false},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.put("a", 1)
				w.decide(cache.Decision{Action: cache.ActRevoke, Names: []string{"a"}, Regrant: true, Reason: "DAMAGE"})
				for _, d := range tt.after {
					w.decide(d)
				}
				w.overwrite("a", []byte("garbage"))
				w.crash()
				data, err := os.ReadFile(w.path("audit.log"))
				mustDo(t, err)
				mustDo(t, os.WriteFile(w.path("audit.log"), []byte(strings.Replace(string(data), `"DAMAGE"`, `"`, 1)), 0o600))
				w.open()
				r := w.record("a")
				if (r.Block != nil) != tt.blocked || w.cache.LostBlocks() {
					t.Errorf("block %+v, lost blocks %v", r.Block, w.cache.LostBlocks())
				}
				if !tt.blocked {
					return
				}
				w.wantState("a", cache.Blocked)
				r.SetGrant(grantOf("a"), cache.FromFile, w.now)
				mustDo(t, w.cache.Commit(t.Context(), r)[0])
				w.wantState("a", cache.Blocked)
				w.decide(cache.Decision{Action: cache.ActUnblock, Names: []string{"a"}})
				w.reopen()
				w.wantState("a", cache.Expired)
			})
		})
	}
}

// Rows that are damaged in every way a byte can be: the cache opens, lists, and
// serves the other name.
func TestDamagedBytes(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 1)
		w.put("b", 1)
		good := w.row("a").Data
		for i := 0; i < len(good); i += 7 {
			bad := append([]byte{}, good...)
			bad[i] ^= 0x20
			w.overwrite("a", bad)
			views, err := w.cache.List("", 10)
			if err != nil || len(views) != 2 || views[1].State(w.now) != cache.Fresh {
				t.Fatalf("byte %d: %v, %v", i, views, err)
			}
			if r := w.record("a"); !r.Lost {
				t.Fatalf("byte %d: %s", i, fmt.Sprint(r.Generation))
			}
		}
	})
}
