package refresher_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// revoke orders that names be revoked.
func (r *rig) revoke(names []string, regrant bool) error {
	_, err := r.refresher.Revoke(context.Background(), cache.Revocation{
		Selector: cache.Selector{Names: names}, Regrant: regrant, Reason: "test",
	})
	return err
}

// revokeMatch orders that all names that match be revoked and stay so.
func (r *rig) revokeMatch(match string) cache.RevokeResult {
	r.t.Helper()
	res, err := r.refresher.Revoke(r.t.Context(), cache.Revocation{Selector: cache.Selector{Match: match}, Reason: "test"})
	r.must(err)
	return res
}

// dead waits at most d until no token of the name lives at the service.
func (r *rig) dead(d time.Duration, name string) {
	r.t.Helper()
	r.eventually(d, "every token of "+name+" is revoked", func() bool {
		return !slices.ContainsFunc(r.emulator.Grants(), func(g pamtest.GrantRecord) bool {
			return g.UUID == name && r.emulator.Live(g.Token)
		})
	})
}

// confirmedOnce fails unless each token of the name was revoked upstream by one
// answered request.
func (r *rig) confirmedOnce(name string) {
	r.t.Helper()
	for _, g := range r.emulator.Grants() {
		n := 0
		for _, v := range r.emulator.Revocations() {
			if v.Token == g.Token && v.Status == 200 {
				n++
			}
		}
		if g.UUID == name && n != 1 {
			r.t.Errorf("%s: token #%s was revoked by %d answered requests", name, g.Token.ID(), n)
		}
	}
}

// TestRevokeIsImmediate: with a service that hangs, a revoke returns at once, and
// from then on nobody gets a token: not now, not after a crash. When the service
// is back, each token of the name is revoked there, once.
func TestRevokeIsImmediate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		alice := grantOf("alice", 15*time.Minute)
		r.start(alice)
		r.wait(10 * time.Minute) // a superseded one lives as well
		if n := len(r.record("alice").LiveTokens(r.clock.Now())); n != 2 {
			t.Fatalf("%d live tokens", n)
		}
		r.emulator.SetFault(pamtest.Fault{Kind: pamtest.KindHang})
		before := time.Now()
		res, err := r.refresher.Revoke(t.Context(), cache.Revocation{Selector: cache.Selector{Names: []string{"alice"}}, Reason: "left"})
		r.must(err)
		if took := time.Since(before); took > 200*time.Millisecond || !res.Durable {
			t.Errorf("it took %s; durable: %v", took, res.Durable)
		}
		if len(res.Names) != 1 || !slices.Equal(res.Names[0].Generations, []uint64{2, 1}) {
			t.Errorf("withdrawn: %+v", res.Names)
		}
		r.wantState("alice", cache.Blocked)
		r.wait(20 * time.Second)
		r.crash()
		r.start(alice)
		for range 30 {
			r.wantState("alice", cache.Blocked)
			r.wait(time.Second)
		}
		r.emulator.ClearFaults()
		r.dead(70*time.Second, "alice")
		r.wait(time.Hour)
		r.confirmedOnce("alice")
		r.wantState("alice", cache.Blocked)
		if n := len(r.emulator.Grants()); n != 2 {
			t.Errorf("%d grants", n)
		}
		r.end()
	})
}

// TestRevokeOutlastsCrash: a crash right after the answer loses nothing of it.
func TestRevokeOutlastsCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		grants, names := manyNames(30, 15*time.Minute)
		r.start(grants...)
		r.wait(10 * time.Second)
		r.must(r.revoke(names, false))
		r.crash()
		r.start(grants...)
		for _, name := range names {
			r.wantState(name, cache.Blocked)
		}
		r.wait(20 * time.Second)
		for _, name := range names {
			r.dead(0, name)
		}
		r.end()
	})
}

// TestRevokeOvertakesGrant: a token that was being granted when its name was
// revoked is never served and is revoked too.
func TestRevokeOvertakesGrant(t *testing.T) {
	for _, regrant := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.start(grantOf("alice", 15*time.Minute))
			r.wait(time.Minute)
			r.emulator.SetFault(pamtest.Fault{Op: pam.OpGrant, Kind: pamtest.KindNone, Delay: 5 * time.Second, AfterWork: true})
			r.must(r.refresher.Refresh(t.Context(), "alice", cache.Actor{}))
			r.wait(time.Second)
			r.must(r.revoke([]string{"alice"}, regrant))
			r.emulator.ClearFaults()
			if len(r.emulator.Grants()) != 2 {
				t.Fatal("no grant is in flight: the test tests nothing")
			}
			overtaken := r.emulator.Grants()[1].Token
			for range 200 {
				if r.served("alice") == overtaken {
					t.Fatal("the overtaken token is served")
				}
				r.wait(50 * time.Millisecond)
			}
			for _, g := range r.emulator.Grants()[:2] {
				if r.emulator.Live(g.Token) {
					t.Errorf("token %s lives", g.Token)
				}
			}
			if regrant {
				r.wantState("alice", cache.Fresh)
			} else {
				r.wantState("alice", cache.Blocked)
			}
			r.accounted()
			r.end()
		})
	}
}

// TestRevokeDoesNotWaitForGrant: the tokens known are revoked while a grant for the
// name still hangs; if that one's answer is lost, the record tells of its token.
func TestRevokeDoesNotWaitForGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("alice", 15*time.Minute))
		r.wait(time.Minute)
		known := r.served("alice")
		r.emulator.SetFault(pamtest.Fault{Op: pam.OpGrant, Kind: pamtest.KindHang, AfterWork: true})
		r.must(r.refresher.Refresh(t.Context(), "alice", cache.Actor{}))
		r.wait(time.Second)
		r.must(r.revoke([]string{"alice"}, false))
		r.wait(time.Second)
		if r.emulator.Live(known) {
			t.Error("the known token lives")
		}
		r.wait(15 * time.Second)
		if r.unaccounted("alice") != 1 {
			t.Fatal("no token was lost: the test tests nothing")
		}
		r.accounted()
		r.wantState("alice", cache.Blocked)
		r.end()
	})
}

// TestRevokeRegrant: a new generation takes the place of those that are revoked.
func TestRevokeRegrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("alice", 15*time.Minute))
		r.wait(time.Minute)
		old := r.served("alice")
		r.must(r.revoke([]string{"alice"}, true))
		if got := r.served("alice"); got == old {
			t.Errorf("token %s is served right after the revoke", got)
		}
		r.wait(2 * time.Second)
		if state, gen := r.state("alice"); state != cache.Fresh || gen != 2 {
			t.Errorf("%s, generation %d", state, gen)
		}
		if r.emulator.Live(old) || !r.emulator.Live(r.served("alice")) {
			t.Errorf("old lives: %v, new lives: %v", r.emulator.Live(old), r.emulator.Live(r.served("alice")))
		}
		r.end()
	})
}

// TestBlockRule: a rule blocks names that come later too, until it is removed.
func TestBlockRule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		user := func(n string) cache.Grant { return grantOf(n, 15*time.Minute) }
		r.start(user("user-1"), user("other"))
		r.wait(time.Minute)
		res := r.revokeMatch("user-[0-9]+")
		if res.Rule == nil || res.Count != 1 {
			t.Fatalf("result %+v", res)
		}
		r.apply(user("user-1"), user("user-2"), user("other"))
		r.must(r.refresher.Put(t.Context(), user("user-3"), cache.Actor{}))
		r.wait(time.Minute)
		r.crash()
		r.start(user("user-1"), user("user-2"), user("other"))
		for range 60 {
			for _, name := range []string{"user-1", "user-2", "user-3"} {
				r.wantState(name, cache.Blocked)
			}
			r.wait(time.Minute)
		}
		r.wantState("other", cache.Fresh)
		if n := len(r.times(isOp(pam.OpGrant))); n > 12 {
			t.Errorf("%d grants for one name that is not blocked", n)
		}
		r.must(r.refresher.RemoveRule(t.Context(), res.Rule.ID, cache.Actor{}))
		r.wait(5 * time.Second)
		for _, name := range []string{"user-1", "user-2", "user-3"} {
			r.wantState(name, cache.Fresh)
		}
		r.end()
	})
}

func TestUnblock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("alice", 15*time.Minute), grantOf("bob", 15*time.Minute))
		r.wait(time.Minute)
		old := r.served("alice")
		r.must(r.revoke([]string{"alice"}, false))
		if err := r.refresher.Refresh(t.Context(), "alice", cache.Actor{}); !errors.Is(err, cache.ErrBlocked) {
			t.Errorf("refresh of a blocked name: %v", err)
		}
		if err := r.refresher.Unblock(t.Context(), []string{"alice", "bob"}, cache.Actor{}); !errors.Is(err, cache.ErrNotBlocked) {
			t.Errorf("unblock of one that is not: %v", err)
		}
		r.wantState("alice", cache.Blocked)
		if err := r.refresher.Unblock(t.Context(), []string{"alice", "nobody"}, cache.Actor{}); !errors.Is(err, cache.ErrUnknown) {
			t.Errorf("unblock of an unknown name: %v", err)
		}
		r.must(r.refresher.Unblock(t.Context(), []string{"alice"}, cache.Actor{}))
		r.wait(2 * time.Second)
		r.wantState("alice", cache.Fresh)
		if r.emulator.Live(old) {
			t.Error("the revoked token lives")
		}
		rule := r.revokeMatch("bob").Rule
		err := r.refresher.Unblock(t.Context(), []string{"bob"}, cache.Actor{})
		if ruled, ok := errors.AsType[*cache.RuleBlockedError](err); !ok || ruled.Rule.ID != rule.ID {
			t.Errorf("unblock of a name under a rule: %v", err)
		}
		r.end()
	})
}

// TestRevokeNotAllowed: a keyset without revoking is asked again each hour, until
// it allows it or the token has ended.
func TestRevokeNotAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.emulator.SetRevokeDisabled(true)
		r.start(grantOf("long", 24*time.Hour), grantOf("short", 90*time.Minute))
		r.wait(time.Minute)
		r.must(r.revoke([]string{"long", "short"}, false))
		r.wait(time.Minute)
		for _, name := range []string{"long", "short"} {
			if w := r.record(name).Withdrawn; len(w) != 1 || w[0].Phase != cache.Refused || w[0].Failure == "" {
				t.Fatalf("%s: %+v", name, w)
			}
		}
		if s := r.refresher.Status().RevokeSupported; s == nil || *s {
			t.Errorf("revoke supported: %v", s)
		}
		r.wait(4*time.Hour + 10*time.Minute)
		if n := len(r.emulator.Revocations()); n != 5+2 {
			t.Errorf("%d requests, want 5 for one name and 2 for the other", n)
		}
		if w := r.record("short").Withdrawn; len(w) != 1 || w[0].Phase != cache.Lapsed {
			t.Errorf("short: %+v", w)
		}
		r.emulator.SetRevokeDisabled(false)
		r.wait(time.Hour)
		if w := r.record("long").Withdrawn; len(w) != 1 || w[0].PhaseAt(r.clock.Now()) != cache.Effective {
			t.Errorf("long: %+v", w)
		}
		r.dead(0, "long")
		r.wantState("long", cache.Blocked)
		r.end()
	})
}

// TestRevokeLapses: a revoke that never gets through ends with its token.
func TestRevokeLapses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("alice", 5*time.Minute))
		r.wait(time.Minute)
		r.emulator.SetFault(pamtest.Fault{Op: pam.OpRevoke, Status: 500})
		r.must(r.revoke([]string{"alice"}, false))
		r.wait(10 * time.Minute)
		if w := r.record("alice").Withdrawn; len(w) != 1 || w[0].Phase != cache.Lapsed || w[0].Token.Raw != "" {
			t.Errorf("%+v", w)
		}
		tries := len(r.emulator.Revocations())
		r.wait(time.Hour)
		if n := len(r.emulator.Revocations()); n != tries || n < 4 {
			t.Errorf("%d requests, %d of them after the end", n, n-tries)
		}
		r.end()
	})
}

// TestRevokesGetHalf: while thousands of grants wait, revokes get half of the rate.
func TestRevokesGetHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.quiet = true
		grants, names := manyNames(120, time.Hour)
		r.start(grants...)
		r.wait(20 * time.Second)
		more, _ := manyNames(2120, time.Hour)
		r.apply(more...)
		r.wait(time.Second)
		from := time.Now().Add(r.shift)
		r.must(r.revoke(names, false))
		r.wait(20 * time.Second)
		revokes, grantsAt := r.times(isOp(pam.OpRevoke)), r.times(isOp(pam.OpGrant))
		n := 0
		for _, at := range grantsAt {
			if !at.Before(from) {
				n++
			}
		}
		if len(revokes) < 95 || n < 90 {
			t.Errorf("%d revokes and %d grants in 20 s", len(revokes), n)
		}
		r.withinRate()
		r.end()
	})
}

// TestRevokeToken: who holds only the token can have it revoked, with its name.
func TestRevokeToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("alice", 15*time.Minute), grantOf("bob", 15*time.Minute))
		r.wait(time.Minute)
		order := cache.Revocation{Selector: cache.Selector{Token: r.served("alice")}, Reason: "leaked", DryRun: true}
		res, err := r.refresher.Revoke(t.Context(), order)
		r.must(err)
		r.wantState("alice", cache.Fresh)
		if res.Count != 1 || len(res.Names) != 1 || !slices.Equal(res.Names[0].Generations, []uint64{1}) || res.Decision != 0 {
			t.Errorf("dry run: %+v", res)
		}
		order.DryRun = false
		_, err = r.refresher.Revoke(t.Context(), order)
		r.must(err)
		r.wantState("alice", cache.Blocked)
		r.wantState("bob", cache.Fresh)
		r.dead(5*time.Second, "alice")
		r.end()
	})
}
