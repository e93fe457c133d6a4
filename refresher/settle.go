package refresher

import (
	"context"
	"errors"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// settle commits what changes without a request: tokens past their end, grants
// past their until, plans made by a clock that ran ahead, records with nothing
// left to keep. It reports whether the disk keeps some of the last.
func (r *Refresher) settle(recs []*cache.Record) (kept bool) {
	now, sure := r.clock.Now(), r.clock.Sure()
	changed := make([]*cache.Record, len(recs))
	for i, rec := range recs {
		changed[i] = rec.Clone()
		settleRecord(changed[i], now, sure, r.cache.RuleFor(rec.Name) != nil)
	}
	for i, err := range r.cache.Commit(context.Background(), changed...) {
		if err != nil && !errors.Is(err, cache.ErrConflict) && !errors.Is(err, cache.ErrDegraded) {
			r.log.Error("end of a token cannot be kept", "name", recs[i].Name, "error", err)
		}
		if recs[i].Current != nil && changed[i].Current == nil && len(changed[i].Withdrawn) == len(recs[i].Withdrawn) {
			r.log.Warn("token ended without a successor", "name", recs[i].Name, "generation", recs[i].Current.Generation)
		}
		kept = kept || err != nil && changed[i].Blank(now)
	}
	return kept
}

// settleRecord brings a record up to now without a request and reports whether
// that changes when it is due. Only what has ended for sure is dropped or
// withdrawn.
func settleRecord(rec *cache.Record, now, sure time.Time, ruled bool) bool {
	tokens, open, next, unaccounted := countTokens(rec), rec.OpenWithdrawals(), rec.NextAttempt, rec.UnaccountedUntil
	if !rec.Removed() && rec.Ended(sure) {
		rec.Withdraw(sure, now, "the grant's until has come")
		rec.NextAttempt, rec.Attempts = time.Time{}, 0
	}
	if due(rec.NextAttempt, now) && (ruled || rec.Block != nil || rec.Removed()) {
		rec.NextAttempt = time.Time{} // given up, and not under way any more
	}
	replanned := replan(rec, now)
	rec.Tidy(sure)
	if !rec.UnaccountedUntil.After(sure) {
		rec.UnaccountedUntil = time.Time{}
	}
	return replanned || tokens != countTokens(rec) || open != rec.OpenWithdrawals() || !next.Equal(rec.NextAttempt) ||
		rec.Removed() && !unaccounted.Equal(rec.UnaccountedUntil)
}

func countTokens(rec *cache.Record) int {
	n := len(rec.Superseded)
	if rec.Current != nil {
		n++
	}
	return n
}

// replan brings forward what a clock that ran ahead has planned too late, and
// reports whether there was anything.
func replan(rec *cache.Record, now time.Time) (changed bool) {
	atEnd := rec.Grant != nil && rec.NextAttempt.Equal(rec.Grant.Until)
	if latest := latestAttempt(rec, now); !atEnd && rec.NextAttempt.After(latest) {
		rec.NextAttempt, changed = latest, true
	}
	withdrawn := append([]cache.Withdrawal(nil), rec.Withdrawn...)
	for i := range withdrawn {
		w := &withdrawn[i]
		if latest := latestRevoke(*w, now); w.Open() && w.Next.After(latest) {
			w.Next, changed = latest, true
		}
	}
	if changed {
		rec.Withdrawn = withdrawn
	}
	return changed
}

// latestAttempt is the latest moment for the record's next grant that a clock
// which is right could have planned, or now where the plan lies beyond that.
func latestAttempt(rec *cache.Record, now time.Time) time.Time {
	switch {
	case rec.HasLive(now) && rec.Failure == nil:
		return later(FirstAttempt(rec.Current.Issued, rec.Current.TTL, 1), now)
	case rec.Attempts > 0 && !rec.LastAttempt.After(now.Add(near)):
		return within(rec.NextAttempt, now, slowLatest)
	default:
		return now
	}
}

// latestRevoke is the same for a withdrawal.
func latestRevoke(w cache.Withdrawal, now time.Time) time.Time {
	switch {
	case w.Since.After(now.Add(near)):
		return now.Add(min(max(w.Next.Sub(w.Since), 0), Handover))
	case w.Attempts == 0:
		return now.Add(Handover)
	case w.Phase == cache.Refused:
		return within(w.Next, now, refusedAgain)
	default:
		return within(w.Next, now, slowLatest)
	}
}

// within is at if it comes no later than most after now, otherwise now.
func within(at, now time.Time, most time.Duration) time.Time {
	if at.After(now.Add(most)) {
		return now
	}
	return at
}
