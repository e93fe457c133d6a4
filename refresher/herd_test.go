package refresher_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// TestHerd: 5,000 names, and the service down until half of them have ended. Those
// about to end come first, then those that readers wait for take half of the rate,
// and the herd is through as fast as the rate allows.
func TestHerd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, rate := scaled(5000), scaled(200)
		r := newRig(t)
		r.quiet, r.inFlight, r.rate = true, 20, float64(rate)/2 // they end at half the rate at which they can be granted
		grants, names := manyNames(n, 5*time.Minute)
		r.start(grants...)
		r.wait(55 * time.Second)
		r.end()
		r.rate = float64(rate)
		r.emulator.SetFault(pamtest.Fault{Op: pam.OpGrant, Kind: pamtest.KindRefused})
		r.start(grants...)

		byEnd := slices.Clone(names)
		slices.SortFunc(byEnd, func(a, b string) int { return r.view(a).Expires().Compare(r.view(b).Expires()) })
		waiters := byEnd[scaled(100):scaled(600)]
		for _, name := range waiters {
			defer r.await(name)()
		}
		r.wait(r.view(byEnd[n/2]).Expires().Sub(r.clock.Now()))
		dying := r.tokens(names) // all of them have less than a fifth left
		if len(dying) < n/2-scaled(300) || len(dying) > n/2+scaled(300) {
			t.Fatalf("%d of %d names have a token: the test tests nothing", len(dying), n)
		}
		before := len(r.emulator.Grants())
		r.emulator.ClearFaults()
		began := time.Now()
		r.noneEnds(dying)
		r.eventually(50*time.Second, "every name has a token", func() bool { return len(r.emulator.Grants())-before >= n })
		if took, want := time.Since(began), 25*time.Second; took > want+want/10 {
			t.Errorf("the herd took %s, want %s", took, want)
		}
		r.inOrder(r.emulator.Grants()[before:], dying, waiters)
		r.withinRate()
		r.end()
	})
}

// await waits for changes of a name as a reader does, until the function returned
// is called.
func (r *rig) await(name string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for ctx.Err() == nil {
			changed, done := r.cache.Changed(name)
			select {
			case <-changed:
			case <-ctx.Done():
			}
			done()
		}
	}()
	return cancel
}

// noneEnds watches names until all of them have a new token. Those that end in the
// next two seconds may have been too late.
func (r *rig) noneEnds(held map[string]pam.Secret) {
	r.t.Helper()
	now := r.clock.Now()
	for name := range held {
		if r.view(name).Expires().Sub(now) < 3*time.Second {
			delete(held, name)
		}
	}
	for range 15 {
		r.wait(time.Second)
		for name := range held {
			if r.served(name) == "" {
				r.t.Fatalf("%s ended although the service was back", name)
			}
		}
	}
	for name, old := range held {
		if r.served(name) == old {
			r.t.Fatalf("%s still has its old token", name)
		}
	}
}

// inOrder fails unless dying names came first and then waiters by turns. A few were
// in the air already when the order was made.
func (r *rig) inOrder(grants []pamtest.GrantRecord, dying map[string]pam.Secret, waiters []string) {
	r.t.Helper()
	rest := scaled(250) // those that have just ended
	early := 0
	for _, g := range grants[:len(dying)] {
		if dying[g.UUID] == "" {
			early++
		}
	}
	if early > rest {
		r.t.Errorf("%d of the first %d grants are not of a dying name", early, len(dying))
	}
	next := grants[len(dying)+rest:]
	got := 0
	for _, g := range next[:scaled(800)] {
		if slices.Contains(waiters, g.UUID) {
			got++
		}
	}
	if got < scaled(350) || got > scaled(420) {
		r.t.Errorf("%d of the next grants are of awaited names, want at most half", got)
	}
}
