package refresher_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

const wrongSecret pam.Secret = "sec-c-d3JvbmctLXdyb25nLS13cm9uZy0td3Jvbmct"

// TestWrongSecret: a request that is wrong is tried again late, loudly, and never
// given up.
func TestWrongSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.secret = wrongSecret
		r.start(grantOf("alice", 15*time.Minute))
		r.wait(2 * time.Hour)
		r.wantState("alice", cache.Pending)
		if reason := r.view("alice").Reason(); !strings.Contains(reason, "Invalid signature") || !strings.Contains(reason, "check the secret key") {
			t.Errorf("reason %q", reason)
		}
		if n := r.logs.count("level=ERROR"); n == 0 {
			t.Error("it is not told loudly")
		}
		at := r.times(isOp(pam.OpGrant))
		for i := range at[1:] {
			if gap := at[i+1].Sub(at[i]); gap < 5*time.Minute || gap > 15*time.Minute+time.Second {
				t.Errorf("tried again after %s", gap)
			}
		}
		if len(at) < 7 {
			t.Errorf("%d attempts in two hours", len(at))
		}
		r.client.SetSecretKey(r.emulator.Keyset().SecretKey)
		r.wait(16 * time.Minute)
		r.wantState("alice", cache.Fresh)
		r.end()
	})
}

// TestSecretIsReadAgain: a secret key that was replaced is used at once, by all
// attempts that failed with the old one.
func TestSecretIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.answers = 20 * time.Millisecond // four are in the air together
		r.secret = wrongSecret
		reads := 0
		r.reload = func() bool {
			reads++
			r.client.SetSecretKey(r.emulator.Keyset().SecretKey)
			return reads == 1
		}
		grants, names := manyNames(12, 15*time.Minute)
		r.start()
		r.wait(10 * time.Second) // the limiter lets all of them out at once
		r.apply(grants...)
		r.wait(10 * time.Second)
		for _, name := range names {
			r.wantState(name, cache.Fresh)
		}
		if reads != 1 {
			t.Errorf("the secret was read again %d times", reads)
		}
		r.end()
	})
}

// TestSecretReplacedWhileDown: what was refused under one secret key is tried at once
// when the next start has another.
func TestSecretReplacedWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		grants, names := manyNames(12, time.Hour)
		r.start(grants...)
		r.wait(10 * time.Second)
		r.end()

		r.secret = wrongSecret
		use := func(r *rig) { r.must(r.refresher.UseSecret(r.secret.ID())) }
		r.opened = use
		r.start(grants...)
		r.must(r.revoke(names[:1], false))
		for _, name := range names[1:6] {
			r.must(r.refresher.Refresh(t.Context(), name, cache.Actor{}))
		}
		r.wait(5 * time.Second)
		r.wantState(names[1], cache.Failing)
		r.end()
		r.start(grants...)
		r.wait(10 * time.Second)
		r.wantState(names[1], cache.Failing) // the same key is no reason to hurry
		r.end()

		r.secret = r.emulator.Keyset().SecretKey
		r.start(grants...)
		r.wait(5 * time.Second)
		for _, name := range names[1:] {
			r.wantState(name, cache.Fresh)
		}
		r.dead(0, names[0])
		r.end()
	})
}

// TestWrongToken: a token that is not what was asked for is never served; it is
// withdrawn, and after a few attempts the next one comes late.
func TestWrongToken(t *testing.T) {
	for _, kind := range []pamtest.FaultKind{pamtest.KindOtherUUID, pamtest.KindOtherTTL, pamtest.KindLess} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.emulator.SetFault(pamtest.Fault{Op: pam.OpGrant, Kind: kind})
				r.start(grantOf("alice", 15*time.Minute))
				for range 60 {
					r.wait(time.Second)
					if got := r.served("alice"); got != "" {
						t.Fatalf("token %s is served", got)
					}
				}
				issued := r.emulator.Grants()
				if n := len(issued); n < 3 || n > 6 {
					t.Errorf("%d tokens were issued in a minute", n)
				}
				for _, g := range issued {
					if r.emulator.Live(g.Token) {
						t.Errorf("token %s lives", g.Token)
					}
				}
				if reason := r.view("alice").Reason(); !strings.Contains(reason, "another token than asked for") {
					t.Errorf("reason %q", reason)
				}
				r.emulator.ClearFaults()
				r.wait(15 * time.Minute)
				r.wantState("alice", cache.Fresh)
				r.end()
			})
		})
	}
}

// TestWrongTokenKeepsTheOld: while one token lives, a wrong one changes nothing
// for readers.
func TestWrongTokenKeepsTheOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("alice", time.Hour))
		r.wait(time.Minute)
		first := r.served("alice")
		r.emulator.SetFault(pamtest.Fault{Op: pam.OpGrant, Kind: pamtest.KindOtherUUID})
		r.wait(43 * time.Minute)
		if got := r.served("alice"); got != first {
			t.Errorf("token %s is served, want %s", got, first)
		}
		r.wantState("alice", cache.Failing)
		r.emulator.ClearFaults()
		r.neverWithout(16*time.Minute, "alice")
		r.wantState("alice", cache.Fresh)
		r.end()
	})
}

// TestEndedToken: a token that has ended when it arrives is not served, and does
// not confuse the clock.
func TestEndedToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.emulator.SetFault(pamtest.Fault{Op: pam.OpGrant, Kind: pamtest.KindAlreadyEnded})
		r.start(grantOf("alice", 15*time.Minute))
		for range 60 {
			r.wait(time.Second)
			if got := r.served("alice"); got != "" {
				t.Fatalf("token %s is served", got)
			}
		}
		if st := r.clock.Status(); st.Offset.Abs() > 2*time.Second || st.Suspect {
			t.Errorf("clock %+v", st)
		}
		r.emulator.ClearFaults()
		r.wait(time.Minute)
		r.wantState("alice", cache.Fresh)
		r.end()
	})
}

// unaccounted is what the emulator holds live that the name's record does not.
func (r *rig) unaccounted(name string) (tokens int) {
	for _, g := range r.emulator.Grants() {
		if g.UUID == name && r.emulator.Live(g.Token) && !r.record(name).Holds(g.Token) {
			tokens++
		}
	}
	return tokens
}

// TestLostAnswer: after an answer that never came the record tells until when a
// token may live that nobody holds.
func TestLostAnswer(t *testing.T) {
	for what, c := range map[string]struct {
		fault pamtest.Fault
		wait  time.Duration
		told  bool
		lost  int
	}{
		"hang after work": {pamtest.Fault{Op: pam.OpGrant, Kind: pamtest.KindHang, AfterWork: true, Count: 1}, 10500 * time.Millisecond, true, 1},
		"cut after work":  {pamtest.Fault{Op: pam.OpGrant, Kind: pamtest.KindCut, AfterWork: true, Count: 1}, time.Second, true, 1},
		"truncated":       {pamtest.Fault{Op: pam.OpGrant, Kind: pamtest.KindTruncated, AfterWork: true, Count: 1}, time.Second, true, 1},
		"500 after work":  {pamtest.Fault{Op: pam.OpGrant, Status: 500, AfterWork: true, Count: 1}, time.Second, true, 1},
		"cut before work": {pamtest.Fault{Op: pam.OpGrant, Kind: pamtest.KindCut, Count: 1}, time.Second, true, 0}, // who can know
		"refused":         {pamtest.Fault{Op: pam.OpGrant, Kind: pamtest.KindRefused, Count: 3}, time.Second, false, 0},
		"403":             {pamtest.Fault{Op: pam.OpGrant, Status: 403, Count: 1}, time.Second, false, 0},
		"503":             {pamtest.Fault{Op: pam.OpGrant, Status: 503, Count: 3}, 2 * time.Second, false, 0},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.emulator.SetFault(c.fault)
				r.start(grantOf("alice", 15*time.Minute))
				r.wait(c.wait)
				until := r.record("alice").UnaccountedUntil
				if until.IsZero() == c.told {
					t.Errorf("unaccounted until %s", until)
				}
				if n := r.unaccounted("alice"); n != c.lost {
					t.Errorf("%d tokens are lost, want %d", n, c.lost)
				}
				r.accounted()
				if c.told && until.Sub(r.clock.Now()) > 16*time.Minute {
					t.Errorf("unaccounted for %s of a ttl of 15m", until.Sub(r.clock.Now()))
				}
				r.wait(16 * time.Minute) // it is not forgotten too early, nor kept for ever
				r.accounted()
				r.wait(20 * time.Minute)
				if got := r.record("alice").UnaccountedUntil; !got.IsZero() {
					t.Errorf("still unaccounted until %s", got)
				}
				r.end()
			})
		})
	}
}

// TestCrashInFlight: the answer to a grant that was under way at a crash is lost,
// and the next start tells of it.
func TestCrashInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("alice", 15*time.Minute), grantOf("bob", 15*time.Minute))
		r.wait(20 * time.Second)
		r.emulator.SetFault(pamtest.Fault{Op: pam.OpGrant, Kind: pamtest.KindHang, AfterWork: true})
		r.must(r.refresher.Refresh(t.Context(), "alice", cache.Actor{}))
		r.wait(time.Second)
		r.crash()
		r.emulator.ClearFaults()
		r.start(grantOf("alice", 15*time.Minute), grantOf("bob", 15*time.Minute))
		r.wait(10 * time.Second)
		if r.unaccounted("alice") != 1 {
			t.Fatal("no token was lost: the test tests nothing")
		}
		r.accounted()
		if until := r.record("bob").UnaccountedUntil; !until.IsZero() {
			t.Errorf("bob, who was not due, is unaccounted until %s", until)
		}
		r.neverWithout(20*time.Minute, "alice", "bob")
		r.end()
	})
}

// TestStopInFlight: a stop does not wait for a service that hangs, and what it cut
// off is told.
func TestStopInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.emulator.SetFault(pamtest.Fault{Op: pam.OpGrant, Kind: pamtest.KindHang, AfterWork: true})
		r.start(grantOf("alice", 15*time.Minute))
		r.wait(time.Second)
		before := time.Now()
		r.end()
		if took := time.Since(before); took > 6*time.Second {
			t.Errorf("the stop took %s", took)
		}
		r.emulator.ClearFaults()
		r.start(grantOf("alice", 15*time.Minute))
		r.wait(time.Second)
		if r.unaccounted("alice") != 1 {
			t.Fatal("no token was lost: the test tests nothing")
		}
		r.accounted()
		r.wantState("alice", cache.Fresh)
		r.end()
	})
}

// TestStopTakesAnAnswer: an answer that arrives within the grace of a stop is kept.
func TestStopTakesAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.answers = 2 * time.Second
		r.start(grantOf("alice", 15*time.Minute))
		r.wait(time.Second)
		r.end()
		r.emulator.SetFault(pamtest.Fault{Kind: pamtest.KindRefused})
		r.start(grantOf("alice", 15*time.Minute))
		r.wait(100 * time.Millisecond)
		r.wantState("alice", cache.Fresh)
		if until := r.record("alice").UnaccountedUntil; !until.IsZero() {
			t.Errorf("unaccounted until %s", until)
		}
		r.end()
	})
}

// TestStopDuringRevoke: a revoke that a stop cut off has not failed; it is the first
// thing after the next start.
func TestStopDuringRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("alice", 15*time.Minute))
		r.wait(time.Minute)
		r.emulator.SetFault(pamtest.Fault{Op: pam.OpRevoke, Kind: pamtest.KindHang})
		r.must(r.revoke([]string{"alice"}, false))
		r.wait(time.Second)
		r.end()
		r.open()
		if w := r.record("alice").Withdrawn; len(w) != 1 || w[0].Attempts != 0 || w[0].Failure != "" {
			t.Errorf("%+v", w)
		}
		r.must(r.cache.Close())
		r.emulator.ClearFaults()
		r.start(grantOf("alice", 15*time.Minute))
		r.dead(time.Second, "alice")
		r.end()
	})
}
