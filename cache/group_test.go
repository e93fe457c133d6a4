package cache_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// commitAfter commits a new record of each name at that time and returns when
// each commit came back, all since the call.
func commitAfter(w *world, starts map[string]time.Duration) map[string]time.Duration {
	w.t.Helper()
	began := time.Now()
	var mu sync.Mutex
	ends := map[string]time.Duration{}
	var all sync.WaitGroup
	for name, start := range starts {
		all.Go(func() {
			time.Sleep(start)
			r := cache.NewRecord(name)
			g := grantOf(name)
			r.Grant = &g
			if err := w.cache.Commit(context.Background(), r)[0]; err != nil {
				w.t.Errorf("%s: %v", name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			ends[name] = time.Since(began)
		})
	}
	all.Wait()
	return ends
}

// The first commit starts at once; what arrives within 50 ms of it shares the
// next transaction, and what arrives during a transaction the one after.
func TestGroupCommit(t *testing.T) {
	inWorld(t, func(w *world) {
		time.Sleep(time.Second)
		w.store.taken()
		const ms = time.Millisecond
		ends := commitAfter(w, map[string]time.Duration{"a": 0, "b": 1 * ms, "c": 20 * ms, "d": 49 * ms, "e": 51 * ms, "f": 99 * ms, "g": 500 * ms})
		want := map[string]time.Duration{"a": 0, "b": 50 * ms, "c": 50 * ms, "d": 50 * ms, "e": 100 * ms, "f": 100 * ms, "g": 500 * ms}
		for name, end := range want {
			if ends[name] != end {
				t.Errorf("%s came back after %v, want %v", name, ends[name], end)
			}
		}
		if got := fmt.Sprint(w.store.taken()); got != "[[a] [b c d] [e f] [g]]" {
			t.Errorf("transactions: %s", got)
		}

		time.Sleep(time.Second)
		w.store.hook(func([]string) error { time.Sleep(200 * ms); return nil }, nil)
		ends = commitAfter(w, map[string]time.Duration{"h": 0, "i": 10 * ms, "j": 190 * ms, "k": 249 * ms, "l": 251 * ms})
		want = map[string]time.Duration{"h": 200 * ms, "i": 450 * ms, "j": 450 * ms, "k": 450 * ms, "l": 700 * ms}
		for name, end := range want {
			if ends[name] != end {
				t.Errorf("slow disk: %s came back after %v, want %v", name, ends[name], end)
			}
		}
		if got := fmt.Sprint(w.store.taken()); got != "[[h] [i j k] [l]]" {
			t.Errorf("transactions on a slow disk: %s", got)
		}
	})
}

// Nothing is committed for a caller that has given up, and nothing for none.
func TestCommitCanceled(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		g := grantOf("a")
		r := cache.NewRecord("a")
		r.Grant = &g
		errs := w.cache.Commit(ctx, r, cache.NewRecord("b"))
		if len(errs) != 2 || !errors.Is(errs[0], context.Canceled) || !errors.Is(errs[1], context.Canceled) {
			t.Errorf("got %v", errs)
		}
		w.wantState("a", "unknown")
		if errs := w.cache.Commit(t.Context()); len(errs) != 0 {
			t.Errorf("nothing to commit: %v", errs)
		}
	})
}

// One batch with records of many names, some twice, some outdated: an answer for
// each, in order.
func TestCommitBatch(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("old", 1)
		outdated := w.record("old")
		w.put("old", 2)
		g := grantOf("x")
		made := func(name string) *cache.Record {
			r := cache.NewRecord(name)
			r.Grant = &g
			return r
		}
		errs := w.cache.Commit(t.Context(), made("a"), outdated, made("b"), made("a"), w.record("old"), cache.NewRecord("blank"))
		for i, want := range []error{nil, cache.ErrConflict, nil, cache.ErrConflict, nil, nil} {
			if !errors.Is(errs[i], want) {
				t.Errorf("record %d: %v, want %v", i, errs[i], want)
			}
		}
		w.wantState("a", cache.Pending)
		w.wantState("b", cache.Pending)
		w.wantState("blank", "unknown")
	})
}

// Writers of one name and of many, a flusher and decisions at the same time: no
// change is lost, on disk or in memory, and everybody gets an answer.
func TestConcurrentWriters(t *testing.T) {
	const writers, rounds = 6, 25
	inWorld(t, func(w *world) {
		w.put("shared", 0)
		stop := make(chan struct{})
		var others, all sync.WaitGroup
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(170 * time.Millisecond):
				}
				if _, err := w.cache.Decide(cache.Decision{Action: cache.ActRefresh, Names: []string{"shared"}}); err != nil {
					t.Error(err)
				}
				if err := w.cache.Flush(); err != nil {
					t.Error(err)
				}
			}
		})
		for i := range writers {
			all.Go(func() {
				own := fmt.Sprintf("own%d", i)
				for range rounds {
					for _, name := range []string{"shared", own} {
						if err := w.cache.Update(name, func(r *cache.Record) bool { g := grantOf(name); r.Grant = &g; r.Generation++; return true }); err != nil {
							t.Error(err)
						}
					}
					time.Sleep(time.Duration(i) * time.Millisecond)
				}
			})
		}
		all.Wait()
		close(stop)
		others.Wait()
		mustDo(t, w.cache.Flush())
		for range 2 {
			if r := w.record("shared"); r.Generation != writers*rounds {
				t.Errorf("shared: %d changes, want %d", r.Generation, writers*rounds)
			}
			for i := range writers {
				if r := w.record(fmt.Sprintf("own%d", i)); r.Generation != rounds {
					t.Errorf("own%d: %d changes, want %d", i, r.Generation, rounds)
				}
			}
			w.reopen()
		}
	})
}
