package refresher

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// swarm lets n goroutines wait for a lane again and again until ctx ends, and
// returns the moments of their turns.
type swarm struct {
	l  *Limiter
	wg sync.WaitGroup

	mu    sync.Mutex
	turns [lanes][]time.Time
}

func (s *swarm) add(ctx context.Context, lane Lane, n int) {
	for range n {
		s.wg.Go(func() {
			for s.l.Wait(ctx, lane) == nil {
				s.mu.Lock()
				s.turns[lane] = append(s.turns[lane], time.Now())
				s.mu.Unlock()
			}
		})
	}
}

func (s *swarm) all() []time.Time {
	at := slices.Concat(s.turns[Granting], s.turns[Revoking])
	slices.SortFunc(at, time.Time.Compare)
	return at
}

func TestLimiterRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		s := &swarm{l: NewLimiter(10, 20)}
		time.Sleep(time.Minute) // the bucket is full
		s.add(ctx, Granting, 7)
		s.add(ctx, Revoking, 3)
		time.Sleep(time.Minute)
		stop()
		s.wg.Wait()
		at := s.all()
		for i := range at {
			for _, window := range []time.Duration{100 * time.Millisecond, time.Second, 10 * time.Second} {
				n := 0
				for _, other := range at[i:] {
					if other.Sub(at[i]) < window {
						n++
					}
				}
				if limit := int(10*window.Seconds()) + 20; n > limit {
					t.Fatalf("%d turns within %s, at most %d are allowed", n, window, limit)
				}
			}
		}
		if n := len(at); n < 610 {
			t.Errorf("only %d turns in a minute", n)
		}
	})
}

func TestLimiterStartsEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		l := NewLimiter(10, 20)
		for range 10 {
			if err := l.Wait(t.Context(), Granting); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took < time.Second {
			t.Errorf("ten turns within %s of the start", took)
		}
	})
}

func TestLimiterFairness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		s := &swarm{l: NewLimiter(10, 20)}
		s.add(ctx, Granting, 50)
		s.add(ctx, Revoking, 2)
		time.Sleep(time.Minute)
		stop()
		s.wg.Wait()
		if g, r := len(s.turns[Granting]), len(s.turns[Revoking]); g-r > 2 || r-g > 2 {
			t.Errorf("%d grants and %d revokes", g, r)
		}
	})
}

func TestLimiterOneLaneTakesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		s := &swarm{l: NewLimiter(10, 20)}
		s.add(ctx, Revoking, 4)
		time.Sleep(time.Minute)
		stop()
		s.wg.Wait()
		if n := len(s.turns[Revoking]); n < 590 {
			t.Errorf("%d turns in a minute, nobody else waited", n)
		}
	})
}

// TestLimiterPause: nobody is sent during the pause, also not one who had been
// waiting for the bucket when it began, and not one whose turn was reserved.
func TestLimiterPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		s := &swarm{l: NewLimiter(10, 20)}
		s.add(ctx, Granting, 4)
		s.add(ctx, Revoking, 4)
		time.Sleep(10*time.Second + 50*time.Millisecond)
		from := time.Now()
		s.l.Pause(3 * time.Second)
		s.l.Pause(time.Second) // a shorter one changes nothing
		s.wg.Go(func() {
			if s.l.Wait(withTurn(ctx), Granting) == nil && time.Since(from) < 3*time.Second {
				t.Error("a reserved turn was used in the pause")
			}
		})
		time.Sleep(20 * time.Second)
		stop()
		s.wg.Wait()
		after := 0
		for _, at := range s.all() {
			if in := at.Sub(from); in >= 0 && in < 3*time.Second {
				t.Fatalf("a turn %s after the pause began", in)
			} else if in >= 0 {
				after++
			}
		}
		if after < 150 {
			t.Errorf("%d turns after the pause", after)
		}
	})
}

func TestLimiterPauseOutlastsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(10, 20)
		l.Pause(time.Minute)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := l.Wait(ctx, Granting); !errors.Is(err, errPaused) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait: %v", err)
		}
		if _, err := l.reserve(t.Context(), Granting); !errors.Is(err, errPaused) {
			t.Errorf("reserve: %v", err)
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("it took %s to say so", took)
		}
	})
}

// TestLimiterTurnIsNeverLost: waiters that give up, at the very moment of their
// turn too, do not take it with them.
func TestLimiterTurnIsNeverLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(10, 1)
		var wg sync.WaitGroup
		for i := range 400 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%20)*50*time.Millisecond)
			defer cancel()
			lane := Lane(i % int(lanes))
			wg.Go(func() { _ = l.Wait(ctx, lane) })
		}
		wg.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Wait(ctx, Granting); err != nil {
			t.Fatalf("after all have given up: %v", err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.busy || len(l.queue[Granting])+len(l.queue[Revoking]) > 0 {
			t.Errorf("busy %v, queues %v", l.busy, l.queue)
		}
	})
}

// TestLimiterTurnToOneWhoLeaves: a turn that comes at the moment its waiter gives
// up goes on to the next.
func TestLimiterTurnToOneWhoLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(10, 20)
		if err := l.takeTurn(t.Context(), Granting); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error)
		go func() { left <- l.takeTurn(ctx, Revoking) }()
		synctest.Wait()
		l.mu.Lock() // the waiter leaves, and before it is out of the queue the turn is passed to it
		cancel()
		turn := l.queue[Revoking][0]
		l.queue[Revoking], l.last = nil, Revoking
		close(turn)
		l.mu.Unlock()
		if err := <-left; err == nil {
			l.passTurn()
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.busy {
			t.Error("the turn is lost")
		}
	})
}

// TestLimiterReservedTurn: a turn that was waited for ahead costs the request
// nothing, but the next one of the same attempt.
func TestLimiterReservedTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(0.05, 1) // one in 20 s
		start := time.Now()
		turn, err := l.reserve(t.Context(), Granting)
		if took := time.Since(start); err != nil || took != 20*time.Second {
			t.Fatalf("reserved after %s: %v", took, err)
		}
		ctx, cancel := context.WithTimeout(turn, 10*time.Second)
		defer cancel()
		if err := l.Wait(ctx, Granting); err != nil || time.Since(start) != 20*time.Second {
			t.Errorf("first request after %s: %v", time.Since(start), err)
		}
		if err := l.Wait(ctx, Granting); err == nil {
			t.Error("the second request needs no turn")
		}
	})
}
