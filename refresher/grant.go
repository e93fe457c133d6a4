package refresher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam"
)

// grant makes one attempt to obtain a token and commits its result.
func (r *Refresher) grant(ctx context.Context, rec *cache.Record) outcome {
	start := r.clock.Now()
	ask := rec.Grant.Grant
	if ask.TTL = AskTTL(*rec.Grant, start); ask.TTL <= 0 {
		return unasked
	}
	timed, cancel := context.WithTimeout(ctx, AttemptTimeout(remaining(rec, start)))
	defer cancel()
	secret := r.secrets.Load()
	tok, err := r.grantOnce(timed, ask)
	if r.mendable(timed, err, secret) {
		tok, err = r.grantOnce(timed, ask)
	}
	now := r.clock.Now()
	next := rec.Clone()
	next.LastAttempt = now
	switch {
	case isUnasked(err):
		if !r.mayHaveActed(next, ask, now, err) {
			return unasked
		}
	case err != nil:
		r.failed(next, ask, now, err)
	case tok.Satisfies(ask) != nil:
		withdrawToken(next, tok, now, "not the token that was asked for")
		r.wrong(next, now, tok.Satisfies(ask), WrongDelay(next.Attempts, r.random()))
	case ended(tok, now):
		next.Generation++
		r.wrong(next, now, errors.New("it had ended when it arrived"), 0)
	default:
		r.granted(next, tok, now)
	}
	// What the token's times mean depends on the offset: the next start needs both.
	r.saveOffset()
	r.commitGrant(next, tok, now)
	return outcomeOf(err)
}

// grantOnce asks for a token. A token that seems to have ended already makes it
// ask for the server's time, for the clock may be wrong.
func (r *Refresher) grantOnce(ctx context.Context, ask pam.Grant) (pam.Token, error) {
	began := time.Now()
	tok, err := r.upstream.Grant(ctx, ask)
	if err != nil {
		return tok, err
	}
	r.observeToken(tok, time.Since(began))
	if ended(tok, r.clock.Now()) {
		if err := r.measureClock(ctx); err != nil {
			r.log.Debug("server time unknown", "error", err)
		}
	}
	return tok, nil
}

// ended reports whether a token can no longer be served at now.
func ended(tok pam.Token, now time.Time) bool {
	return !now.Before(tok.Expires().Add(-cache.EndMargin))
}

// mendable reports whether a failure has a cause that was just put right, so that
// one more attempt at once is worth it. secret is the count of secret keys when
// the request was made.
func (r *Refresher) mendable(ctx context.Context, err error, secret int64) bool {
	e, ok := errors.AsType[*pam.Error](err)
	if !ok || ctx.Err() != nil {
		return false
	}
	if e.Class() == pam.Clock {
		return r.measureClock(ctx) == nil
	}
	return e.InvalidSignature() && r.newSecret(secret)
}

// newSecret reports whether another secret key is in use than when secret was
// read. Only one of those who ask together reads it again.
func (r *Refresher) newSecret(secret int64) bool {
	r.secretMu.Lock()
	defer r.secretMu.Unlock()
	if r.secrets.Load() == secret && r.reload() {
		r.secrets.Add(1)
	}
	return r.secrets.Load() != secret
}

// failed plans the next attempt after one that brought no token.
func (r *Refresher) failed(rec *cache.Record, ask pam.Grant, now time.Time, err error) {
	reason, slow := err.Error(), false
	if e, ok := errors.AsType[*pam.Error](err); ok {
		reason, slow = e.Reason(), e.Class() == pam.Refused
	}
	r.mayHaveActed(rec, ask, now, err)
	var delay time.Duration
	level := r.log.Warn
	if slow {
		delay, level = SlowDelay(r.random()), r.log.Error
	}
	r.retry(rec, now, reason, delay)
	told := []any{"name", rec.Name, "attempt", rec.Attempts, "reason", reason, "next_attempt", rec.NextAttempt}
	if rec.UnaccountedUntil.After(now) {
		told = append(told, "unaccounted_until", rec.UnaccountedUntil)
	}
	level("grant failed", told...)
}

// retry notes a failure and plans the next attempt, after the usual delay if none
// is given.
func (r *Refresher) retry(rec *cache.Record, now time.Time, reason string, delay time.Duration) {
	rec.Attempts++
	rec.Failure = &cache.Failure{At: now, Reason: reason}
	if delay == 0 {
		delay = RetryDelay(rec.Attempts, remaining(rec, now), r.random())
	}
	rec.NextAttempt = now.Add(delay)
	rec.Note(now, "grant failed: "+reason)
	rec.Tidy(r.clock.Sure())
}

// mayHaveActed notes in the record that a token may exist which nobody holds, if
// the error leaves that open, and reports whether it does. The service takes a
// request until its timestamp is too old.
func (r *Refresher) mayHaveActed(rec *cache.Record, ask pam.Grant, now time.Time, err error) bool {
	e, ok := errors.AsType[*pam.Error](err)
	if !ok || !e.MayHaveActed {
		return false
	}
	rec.UnaccountedUntil = later(rec.UnaccountedUntil, now.Add(ask.TTL+timestampWindow))
	return true
}

// isUnasked reports whether err says nothing of the service: the end of the process
// or a pause it had asked for cut the attempt off.
func isUnasked(err error) bool {
	if errors.Is(err, errPaused) {
		return true
	}
	e, ok := errors.AsType[*pam.Error](err)
	return ok && e.Class() == pam.Canceled
}

// wrong plans the next attempt after a token came that cannot be used: as usual,
// or late where each attempt leaves another token to revoke.
func (r *Refresher) wrong(rec *cache.Record, now time.Time, cause error, delay time.Duration) {
	reason := "Access Manager granted another token than asked for: " + cause.Error()
	r.retry(rec, now, reason, delay)
	r.log.Error("grant failed", "name", rec.Name, "attempt", rec.Attempts, "reason", reason, "next_attempt", rec.NextAttempt)
}

// granted makes tok the current token and plans its replacement.
func (r *Refresher) granted(rec *cache.Record, tok pam.Token, now time.Time) {
	rec.Generation++
	current := cache.Token{Generation: rec.Generation, Raw: tok.Raw, Issued: tok.Issued, TTL: tok.TTL}
	if rec.Current != nil {
		rec.Superseded = append(slices.Clone(rec.Superseded), *rec.Current)
	}
	rec.Current = &current
	rec.GrantedFor = rec.Grant.Grant.Fingerprint()
	rec.Attempts, rec.Failure, rec.LastSuccess = 0, nil, now
	calendar, err := nextCalendar(rec.Grant.RegrantAt, now)
	if err != nil {
		r.log.Error("regrant_at is ignored", "name", rec.Name, "error", err)
	}
	rec.NextAttempt = NextAttempt(current, calendar, rec.Grant.Until, r.random())
	handOver(rec, now)
	rec.Note(now, fmt.Sprintf("granted generation %d", rec.Generation))
	rec.Tidy(r.clock.Sure())
	r.noteTTL(tok.TTL)
	r.log.Info("granted", "name", rec.Name, "generation", rec.Generation, "token_id", tok.Raw.ID(), "expires_at", tok.Expires(), "next_attempt", rec.NextAttempt)
}

// handOver plans the revoke of superseded tokens that allow more than the grant
// does now.
func handOver(rec *cache.Record, now time.Time) {
	var keep []cache.Token
	for _, old := range rec.Superseded {
		parsed, err := pam.Parse(old.Raw.Reveal())
		if err == nil && !rec.Grant.Grant.Narrower(parsed) {
			keep = append(keep, old)
			continue
		}
		rec.WithdrawToken(old, now, now.Add(Handover), "the grant was narrowed")
	}
	rec.Superseded = keep
}

// withdrawToken puts a token just obtained straight to those to be revoked.
func withdrawToken(rec *cache.Record, tok pam.Token, now time.Time, reason string) {
	rec.Generation++
	t := cache.Token{Generation: rec.Generation, Raw: tok.Raw, Issued: tok.Issued, TTL: tok.TTL}
	rec.WithdrawToken(t, now, now, reason)
	rec.Note(now, fmt.Sprintf("generation %d withdrawn: %s", t.Generation, reason))
}

// commitGrant commits the result of an attempt. When the name has moved on since
// the attempt began, nothing of the result holds but the token, which joins those
// to be withdrawn, and what may be unaccounted for.
func (r *Refresher) commitGrant(rec *cache.Record, tok pam.Token, now time.Time) {
	err := r.cache.Commit(context.Background(), rec)[0]
	if errors.Is(err, cache.ErrConflict) {
		err = r.cache.Update(rec.Name, func(moved *cache.Record) bool {
			moved.UnaccountedUntil = later(moved.UnaccountedUntil, rec.UnaccountedUntil)
			if tok.Raw != "" && !moved.Holds(tok.Raw) {
				withdrawToken(moved, tok, now, "the name changed while it was granted")
			}
			return true
		})
		r.log.Info("grant overtaken", "name", rec.Name, "token_id", tok.Raw.ID())
	}
	if err != nil && !errors.Is(err, cache.ErrDegraded) {
		r.log.Error("result of a grant cannot be kept", "name", rec.Name, "error", err)
	}
}

// outcomeOf is what an error says of the service.
func outcomeOf(err error) outcome {
	if err == nil {
		return answered
	}
	if isUnasked(err) {
		return unasked
	}
	e, ok := errors.AsType[*pam.Error](err)
	if !ok {
		return unasked
	}
	switch e.Class() {
	case pam.Transient:
		return unavailable
	default:
		return answered
	}
}
