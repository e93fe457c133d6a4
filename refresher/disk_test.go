package refresher_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// TestDiskRefuses: tokens are served from memory, each name is granted when it is
// due and not again and again, and all is on disk once the disk takes writes.
func TestDiskRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		grants, names := manyNames(20, 5*time.Minute)
		r.start(grants...)
		r.wait(time.Minute)
		r.store.full.Store(true)
		before := r.grantsSeen()
		r.neverWithout(20*time.Minute, names...)
		if n := r.grantsSeen() - before; n < 20*6 || n > 20*9 {
			t.Errorf("%d grants for 20 names in 20 minutes of a ttl of 5", n)
		}
		if r.cache.Degraded() == nil {
			t.Error("the cache does not tell")
		}
		r.store.full.Store(false)
		r.wait(10 * time.Second)
		if err := r.cache.Degraded(); err != nil || r.cache.Unsaved() > 0 {
			t.Errorf("%d changes unsaved, %v", r.cache.Unsaved(), err)
		}
		held := r.tokens(names)
		r.crash()
		r.start(grants...)
		r.stillServed(held)
		r.end()
	})
}

// TestDiskRefusesFromTheStart: nothing but memory, and yet it works.
func TestDiskRefusesFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.opened = func(r *rig) { r.store.full.Store(true) }
		grants, names := manyNames(20, 5*time.Minute)
		r.start(grants...)
		r.wait(5 * time.Second)
		r.neverWithout(20*time.Minute, names...)
		if n := r.grantsSeen(); n > 20*9 {
			t.Errorf("%d grants for 20 names", n)
		}
		r.store.full.Store(false)
		r.wait(10 * time.Second)
		r.end()
	})
}

// TestRevokeWithoutDisk holds at once, upstream too, and says that it is not
// durable.
func TestRevokeWithoutDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("alice", 15*time.Minute))
		r.wait(5 * time.Second)
		r.store.full.Store(true)
		res, err := r.refresher.Revoke(t.Context(), cache.Revocation{Selector: cache.Selector{Names: []string{"alice"}}, Reason: "test"})
		r.must(err)
		if res.Durable || res.DiskErr == nil {
			t.Errorf("durable %v, disk error %v", res.Durable, res.DiskErr)
		}
		r.wantState("alice", cache.Blocked)
		r.dead(5*time.Second, "alice")
		if err := r.refresher.Unblock(t.Context(), []string{"alice"}, cache.Actor{}); !errors.Is(err, cache.ErrDegraded) {
			t.Errorf("unblock: %v", err)
		}
		r.store.full.Store(false)
		r.wait(10 * time.Second)
		r.confirmedFirst("alice")
		r.wantState("alice", cache.Fresh)
		r.end()
	})
}

// confirmedFirst fails unless the first token of the name was revoked by exactly
// one answered request.
func (r *rig) confirmedFirst(name string) {
	r.t.Helper()
	n, first := 0, r.emulator.Grants()[0]
	for _, v := range r.emulator.Revocations() {
		if v.Token == first.Token && v.Status == 200 {
			n++
		}
	}
	if first.UUID != name || n != 1 {
		r.t.Errorf("%s: revoked by %d answered requests", first.UUID, n)
	}
}

// TestRevokeWhileDiskHangs: the answer comes within 2 s and says that the disk has
// not confirmed; the withdrawal holds and upstream has been told.
func TestRevokeWhileDiskHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("alice", 15*time.Minute), grantOf("bob", 15*time.Minute))
		r.wait(5100 * time.Millisecond) // just after the housekeeping, whose wait for a lock stops virtual time
		r.store.hang()
		before := time.Now()
		res, err := r.refresher.Revoke(t.Context(), cache.Revocation{Selector: cache.Selector{Names: []string{"alice"}}, Reason: "test"})
		r.must(err)
		if took := time.Since(before); took != 2*time.Second || res.Durable || res.DiskErr != nil {
			t.Errorf("after %s: durable %v, disk error %v", took, res.Durable, res.DiskErr)
		}
		r.wantState("alice", cache.Blocked)
		r.dead(time.Second, "alice")
		r.wantState("bob", cache.Fresh)
		r.store.release()
		r.wait(10 * time.Second)
		if w := r.record("alice").Withdrawn; len(w) != 1 || w[0].Phase != cache.Confirmed {
			t.Errorf("%+v", w)
		}
		r.crash()
		r.start(grantOf("alice", 15*time.Minute), grantOf("bob", 15*time.Minute))
		r.wantState("alice", cache.Blocked)
		r.end()
	})
}
