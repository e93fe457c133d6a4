package refresher

import "time"

// breakerLimit is how many failures in a row, across names, show that the
// service and not a name is the trouble.
const breakerLimit = 5

// breaker lets one probe out instead of all when Access Manager is down. It
// belongs to the loop and is not safe for concurrent use.
type breaker struct {
	failures int       // in a row
	probeAt  time.Time // earliest moment of the next probe, by server time
}

func (b *breaker) open() bool { return b.failures >= breakerLimit }

// succeeded notes an answer that shows the service at work.
func (b *breaker) succeeded() { b.failures = 0 }

// failed notes a network error, a timeout or a 5xx. remaining is the life left
// in the token of the name it happened to.
func (b *breaker) failed(now time.Time, remaining time.Duration, u float64) {
	b.failures++
	if b.open() {
		b.probeAt = now.Add(RetryDelay(b.failures-breakerLimit+1, remaining, u))
	}
}

// allows reports whether one more request may go out at now while busy are under
// way.
func (b *breaker) allows(now time.Time, busy int) bool {
	return !b.open() || (busy == 0 && !now.Before(b.probeAt))
}
