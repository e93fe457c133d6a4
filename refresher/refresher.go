package refresher

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam"
)

// Upstream is what the refresher asks of Access Manager; *pam.Client is one. The
// calls are made concurrently.
type Upstream interface {
	Grant(ctx context.Context, g pam.Grant) (pam.Token, error)
	Revoke(ctx context.Context, raw pam.Secret) error
	Time(ctx context.Context) (time.Time, error)
}

// Config of New. Cache, Upstream, Clock and Limiter are required.
type Config struct {
	Cache    *cache.Cache
	Upstream Upstream
	Clock    *Clock
	Limiter  *Limiter
	// InFlight bounds the attempts under way; 0 means 4.
	InFlight int
	// ReloadSecret reads the secret key again and reports whether it has changed
	// and is in use now. Nil: there is nothing to read again.
	ReloadSecret func() bool
	// Random is uniform in [0, 1); nil means math/rand. Concurrent calls happen.
	Random func() float64
	Log    *slog.Logger // nil discards
}

// Refresher keeps the tokens of a cache alive. All methods but Run may be called
// concurrently, before and while Run runs.
type Refresher struct {
	cache    *cache.Cache
	upstream Upstream
	clock    *Clock
	limiter  *Limiter
	inFlight int
	reload   func() bool
	random   func() float64
	log      *slog.Logger

	wake     chan struct{} // somebody changed what is due
	askClock chan struct{} // the clock needs another sample
	finished chan *flight  // workers report to the loop
	began    time.Time     // local

	secretMu sync.Mutex
	secrets  atomic.Int64 // secret keys that came into use so far

	shortestTTL     atomic.Int64 // of the tokens granted, nanoseconds; 0 before the first
	sampled         atomic.Int64 // when the clock was sampled last, nanoseconds since began; 0: it has to be
	revokeSupported atomic.Int32 // 0 unknown, 1 yes, -1 no
	requests        atomic.Int64 // attempts under way
	backlogLength   atomic.Int64
	breakerOpen     atomic.Bool
	required        atomic.Pointer[[]string]
}

// New returns a refresher that does nothing until Run.
func New(cfg Config) *Refresher {
	r := &Refresher{
		cache: cfg.Cache, upstream: cfg.Upstream, clock: cfg.Clock, limiter: cfg.Limiter,
		inFlight: cfg.InFlight, reload: cfg.ReloadSecret, random: cfg.Random, log: cfg.Log,
		wake: make(chan struct{}, 1), askClock: make(chan struct{}, 1), finished: make(chan *flight),
		began: time.Now(),
	}
	if r.inFlight <= 0 {
		r.inFlight = 4
	}
	if r.reload == nil {
		r.reload = func() bool { return false }
	}
	if r.random == nil {
		r.random = rand.Float64
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	return r
}

// Run works until ctx ends, then waits for the attempts under way, at most 5 s and
// the time the disk takes, and returns nil. It is called once.
func (r *Refresher) Run(ctx context.Context) error {
	housekeepingEnd := r.startHousekeeping(ctx)
	defer housekeepingEnd()
	work, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	l := &loop{Refresher: r, stopping: ctx, ctx: work, flying: map[string]*flight{}, withdrawing: map[string]bool{}}
	l.holdAfterCrash()
	l.run()
	l.drain(cut)
	return nil
}

// holdAfterCrash makes overdue names without a live token wait when the process
// starts after a crash, longer with each crash in a row.
func (l *loop) holdAfterCrash() {
	n := l.cache.UncleanStarts()
	if n == 0 {
		return
	}
	wait := BootDelay(n, l.random())
	l.log.Warn("started after an unclean stop", "unclean_starts", n, "wait", wait.Round(time.Millisecond))
	l.holdUntil = time.Now().Add(wait)
}

// poke makes the loop look at the due names again.
func (r *Refresher) poke() { signal(r.wake) }

// signal wakes who waits on ch, which holds one signal.
func signal(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
