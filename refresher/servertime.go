package refresher

import (
	"context"
	"fmt"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
)

// cutError is how wrong a timestamp may be that was cut to the second and is
// taken as the middle of it.
const cutError = 500 * time.Millisecond

// Observe takes what every answer of Access Manager says of its clock. It is
// wired to pam.Client, for the Date of its own answers. The time request says
// more in its answer.
func (r *Refresher) Observe(x pam.Exchange) {
	if x.Date.IsZero() || x.Op == pam.OpTime {
		return
	}
	// The Date was made between sending and receiving.
	trip := x.Received.Sub(x.Sent)
	r.sample(x.Date.Add(cutError), time.Since(x.Sent)-trip/2, trip/2+cutError, FromDate)
}

// observeToken takes what a token that was just obtained says of the server's
// clock; trip is how long it took.
func (r *Refresher) observeToken(tok pam.Token, trip time.Duration) {
	r.sample(tok.Issued.Add(cutError), trip/2, trip/2+cutError, FromToken)
}

// sample corrects the clock and tells those who depend on it.
func (r *Refresher) sample(server time.Time, age, err time.Duration, from Source) {
	before, was := r.clock.Now(), r.clock.Status()
	if r.clock.Sample(server, age, err, from) {
		r.sampled.Store(0)
		signal(r.askClock)
	} else {
		r.sampled.Store(int64(time.Since(r.began)) + 1)
	}
	after, is := r.clock.Now(), r.clock.Status()
	if after.Sub(before).Abs() > near {
		r.poke()
	}
	if (is.Offset - was.Offset).Abs() > near {
		r.log.Warn("local clock differs from the server's and is corrected for", "offset", is.Offset.Round(time.Millisecond))
	}
}

// measureClock asks the server for its time, twice if the first answer is so far
// off that it needs confirmation.
func (r *Refresher) measureClock(ctx context.Context) error {
	for range 2 {
		began := time.Now()
		server, err := r.upstream.Time(ctx)
		if err != nil {
			return fmt.Errorf("ask for the server's time: %w", err)
		}
		trip := time.Since(began)
		r.sample(server, trip/2, trip/2, FromTime)
		if !r.clock.Status().Suspect {
			return nil
		}
	}
	return nil
}

// Times of the clock's watch.
const (
	checkEvery    = 5 * time.Second
	askMost       = 15 * time.Minute // between two readings of the server's clock
	askLeast      = checkEvery
	askAgain      = checkEvery - time.Second // after an attempt, doubled while the server does not answer
	suspectAgain  = 14 * time.Second         // at most that while the estimate is in doubt
	unsuspicious  = time.Minute              // otherwise
	maxAskDoubles = 4
)

// clockWatch asks for the server's time when the estimate is in doubt or old. It
// belongs to one goroutine.
type clockWatch struct {
	*Refresher
	asked    time.Time // local; zero: never
	failures int       // in a row
	doubted  bool      // at the last look
}

// run watches until ctx ends. Its ticks are of the monotonic clock: it must go on
// whatever happens to the wall clock.
func (w *clockWatch) run(ctx context.Context) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		w.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-w.askClock:
		case <-tick.C:
		}
	}
}

func (w *clockWatch) look(ctx context.Context) {
	doubt := w.clock.Check()
	if doubt && !w.doubted {
		w.poke() // more may be due than the loop has slept for
	}
	w.doubted = doubt
	if !doubt && !w.old() {
		return
	}
	if !w.asked.IsZero() && time.Since(w.asked) < w.patience(doubt) {
		return
	}
	w.asked = time.Now()
	turn, err := w.limiter.reserve(ctx, Granting)
	if err == nil {
		timed, cancel := context.WithTimeout(turn, attemptMost)
		defer cancel()
		err = w.measureClock(timed)
	}
	if err == nil {
		w.failures = 0
		return
	}
	w.failures++
	w.log.Debug("server time unknown", "error", err)
}

// patience is how long to wait after one attempt before the next.
func (w *clockWatch) patience(doubt bool) time.Duration {
	wait := askAgain << min(w.failures, maxAskDoubles)
	if doubt {
		return min(wait, suspectAgain)
	}
	return min(wait, unsuspicious)
}

// old reports whether the last sample is too old: an eighth of the shortest token's
// life, so that a service whose clock was set is noticed while tokens still have a
// third of theirs.
func (w *clockWatch) old() bool {
	every := askMost
	if ttl := time.Duration(w.shortestTTL.Load()); ttl > 0 {
		every = min(max(ttl/8, askLeast), askMost)
	}
	last := w.sampled.Load()
	return last == 0 || time.Since(w.began)-time.Duration(last) >= every
}

// noteTTL remembers the shortest lifetime granted.
func (r *Refresher) noteTTL(ttl time.Duration) {
	for {
		old := r.shortestTTL.Load()
		if (old != 0 && old <= int64(ttl)) || r.shortestTTL.CompareAndSwap(old, int64(ttl)) {
			return
		}
	}
}
