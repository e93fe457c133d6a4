package refresher_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// grantsSeen is how many grants the emulator was asked for.
func (r *rig) grantsSeen() int { return len(r.times(isOp(pam.OpGrant))) }

func TestApplyUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		grants, _ := manyNames(10, time.Hour)
		r.start(grants...)
		r.wait(5 * time.Second)
		grants[3].Note = "told apart by its note only"
		grants[4].Loopback = true
		diff := r.apply(grants...)
		r.wait(time.Minute)
		if n := r.grantsSeen(); n != 10 {
			t.Errorf("%d grants for 10 names", n)
		}
		if diff.Unchanged != 8 || !slices.Equal(diff.Changed, []string{"n00003", "n00004"}) || len(diff.Narrowed) > 0 {
			t.Errorf("diff %+v", diff)
		}
		if !r.view("n00004").Loopback() {
			t.Error("the change is not applied")
		}
		r.end()
	})
}

// TestApplyNarrowed: the new token is served at once, the old one is revoked after
// the handover, and not before.
func TestApplyNarrowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("alice", time.Hour), grantOf("bob", time.Hour))
		r.wait(5 * time.Second)
		old := r.served("alice")
		diff := r.apply(narrowed(grantOf("alice", time.Hour)), grantOf("bob", time.Hour))
		if !slices.Equal(diff.Narrowed, []string{"alice"}) {
			t.Errorf("diff %+v", diff)
		}
		r.neverWithout(2*time.Second, "alice")
		if got := r.served("alice"); got == old {
			t.Error("the old token is still served")
		}
		r.wait(refresher57)
		if !r.emulator.Live(old) {
			t.Error("the old token was revoked before the handover had passed")
		}
		r.wait(5 * time.Second)
		if r.emulator.Live(old) || !r.emulator.Live(r.served("alice")) {
			t.Errorf("after the handover: old lives %v, new lives %v", r.emulator.Live(old), r.emulator.Live(r.served("alice")))
		}
		if n := r.grantsSeen(); n != 3 {
			t.Errorf("%d grants", n)
		}
		r.end()
	})
}

// refresher57 is a little less than the handover of 60 s, two seconds after.
const refresher57 = 56 * time.Second

// TestApplyWidened: nothing is revoked when the new grant allows more.
func TestApplyWidened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(narrowed(grantOf("alice", time.Hour)))
		r.wait(5 * time.Second)
		r.apply(grantOf("alice", time.Hour))
		r.wait(2 * time.Minute)
		if _, gen := r.state("alice"); gen != 2 || len(r.emulator.Revocations()) > 0 {
			t.Errorf("generation %d, %d revokes", gen, len(r.emulator.Revocations()))
		}
		r.end()
	})
}

// TestApplyNarrowedTwice: every older token that allows more goes, also the
// superseded ones of before.
func TestApplyNarrowedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("alice", time.Hour))
		r.wait(45 * time.Minute) // a superseded one lives
		r.apply(narrowed(grantOf("alice", time.Hour)))
		r.wait(70 * time.Second)
		for _, g := range r.emulator.Grants()[:2] {
			if r.emulator.Live(g.Token) {
				t.Errorf("token %s lives", g.Token)
			}
		}
		r.wantState("alice", cache.Fresh)
		r.end()
	})
}

func TestApplyRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		alice, bob := grantOf("alice", time.Hour), grantOf("bob", time.Hour)
		r.start(alice, bob)
		r.wait(5 * time.Second)
		old := r.served("alice")
		if diff := r.apply(bob); !slices.Equal(diff.Removed, []string{"alice"}) {
			t.Errorf("diff %+v", diff)
		}
		r.wantState("alice", cache.Ended)
		r.wait(refresher57)
		if !r.emulator.Live(old) {
			t.Error("the token was revoked before the handover had passed")
		}
		r.wait(10 * time.Second)
		if r.emulator.Live(old) {
			t.Error("the token lives after the handover")
		}
		r.wait(23 * time.Hour)
		r.wantState("alice", cache.Ended)
		r.wait(2 * time.Hour)
		if _, err := r.cache.View("alice"); !errors.Is(err, cache.ErrUnknown) {
			t.Errorf("the name is kept for more than a day: %v", err)
		}
		r.apply(alice, bob)
		r.wait(2 * time.Second)
		r.wantState("alice", cache.Fresh)
		r.end()
	})
}

// TestApplyRemovedWhileDown: a name removed while the sidecar was down is noticed
// at the start.
func TestApplyRemovedWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("alice", time.Hour), grantOf("bob", time.Hour))
		r.wait(5 * time.Second)
		r.crash()
		r.start(grantOf("bob", time.Hour))
		r.wantState("alice", cache.Ended)
		r.dead(70*time.Second, "alice")
		r.end()
	})
}

// TestApplyBackWithinHandover: a name that comes back gets a new token; the old one
// goes all the same.
func TestApplyBackWithinHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("alice", time.Hour))
		r.wait(5 * time.Second)
		old := r.served("alice")
		r.apply()
		r.wait(30 * time.Second)
		r.apply(grantOf("alice", time.Hour))
		r.wait(2 * time.Second)
		r.wantState("alice", cache.Fresh)
		if _, gen := r.state("alice"); gen != 2 || r.served("alice") == old {
			t.Errorf("generation %d", gen)
		}
		r.neverWithout(2*time.Minute, "alice")
		if r.emulator.Live(old) {
			t.Error("the old token lives")
		}
		r.end()
	})
}

// TestRemovedWithStubbornRevoke: what is left of a removed name whose revoke does
// not get through is looked at when there is something to do, and goes in the end.
func TestRemovedWithStubbornRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.emulator.SetRevokeDisabled(true)
		r.start(grantOf("alice", 24*time.Hour))
		r.wait(5 * time.Second)
		r.emulator.SetFault(pamtest.Fault{Op: pam.OpGrant, Kind: pamtest.KindCut, AfterWork: true, Count: 1})
		short := grantOf("alice", time.Minute) // the lost token ends long before the other
		r.apply(short)
		r.wait(500 * time.Millisecond)
		r.apply()
		r.wait(10 * time.Minute)
		before := r.store.dues.Load()
		r.wait(10 * time.Minute)
		if n := r.store.dues.Load() - before; n > 100 {
			t.Errorf("%d looks in ten minutes", n/2)
		}
		r.wait(25 * time.Hour)
		if _, err := r.cache.View("alice"); !errors.Is(err, cache.ErrUnknown) {
			t.Errorf("the name is kept: %v", err)
		}
		r.end()
	})
}

func TestMassGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		grants, _ := manyNames(80, time.Hour)
		r.start(grants...)
		r.wait(10 * time.Second)
		fewer := slices.Clone(grants[:75])
		for i := range 4 {
			fewer[i] = narrowed(fewer[i])
		}
		diff, err := r.refresher.Apply(t.Context(), fewer, false)
		guard, ok := errors.AsType[*cache.TooManyChangesError](err)
		if !ok || !errors.Is(err, cache.ErrTooManyChanges) || guard.Ended != 5 || guard.Narrowed != 4 || guard.Of != 80 {
			t.Errorf("nine of eighty: %v", err)
		}
		if len(diff.Removed) != 5 || len(diff.Narrowed) != 4 {
			t.Errorf("diff %+v", diff)
		}
		r.wait(time.Minute)
		if n := r.grantsSeen(); n != 80 {
			t.Errorf("%d grants after a change that was refused", n)
		}
		r.wantState("n00079", cache.Fresh)
		if _, err := r.refresher.Apply(t.Context(), grants[:72], false); err != nil {
			t.Errorf("eight of eighty: %v", err)
		}
		r.wantState("n00079", cache.Ended)
		if _, err := r.refresher.Apply(t.Context(), fewer[:66], true); err != nil {
			t.Errorf("forced: %v", err)
		}
		r.end()
	})
}

// TestPutAndDelete is a grant that an operator makes at run time.
func TestPutAndDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("file", time.Hour))
		r.wait(2 * time.Second)
		if err := r.refresher.Put(t.Context(), grantOf("file", time.Hour), cache.Actor{}); !errors.Is(err, cache.ErrInFile) {
			t.Errorf("put of a name of the file: %v", err)
		}
		if _, err := r.refresher.Delete(t.Context(), "file", true, cache.Actor{}); !errors.Is(err, cache.ErrInFile) {
			t.Errorf("delete of a name of the file: %v", err)
		}
		if _, err := r.refresher.Delete(t.Context(), "nobody", true, cache.Actor{}); !errors.Is(err, cache.ErrUnknown) {
			t.Errorf("delete of an unknown name: %v", err)
		}
		r.must(r.refresher.Put(t.Context(), grantOf("guest", time.Hour), cache.Actor{}))
		r.wait(2 * time.Second)
		r.wantState("guest", cache.Fresh)
		r.crash()
		r.start(grantOf("file", time.Hour))
		r.wantState("guest", cache.Fresh)
		_, err := r.refresher.Delete(t.Context(), "guest", true, cache.Actor{})
		r.must(err)
		if raw := r.tokens([]string{"file"}); len(raw) != 1 {
			t.Error("another name's token is gone")
		}
		if v, err := r.cache.View("guest"); err == nil && v.State(r.clock.Now()).Live() {
			t.Error("the deleted name is served")
		}
		r.dead(5*time.Second, "guest")
		r.end()
	})
}

// TestUntil: near the end of a grant shorter tokens are asked for, at the end what
// lives is withdrawn, and no grant comes after it.
func TestUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		g := grantOf("alice", 15*time.Minute)
		g.Until = epoch.Add(40*time.Minute + 20*time.Second)
		r.start(g)
		r.wait(2 * time.Second)
		r.neverWithout(40*time.Minute, "alice")
		if end := r.view("alice").Expires(); end.Sub(g.Until) >= time.Minute || end.Before(g.Until) {
			t.Errorf("the last token lives until %s, %s after the grant's end", end, end.Sub(g.Until))
		}
		if n := r.grantsSeen(); n > 6 {
			t.Errorf("%d grants of 15 minutes within 40 minutes", n)
		}
		n := r.grantsSeen()
		r.wait(22 * time.Second)
		r.wantState("alice", cache.Ended)
		r.dead(5*time.Second, "alice")
		r.wait(2 * time.Hour)
		if r.grantsSeen() != n {
			t.Error("a grant after the end")
		}
		g.Until = r.clock.Now().Add(time.Hour)
		r.apply(g)
		r.wait(2 * time.Second)
		r.wantState("alice", cache.Fresh)
		r.end()
	})
}

// TestUntilWithoutUpstream: the end holds for readers although nothing can be
// revoked.
func TestUntilWithoutUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		g := grantOf("alice", time.Hour)
		g.Until = epoch.Add(29*time.Minute + 10*time.Second) // the token lives 50 s longer
		r.start(g)
		r.wait(20 * time.Minute)
		r.emulator.SetFault(pamtest.Fault{Kind: pamtest.KindHang})
		r.wait(9*time.Minute + 12*time.Second)
		r.wantState("alice", cache.Ended)
		if open := r.record("alice").OpenWithdrawals(); open == 0 {
			t.Error("nothing is to be revoked")
		}
		r.emulator.ClearFaults()
		r.dead(30*time.Second, "alice")
		r.end()
	})
}

// TestRegrantAt: the calendar replaces a token whatever life it has left.
func TestRegrantAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		g := grantOf("alice", 30*24*time.Hour)
		g.RegrantAt = "CRON_TZ=Europe/Berlin 30 13 * * *"
		r.start(g)
		r.wait(5 * 24 * time.Hour) // the first is half an hour after the start
		at := r.times(isOp(pam.OpGrant))
		if len(at) != 6 {
			t.Fatalf("%d grants in five days", len(at))
		}
		for i, moment := range at[1:] {
			want := epoch.Add(30*time.Minute + time.Duration(i)*24*time.Hour)
			if late := moment.Sub(want); late < -time.Second || late > 2*time.Second {
				t.Errorf("grant %d at %s, want %s", i+1, moment, want)
			}
		}
		r.end()
	})
}
