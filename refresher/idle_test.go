package refresher_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// idle lets an hour pass and fails if the loop looked at the due names, or tried to
// send requests, more often than so many times a minute.
func (r *rig) idle(looks, requests int) {
	r.t.Helper()
	dues, dials := r.store.dues.Load(), r.wire.dials.Load()
	r.wait(time.Hour)
	// One look asks the store twice.
	if n := int(r.store.dues.Load()-dues) / 2; n > 60*looks || n < 60*3 {
		r.t.Errorf("%d looks at the due names in an hour, want at most %d a minute", n, looks)
	}
	if n := int(r.wire.dials.Load() - dials); n > 60*requests {
		r.t.Errorf("%d requests in an hour, want at most %d a minute", n, requests)
	}
}

// TestIdle: with nothing to do, nothing is done but to look now and then.
func TestIdle(t *testing.T) {
	day := 24 * time.Hour
	for what, c := range map[string]struct {
		looks, requests int // a minute, at most
		prepare         func(*rig)
	}{
		"no names": {5, 1, func(r *rig) { r.start() }},
		"fresh": {5, 1, func(r *rig) {
			r.start(grantOf("alice", day), grantOf("bob", day))
		}},
		"blocked": {5, 1, func(r *rig) {
			r.start(grantOf("alice", day), grantOf("bob", day))
			r.wait(time.Minute)
			r.must(r.revoke([]string{"alice"}, false))
		}},
		"blocked by a rule": {5, 1, func(r *rig) {
			r.start(grantOf("alice", day), grantOf("bob", day))
			r.wait(time.Minute)
			r.revokeMatch("a.*")
			r.apply(grantOf("alice", day), grantOf("bob", day), grantOf("anna", day))
		}},
		"revoke refused": {5, 1, func(r *rig) {
			r.emulator.SetRevokeDisabled(true)
			r.start(grantOf("alice", day), grantOf("bob", day))
			r.wait(time.Minute)
			r.must(r.revoke([]string{"alice"}, false))
			r.apply()
		}},
		"ended": {5, 1, func(r *rig) {
			g := grantOf("alice", day)
			g.Until = epoch.Add(10 * time.Minute)
			r.start(g)
			r.wait(11 * time.Minute)
			r.wantState("alice", cache.Ended)
		}},
		"grants refused": {6, 1, func(r *rig) {
			r.secret = wrongSecret
			grants, _ := manyNames(5, day)
			r.start(grants...)
		}},
		"paused": {5, 1, func(r *rig) {
			grants, _ := manyNames(50, time.Hour)
			r.start(grants...)
			r.wait(time.Second)
			r.limiter.Pause(2 * time.Hour)
		}},
		"breaker open": {20, 8, func(r *rig) {
			grants, _ := manyNames(50, day)
			r.emulator.SetFault(pamtest.Fault{Kind: pamtest.KindRefused})
			r.start(grants...)
			r.wait(5 * time.Minute)
			if !r.refresher.Status().BreakerOpen {
				r.t.Fatal("the breaker is closed")
			}
		}},
		"ended, as far as a clock knows that was never measured": {20, 8, func(r *rig) {
			grants, _ := manyNames(50, 5*time.Minute)
			r.start(grants...)
			r.wait(time.Minute)
			r.crash()
			r.emulator.SetFault(pamtest.Fault{Kind: pamtest.KindHang})
			r.start(grants...)
			r.wait(10 * time.Minute)
			r.wantState("n00000", cache.Expired)
		}},
		"nothing left to keep, and a disk that refuses": {20, 1, func(r *rig) {
			r.start(grantOf("alice", time.Hour))
			r.wait(time.Minute)
			r.apply()
			r.wait(23 * time.Hour)
			r.store.full.Store(true)
			r.wait(time.Hour)
		}},
		"clock in doubt": {20, 20, func(r *rig) {
			grants, _ := manyNames(50, day)
			r.start(grants...)
			r.wait(time.Minute)
			r.emulator.SetFault(pamtest.Fault{Kind: pamtest.KindRefused})
			r.stepWall(30 * time.Hour)
			r.wait(time.Minute)
		}},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				c.prepare(r)
				r.wait(time.Minute)
				r.idle(c.looks, c.requests)
				r.store.full.Store(false)
				r.end()
			})
		})
	}
}

// TestLostBlocks: with the database lost and the journal damaged nothing is
// granted, and nothing is busy, until an operator accepts that.
func TestLostBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		grants, names := manyNames(50, 24*time.Hour)
		r.start(grants...)
		r.wait(10 * time.Second)
		r.must(r.revoke(names[:1], false))
		r.must(r.revoke(names[1:2], false))
		r.crash()
		r.must(os.Remove(filepath.Join(r.dir, "tokens.db")))
		path := filepath.Join(r.dir, "audit.log")
		journal, err := os.ReadFile(path)
		r.must(err)
		r.must(os.WriteFile(path, []byte(strings.Replace(string(journal), `"action":"revoke"`, `"action":rev`, 1)), 0o600))
		before := r.grantsSeen()
		r.start(grants...)
		if !r.cache.LostBlocks() {
			t.Fatal("no blocks are lost: the test tests nothing")
		}
		r.wait(time.Minute)
		r.idle(5, 1)
		if n := r.grantsSeen(); n != before {
			t.Errorf("%d grants", n-before)
		}
		r.must(r.refresher.AcceptLostBlocks(t.Context(), cache.Actor{}))
		r.wait(10 * time.Second)
		r.wantState(names[2], cache.Fresh)
		r.wantState(names[1], cache.Blocked)
		if until := r.record(names[2]).UnaccountedUntil; until.Sub(r.clock.Now()) < 22*time.Hour {
			t.Errorf("the lost tokens are unaccounted until %s", until)
		}
		r.accounted()
		r.end()
	})
}

// TestRunEnds: nothing of Run is left when it has returned, whatever was under way:
// the bubble would not end.
func TestRunEnds(t *testing.T) {
	for what, fault := range outages {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				grants, _ := manyNames(30, 5*time.Minute)
				r.start(grants...)
				r.wait(2 * time.Second)
				r.emulator.SetFault(fault)
				r.must(r.revoke([]string{"n00000", "n00001"}, true))
				r.wait(time.Second)
				before := time.Now()
				r.stop()
				<-r.stopped
				if took := time.Since(before); took > 5*time.Second+100*time.Millisecond {
					t.Errorf("it took %s", took)
				}
				sent := r.wire.dials.Load()
				r.wait(time.Minute)
				if n := r.wire.dials.Load() - sent; n > 0 {
					t.Errorf("%d requests after the end", n)
				}
				r.must(r.cache.Close())
				r.noSecrets()
			})
		})
	}
}

func TestMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		no, optional := false, grantOf("optional", 15*time.Minute)
		optional.Required = &no
		r.emulator.SetFault(pamtest.Fault{Status: 500})
		r.start(grantOf("alice", 15*time.Minute), grantOf("blocked", 15*time.Minute), optional)
		r.wait(3 * time.Second)
		r.must(r.revoke([]string{"blocked"}, false))
		m := r.refresher.Missing()
		if len(m) != 1 || m[0].Name != "alice" || m[0].State != cache.Pending || !strings.Contains(m[0].Reason, "500") || m[0].RetryAt.IsZero() {
			t.Errorf("missing %+v", m)
		}
		r.emulator.ClearFaults()
		r.wait(time.Minute)
		if m := r.refresher.Missing(); len(m) > 0 {
			t.Errorf("missing %+v", m)
		}
		r.end()
	})
}
