package refresher

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// UseSecret notes which secret key is in use, by its short hash. If another one
// was used before, whatever Access Manager refused since is due now: the reason may
// have gone with the key.
func (r *Refresher) UseSecret(id string) error {
	before := r.cache.SecretID()
	if before == id {
		return nil
	}
	r.secrets.Add(1) // attempts under way that fail were signed with the other one
	if before != "" {
		if err := r.retryFailed(); err != nil {
			return err
		}
		r.poke()
	}
	return r.cache.SetSecretID(id)
}

// retryFailed makes due every grant and revoke whose last attempt went wrong.
func (r *Refresher) retryFailed() error {
	now := r.clock.Now()
	after := ""
	for {
		recs, next, err := r.cache.Records(cache.Query{After: after, Limit: 1000}, now)
		if err != nil {
			return err
		}
		var changes []change
		for _, rec := range recs {
			if hasFailed(rec, now) {
				changes = append(changes, change{rec.Name, func(rec *cache.Record) { hastenFailed(rec, now) }})
			}
		}
		if err := r.commitChanges(context.Background(), changes); err != nil && !errors.Is(err, cache.ErrDegraded) {
			return err
		}
		if next == "" {
			return nil
		}
		after = next
	}
}

// hasFailed reports whether something of the record waits because its last attempt
// went wrong.
func hasFailed(rec *cache.Record, now time.Time) bool {
	return rec.Failure != nil && rec.NextAttempt.After(now) || slices.ContainsFunc(rec.Withdrawn, func(w cache.Withdrawal) bool {
		return w.Open() && w.Failure != "" && w.Next.After(now)
	})
}

// hastenFailed makes that due.
func hastenFailed(rec *cache.Record, now time.Time) {
	if rec.Failure != nil && rec.NextAttempt.After(now) {
		rec.NextAttempt, rec.Attempts = now, 0
	}
	rec.Withdrawn = slices.Clone(rec.Withdrawn)
	for i := range rec.Withdrawn {
		if w := &rec.Withdrawn[i]; w.Open() && w.Failure != "" && w.Next.After(now) {
			w.Next = now
		}
	}
}
