package cache_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/pamsidecar/pamsidecar/cache"
)

// The line of a decision is on disk before any record that it has changed, also
// when it is not Flush that writes the record.
func TestLineBeforeRecord(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 1)
		out, err := w.cache.Decide(cache.Decision{Action: cache.ActRefresh, Names: []string{"a"}})
		mustDo(t, err)
		line := fmt.Sprintf(`"seq":%d,`, out.Decision.Seq)
		checked := false
		w.store.hook(func([]string) error {
			data, err := os.ReadFile(w.path("audit.log"))
			mustDo(t, err)
			checked = true
			if !strings.Contains(string(data), line) {
				t.Errorf("a record is written before its line %s:\n%s", line, data)
			}
			return nil
		}, nil)
		mustDo(t, w.cache.Commit(t.Context(), w.record("a"))[0])
		if !checked {
			t.Error("nothing was written")
		}
	})
}

// While the journal refuses, no record that a decision has changed reaches the
// disk: its number would be given to another decision after a crash.
func TestJournalRefuses(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 1)
		w.put("b", 1)
		w.refuseJournal(true)
		_, err := w.cache.Decide(cache.Decision{Action: cache.ActRefresh, Names: []string{"a"}})
		mustDo(t, err)
		w.store.taken()
		r := w.record("a")
		r.Note(w.now, "x")
		if err := w.cache.Commit(t.Context(), r)[0]; !errors.Is(err, cache.ErrDegraded) || !errors.Is(err, errDisk) {
			t.Errorf("commit: %v", err)
		}
		w.put("b", 2) // needs no line
		if err := w.cache.Flush(); !errors.Is(err, errDisk) {
			t.Errorf("flush: %v", err)
		}
		if got := fmt.Sprint(w.store.taken()); got != "[[b]]" {
			t.Errorf("written: %s", got)
		}
		if err := w.cache.Degraded(); !errors.Is(err, errDisk) {
			t.Errorf("degraded: %v", err)
		}
		if n := w.cache.Unsaved(); n != 2 {
			t.Errorf("%d unsaved, want the line and the record", n)
		}
		// After a crash, the number of the lost decision is given away again.
		lost := w.copyState()
		lost.open()
		lost.block("a")
		lost.wantState("a", cache.Blocked)

		w.refuseJournal(false)
		mustDo(t, w.cache.Flush())
		if w.cache.Degraded() != nil || w.cache.Unsaved() != 0 {
			t.Errorf("healed: %v, %d unsaved", w.cache.Degraded(), w.cache.Unsaved())
		}
		w.reopen()
		if r := w.record("a"); r.Decision == 0 || len(r.Events) != 2 {
			t.Errorf("on disk: %+v", r)
		}
	})
}

// A later decision on the same name, whose line the journal refuses, keeps the
// record from the disk. Then the earlier one does not count as applied either.
func TestOvertakenDecision(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 1)
		_, err := w.cache.Decide(cache.Decision{Action: cache.ActRevoke, Names: []string{"a"}, Reason: "stolen"})
		mustDo(t, err)
		once := sync.OnceFunc(func() {
			_, err := w.cache.Decide(cache.Decision{Action: cache.ActRefresh, Names: []string{"a"}})
			mustDo(t, err)
		})
		cache.WrapJournal(w.cache, func(f cache.JournalFile) cache.JournalFile { return &syncOnce{JournalFile: f, then: once} })
		if err := w.cache.Flush(); !errors.Is(err, errDisk) {
			t.Errorf("flush: %v", err)
		}
		w.wantState("a", cache.Blocked)
		w.reopen()
		w.wantState("a", cache.Blocked)
		if n := w.record("a").OpenWithdrawals(); n != 1 {
			t.Errorf("%d to withdraw", n)
		}
	})
}

// syncOnce does something after the first sync, and fails from then on.
type syncOnce struct {
	cache.JournalFile
	then func()
	done bool
}

func (s *syncOnce) Write(p []byte) (int, error) {
	if s.done {
		return 0, errDisk
	}
	return s.JournalFile.Write(p)
}

func (s *syncOnce) Sync() error {
	err := s.JournalFile.Sync()
	s.done = true
	s.then()
	return err
}
