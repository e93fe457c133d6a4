package refresher

import "time"

// breakerLimit is how many failures in a row, across names, show that the
// service and not a name is the trouble.
const breakerLimit = 5

// breaker lets one probe out instead of all when Access Manager is down. It
// belongs to the loop and is not safe for concurrent use. Its times are local:
// it only waits.
type breaker struct {
	failures int       // in a row
	last     time.Time // of the last one
	random   float64   // drawn then
}

func (b *breaker) open() bool { return b.failures >= breakerLimit }

// succeeded notes an answer that shows the service at work.
func (b *breaker) succeeded() { b.failures = 0 }

// failed notes a network error, a timeout or a 5xx; u is a random number.
func (b *breaker) failed(now time.Time, u float64) {
	b.failures++
	b.last, b.random = now, u
}

// wait is how long no further request may go out, 0 or less for one now. remaining
// is the shortest life left in the tokens that wait to be replaced, 0 if none is
// live: the less time there is, the sooner comes the next probe.
func (b *breaker) wait(now time.Time, remaining time.Duration) time.Duration {
	if !b.open() {
		return 0
	}
	return b.last.Add(RetryDelay(b.failures-breakerLimit+1, remaining, b.random)).Sub(now)
}
