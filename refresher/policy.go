package refresher

import (
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// The time policy. Everything here is pure: random numbers u are uniform in
// [0, 1) and drawn by the caller, and what is drawn is stored, never drawn again.
const (
	firstEarliest = 0.50 // of the lifetime: the first attempt to replace a token
	firstLatest   = 0.65

	retryBase    = time.Second
	retryLeast   = time.Second      // smallest cap of the delay
	retryMost    = time.Minute      // largest cap, and the cap while no token is live
	slowEarliest = 5 * time.Minute  // after an answer that says the request is wrong
	slowLatest   = 15 * time.Minute //
	wrongQuick   = 5                // attempts before a wrong token slows them down
	refusedAgain = time.Hour        // revokes that the keyset does not allow

	attemptMost  = 10 * time.Second
	attemptLeast = 2 * time.Second

	// Handover is how long a token that allows too much goes on living after its
	// narrower successor was published.
	Handover = time.Minute

	// timestampWindow is how old the signed timestamp of a request may be for the
	// service to accept it (PubNub REST docs, grant token).
	timestampWindow = time.Minute
)

// FirstAttempt is when the replacement of a token is first tried.
func FirstAttempt(issued time.Time, ttl time.Duration, u float64) time.Time {
	share := firstEarliest + (firstLatest-firstEarliest)*u
	return issued.Add(time.Duration(share * float64(ttl)))
}

// RetryDelay is the wait after the given number of failed attempts in a row, 1 or
// more. remaining is the life left in the current token, 0 or less if none is
// live.
func RetryDelay(attempts int, remaining time.Duration, u float64) time.Duration {
	most := retryMost
	if remaining > 0 {
		most = min(max(remaining/10, retryLeast), retryMost)
	}
	c := retryBase
	for i := 1; i < attempts && c < most; i++ {
		c *= 2
	}
	c = min(c, most)
	return c/2 + time.Duration(u*float64(c/2))
}

// SlowDelay is the wait after an answer that only a changed configuration or
// keyset can mend.
func SlowDelay(u float64) time.Duration {
	return slowEarliest + time.Duration(u*float64(slowLatest-slowEarliest))
}

// WrongDelay is the wait after a token that is not what was asked for, given the
// failed attempts in a row before it: 0, for the usual wait, while it may be a
// passing fault; then long, for each attempt makes one more token to revoke.
func WrongDelay(attempts int, u float64) time.Duration {
	if attempts < wrongQuick {
		return 0
	}
	return SlowDelay(u)
}

// AttemptTimeout bounds one attempt. While a token is live it is at most a
// quarter of what remains, so that several attempts fit; without one there is
// nothing to lose by waiting.
func AttemptTimeout(remaining time.Duration) time.Duration {
	if remaining <= 0 {
		return attemptMost
	}
	return min(attemptMost, max(attemptLeast, remaining/4))
}

// BootDelay is how long names without a live token wait after the n-th start in
// a row that followed an unclean stop, so that a crash loop is no flood.
func BootDelay(n int, u float64) time.Duration {
	if n == 0 {
		return 0
	}
	return RetryDelay(n, 0, u)
}

// AskTTL is the lifetime to ask for: the grant's, or what is left until its end
// in whole minutes, rounded up. It is 0 when the end has come.
func AskTTL(g cache.Grant, now time.Time) time.Duration {
	if g.Until.IsZero() {
		return g.TTL
	}
	left := g.Until.Sub(now)
	if left <= 0 {
		return 0
	}
	return min(g.TTL, (left+time.Minute-1)/time.Minute*time.Minute)
}

// NextAttempt is when a token just obtained is to be replaced: at its drawn
// point, or at the calendar's next moment if that is earlier. A token that lasts
// until the end of its grant is replaced by the calendar only; otherwise there is
// work again at that end. calendar and until are zero for none.
func NextAttempt(t cache.Token, calendar, until time.Time, u float64) time.Time {
	next := FirstAttempt(t.Issued, t.TTL, u)
	if !until.IsZero() && !t.Expires().Before(until) {
		next = until
	}
	if !calendar.IsZero() && calendar.Before(next) {
		return calendar
	}
	return next
}

// urgency orders the backlog: lower comes first.
type urgency int

const (
	dying   urgency = iota // live, with less than a fifth of life left
	awaited                // a reader waits
	routine
)

// urgencyOf says how urgent a grant for the record is at now.
func urgencyOf(r *cache.Record, now time.Time, waited bool) urgency {
	if r.HasLive(now) && r.Current.Expires().Sub(now) < r.Current.TTL/5 {
		return dying
	}
	if waited {
		return awaited
	}
	return routine
}

// remaining is the life left in the record's current token, 0 if none is live.
func remaining(r *cache.Record, now time.Time) time.Duration {
	if !r.HasLive(now) {
		return 0
	}
	return r.Current.Expires().Sub(now)
}
