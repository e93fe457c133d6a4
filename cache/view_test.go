package cache_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/cache/storetest"
)

// The first read of a name looks up one record, every later one touches memory
// only, and a name that does not exist takes no room.
func TestViewLooksUpOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 1)
		w.restart()
		before := w.store.countGets()
		for range 3 {
			w.wantState("a", cache.Fresh)
		}
		if n := w.store.countGets() - before; n != 1 {
			t.Errorf("three reads took %d look-ups, want 1", n)
		}
		w.put("a", 2)
		w.block("a")
		before = w.store.countGets()
		w.wantState("a", cache.Blocked)
		if n := w.store.countGets() - before; n != 0 {
			t.Errorf("a read after a write took %d look-ups", n)
		}
		for range 2 {
			w.wantState("nobody", "unknown")
		}
		if n := w.store.countGets() - before; n != 2 {
			t.Errorf("two reads of an unknown name took %d look-ups, want 2", n)
		}
		for _, name := range []string{"", "\x00meta", "\x00file", "a\nb", "\xff", strings.Repeat("x", 93)} {
			if _, err := w.cache.View(name); !errors.Is(err, cache.ErrUnknown) {
				t.Errorf("%q: %v", name, err)
			}
			if _, err := w.cache.Record(name); !errors.Is(err, cache.ErrUnknown) {
				t.Errorf("record of %q: %v", name, err)
			}
		}
		if n := w.store.countGets() - before; n != 2 {
			t.Error("a name that cannot be was looked up")
		}
	})
}

// What happens to a name while its first reader looks it up is not overwritten
// with what that reader found.
func TestLookUpRaces(t *testing.T) {
	remove := func(w *world) {
		r := w.record("a")
		r.Grant, r.Current = nil, nil
		mustDo(w.t, w.cache.Commit(context.Background(), r)[0])
	}
	tests := []struct {
		about     string
		meanwhile func(*world)
		want      cache.State
		token     uint64
	}{
		{"nothing", func(*world) {}, cache.Fresh, 1},
		{"committed", func(w *world) { w.put("a", 2) }, cache.Fresh, 2},
		{"blocked", func(w *world) { w.block("a") }, cache.Blocked, 0},
		{"deleted", remove, "unknown", 0},
		{"deleted and made anew", func(w *world) { remove(w); w.put("a", 3) }, cache.Fresh, 3},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.put("a", 1)
				w.reopen()
				once := sync.OnceFunc(func() { w.store.got = nil; tt.meanwhile(w) })
				w.store.got = func(string) { once() }
				for range 2 {
					w.wantState("a", tt.want)
					if _, token := w.state("a"); tt.token > 0 && token != w.token("a", tt.token).Raw {
						t.Errorf("served: %s", token.Reveal())
					}
				}
			})
		})
	}
}

func TestChanged(t *testing.T) {
	inWorld(t, func(w *world) {
		woken := func(ch <-chan struct{}) bool {
			select {
			case <-ch:
				return true
			default:
				return false
			}
		}
		wants := func(what string, change func(), want bool) {
			t.Helper()
			ch, done := w.cache.Changed("a")
			defer done()
			if change(); woken(ch) != want {
				t.Errorf("%s: woken is %v", what, !want)
			}
		}
		wants("created", func() { w.put("a", 1) }, true)
		wants("committed", func() { w.put("a", 2) }, true)
		wants("another name", func() { w.put("b", 1) }, false)
		wants("staged", func() { mustDo(t, w.cache.Stage(w.record("a"))) }, true)
		wants("flushed", func() { mustDo(t, w.cache.Flush()) }, false)
		wants("refused by the disk", func() { w.store.refuse(true); w.cache.Commit(context.Background(), w.record("a")) }, true)
		wants("refused again", func() { w.cache.Flush(); w.store.refuse(false) }, false)
		wants("healed", func() { mustDo(t, w.cache.Flush()) }, false)
		conflict := w.record("a")
		w.put("a", 3)
		wants("conflict", func() { w.cache.Commit(context.Background(), conflict) }, false)
		rule := uint64(0)
		wants("block rule", func() {
			rule = w.decide(cache.Decision{Action: cache.ActRevoke, All: true, Reason: "x"}).Decision.Seq
		}, true)
		wants("block rule removed", func() { w.decide(cache.Decision{Action: cache.ActRemoveRule, Rule: rule}) }, true)

		first, done1 := w.cache.Changed("a")
		second, done2 := w.cache.Changed("a")
		if !w.cache.Waited("a") || w.cache.Waited("b") {
			t.Error("who waits for what")
		}
		done1()
		done1()
		if !w.cache.Waited("a") {
			t.Error("giving up twice has counted twice")
		}
		w.put("a", 4)
		if !woken(first) || !woken(second) || w.cache.Waited("a") {
			t.Error("two who waited")
		}
		third, done3 := w.cache.Changed("a")
		done2() // of a channel that has been closed
		if !w.cache.Waited("a") || woken(third) {
			t.Error("giving up an old channel concerns nobody else")
		}
		done3()
		if w.cache.Waited("a") {
			t.Error("somebody is left")
		}
		// Rules hold for names nobody has seen.
		ch, done := w.cache.Changed("nobody")
		defer done()
		w.decide(cache.Decision{Action: cache.ActRevoke, Match: "x", Reason: "x"})
		if !woken(ch) {
			t.Error("a new rule wakes everybody")
		}
	})
}

// Readers that wait in the way of the sockets see the last change, whatever
// happens at the same time, and never a token after it was withdrawn.
func TestReadersAndWriters(t *testing.T) {
	inWorld(t, func(w *world) {
		const last = 60
		var readers sync.WaitGroup
		w.put("a", 1)
		w.reopen()
		for range 4 {
			readers.Go(func() {
				seen := uint64(0)
				for seen < last {
					changed, done := w.cache.Changed("a")
					v, err := w.cache.View("a")
					if err != nil {
						t.Error(err)
						done()
						return
					}
					if g := v.Generation(); g < seen {
						t.Errorf("generation %d after %d", g, seen)
					} else {
						seen = g
					}
					if seen < last {
						<-changed
					}
					done()
				}
			})
		}
		for g := uint64(2); g <= last; g++ {
			w.put("a", g)
		}
		readers.Wait()
	})
}

// The moment of the state counts, not that of the last change.
func TestViewIsATime(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 1)
		v, err := w.cache.View("a")
		mustDo(t, err)
		end := v.Expires().Add(-cache.EndMargin)
		if v.State(end.Add(-1)) != cache.Fresh || v.State(end) != cache.Expired {
			t.Errorf("at its end: %s, %s", v.State(end.Add(-1)), v.State(end))
		}
	})
}

// BenchmarkView is the read of a name that was read before.
func BenchmarkView(b *testing.B) {
	c, err := cache.Open(storetest.Model(), b.TempDir(), cache.Options{Identity: identity, Now: time.Now})
	mustDo(b, err)
	mustDo(b, c.Update("a", func(r *cache.Record) bool { g := grantOf(r.Name); r.Grant = &g; return true }))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.View("a"); err != nil {
			b.Fatal(err)
		}
	}
}
