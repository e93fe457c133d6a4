package cache_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// A token is served only when it is on disk, and readers wait for no write.
func TestPersistThenPublish(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 0)
		w.put("other", 1)
		w.reopen()
		w.wantState("a", cache.Pending)
		changed, done := w.cache.Changed("a")
		defer done()
		looks := 0
		look := func([]string) error {
			looks++
			w.wantState("a", cache.Pending)
			w.wantState("other", cache.Fresh) // not looked up before
			w.wantState("nobody", "unknown")
			select {
			case <-changed:
				t.Error("readers were woken before the token was on disk")
			default:
			}
			return nil
		}
		w.store.hook(look, func(names []string) { look(names) })
		w.put("a", 1)
		w.wantState("a", cache.Fresh)
		<-changed
		if looks != 2 {
			t.Errorf("looked %d times", looks)
		}
		w.reopen()
		w.store.hook(func([]string) error { w.wantState("a", cache.Fresh); return nil }, nil)
		mustDo(t, w.cache.SetClockOffset(time.Second))
	})
}

func TestFence(t *testing.T) {
	commit := func(w *world, r *cache.Record) error { return w.cache.Commit(context.Background(), r)[0] }
	remove := func(w *world) {
		r := w.record("a")
		r.Grant, r.Current = nil, nil
		mustDo(w.t, commit(w, r))
		w.wantRow("a", false)
	}
	tests := []struct {
		about     string
		reopen    bool // so that memory knows nothing of the name
		meanwhile func(*world)
		conflict  bool
	}{
		{"nothing", false, func(w *world) {}, false},
		{"nothing, read from disk", true, func(w *world) {}, false},
		{"looked at", true, func(w *world) { w.wantState("a", cache.Fresh) }, false},
		{"another name was deleted", true, func(w *world) { w.put("b", 0); r := w.record("b"); r.Grant = nil; mustDo(w.t, commit(w, r)) }, false},
		{"committed", false, func(w *world) { w.put("a", 2) }, true},
		{"committed, read from disk", true, func(w *world) { w.put("a", 2) }, true},
		{"staged", false, func(w *world) { mustDo(w.t, w.cache.Stage(w.record("a"))) }, true},
		{"staged, read from disk", true, func(w *world) { mustDo(w.t, w.cache.Stage(w.record("a"))) }, true},
		{"staged and written", true, func(w *world) { mustDo(w.t, w.cache.Stage(w.record("a"))); mustDo(w.t, w.cache.Flush()) }, true},
		{"deleted", false, remove, true},
		{"deleted, read from disk", true, remove, true},
		{"deleted and made anew", false, func(w *world) { remove(w); w.put("a", 1) }, true},
		{"deleted and made anew, read from disk", true, func(w *world) { remove(w); w.put("a", 1) }, true},
		{"deleted, made anew and looked at", true, func(w *world) { remove(w); w.put("a", 1); w.wantState("a", cache.Fresh) }, true},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.put("a", 1)
				if tt.reopen {
					w.reopen()
				}
				late := w.record("a")
				late.Current = new(w.token("late", 9))
				tt.meanwhile(w)
				err := commit(w, late)
				if errors.Is(err, cache.ErrConflict) != tt.conflict || (err != nil) != tt.conflict {
					t.Fatalf("commit: %v", err)
				}
				_, token := w.state("a")
				if served := token == late.Current.Raw; served == tt.conflict {
					t.Errorf("the late token is served: %v", served)
				}
				if err := w.cache.Stage(late); !errors.Is(err, cache.ErrConflict) {
					t.Errorf("the same state once more: %v", err)
				}
			})
		})
	}
}

func TestFenceNewRecord(t *testing.T) {
	inWorld(t, func(w *world) {
		first, second, staged := cache.NewRecord("a"), cache.NewRecord("a"), cache.NewRecord("a")
		g := grantOf("a")
		first.Grant, second.Grant, staged.Grant = &g, &g, &g
		mustDo(t, w.cache.Commit(t.Context(), first)[0])
		if err := w.cache.Commit(t.Context(), second)[0]; !errors.Is(err, cache.ErrConflict) {
			t.Errorf("a second new record: %v", err)
		}
		if err := w.cache.Stage(staged); !errors.Is(err, cache.ErrConflict) {
			t.Errorf("staged: %v", err)
		}
		w.reopen()
		if err := w.cache.Commit(t.Context(), second)[0]; !errors.Is(err, cache.ErrConflict) {
			t.Errorf("new to this process only: %v", err)
		}
	})
}

// A decision that arrives while the result of a grant is being written wins, in
// memory and on disk.
func TestStagedWhileWritten(t *testing.T) {
	for _, when := range []string{"before", "after"} {
		for _, viewed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s it is on disk, viewed %v", when, viewed), func(t *testing.T) {
				inWorld(t, func(w *world) {
					w.put("a", 1)
					w.reopen()
					if viewed {
						w.wantState("a", cache.Fresh)
					}
					result := w.record("a")
					result.Current, result.Generation = new(w.token("a", 2)), 2
					var revoking sync.WaitGroup
					revoke := func() {
						_, err := w.cache.Decide(cache.Decision{Action: cache.ActRevoke, Names: []string{"a"}, Reason: "stolen"})
						mustDo(t, err)
						w.wantState("a", cache.Blocked)
					}
					before := func([]string) error {
						if when == "before" {
							revoke()
						}
						return nil
					}
					w.store.hook(before, func([]string) {
						if when == "after" { // it may have to wait until that is published
							revoking.Go(revoke)
						}
					})
					err := w.cache.Commit(t.Context(), result)[0]
					revoking.Wait()
					w.store.hook(nil, nil)
					w.wantState("a", cache.Blocked)
					if when == "before" && !errors.Is(err, cache.ErrConflict) {
						t.Errorf("commit: %v", err)
					}
					mustDo(t, w.cache.Flush())
					w.wantState("a", cache.Blocked)
					r := w.record("a")
					if len(r.Withdrawn) == 0 || r.Current != nil {
						t.Errorf("after the revoke: %+v", r)
					}
					w.reopen()
					w.wantState("a", cache.Blocked)
					if got := w.record("a"); len(got.Withdrawn) != len(r.Withdrawn) {
						t.Errorf("%d to withdraw on disk, %d in memory", len(got.Withdrawn), len(r.Withdrawn))
					}
				})
			})
		}
	}
}

// Writing a state to disk does not make it another: who works on it may commit,
// in whatever order the two come.
func TestFlushIsNoChange(t *testing.T) {
	for _, order := range []string{"flush first", "flush refused first", "commit first", "together", "together, commit first"} {
		t.Run(order, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.put("a", 1)
				old := w.record("a")
				_, err := w.cache.Decide(cache.Decision{Action: cache.ActRefresh, Names: []string{"a"}})
				mustDo(t, err)
				changed, done := w.cache.Changed("a")
				defer done()
				r := w.record("a")
				r.Current, r.Generation = new(w.token("a", 2)), 2
				switch order {
				case "flush first":
					mustDo(t, w.cache.Flush())
					select {
					case <-changed:
						t.Error("a flush has woken readers")
					default:
					}
					if !w.record("a").SameVersion(r) {
						t.Error("the state is another after a flush")
					}
				case "flush refused first":
					w.store.refuse(true)
					if w.cache.Flush() == nil {
						t.Error("flush: no error")
					}
					w.store.refuse(false)
				case "together", "together, commit first":
					w.put("b", 1) // the next commits wait, and share a transaction
					var wait sync.WaitGroup
					if order == "together" {
						wait.Go(func() { mustDo(t, w.cache.Flush()) })
						synctest.Wait()
					}
					wait.Go(func() { mustDo(t, w.cache.Commit(context.Background(), r)[0]) })
					synctest.Wait()
					if order != "together" {
						wait.Go(func() { mustDo(t, w.cache.Flush()) })
					}
					wait.Wait()
					r = nil
				}
				if r != nil {
					mustDo(t, w.cache.Commit(t.Context(), r)[0])
				}
				if err := w.cache.Commit(t.Context(), old)[0]; !errors.Is(err, cache.ErrConflict) {
					t.Errorf("from before the decision: %v", err)
				}
				mustDo(t, w.cache.Flush())
				for range 2 {
					if got := w.record("a"); got.Generation != 2 || got.Decision == 0 {
						t.Errorf("got %+v", got)
					}
					w.reopen()
				}
			})
		})
	}
}

// A record that is read when it is on disk and not yet published is the state that
// is published then.
func TestReadBeforePublished(t *testing.T) {
	for _, viewed := range []bool{false, true} {
		inWorld(t, func(w *world) {
			w.put("a", 1)
			w.reopen()
			if viewed {
				w.wantState("a", cache.Fresh)
			}
			var read *cache.Record
			w.store.hook(nil, func([]string) { read = w.record("a") })
			w.put("a", 2)
			w.store.hook(nil, nil)
			read.Note(w.now, "x")
			if err := w.cache.Commit(t.Context(), read)[0]; err != nil {
				t.Errorf("viewed %v: %v", viewed, err)
			}
		})
	}
}

// A record that was read from disk while a decision was staged is not the state
// that was staged.
func TestReadWhileStaged(t *testing.T) {
	read := map[string]func(*world) *cache.Record{
		"one": func(w *world) *cache.Record { return w.record("a") },
		"due": func(w *world) *cache.Record {
			recs, _, err := w.cache.Due(noon.Add(2*time.Hour), 10)
			mustDo(w.t, err)
			return recs[0]
		},
	}
	for about, read := range read {
		t.Run(about, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.put("a", 1)
				w.wantState("a", cache.Fresh)
				revoke := func() {
					w.store.got = nil
					_, err := w.cache.Decide(cache.Decision{Action: cache.ActRevoke, Names: []string{"a"}, Reason: "stolen"})
					mustDo(t, err)
				}
				if about == "due" {
					w.store.Store = &shiftingStore{Store: w.store.Store, between: revoke}
				} else {
					w.store.got = func(string) { revoke() }
				}
				late := read(w)
				if late.Block != nil {
					t.Fatal("it was read after the decision")
				}
				for range 2 {
					if err := w.cache.Commit(t.Context(), late)[0]; !errors.Is(err, cache.ErrConflict) {
						t.Errorf("commit: %v", err)
					}
					w.wantState("a", cache.Blocked)
					mustDo(t, w.cache.Flush())
				}
			})
		})
	}
}

// What moves on while Flush writes it is written too before Flush says that all
// is on disk.
func TestFlushCatchesUp(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 1)
		note := func(text string) {
			r := w.record("a")
			r.Note(w.now, text)
			mustDo(t, w.cache.Stage(r))
		}
		note("first")
		left := []string{"second", "third"}
		w.store.hook(func([]string) error {
			if len(left) > 0 {
				note(left[0])
				left = left[1:]
			}
			return nil
		}, nil)
		mustDo(t, w.cache.Flush())
		if n := w.cache.Unsaved(); n != 0 {
			t.Errorf("%d unsaved", n)
		}
		w.reopen()
		if r := w.record("a"); len(r.Events) != 3 {
			t.Errorf("on disk: %+v", r.Events)
		}
	})
}
