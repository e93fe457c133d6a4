package refresher

import (
	"context"
	"fmt"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
)

// Observe takes what every answer of Access Manager says of its clock. It is
// wired to pam.Client, for the Date of its own answers.
func (r *Refresher) Observe(x pam.Exchange) {
	if x.Date.IsZero() {
		return
	}
	// Date is cut to the second; it was made between sending and receiving.
	trip := x.Received.Sub(x.Sent)
	server := x.Date.Add(500 * time.Millisecond)
	r.sample(server, x.Sent.Add(trip/2), trip/2+time.Second, false)
}

// takeSample takes what a token just obtained says of the server's clock.
func (r *Refresher) takeSample(tok pam.Token, start time.Time) {
	local := r.clock.Local()
	trip := max(r.clock.Now().Sub(start), 0)
	server := tok.Issued.Add(500 * time.Millisecond)
	r.sample(server, local.Add(-trip/2), trip/2+time.Second, true)
}

func (r *Refresher) sample(server, local time.Time, err time.Duration, confirms bool) {
	before := r.clock.Status()
	needsMore := r.clock.Sample(server, local, err, confirms)
	if !needsMore {
		r.lastSample.Store(time.Now().UnixNano())
	} else {
		r.lastSample.Store(0)
	}
	after := r.clock.Status()
	if (after.Offset-before.Offset).Abs() < offsetWorthOne && before.Known == after.Known {
		return
	}
	if after.Offset.Abs() >= 2*time.Second {
		r.log.Warn("local clock differs from the server's and is corrected for", "offset", after.Offset.Round(time.Millisecond))
	}
	if err := r.cache.SetClockOffset(after.Offset); err != nil {
		r.log.Warn("clock offset cannot be kept", "error", err)
	}
	r.poke()
}

// measureClock asks the server for its time, twice if the first answer is so far
// off that it needs confirmation.
func (r *Refresher) measureClock(ctx context.Context) error {
	for range 2 {
		sent := r.clock.Local()
		began := time.Now()
		server, err := r.upstream.Time(ctx)
		if err != nil {
			return fmt.Errorf("ask for the server's time: %w", err)
		}
		trip := time.Since(began)
		r.sample(server, sent.Add(trip/2), trip/2, true)
		if !r.clock.Status().Suspect {
			return nil
		}
	}
	return nil
}

// watchClock notices a wall clock that was set and asks the server then, and
// every quarter of the shortest token's life.
func (r *Refresher) watchClock(ctx context.Context) {
	ask := r.clock.Check()
	every := askMost
	if ttl := time.Duration(r.shortestTTL.Load()); ttl > 0 {
		every = min(max(ttl/4, askLeast), askMost)
	}
	last := r.lastSample.Load()
	if last == 0 || time.Since(time.Unix(0, last)) >= every {
		ask = true
	}
	if !ask {
		return
	}
	timed, cancel := context.WithTimeout(ctx, attemptMost)
	defer cancel()
	if err := r.measureClock(timed); err != nil {
		r.log.Debug("server time unknown", "error", err)
	}
	r.poke()
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
