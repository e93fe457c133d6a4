package refresher_test

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// healed is how soon after a disturbance of the clocks all is well again.
const healed = 15 * time.Second

// ttls of the tests about time: the shortest there is, and one of many minutes.
var ttls = []time.Duration{time.Minute, 15 * time.Minute}

// manyNames are more than fit into the air together.
func manyNames(n int, ttl time.Duration) ([]cache.Grant, []string) {
	var grants []cache.Grant
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("n%05d", i))
		grants = append(grants, grantOf(names[i], ttl))
	}
	return grants, names
}

// TestLocalClockWrong starts with a local clock that is off either way.
func TestLocalClockWrong(t *testing.T) {
	const s = time.Second
	for _, off := range []time.Duration{-3600 * s, -300 * s, -61 * s, -59 * s, -40 * s, 40 * s, 59 * s, 61 * s, 300 * s, 3600 * s} {
		for _, ttl := range ttls {
			t.Run(fmt.Sprintf("%s of %s", off, ttl), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					r.emulator.SetClockOffset(off)
					grants, names := manyNames(6, ttl)
					r.start(grants...)
					r.neverDead(healed, names...)
					r.neverWithout(2*ttl, names...)
					if got := r.clock.Status(); (got.Offset-off).Abs() > 2*s || got.Suspect {
						t.Errorf("clock %+v", got)
					}
					r.withinRate()
					r.end()
				})
			})
		}
	}
}

// TestOffsetOutlastsRestart: with the upstream down a restart knows how wrong the
// local clock is.
func TestOffsetOutlastsRestart(t *testing.T) {
	for _, off := range []time.Duration{-3600 * time.Second, -40 * time.Second, 40 * time.Second, 3600 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.emulator.SetClockOffset(off)
			r.start(grantOf("alice", 15*time.Minute))
			r.wait(20 * time.Second)
			r.crash()
			r.emulator.SetFault(pamtest.Fault{Kind: pamtest.KindRefused})
			r.start(grantOf("alice", 15*time.Minute))
			r.neverWithout(14*time.Minute, "alice")
			r.neverDead(2*time.Minute, "alice")
			r.wantState("alice", cache.Expired)
			r.end()
		})
	}
}

// TestWallClockSet sets the local clock while all is well.
func TestWallClockSet(t *testing.T) {
	for _, by := range []time.Duration{-5 * time.Hour, -40 * time.Second, -3 * time.Second, 3 * time.Second, 40 * time.Second, 5 * time.Hour} {
		for _, ttl := range ttls {
			t.Run(fmt.Sprintf("%s of %s", by, ttl), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					grants, names := manyNames(6, ttl)
					r.start(grants...)
					r.wait(20 * time.Second)
					for range 2 {
						r.stepWall(by)
						r.neverDead(healed, names...)
						r.neverWithout(2*ttl, names...)
					}
					r.withinRate()
					r.end()
				})
			})
		}
	}
}

// TestWallClockSetCostsNothing: a clock set forward for a moment does not make
// tokens that live be forgotten, so an operator can still revoke them.
func TestWallClockSetCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		until := epoch.Add(2 * time.Hour)
		ends := grantOf("ends", time.Hour)
		ends.Until = until
		r.start(grantOf("alice", time.Hour), ends)
		r.wait(50 * time.Minute)
		before := len(r.record("alice").LiveTokens(r.clock.Now()))
		r.emulator.SetFault(pamtest.Fault{Kind: pamtest.KindRefused})
		r.stepWall(5 * time.Hour)
		r.wait(40 * time.Second)
		r.emulator.ClearFaults()
		r.stepWall(-5 * time.Hour)
		r.wait(healed)
		if after := len(r.record("alice").LiveTokens(r.clock.Now())); after < before || before < 2 {
			t.Errorf("%d live tokens are known, %d before", after, before)
		}
		if n := len(r.emulator.Revocations()); n > 0 {
			t.Errorf("%d tokens were revoked for an until that has not come", n)
		}
		r.wantState("ends", cache.Fresh)
		r.end()
	})
}

// TestPlansOfAFastClock: what was planned while the clock was hours ahead is not
// left until then.
func TestPlansOfAFastClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		grants, names := manyNames(40, 15*time.Minute)
		r.start(grants...)
		r.wait(time.Minute)
		r.emulator.SetFault(pamtest.Fault{Kind: pamtest.KindHang})
		r.stepWall(5 * time.Hour)
		r.wait(3 * time.Minute) // attempts fail and are planned by the wrong clock
		_, err := r.refresher.Revoke(t.Context(), cache.Revocation{Selector: cache.Selector{Names: names[:1]}, Regrant: true, Reason: "test"})
		r.must(err)
		r.stepWall(-5 * time.Hour)
		r.emulator.ClearFaults()
		r.wait(3 * time.Minute)
		r.neverWithout(15*time.Minute, names...)
		if n := r.record(names[0]).OpenWithdrawals(); n > 0 {
			t.Errorf("%d revokes are still open", n)
		}
		r.end()
	})
}

// TestSuspend: time passes for everybody but our monotonic clock.
func TestSuspend(t *testing.T) {
	for _, d := range []time.Duration{10 * time.Second, 4 * time.Minute, 8 * time.Hour} {
		for _, ttl := range ttls {
			t.Run(fmt.Sprintf("%s of %s", d, ttl), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					grants, names := manyNames(6, ttl)
					r.start(grants...)
					r.wait(20 * time.Second)
					for range 2 {
						r.suspend(d)
						// A token that ended meanwhile is not served for a moment.
						r.neverDead(healed, names...)
						r.neverWithout(ttl, names...)
					}
					r.end()
				})
			})
		}
	}
}

// TestSuspendUnreachable: after a suspend without network nothing dead is served.
func TestSuspendUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("alice", 15*time.Minute))
		r.wait(time.Minute)
		r.emulator.SetFault(pamtest.Fault{Kind: pamtest.KindRefused})
		r.suspend(7 * time.Minute)
		r.neverWithout(6*time.Minute, "alice")
		r.neverDead(5*time.Minute, "alice")
		r.wantState("alice", cache.Expired)
		r.end()
	})
}

// TestServerClockJumps: the service's own clock is set. Nobody can know before the
// next answer, and that comes within an eighth of the shortest life.
func TestServerClockJumps(t *testing.T) {
	for _, by := range []time.Duration{-3600 * time.Second, -61 * time.Second, 40 * time.Second, 3600 * time.Second} {
		for _, ttl := range ttls {
			t.Run(fmt.Sprintf("%s of %s", by, ttl), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					grants, names := manyNames(6, ttl)
					r.start(grants...)
					r.wait(20 * time.Second)
					for _, offset := range []time.Duration{by, 0, by} {
						r.emulator.SetClockOffset(offset)
						r.wait(max(ttl/8, healed) + healed)
						r.neverWithout(2*ttl, names...)
					}
					r.end()
				})
			})
		}
	}
}

// TestRejectedTimestamp: a request that is refused because our clock is wrong mends
// the clock and is made again at once; nothing has failed.
func TestRejectedTimestamp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("alice", time.Hour))
		r.wait(3*time.Minute + time.Second)
		r.emulator.SetClockOffset(time.Hour)
		r.must(r.refresher.Refresh(t.Context(), "alice", cache.Actor{}))
		r.wait(time.Second)
		if state, gen := r.state("alice"); state != cache.Fresh || gen != 2 {
			t.Errorf("%s, generation %d", state, gen)
		}
		if n := r.logs.count("grant failed"); n > 0 {
			t.Errorf("%d attempts have failed", n)
		}
		r.end()
	})
}

// TestTimeRequestBlocked: where the time request never gets through, grants alone
// measure the clock.
func TestTimeRequestBlocked(t *testing.T) {
	for _, off := range []time.Duration{-3600 * time.Second, -40 * time.Second, 40 * time.Second, 3600 * time.Second} {
		for _, ttl := range ttls {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.emulator.SetClockOffset(off)
				r.emulator.SetFault(pamtest.Fault{Op: pam.OpTime, Status: 403})
				grants, names := manyNames(6, ttl)
				r.start(grants...)
				r.neverDead(healed, names...)
				r.neverWithout(2*ttl, names...)
				r.end()
			})
		}
	}
}

// TestPoisonedDate: one answer with a wrong Date, as a broken proxy sends it,
// makes nobody serve what is dead, nor stop serving what lives.
func TestPoisonedDate(t *testing.T) {
	for _, off := range []time.Duration{-26 * time.Hour, -90 * time.Second, -25 * time.Second, 90 * time.Second, 26 * time.Hour} {
		for _, ttl := range ttls {
			t.Run(fmt.Sprintf("%s of %s", off, ttl), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					poison := &poisoner{off: off}
					r.opened = func(r *rig) { poison.next, r.wire.next = r.wire.next, poison }
					grants, names := manyNames(6, ttl)
					r.start(grants...)
					r.wait(20 * time.Second)
					for range 2 {
						poison.once.Store(true)
						r.neverDead(ttl, names...)
						if poison.once.Load() {
							t.Fatal("no answer was poisoned")
						}
						r.neverWithout(ttl, names...)
					}
					r.end()
				})
			})
		}
	}
}

// poisoner makes the Date of one answer wrong.
type poisoner struct {
	next http.RoundTripper
	off  time.Duration
	once atomic.Bool
}

func (p *poisoner) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := p.next.RoundTrip(req)
	if err == nil && p.once.CompareAndSwap(true, false) {
		date, _ := http.ParseTime(resp.Header.Get("Date"))
		resp.Header.Set("Date", date.Add(p.off).UTC().Format(http.TimeFormat))
	}
	return resp, err
}
