package refresher

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam"
)

// withdraw makes one attempt to revoke the first withdrawn token that is due, and
// commits what came of it. The result is a fact about that token, so it is
// committed at whatever state the name has reached.
func (r *Refresher) withdraw(ctx context.Context, rec *cache.Record) outcome {
	now := r.clock.Now()
	i := dueWithdrawal(rec, now)
	if i < 0 {
		return unasked
	}
	target := rec.Withdrawn[i]
	timed, cancel := context.WithTimeout(ctx, attemptMost)
	defer cancel()
	secret := r.secrets.Load()
	err := r.upstream.Revoke(timed, target.Token.Raw)
	if r.mendable(timed, err, secret) {
		err = r.upstream.Revoke(timed, target.Token.Raw)
	}
	if isUnasked(err) {
		return unasked
	}
	now = r.clock.Now()
	if e, ok := errors.AsType[*pam.Error](err); ok && e.FeatureDisabled() {
		r.revokeSupported.Store(-1)
	} else if err == nil {
		r.revokeSupported.Store(1)
	}
	u := r.random()
	kept := r.cache.Update(rec.Name, func(rec *cache.Record) bool {
		i := slices.IndexFunc(rec.Withdrawn, func(w cache.Withdrawal) bool {
			return w.Open() && w.Token.Generation == target.Token.Generation && w.ID == target.ID
		})
		if i < 0 {
			return false
		}
		rec.Withdrawn = slices.Clone(rec.Withdrawn)
		afterRevoke(&rec.Withdrawn[i], now, err, u)
		if !rec.Withdrawn[i].Open() {
			rec.Note(now, "revoke confirmed: token #"+target.ID)
		}
		rec.Tidy(r.clock.Sure())
		return true
	})
	r.tellRevoke(rec.Name, target, err)
	if kept != nil && !errors.Is(kept, cache.ErrDegraded) {
		r.log.Error("result of a revoke cannot be kept", "name", rec.Name, "error", kept)
	}
	return outcomeOf(err)
}

// afterRevoke is what an attempt does to the withdrawal.
func afterRevoke(w *cache.Withdrawal, now time.Time, err error, u float64) {
	w.Attempts++
	if err == nil {
		w.Phase, w.Closed, w.Next, w.Failure = cache.Confirmed, now, time.Time{}, ""
		return
	}
	w.Failure = err.Error()
	delay := RetryDelay(w.Attempts, 0, u)
	if e, ok := errors.AsType[*pam.Error](err); ok {
		w.Failure = e.Reason()
		switch {
		case e.FeatureDisabled():
			w.Phase, delay = cache.Refused, refusedAgain
		case e.Class() == pam.Refused:
			delay = SlowDelay(u)
		}
	}
	w.Next = now.Add(delay)
}

func (r *Refresher) tellRevoke(name string, w cache.Withdrawal, err error) {
	e, ok := errors.AsType[*pam.Error](err)
	switch {
	case err == nil:
		r.log.Info("revoke confirmed", "name", name, "token_id", w.ID, "generation", w.Token.Generation)
	case ok && e.FeatureDisabled():
		r.log.Error("revoke refused: the keyset does not allow it", "name", name, "token_id", w.ID, "reason", e.Reason())
	case ok:
		r.log.Warn("revoke failed", "name", name, "token_id", w.ID, "attempt", w.Attempts+1, "reason", e.Reason())
	default:
		r.log.Warn("revoke failed", "name", name, "token_id", w.ID, "attempt", w.Attempts+1, "error", err)
	}
}
