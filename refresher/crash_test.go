package refresher_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// tokens are the tokens that readers get.
func (r *rig) tokens(names []string) map[string]pam.Secret {
	r.t.Helper()
	held := map[string]pam.Secret{}
	for _, name := range names {
		if raw := r.served(name); raw != "" {
			held[name] = raw
		}
	}
	return held
}

// stillServed fails unless readers get the same tokens.
func (r *rig) stillServed(held map[string]pam.Secret) {
	r.t.Helper()
	for name, raw := range held {
		if got := r.served(name); got != raw {
			r.t.Fatalf("%s: token %s was served before the restart, now %s", name, raw, got)
		}
	}
}

// TestCrashLoop: twenty crashes in a row while 2,000 names are due. No window of
// time sees more than the rate, a crash costs no more than what was in the air, and
// nothing that was served is lost.
func TestCrashLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.quiet, r.answers = true, 100*time.Millisecond
		grants, names := manyNames(scaled(2000), time.Hour)
		const crashes = 20
		held := map[string]pam.Secret{}
		for i := range crashes {
			r.start(grants...)
			r.stillServed(held)
			r.wait(time.Duration(1+3*i)*time.Second + 30*time.Millisecond)
			held = r.tokens(names)
			r.crash()
		}
		if len(held) < 200 {
			t.Fatalf("%d tokens at the last crash: the test tests little", len(held))
		}
		r.start(grants...)
		r.eventually(6*time.Minute, "every name has a token", func() bool { return len(r.tokens(names)) == len(names) })
		r.withinRate()
		count := map[string]int{}
		for _, g := range r.emulator.Grants() {
			count[g.UUID]++
		}
		extra := 0
		for name, n := range count {
			extra += n - 1
			if n > 1+crashes {
				t.Errorf("%s was granted %d times", name, n)
			}
		}
		if extra > crashes*4 {
			t.Errorf("%d extra grants by %d crashes with 4 in the air", extra, crashes)
		}
		r.accounted()
		r.end()
	})
}

// TestCrashKeepsPlans: attempts, due times and blocks are as they were.
func TestCrashKeepsPlans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		grants, names := manyNames(20, time.Hour)
		r.start(grants...)
		r.wait(time.Minute)
		r.emulator.SetFault(pamtest.Fault{Op: pam.OpGrant, Status: 500})
		r.must(r.revoke(names[:1], false))
		for _, name := range names[1:5] {
			r.must(r.refresher.Refresh(t.Context(), name, cache.Actor{}))
		}
		r.wait(20 * time.Second)
		before := map[string]*cache.Record{}
		for _, name := range names {
			before[name] = r.record(name)
		}
		if before[names[1]].Attempts == 0 {
			t.Fatal("nothing has failed: the test tests nothing")
		}
		r.crash()
		r.open()
		for _, name := range names {
			a, b := before[name], r.record(name)
			if !a.NextAttempt.Equal(b.NextAttempt) || a.Attempts != b.Attempts || a.Generation != b.Generation || (a.Block == nil) != (b.Block == nil) {
				t.Errorf("%s: %+v became %+v", name, a, b)
			}
		}
		r.must(r.cache.Close())
	})
}

// TestRestartWithoutUpstream serves every live token, and is ready.
func TestRestartWithoutUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.quiet = true
		grants, names := manyNames(300, time.Hour)
		r.start(grants...)
		r.wait(40 * time.Second)
		held := r.tokens(names)
		if len(held) != len(names) || len(r.refresher.Missing()) > 0 {
			t.Fatalf("%d tokens before the restart, missing %v", len(held), r.refresher.Missing())
		}
		r.crash()
		r.emulator.SetFault(pamtest.Fault{Kind: pamtest.KindHang})
		r.start(grants...)
		r.stillServed(held)
		if missing := r.refresher.Missing(); len(missing) > 0 {
			t.Errorf("missing %v", missing)
		}
		r.neverWithout(50*time.Minute, names[:5]...)
		r.end()
	})
}

// TestCrashHoldsBack: after crashes, names without a token wait, longer each time;
// those with one do not.
func TestCrashHoldsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("alice", time.Hour))
		r.wait(2 * time.Second)
		var last time.Duration
		for i := range 7 {
			r.crash()
			began := time.Now()
			r.start(grantOf("alice", time.Hour))
			r.must(r.refresher.Refresh(t.Context(), "alice", cache.Actor{}))
			r.wait(time.Second)
			if _, gen := r.state("alice"); gen != uint64(i+2) {
				t.Errorf("alice waits: generation %d", gen)
			}
			if i < 6 {
				continue
			}
			r.apply(grantOf("alice", time.Hour), grantOf("bob", time.Hour))
			r.eventually(2*time.Minute, "bob has a token", func() bool { return r.served("bob") != "" })
			last = time.Since(began)
		}
		if last < 25*time.Second || last > 62*time.Second {
			t.Errorf("after seven crashes bob waited %s", last)
		}
		r.wait(11 * time.Minute)
		if n := r.cache.UncleanStarts(); n != 0 {
			t.Errorf("%d unclean starts are remembered after a long run", n)
		}
		r.end()
	})
}
