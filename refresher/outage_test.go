package refresher_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// outages are the ways in which a service can be of no use.
var outages = map[string]pamtest.Fault{
	"refused":         {Kind: pamtest.KindRefused},
	"hang":            {Kind: pamtest.KindHang},
	"hang after work": {Kind: pamtest.KindHang, AfterWork: true},
	"cut":             {Kind: pamtest.KindCut},
	"cut after work":  {Kind: pamtest.KindCut, AfterWork: true},
	"500":             {Status: 500},
	"503":             {Status: 503},
	"504":             {Status: 504},
	"bad JSON":        {Kind: pamtest.KindBadJSON},
	"empty":           {Kind: pamtest.KindEmpty},
	"HTML":            {Kind: pamtest.KindHTML},
	"HTML 502":        {Kind: pamtest.KindHTML, Status: 502},
	"truncated":       {Kind: pamtest.KindTruncated, AfterWork: true},
	"huge":            {Kind: pamtest.KindHugeBody},
	"no token":        {Op: pam.OpGrant, Kind: pamtest.KindNoToken},
}

// TestOutageIsInvisible: whatever the service does instead of answering for 90 s,
// tokens with more life than that are replaced in time.
func TestOutageIsInvisible(t *testing.T) {
	for what, fault := range outages {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				grants, names := manyNames(25, 5*time.Minute)
				r.start(grants...)
				r.wait(170 * time.Second) // most are due in the next 25 s
				r.emulator.SetFault(fault)
				r.neverWithout(90*time.Second, names...)
				r.emulator.ClearFaults()
				r.neverWithout(4*time.Minute, names...)
				for _, name := range names {
					r.wantState(name, cache.Fresh)
				}
				r.withinRate()
				r.accounted()
				r.end()
			})
		})
	}
}

// TestOutageShowsAsFailing: readers keep their token and learn what is wrong.
func TestOutageShowsAsFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("alice", 5*time.Minute))
		r.wait(time.Minute)
		r.emulator.SetFault(pamtest.Fault{Status: 500})
		r.wait(3 * time.Minute)
		r.wantState("alice", cache.Failing)
		v := r.view("alice")
		if !strings.Contains(v.Reason(), "500") || v.NextAttempt().Before(r.clock.Now().Add(-6*time.Second)) {
			t.Errorf("reason %q, next attempt %s", v.Reason(), v.NextAttempt())
		}
		r.wait(2 * time.Minute)
		r.wantState("alice", cache.Expired)
		if rec := r.record("alice"); rec.Current != nil || rec.Attempts < 5 {
			t.Errorf("current %v, %d attempts", rec.Current, rec.Attempts)
		}
		r.emulator.ClearFaults()
		r.wait(time.Minute)
		r.wantState("alice", cache.Fresh)
		if rec := r.record("alice"); rec.Attempts != 0 || rec.Failure != nil {
			t.Errorf("%d attempts, failure %v after a grant", rec.Attempts, rec.Failure)
		}
		r.end()
	})
}

// TestTurnLooksAgain: a name that changes while its attempt waits for its turn is
// granted as it is then, if at all.
func TestTurnLooksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.rate, r.burst = 0.1, 1
		grants, names := manyNames(4, 24*time.Hour)
		r.start(grants...)
		r.wait(5 * time.Second)
		for i := range grants {
			grants[i] = narrowed(grants[i])
		}
		r.apply(grants...)
		r.must(r.revoke(names[3:], false))
		r.wait(5 * time.Minute)
		for _, name := range names[:3] {
			r.wantState(name, cache.Fresh)
		}
		if n := len(r.emulator.Grants()); n != 3 {
			t.Errorf("%d grants for three names", n)
		}
		r.end()
	})
}

// TestEndIsTold: who waits for a change of the name hears of the end of its token
// although nothing can be granted nor even tried.
func TestEndIsTold(t *testing.T) {
	for range 10 {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			grants, names := manyNames(30, 5*time.Minute)
			r.start(grants...)
			r.wait(time.Minute)
			r.limiter.Pause(time.Hour)
			for _, name := range names {
				if late := r.toldOfEnd(name); late > time.Second {
					t.Fatalf("%s: told %s after the end", name, late)
				}
			}
			r.end()
		})
	}
}

// toldOfEnd waits until readers of the name are told that its token has ended and
// returns how long after that.
func (r *rig) toldOfEnd(name string) (late time.Duration) {
	r.t.Helper()
	for end := r.view(name).Expires(); r.view(name).Token() != ""; late = r.clock.Now().Sub(end) {
		changed, done := r.cache.Changed(name)
		select {
		case <-changed:
		case <-time.After(5 * time.Minute):
			r.t.Fatalf("%s: nobody was told", name)
		}
		done()
	}
	return late
}

// TestRetriesGrowAndSpread: the delays double up to a tenth of what remains, and
// names that fail together are not tried again together.
func TestRetriesGrowAndSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("alice", time.Hour))
		r.wait(25 * time.Minute)
		r.emulator.SetFault(pamtest.Fault{Op: pam.OpGrant, Status: 500})
		r.wait(33 * time.Minute)
		at := r.times(isOp(pam.OpGrant))[1:]
		for i := range at[1:] {
			gap, left := at[i+1].Sub(at[i]), time.Hour-at[i].Sub(epoch)
			most := min(time.Second<<min(i, 10), max(left/10, time.Second), time.Minute)
			if gap < most/2-time.Second || gap > 2*most+time.Second {
				t.Errorf("gap %d is %s with %s left, want about %s", i, gap, left, most)
			}
		}
		if n := len(at); n < 35 || n > 120 {
			t.Errorf("%d attempts within half an hour", n)
		}
		r.end()
	})
}

// TestBreakerOpens: when the service is down, one probe goes out instead of all.
func TestBreakerOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		grants, names := manyNames(200, time.Hour)
		r.emulator.SetFault(pamtest.Fault{Op: pam.OpGrant, Status: 500})
		r.start(grants...)
		r.wait(time.Minute)
		if !r.refresher.Status().BreakerOpen {
			t.Fatal("the breaker is closed after a minute")
		}
		before := len(r.times(isOp(pam.OpGrant)))
		r.wait(10 * time.Minute)
		if n := len(r.times(isOp(pam.OpGrant))) - before; n < 8 || n > 25 {
			t.Errorf("%d probes in ten minutes", n)
		}
		r.emulator.ClearFaults()
		r.wait(time.Minute + 20*time.Second)
		for _, name := range names {
			r.wantState(name, cache.Fresh)
		}
		if r.refresher.Status().BreakerOpen {
			t.Error("the breaker is open")
		}
		r.end()
	})
}

// TestProbesHurryForTheDying: probes of names without a token do not make one that
// is about to end wait.
func TestProbesHurryForTheDying(t *testing.T) {
	for _, left := range []time.Duration{10 * time.Second, 20 * time.Second, 30 * time.Second, 40 * time.Second, 50 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.start(grantOf("alice", 5*time.Minute))
			r.wait(2 * time.Minute)
			r.emulator.SetFault(pamtest.Fault{Op: pam.OpGrant, Status: 500})
			grants, _ := manyNames(50, time.Hour)
			r.apply(append(grants, grantOf("alice", 5*time.Minute))...)
			r.wait(3*time.Minute - left)
			r.emulator.ClearFaults()
			r.neverWithout(time.Minute, "alice")
			r.end()
		})
	}
}

// silent fails if a request arrived between from and to.
func (r *rig) silent(from, to time.Time) {
	r.t.Helper()
	for _, at := range r.times(anyRequest) {
		if at.After(from) && at.Before(to) {
			r.t.Errorf("a request %s after the service had asked for silence", at.Sub(from))
		}
	}
}

// TestThrottled: after 429 with Retry-After nothing of any kind is sent until then.
func TestThrottled(t *testing.T) {
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.answers = 50 * time.Millisecond
			grants, names := manyNames(60, time.Minute)
			r.start(grants...)
			r.wait(10 * time.Second)
			r.must(r.revoke(names[:20], true))
			r.wait(500 * time.Millisecond)
			r.emulator.SetFault(pamtest.Fault{Status: status, RetryAfter: "3", Count: 1})
			r.wait(20 * time.Second)
			requests := r.emulator.Requests()
			i := slices.IndexFunc(requests, func(q pamtest.RequestRecord) bool { return q.Status == status })
			if i < 0 {
				t.Fatal("nobody was throttled")
			}
			told := requests[i].Time.Add(50 * time.Millisecond)
			r.silent(told, told.Add(3*time.Second))
			if n := len(requests) - i; n < 10 {
				t.Errorf("%d requests after the pause", n)
			}
			r.wait(10 * time.Second)
			for _, name := range names {
				r.wantState(name, cache.Fresh)
			}
			r.end()
		})
	}
}

// TestThrottledIsNoFailure: attempts that a pause keeps from being sent are put
// back, not counted.
func TestThrottledIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		grants, names := manyNames(30, 15*time.Minute)
		r.emulator.SetFault(pamtest.Fault{Op: pam.OpGrant, Status: 429, RetryAfter: "60", Count: 1})
		r.start(grants...)
		r.wait(30 * time.Second)
		failed := 0
		for _, name := range names {
			if r.record(name).Attempts > 0 {
				failed++
			}
		}
		if failed != 1 {
			t.Errorf("%d names have failed, one was throttled", failed)
		}
		r.end()
	})
}

// TestEndlessRetryAfter: however long the service says, five minutes are the most.
func TestEndlessRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.emulator.SetFault(pamtest.Fault{Op: pam.OpGrant, Status: 429, RetryAfter: "86400", Count: 1})
		r.start(grantOf("alice", 15*time.Minute))
		r.wait(4*time.Minute + 50*time.Second)
		r.wantState("alice", cache.Pending)
		r.wait(15 * time.Second)
		r.wantState("alice", cache.Fresh)
		r.end()
	})
}

// TestLowRate: a rate of one request in minutes is slow and works.
func TestLowRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.rate, r.burst = 0.02, 1
		grants, names := manyNames(8, 24*time.Hour)
		r.start(grants...)
		r.wait(12 * time.Minute)
		for _, name := range names {
			r.wantState(name, cache.Fresh)
		}
		if n := r.logs.count("grant failed"); n > 0 {
			t.Errorf("%d attempts have failed", n)
		}
		r.withinRate()
		r.end()
	})
}
