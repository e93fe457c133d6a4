package refresher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// durableWithin bounds how long an operator waits for the disk.
const durableWithin = 2 * time.Second

// decide makes a decision hold in this process and waits for the disk, at most
// durableWithin. The error is of the decision; diskErr says that the disk refused.
func (r *Refresher) decide(d cache.Decision) (out cache.Outcome, durable bool, diskErr, err error) {
	out, err = r.cache.Decide(d)
	r.poke()
	if err != nil {
		return out, false, nil, err
	}
	flushed := make(chan error, 1)
	go func() { flushed <- r.cache.Flush() }()
	timer := time.NewTimer(durableWithin)
	defer timer.Stop()
	select {
	case diskErr = <-flushed:
		return out, diskErr == nil, diskErr, nil
	case <-timer.C:
		return out, false, nil, nil
	}
}

// settled is decide for orders whose only answer is that they hold on disk.
func (r *Refresher) settled(d cache.Decision) error {
	_, durable, diskErr, err := r.decide(d)
	switch {
	case err != nil:
		return err
	case diskErr != nil:
		if !errors.Is(diskErr, cache.ErrDegraded) {
			diskErr = fmt.Errorf("%w: %w", cache.ErrDegraded, diskErr)
		}
		return fmt.Errorf("%s holds in this process only: %w", d.Action, diskErr)
	case !durable:
		return fmt.Errorf("%s holds in this process, but the disk has not confirmed it within %s: %w", d.Action, durableWithin, cache.ErrDegraded)
	}
	return nil
}

// Revoke withdraws every live token of the names an order selects. When it
// returns, no reader gets any of them. Errors: *cache.UnknownNamesError, a bad
// expression. A disk that refuses or is slow is told in the result.
func (r *Refresher) Revoke(ctx context.Context, order cache.Revocation) (cache.RevokeResult, error) {
	names, err := r.cache.Select(order.Selector)
	if err != nil {
		return cache.RevokeResult{}, err
	}
	if order.DryRun {
		return r.dryRun(names)
	}
	d := cache.Decision{Action: cache.ActRevoke, By: order.By, Regrant: order.Regrant, Reason: order.Reason, Match: order.Match, All: order.All}
	if order.Match == "" && !order.All {
		d.Names = names
	}
	out, durable, diskErr, err := r.decide(d)
	if err != nil {
		return cache.RevokeResult{}, err
	}
	r.log.Warn("revoked", "decision", out.Decision.Seq, "names", out.Count, "match", order.Match, "all", order.All, "regrant", order.Regrant, "reason", order.Reason, "durable", durable)
	return cache.RevokeResult{
		Decision: out.Decision.Seq, Count: out.Count, Names: out.Names, Rule: out.Rule, Durable: durable, DiskErr: diskErr,
	}, nil
}

// dryRun says what a revoke would hit.
func (r *Refresher) dryRun(names []string) (cache.RevokeResult, error) {
	now := r.clock.Now()
	res := cache.RevokeResult{Count: len(names)}
	for _, name := range names[:min(len(names), cache.MaxListed)] {
		rec, err := r.cache.Record(name)
		if errors.Is(err, cache.ErrUnknown) {
			continue
		}
		if err != nil {
			return res, err
		}
		hit := cache.RevokedName{Name: name, Open: rec.OpenWithdrawals(), UnaccountedUntil: rec.UnaccountedUntil}
		for _, t := range rec.LiveTokens(now) {
			hit.Generations = append(hit.Generations, t.Generation)
		}
		res.Names = append(res.Names, hit)
	}
	return res, nil
}

// Refresh makes a name due now. Errors: cache.ErrUnknown, ErrBlocked, ErrEnded.
func (r *Refresher) Refresh(ctx context.Context, name string, by cache.Actor) error {
	rec, err := r.cache.Record(name)
	if err != nil {
		return err
	}
	switch r.cache.StateOf(rec, r.clock.Now()) {
	case cache.Blocked:
		return fmt.Errorf("refresh %q: %w", name, cache.ErrBlocked)
	case cache.Ended:
		return fmt.Errorf("refresh %q: %w", name, cache.ErrEnded)
	}
	return r.settled(cache.Decision{Action: cache.ActRefresh, Names: []string{name}, By: by})
}

// Unblock allows grants for names again; they are due at once. Either all of them
// are unblocked or none. Errors: *cache.UnknownNamesError, cache.ErrNotBlocked,
// *cache.RuleBlockedError.
func (r *Refresher) Unblock(ctx context.Context, names []string, by cache.Actor) error {
	if _, err := r.cache.Select(cache.Selector{Names: names}); err != nil {
		return err
	}
	for _, name := range names {
		rec, err := r.cache.Record(name)
		if err != nil {
			return err
		}
		if rec.Block != nil {
			continue
		}
		if rule := r.cache.RuleFor(name); rule != nil {
			return &cache.RuleBlockedError{Name: name, Rule: *rule}
		}
		return fmt.Errorf("unblock %q: %w", name, cache.ErrNotBlocked)
	}
	return r.settled(cache.Decision{Action: cache.ActUnblock, Names: names, By: by})
}

// AcceptLostBlocks lets grants go on although blocks may have been lost.
func (r *Refresher) AcceptLostBlocks(ctx context.Context, by cache.Actor) error {
	return r.settled(cache.Decision{Action: cache.ActAcceptLost, By: by})
}

// RemoveRule removes a block rule; the names it blocked are due at once. Error:
// cache.ErrUnknown.
func (r *Refresher) RemoveRule(ctx context.Context, id uint64, by cache.Actor) error {
	if _, err := r.cache.Rule(id); err != nil {
		return err
	}
	return r.settled(cache.Decision{Action: cache.ActRemoveRule, Rule: id, By: by})
}

// Put adds or changes a grant at run time. Error: cache.ErrInFile when the
// configuration file has the name.
func (r *Refresher) Put(ctx context.Context, g cache.Grant, by cache.Actor) error {
	if err := r.notInFile(g.Name); err != nil && !errors.Is(err, cache.ErrUnknown) {
		return err
	}
	encoded, err := cache.EncodeGrant(g)
	if err != nil {
		return err
	}
	return r.settled(cache.Decision{Action: cache.ActPut, Names: []string{g.Name}, Grant: encoded, By: by})
}

// Delete ends a grant made at run time; revoke withdraws its tokens too. Errors:
// cache.ErrUnknown, cache.ErrInFile.
func (r *Refresher) Delete(ctx context.Context, name string, revoke bool, by cache.Actor) (cache.RevokeResult, error) {
	if err := r.notInFile(name); err != nil {
		return cache.RevokeResult{}, err
	}
	out, durable, diskErr, err := r.decide(cache.Decision{
		Action: cache.ActDelete, Names: []string{name}, Revoke: revoke, Reason: "grant deleted", By: by,
	})
	if err != nil {
		return cache.RevokeResult{}, err
	}
	return cache.RevokeResult{Decision: out.Decision.Seq, Count: out.Count, Names: out.Names, Durable: durable, DiskErr: diskErr}, nil
}

func (r *Refresher) notInFile(name string) error {
	rec, err := r.cache.Record(name)
	if err != nil {
		return err
	}
	if rec.Source == cache.FromFile && !rec.Removed() {
		return fmt.Errorf("%q: %w", name, cache.ErrInFile)
	}
	return nil
}

// NoteReload writes into the journal that the configuration was applied anew.
func (r *Refresher) NoteReload(by cache.Actor, diff cache.Diff) error {
	detail := fmt.Sprintf("added %d, changed %d, narrowed %d, removed %d", len(diff.Added), len(diff.Changed), len(diff.Narrowed), len(diff.Removed))
	return r.settled(cache.Decision{Action: cache.ActReload, By: by, Detail: detail})
}

// Status is what operators see of the refresher itself.
type Status struct {
	Clock           ClockStatus
	Rate            float64
	Burst, InFlight int
	PausedUntil     time.Time // local clock; in the past when not paused
	BreakerOpen     bool      // Access Manager does not answer
	Requests        int       // attempts under way
	Backlog         int       // names due and waiting
	RevokeSupported *bool     // nil: not known yet
}

// Status returns the present state.
func (r *Refresher) Status() Status {
	perSecond, burst := r.limiter.Rate()
	s := Status{
		Clock: r.clock.Status(), Rate: perSecond, Burst: burst, InFlight: r.inFlight,
		PausedUntil: r.limiter.PausedUntil(), BreakerOpen: r.breakerOpen.Load(), Requests: int(r.requests.Load()), Backlog: int(r.backlogLength.Load()),
	}
	if known := r.revokeSupported.Load(); known != 0 {
		supported := known > 0
		s.RevokeSupported = &supported
	}
	return s
}

// Unready is a required name that should have a live token and has none.
type Unready struct {
	Name    string
	State   cache.State
	Reason  string
	RetryAt time.Time
}

// Missing returns the required names that should have a live token and have none:
// blocked and ended names need none.
func (r *Refresher) Missing() []Unready {
	required := r.required.Load()
	if required == nil {
		return nil
	}
	now := r.clock.Now()
	var missing []Unready
	for _, name := range *required {
		v, err := r.cache.View(name)
		if err != nil {
			missing = append(missing, Unready{Name: name, State: cache.Pending, Reason: err.Error()})
			continue
		}
		if s := v.State(now); !s.Live() && s != cache.Blocked && s != cache.Ended {
			missing = append(missing, Unready{name, s, v.Reason(), v.NextAttempt()})
		}
	}
	return missing
}
