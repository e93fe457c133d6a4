package refresher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
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

	mu    sync.Mutex
	busy  bool // somebody holds the turn
	queue [lanes][]chan struct{}
	last  Lane      // lane of the last turn
	pause time.Time // its end, by the local clock
}

// NewLimiter returns a limiter of perSecond requests a second with the given
// burst; both must be positive.
func NewLimiter(perSecond float64, burst int) *Limiter {
	l := &Limiter{bucket: rate.NewLimiter(rate.Limit(perSecond), burst)}
	l.bucket.AllowN(time.Now(), burst)
	return l
}

// errPaused says that a request was not sent because the server asked for a pause
// that lasts too long to wait for.
var errPaused = errors.New("asked to send nothing")

// Wait blocks until one request of the lane may be sent. It fails when ctx ends
// first, or at once when the pause that the server asked for outlasts ctx.
func (l *Limiter) Wait(ctx context.Context, lane Lane) error {
	if turn, ok := ctx.Value(turnKey{}).(*atomic.Bool); ok && turn.CompareAndSwap(false, true) {
		return l.waitOutPause(ctx)
	}
	if err := l.takeTurn(ctx, lane); err != nil {
		return err
	}
	defer l.passTurn()
	if err := l.waitOutPause(ctx); err != nil {
		return err
	}
	if err := l.bucket.Wait(ctx); err != nil {
		return err
	}
	// The server may have asked for a pause meanwhile.
	return l.waitOutPause(ctx)
}

// turnKey is the key of a turn taken ahead in a context: an *atomic.Bool that is
// true once it was used.
type turnKey struct{}

// reserve waits for the turn of one request ahead of it: the first Wait with the
// context it returns costs nothing more. So an attempt's time runs from when it
// may be sent, however low the rate is. While the server asks for a pause, reserve
// fails at once.
func (l *Limiter) reserve(ctx context.Context, lane Lane) (context.Context, error) {
	if err := l.takeTurn(ctx, lane); err != nil {
		return nil, err
	}
	defer l.passTurn()
	if l.paused() {
		return nil, errPaused
	}
	if err := l.bucket.Wait(ctx); err != nil {
		return nil, err
	}
	if l.paused() {
		return nil, errPaused
	}
	return withTurn(ctx), nil
}

// withTurn puts a turn that was reserved into another context.
func withTurn(ctx context.Context) context.Context {
	return context.WithValue(ctx, turnKey{}, new(atomic.Bool))
}

func (l *Limiter) paused() bool { return time.Until(l.PausedUntil()) > 0 }

// waitOutPause returns when no pause is asked for any more.
func (l *Limiter) waitOutPause(ctx context.Context) error {
	for {
		pause := time.Until(l.PausedUntil())
		if pause <= 0 {
			return ctx.Err()
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
	if until := time.Now().Add(d); until.After(l.pause) {
		l.pause = until
	}
}

// PausedUntil is the end of the pause by the local clock, in the past if there is
// none.
func (l *Limiter) PausedUntil() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pause
}

// Rate is the configured number of requests a second and the burst.
func (l *Limiter) Rate() (perSecond float64, burst int) {
	return float64(l.bucket.Limit()), l.bucket.Burst()
}

// sleep waits for d, failing at once when ctx has a deadline before that.
func sleep(ctx context.Context, d time.Duration) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d {
		return fmt.Errorf("%w for %s: %w", errPaused, d.Round(time.Millisecond), context.DeadlineExceeded)
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
