package refresher

import (
	"context"
	"errors"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// Times of the loop.
const (
	longestSleep  = 15 * time.Second      // heals suspend and clock steps
	triageSpacing = 50 * time.Millisecond // between two looks at the due names, when poked
	triageMost    = time.Second           // between two looks while there is a backlog
	triageName    = time.Millisecond      // and for each name that was due at the last one
	triageShare   = 20                    // looks may take one part in so many of the time
	pokedShare    = 4                     // the same when poked
	triageLimit   = 20_000                // names looked at together
	stopGrace     = 5 * time.Second       // for attempts under way at the end
)

// flight is one worker's job.
type flight struct {
	kind    work
	recs    []*cache.Record // as they were at the start; one but for settle
	outcome outcome
	refused bool // settle: the disk keeps what should go
}

// work is what a name needs next.
type work int

const (
	nothing  work = iota
	settle        // something ended: a commit without a request
	withdraw      // a revoke
	grant
)

// outcome is what a request said of the service.
type outcome int

const (
	unasked     outcome = iota // no request was made
	answered                   // the service is at work
	unavailable                // network error, timeout or 5xx
)

// loop is the state of Run's goroutine alone.
type loop struct {
	*Refresher
	stopping    context.Context    // ends when no more requests are to be made
	ctx         context.Context    // of the workers
	flying      map[string]*flight // grants and settlements, by name
	withdrawing map[string]bool    // names with a revoke under way
	requests    int                // flights that make requests
	settling    int                // flights that do not
	backlog     backlog
	breaker     breaker
	holdUntil   time.Time     // local: names without a live token wait until then
	holding     bool          // some name did at the last look
	lastLook    time.Time     // local
	cost        time.Duration // of the last look
	count       int           // names due then
	next        time.Time     // next due moment that is known, by server time; zero: none
	again       bool          // look again as soon as the spacing allows
	seen        time.Time     // server time when the clock was read last
	turnedBack  bool          // it has gone back since: plans may lie too late
}

func (l *loop) run() {
	l.again = true
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-l.stopping.Done():
			return
		case f := <-l.finished:
			l.land(f)
		case <-l.wake:
			l.again = true
		case <-timer.C:
		}
		if l.lookIn() <= 0 {
			l.look()
		}
		l.dispatch()
		l.backlogLength.Store(int64(l.backlog.Len()))
		l.Refresher.requests.Store(int64(l.requests))
		timer.Reset(max(min(l.lookIn(), l.dispatchIn()), time.Millisecond))
	}
}

// now is server time. It notices when the clock is corrected to an earlier time.
func (l *loop) now() time.Time {
	now := l.clock.Now()
	if l.seen.Sub(now) > near {
		l.turnedBack, l.again = true, true
	}
	l.seen = now
	return now
}

// lookIn is how long it is until the next look at the due names; 0 or less: now.
func (l *loop) lookIn() time.Duration {
	if l.lastLook.IsZero() {
		return 0
	}
	now, since := l.now(), time.Since(l.lastLook)
	soon := max(triageSpacing, l.cost*pokedShare) - since
	wait := longestSleep - since
	if l.again {
		wait = min(wait, soon)
	}
	if !l.next.IsZero() {
		if l.backlog.Len() > 0 {
			soon = max(triageMost, triageName*time.Duration(l.count), l.cost*triageShare) - since
		}
		wait = min(wait, max(soon, l.next.Sub(now)))
	}
	if l.holding {
		wait = min(wait, max(soon, time.Until(l.holdUntil)))
	}
	return wait
}

// dispatchIn is how long it is until the next job of the backlog may start. A job
// that lands comes in between.
func (l *loop) dispatchIn() time.Duration {
	if l.backlog.Len() == 0 || l.requests >= l.inFlight {
		return longestSleep
	}
	wait := time.Until(l.limiter.PausedUntil())
	if l.breaker.open() && l.requests > 0 {
		return longestSleep
	}
	return min(max(wait, l.breaker.wait(time.Now(), l.leastLife())), longestSleep)
}

// leastLife is the shortest life left in the tokens of the backlog, 0 if none was
// live at the last look.
func (l *loop) leastLife() time.Duration {
	if l.backlog.soonest.IsZero() {
		return 0
	}
	return max(l.backlog.soonest.Sub(l.now()), 1)
}

// dispatch starts workers as far as bounds, breaker and pause allow.
func (l *loop) dispatch() {
	for l.requests < l.inFlight && l.backlog.Len() > 0 && l.dispatchIn() <= 0 {
		l.start(l.backlog.pop())
	}
}

// start flies one job with the record as it is now; what it needs may have
// changed since it was put into the backlog.
func (l *loop) start(it item) {
	rec, err := l.cache.Record(it.name)
	if errors.Is(err, cache.ErrUnknown) {
		return
	}
	if err != nil {
		l.log.Error("record cannot be read", "name", it.name, "error", err)
		return
	}
	if l.workFor(rec, l.now(), l.clock.Sure()) != it.kind {
		l.again = true
		return
	}
	f := &flight{kind: it.kind, recs: []*cache.Record{rec}}
	l.requests++
	if f.kind == withdraw {
		l.withdrawing[rec.Name] = true
	} else {
		l.flying[rec.Name] = f
	}
	go func() {
		f.outcome = l.fly(f)
		l.finished <- f
	}()
}

// fly waits for the job's turn and does it, unless the name has moved on meanwhile.
func (l *loop) fly(f *flight) outcome {
	lane := Granting
	if f.kind == withdraw {
		lane = Revoking
	}
	if _, err := l.limiter.reserve(l.stopping, lane); err != nil {
		return unasked
	}
	rec, err := l.cache.Record(f.recs[0].Name)
	if err != nil {
		return unasked
	}
	ctx := withTurn(l.ctx)
	switch {
	case f.kind == withdraw:
		return l.withdraw(ctx, rec)
	case rec.SameVersion(f.recs[0]):
		return l.grant(ctx, rec)
	default:
		return unasked
	}
}

// startSettling commits what has ended, in one worker for all.
func (l *loop) startSettling(recs []*cache.Record) {
	if len(recs) == 0 {
		return
	}
	f := &flight{kind: settle, recs: recs}
	for _, rec := range recs {
		l.flying[rec.Name] = f
	}
	l.settling++
	go func() {
		f.refused = l.settle(recs)
		l.finished <- f
	}()
}

// land takes a finished job out of the air.
func (l *loop) land(f *flight) {
	switch f.kind {
	case settle:
		l.settling--
		for _, rec := range f.recs {
			delete(l.flying, rec.Name)
		}
	case withdraw:
		l.requests--
		delete(l.withdrawing, f.recs[0].Name)
	case grant:
		l.requests--
		delete(l.flying, f.recs[0].Name)
	}
	l.judge(f)
	switch {
	case f.refused:
		l.next = l.now().Add(lookAgain)
	case l.backlog.Len() == 0, f.kind != settle && f.outcome == unasked:
		l.again = true
	case f.kind == settle:
		l.next = l.now() // what has ended may now wait for a grant
	}
}

// judge tells the breaker what a job learned of the service.
func (l *loop) judge(f *flight) {
	wasOpen := l.breaker.open()
	switch f.outcome {
	case answered:
		l.breaker.succeeded()
	case unavailable:
		l.breaker.failed(time.Now(), l.random())
	}
	if l.breaker.open() == wasOpen {
		return
	}
	l.breakerOpen.Store(!wasOpen)
	if wasOpen {
		l.log.Info("access manager answers again")
	} else {
		l.log.Warn("access manager does not answer: one probe at a time", "failures", l.breaker.failures)
	}
}

// drain waits for the jobs in the air; after a grace period it cuts them off.
func (l *loop) drain(cut context.CancelFunc) {
	grace := time.AfterFunc(stopGrace, cut)
	defer grace.Stop()
	for l.requests+l.settling > 0 {
		l.land(<-l.finished)
	}
}
