package refresher

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Lane is a kind of request that the limiter treats as one.
type Lane int

// The lanes. While requests wait in both, each gets half of the rate.
const (
	Granting Lane = iota // grants and the time request
	Revoking
	lanes
)

// Limiter bounds every request to Access Manager. Its bucket starts empty, so
// that a process that restarts in a loop never exceeds the rate either. It is
// safe for concurrent use.
type Limiter struct {
	bucket *rate.Limiter

	mu     sync.Mutex
	busy   bool // somebody holds the turn
	queue  [lanes][]chan struct{}
	last   Lane // lane of the last turn
	paused time.Time
}

// NewLimiter returns a limiter of perSecond requests a second with the given
// burst; both must be positive.
func NewLimiter(perSecond float64, burst int) *Limiter {
	l := &Limiter{bucket: rate.NewLimiter(rate.Limit(perSecond), burst)}
	l.bucket.AllowN(time.Now(), burst)
	return l
}

// Wait blocks until one request of the lane may be sent. It fails when ctx ends
// first, or at once when the pause that the server asked for outlasts ctx.
func (l *Limiter) Wait(ctx context.Context, lane Lane) error {
	if err := l.takeTurn(ctx, lane); err != nil {
		return err
	}
	defer l.passTurn()
	for {
		pause := time.Until(l.PausedUntil())
		if pause <= 0 {
			return l.bucket.Wait(ctx)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// takeTurn waits for the caller's turn to ask the bucket.
func (l *Limiter) takeTurn(ctx context.Context, lane Lane) error {
	l.mu.Lock()
	if !l.busy {
		l.busy, l.last = true, lane
		l.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	l.queue[lane] = append(l.queue[lane], turn)
	l.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		l.leave(lane, turn)
		return ctx.Err()
	}
}

// leave takes a waiter that gave up out of the queue; if it has the turn already,
// it passes it on.
func (l *Limiter) leave(lane Lane, turn chan struct{}) {
	l.mu.Lock()
	for i, t := range l.queue[lane] {
		if t == turn {
			l.queue[lane] = append(l.queue[lane][:i:i], l.queue[lane][i+1:]...)
			l.mu.Unlock()
			return
		}
	}
	l.mu.Unlock()
	l.passTurn()
}

// passTurn gives the turn to the lane that did not have it last, if one waits
// there.
func (l *Limiter) passTurn() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, lane := range []Lane{lanes - 1 - l.last, l.last} {
		if q := l.queue[lane]; len(q) > 0 {
			l.queue[lane], l.last = q[1:], lane
			close(q[0])
			return
		}
	}
	l.busy = false
}

// Pause stops every lane for d, as the server asked. A longer pause under way
// stays.
func (l *Limiter) Pause(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until := time.Now().Add(d); until.After(l.paused) {
		l.paused = until
	}
}

// PausedUntil is the end of the pause by the local clock, in the past if there is
// none.
func (l *Limiter) PausedUntil() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.paused
}

// Rate is the configured number of requests a second and the burst.
func (l *Limiter) Rate() (perSecond float64, burst int) {
	return float64(l.bucket.Limit()), l.bucket.Burst()
}

// sleep waits for d, failing at once when ctx has a deadline before that.
func sleep(ctx context.Context, d time.Duration) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d {
		return fmt.Errorf("wait for %s: %w", d.Round(time.Millisecond), context.DeadlineExceeded)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
