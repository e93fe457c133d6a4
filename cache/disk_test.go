package cache_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// While the disk refuses, tokens are served from memory and nothing is granted
// twice; when it takes writes again, nothing is lost.
func TestDiskRefuses(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 1)
		stale := w.record("a")
		w.store.refuse(true)
		r := w.record("a")
		r.Current, r.Generation, r.NextAttempt = new(w.token("a", 2)), 2, w.now.Add(time.Minute)
		err := w.cache.Commit(t.Context(), r)[0]
		if !errors.Is(err, cache.ErrDegraded) || !errors.Is(err, errDisk) {
			t.Fatalf("commit: %v", err)
		}
		if _, token := w.state("a"); token != w.token("a", 2).Raw {
			t.Errorf("served: %s", token.Reveal())
		}
		if err := w.cache.Degraded(); !errors.Is(err, errDisk) {
			t.Errorf("degraded: %v", err)
		}
		if n := w.cache.Unsaved(); n != 1 {
			t.Errorf("%d unsaved", n)
		}
		due, next, err := w.cache.Due(w.now.Add(time.Second), 10)
		if len(due) != 0 || !next.Equal(w.now.Add(time.Minute)) || err != nil {
			t.Errorf("due %v, next %v, %v: what memory has counts", due, next, err)
		}
		working := w.record("a")
		for range 3 {
			if err := w.cache.Flush(); !errors.Is(err, errDisk) || !errors.Is(err, cache.ErrDegraded) {
				t.Errorf("flush: %v", err)
			}
		}
		working.Current, working.Generation = new(w.token("a", 3)), 3
		if err := w.cache.Commit(t.Context(), working)[0]; !errors.Is(err, cache.ErrDegraded) {
			t.Errorf("a result whose name was flushed in vain meanwhile: %v", err)
		}

		lost := w.copyState()
		lost.open()
		if _, token := lost.state("a"); token != w.token("a", 1).Raw {
			t.Errorf("after a crash: %s", token.Reveal())
		}

		w.store.refuse(false)
		mustDo(t, w.cache.Flush())
		if w.cache.Degraded() != nil || w.cache.Unsaved() != 0 {
			t.Errorf("healed: %v, %d unsaved", w.cache.Degraded(), w.cache.Unsaved())
		}
		if err := w.cache.Commit(t.Context(), stale)[0]; !errors.Is(err, cache.ErrConflict) {
			t.Errorf("from before: %v", err)
		}
		w.reopen()
		if _, token := w.state("a"); token != w.token("a", 3).Raw {
			t.Errorf("on disk: %s", token.Reveal())
		}
	})
}

// A disk that is full for long: more than one batch of names, a revoke and a
// removal among them.
func TestDiskRefusesMany(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("removed", 1)
		w.put("revoked", 1)
		w.store.refuse(true)
		const n = cache.FlushBatch + 10
		for i := range n {
			r := cache.NewRecord(fmt.Sprintf("n%d", i))
			g := grantOf(r.Name)
			r.Grant, r.Generation = &g, uint64(i+1)
			mustStay(t, w.cache.Commit(t.Context(), r)[0])
		}
		r := w.record("removed")
		r.Grant, r.Current = nil, nil
		mustStay(t, w.cache.Commit(t.Context(), r)[0])
		_, err := w.cache.Decide(cache.Decision{Action: cache.ActRevoke, Names: []string{"revoked"}, Reason: "stolen"})
		mustDo(t, err)
		if w.cache.Flush() == nil {
			t.Error("flush: no error")
		}
		w.store.refuse(false)
		mustDo(t, w.cache.Flush())
		w.reopen()
		w.wantState("removed", "unknown")
		w.wantState("revoked", cache.Blocked)
		for i := range n {
			if r := w.record(fmt.Sprintf("n%d", i)); r.Generation != uint64(i+1) {
				t.Fatalf("n%d: generation %d", i, r.Generation)
			}
		}
	})
}

func mustStay(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, cache.ErrDegraded) {
		t.Fatalf("got %v, want an error that says the change holds in memory", err)
	}
}

// What is no record counts as well: it is written again, and degraded ends.
func TestDiskRefusesMeta(t *testing.T) {
	inWorld(t, func(w *world) {
		w.store.refuse(true)
		if err := w.cache.SetClockOffset(time.Minute); !errors.Is(err, errDisk) {
			t.Errorf("set: %v", err)
		}
		if got, known := w.cache.ClockOffset(); got != time.Minute || !known {
			t.Errorf("in memory: %v, %v", got, known)
		}
		if w.cache.Degraded() == nil || w.cache.Unsaved() != 1 {
			t.Errorf("degraded %v, %d unsaved", w.cache.Degraded(), w.cache.Unsaved())
		}
		if w.cache.Flush() == nil {
			t.Error("flush: no error")
		}
		w.store.refuse(false)
		mustDo(t, w.cache.Flush())
		if w.cache.Degraded() != nil || w.cache.Unsaved() != 0 {
			t.Errorf("healed: %v, %d unsaved", w.cache.Degraded(), w.cache.Unsaved())
		}
		w.reopen()
		if got, known := w.cache.ClockOffset(); got != time.Minute || !known {
			t.Errorf("on disk: %v, %v", got, known)
		}
		// A record that is written ends degraded, and the offset still has to be.
		w.store.refuse(true)
		if w.cache.SetClockOffset(time.Hour) == nil {
			t.Error("set: no error")
		}
		w.store.refuse(false)
		w.put("a", 1)
		if w.cache.Degraded() != nil || w.cache.Unsaved() != 1 {
			t.Errorf("degraded %v, %d unsaved", w.cache.Degraded(), w.cache.Unsaved())
		}
		mustDo(t, w.cache.Flush())
		w.reopen()
		if got, _ := w.cache.ClockOffset(); got != time.Hour {
			t.Errorf("on disk: %v", got)
		}
	})
}

// The disk refuses a write of which nothing is left to be written again: the next
// flush finds out whether it still does.
func TestDegradedEnds(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 1)
		w.store.refuse(true)
		r := w.record("a")
		r.Note(w.now, "x")
		mustStay(t, w.cache.Commit(t.Context(), r)[0])
		w.store.hook(func(names []string) error {
			if len(names) == 1 && names[0] == "a" {
				return nil
			}
			return errDisk
		}, nil)
		mustDo(t, w.cache.Flush())
		if w.cache.SetClockOffset(0) == nil || w.cache.Degraded() == nil {
			t.Error("the disk refuses again, and that is not told")
		}
		w.store.refuse(false)
		if mustDo(t, w.cache.Flush()); w.cache.Degraded() != nil {
			t.Errorf("degraded: %v", w.cache.Degraded())
		}
		// A conflict says nothing of the disk.
		w.store.refuse(true)
		stale := w.record("a")
		mustStay(t, w.cache.Commit(t.Context(), w.record("a"))[0])
		if err := w.cache.Commit(t.Context(), stale)[0]; !errors.Is(err, cache.ErrConflict) || w.cache.Degraded() == nil {
			t.Errorf("a conflict (%v) has ended: %v", err, w.cache.Degraded())
		}
		w.store.refuse(false)
		mustDo(t, w.cache.Flush())
	})
	inWorld(t, func(w *world) {
		w.put("b", 1)
		w.wantState("b", cache.Fresh)
		b := w.record("b")
		w.overwrite("b", w.row("b").Data) // now the store knows another revision
		w.store.refuse(true)
		w.plan("new", 1, true)
		if w.cache.Flush() == nil {
			t.Error("flush: no error")
		}
		w.store.refuse(false)
		if err := w.cache.Commit(t.Context(), b)[0]; !errors.Is(err, cache.ErrConflict) || w.cache.Degraded() == nil {
			t.Errorf("a conflict in the store (%v) has ended: %v", err, w.cache.Degraded())
		}
		// What is refused becomes nothing at all: no record is left to be written.
		r := w.record("new")
		r.Grant = nil
		r.NextAttempt = time.Time{}
		mustDo(t, w.cache.Commit(t.Context(), r)[0])
		if w.cache.Unsaved() != 0 || w.cache.Degraded() == nil {
			t.Errorf("%d unsaved, degraded: %v", w.cache.Unsaved(), w.cache.Degraded())
		}
		if mustDo(t, w.cache.Flush()); w.cache.Degraded() != nil {
			t.Errorf("degraded: %v", w.cache.Degraded())
		}
	})
}

// A record for which nothing is worth keeping leaves the disk and the views, and
// its name can begin again.
func TestBlankIsDeleted(t *testing.T) {
	for _, how := range []string{"commit", "stage"} {
		t.Run(how, func(t *testing.T) {
			inWorld(t, func(w *world) {
				for round := range 3 {
					w.put("a", 1)
					w.wantState("a", cache.Fresh)
					changed, done := w.cache.Changed("a")
					r := w.record("a")
					r.End(w.now.Add(-24 * time.Hour))
					r.Current = nil
					if how == "commit" {
						mustDo(t, w.cache.Commit(t.Context(), r)[0])
					} else {
						mustDo(t, w.cache.Stage(r))
						w.wantState("a", cache.Ended)
						mustDo(t, w.cache.Flush())
					}
					w.wantState("a", "unknown")
					w.wantRow("a", false)
					<-changed
					done()
					if views, err := w.cache.List("", 10); err != nil || len(views) != 0 {
						t.Errorf("round %d: listed %v, %v", round, views, err)
					}
				}
				// One that never was on disk takes no transaction.
				w.store.taken()
				if err := w.cache.Commit(t.Context(), cache.NewRecord("never"))[0]; err != nil || len(w.store.taken()) != 0 {
					t.Errorf("nothing at all: %v", err)
				}
				w.wantState("never", "unknown")
			})
		})
	}
}
