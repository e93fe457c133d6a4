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
	triageLimit   = 4096                  // names looked at together
	stopGrace     = 5 * time.Second       // for attempts under way at the end
)

// flight is one worker's job.
type flight struct {
	kind    work
	recs    []*cache.Record // as they were at the start; one but for settle
	outcome outcome
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
	ctx         context.Context    // of the workers
	flying      map[string]*flight // grants and settlements, by name
	withdrawing map[string]bool    // names with a revoke under way
	requests    int                // flights that make requests
	settling    int                // flights that do not
	backlog     backlog
	breaker     breaker
	lastLook    time.Time // local
	next        time.Time // next due moment that is known, zero: none
	again       bool      // look again as soon as the spacing allows
}

func (l *loop) run(ctx context.Context) {
	l.again = true
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-l.finished:
			l.land(f)
		case <-l.wake:
			l.again = true
		case <-timer.C:
		}
		if l.lookNow() {
			l.look()
		}
		l.dispatch()
		l.backlogLength.Store(int64(l.backlog.Len()))
		l.Refresher.requests.Store(int64(l.requests))
		timer.Reset(l.sleepFor())
	}
}

// lookNow reports whether it is time to ask the cache for due names.
func (l *loop) lookNow() bool {
	since := time.Since(l.lastLook)
	due := !l.next.IsZero() && !l.next.After(l.clock.Now())
	switch {
	case l.lastLook.IsZero(), since >= longestSleep:
		return true
	case l.again, due && l.backlog.Len() == 0:
		return since >= triageSpacing
	default:
		return due && since >= triageMost
	}
}

// sleepFor is how long the loop may wait for its next look.
func (l *loop) sleepFor() time.Duration {
	spacing := max(triageSpacing-time.Since(l.lastLook), time.Millisecond)
	if l.again {
		return spacing
	}
	now := l.clock.Now()
	sleep := longestSleep
	if l.backlog.Len() > 0 {
		sleep = triageMost
		if l.breaker.open() && l.requests == 0 {
			sleep = min(sleep, l.breaker.probeAt.Sub(now))
		}
		if pause := time.Until(l.limiter.PausedUntil()); pause > 0 {
			sleep = min(sleep, pause)
		}
	} else if !l.next.IsZero() {
		sleep = min(sleep, l.next.Sub(now))
	}
	return max(sleep, spacing)
}

// look asks the cache which names are due and sorts them into the backlog.
func (l *loop) look() {
	now := l.clock.Now()
	l.lastLook, l.again = time.Now(), false
	recs, next, err := l.cache.Due(now, triageLimit)
	if err != nil {
		l.log.Error("due names cannot be read", "error", err)
		return
	}
	l.next = next
	if hold := time.Unix(0, l.holdUntil.Load()); hold.After(now) && (next.IsZero() || hold.Before(next)) {
		l.next = hold
	}
	l.backlog = backlog{}
	var ended []*cache.Record
	for _, rec := range recs {
		switch kind := l.workFor(rec, now); kind {
		case nothing:
		case settle:
			ended = append(ended, rec)
		default:
			l.backlog.push(item{name: rec.Name, kind: kind, urgency: urgencyOf(rec, now, l.cache.Waited(rec.Name)), end: endOf(rec)})
		}
	}
	l.startSettling(ended)
}

// workFor is what a due record needs now; nothing if it is in flight or held.
func (l *loop) workFor(rec *cache.Record, now time.Time) work {
	kind := nextWork(rec, now, l.cache.RuleFor(rec.Name) != nil)
	if l.withdrawing[rec.Name] {
		return nothing
	}
	if f := l.flying[rec.Name]; f != nil {
		// A grant whose name has moved on is withdrawn when it lands; revoking the
		// tokens known already need not wait for it.
		doomed := f.kind == grant && !f.recs[0].SameVersion(rec)
		if kind == withdraw && doomed {
			return withdraw
		}
		return nothing
	}
	if kind == grant {
		held := now.UnixNano() < l.holdUntil.Load() && !rec.HasLive(now)
		if held || l.cache.LostBlocks() {
			return nothing
		}
	}
	return kind
}

// nextWork is what a record needs at now. A name without a live token is granted
// one before its old tokens are revoked.
func nextWork(rec *cache.Record, now time.Time, ruled bool) work {
	wantsGrant := !ruled && rec.Block == nil && !rec.Ended(now) && due(rec.NextAttempt, now)
	if wantsGrant && !rec.HasLive(now) {
		return grant
	}
	if dueWithdrawal(rec, now) >= 0 {
		return withdraw
	}
	if wantsGrant {
		return grant
	}
	return settle
}

func due(at, now time.Time) bool { return !at.IsZero() && !at.After(now) }

// dueWithdrawal is the index of the first revoke to try at now, -1 if there is
// none.
func dueWithdrawal(rec *cache.Record, now time.Time) int {
	for i, w := range rec.Withdrawn {
		if w.Open() && due(w.Next, now) && now.Before(w.Token.Expires()) {
			return i
		}
	}
	return -1
}

// endOf orders names by the end of their token; those without one come first.
func endOf(rec *cache.Record) time.Time {
	if rec.Current == nil {
		return time.Time{}
	}
	return rec.Current.Expires()
}

// dispatch starts workers as far as bounds, breaker and pause allow.
func (l *loop) dispatch() {
	for l.requests < l.inFlight && l.backlog.Len() > 0 {
		now := l.clock.Now()
		if !l.breaker.allows(now, l.requests) || time.Until(l.limiter.PausedUntil()) > 0 {
			return
		}
		l.start(l.backlog.pop(), now)
	}
}

// start flies one job with the record as it is now; what it needs may have
// changed since it was put into the backlog.
func (l *loop) start(it item, now time.Time) {
	rec, err := l.cache.Record(it.name)
	if errors.Is(err, cache.ErrUnknown) {
		return
	}
	if err != nil {
		l.log.Error("record cannot be read", "name", it.name, "error", err)
		return
	}
	if l.workFor(rec, now) != it.kind {
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
		if f.kind == withdraw {
			f.outcome = l.withdraw(l.ctx, rec)
		} else {
			f.outcome = l.grant(l.ctx, rec)
		}
		l.finished <- f
	}()
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
		l.settle(recs)
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
	if l.backlog.Len() == 0 {
		l.again = true
	}
}

// judge tells the breaker what a job learned of the service.
func (l *loop) judge(f *flight) {
	wasOpen := l.breaker.open()
	switch f.outcome {
	case answered:
		l.breaker.succeeded()
	case unavailable:
		now := l.clock.Now()
		l.breaker.failed(now, remaining(f.recs[0], now), l.random())
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
