package cache_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/pamsidecar/pamsidecar/cache"
)

// Whatever was lost before, a start tells whether blocks may be missing, keeps
// that until it is accepted, and does not take an old word for it.
func TestLostBlocks(t *testing.T) {
	damage := func(w *world, old, put string) {
		data, err := os.ReadFile(w.path("audit.log"))
		mustDo(w.t, err)
		if !strings.Contains(string(data), old) {
			w.t.Fatalf("no %s in %s", old, data)
		}
		mustDo(w.t, os.WriteFile(w.path("audit.log"), []byte(strings.Replace(string(data), old, put, 1)), 0o600))
	}
	noDatabase := func(w *world) { mustDo(w.t, os.Remove(w.path("tokens.db"))) }
	noJournal := func(w *world) { mustDo(w.t, os.Remove(w.path("audit.log"))) }
	quarantined := func(w *world) {
		mustDo(w.t, os.WriteFile(w.path("tokens.db"), []byte("garbage, not a database"), 0o600))
	}
	badLine := func(w *world) { damage(w, `"action":"revoke"`, `"action":"rev`) }
	badMeta := func(w *world) {
		bolt, err := cache.OpenBolt(w.path("tokens.db"), cache.BoltOptions{NoSync: true})
		mustDo(w.t, err)
		row, err := bolt.Get("\x00meta")
		mustDo(w.t, err)
		row.Data[3] ^= 1
		mustDo(w.t, bolt.Commit(context.Background(), []cache.Row{row})[0])
		mustDo(w.t, bolt.Close())
	}
	tests := []struct {
		about    string
		damage   []func(*world)
		lost     bool // blocks
		database bool
		blocked  bool // name a
	}{
		{"nothing", nil, false, false, true},
		{"database", []func(*world){noDatabase}, false, true, true},
		{"journal", []func(*world){noJournal}, false, false, true},
		{"both removed: a new beginning", []func(*world){noDatabase, noJournal}, false, false, false},
		{"database quarantined", []func(*world){quarantined}, false, true, true},
		{"database quarantined, no journal", []func(*world){quarantined, noJournal}, true, true, false},
		{"a line", []func(*world){badLine}, false, false, true},
		{"a line and the database", []func(*world){badLine, noDatabase}, true, true, false},
		{"a line and a quarantined database", []func(*world){badLine, quarantined}, true, true, false},
		{"the store's own record", []func(*world){badMeta}, false, false, true},
		{"the store's own record, and the journal", []func(*world){badMeta, noJournal}, true, false, true},
		{"the store's own record, and a line", []func(*world){badMeta, badLine}, true, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.put("a", 1)
				w.block("a")
				w.decide(cache.Decision{Action: cache.ActReload, Detail: "x"})
				w.crash()
				for _, damage := range tt.damage {
					damage(w)
				}
				check := func(when string, lost, database bool) {
					t.Helper()
					if w.cache.LostBlocks() != lost || w.cache.LostDatabase() != database {
						t.Errorf("%s: lost blocks %v, lost database %v", when, w.cache.LostBlocks(), w.cache.LostDatabase())
					}
					if state, _ := w.state("a"); (state == cache.Blocked) != tt.blocked {
						t.Errorf("%s: a is %s", when, state)
					}
				}
				w.open()
				check("at the start", tt.lost, tt.database)
				w.reopen()
				check("at the next", tt.lost, tt.database) // the grants were not set yet
				w.quarantined = ""
				mustDo(t, w.cache.SetFileNames([]string{"a"}))
				w.restart()
				check("when the grants are set", tt.lost, false)
				if !tt.lost {
					return
				}
				w.crash() // and the database once more, before anybody has accepted it
				noDatabase(w)
				w.open()
				if !w.cache.LostBlocks() {
					t.Error("lost again: it is forgotten that blocks are missing")
				}
				w.decide(cache.Decision{Action: cache.ActAcceptLost})
				for range 2 {
					if w.cache.LostBlocks() {
						t.Error("not accepted")
					}
					w.reopen()
				}
				w.crash()
				noDatabase(w)
				w.open()
				if w.cache.LostBlocks() {
					t.Error("what was accepted is asked again")
				}
				// Damage after the acceptance is another matter.
				w.block("b")
				w.decide(cache.Decision{Action: cache.ActReload})
				w.crash()
				damage(w, `"names":["b"]`, `"names":["b"`)
				noDatabase(w)
				w.open()
				w.reopen()
				if !w.cache.LostBlocks() {
					t.Error("an old word was taken for new damage")
				}
			})
		})
	}
}

// A process that ended between moving the database aside and taking note of it.
func TestQuarantinedBefore(t *testing.T) {
	inWorld(t, func(w *world) {
		w.block("a")
		w.crash()
		mustDo(t, os.Rename(w.path("tokens.db"), w.path("tokens.db.corrupt-20270301T120000.000Z")))
		mustDo(t, os.Remove(w.path("audit.log")))
		w.open()
		if !w.cache.LostBlocks() || !w.cache.LostDatabase() {
			t.Errorf("lost blocks %v, lost database %v", w.cache.LostBlocks(), w.cache.LostDatabase())
		}
		mustDo(t, w.cache.SetFileNames(nil))
		w.decide(cache.Decision{Action: cache.ActAcceptLost})
		w.restart()
		if w.cache.LostBlocks() || w.cache.LostDatabase() {
			t.Error("told again at the next start")
		}
	})
}

// Journal lines that cannot be applied do not keep the sidecar from starting; a
// rule that cannot be read blocks everybody.
func TestReplayNonsense(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 1)
		w.crash()
		file, err := os.OpenFile(w.path("audit.log"), os.O_APPEND|os.O_WRONLY, 0)
		mustDo(t, err)
		_, err = file.WriteString(`{"seq":2,"action":"put","names":["x"],"grant":"AAAA"}
{"seq":3,"action":"of another version"}
{"seq":4,"action":"revoke","names":["\u0000meta"],"reason":"x"}
{"seq":5,"action":"revoke","match":"(","regrant":true}
`)
		mustDo(t, err)
		w.open()
		w.wantState("a", cache.Fresh)
		w.wantState("x", "unknown")
		w.crash()
		_, err = file.WriteString(`{"seq":6,"action":"revoke","match":"(","reason":"odd"}` + "\n")
		mustDo(t, errors.Join(err, file.Close()))
		for range 2 {
			w.open()
			w.wantState("a", cache.Blocked)
			w.crash()
		}
		w.open()
		w.decide(cache.Decision{Action: cache.ActRemoveRule, Rule: 6})
		w.wantState("a", cache.Fresh)
	})
}
