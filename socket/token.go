package socket

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/client"
)

// answer is what a token read gets at one moment.
type answer struct {
	status  int
	view    cache.View     // of the name, for 200 and 304
	now     time.Time      // server time of the decision
	problem client.Problem // of every other status
	again   time.Time      // 503: when the sidecar tries next; zero: unknown
	first   bool           // 503 and no token was ever there
}

// held reports whether the answer may be better later, so that waiting for it
// makes sense.
func (a answer) held() bool {
	return a.status == http.StatusNotModified || a.status == http.StatusServiceUnavailable
}

// decide is the answer at this moment. It waits for nothing.
func (h *Handler) decide(t target, ifNoneMatch string) answer {
	v, err := h.view(t.name)
	if errors.Is(err, cache.ErrUnknown) {
		return refuse(problem(http.StatusNotFound, client.CodeUnknownName, "no grant has this name"))
	}
	if err != nil {
		h.log.Warn("token socket: name cannot be looked up", "name", t.name, "error", err)
		return refuse(problem(http.StatusInternalServerError, client.CodeInternal, "the name could not be looked up; the sidecar's log says why"))
	}
	now := h.cfg.Now()
	state := v.State(now)
	if p := stateProblem(v, state); p.Status != 0 {
		a := refuse(p)
		a.now, a.again, a.first = now, p.RetryAt, state == cache.Pending
		return a
	}
	if p := shortProblem(v, state, now, t.minTTL); p.Status != 0 {
		a := refuse(p)
		a.now, a.again = now, p.RetryAt
		return a
	}
	if etagMatches(ifNoneMatch, v.ETag()) {
		return answer{status: http.StatusNotModified, view: v, now: now}
	}
	return answer{status: http.StatusOK, view: v, now: now}
}

// view looks a name up among those that this handler serves.
func (h *Handler) view(name string) (cache.View, error) {
	v, err := h.cfg.Reader.View(name)
	if err != nil {
		return cache.View{}, err
	}
	if h.cfg.Loopback && !v.Loopback() {
		return cache.View{}, fmt.Errorf("%q: %w", name, cache.ErrUnknown)
	}
	return v, nil
}

func refuse(p client.Problem) answer { return answer{status: p.Status, problem: p} }

// stateProblem is the problem of a name without a live token; the status is 0 if
// it has one.
func stateProblem(v cache.View, state cache.State) client.Problem {
	var p client.Problem
	switch state {
	case cache.Blocked:
		p = problem(http.StatusGone, client.CodeRevoked, "an operator revoked this name; it gets no token until it is unblocked")
	case cache.Ended:
		p = problem(http.StatusGone, client.CodeEnded, "the grant is over: it was removed or its until has passed")
	case cache.Expired:
		p = problem(http.StatusServiceUnavailable, client.CodeExpired, "the last token has ended and its successor could not be obtained yet")
	case cache.Pending:
		p = problem(http.StatusServiceUnavailable, client.CodeNotReady, "no token could be obtained yet")
	default:
		return p
	}
	p.State, p.Reason = string(state), v.Reason()
	if p.Status == http.StatusServiceUnavailable {
		p.RetryAt = wholeSeconds(v.NextAttempt())
	}
	return p
}

// shortProblem is the problem of a live token with less life than was asked for;
// the status is 0 if it has enough.
func shortProblem(v cache.View, state cache.State, now time.Time, minTTL time.Duration) client.Problem {
	if 3*minTTL > v.TTL() {
		return badRequest(fmt.Sprintf("min_ttl is at most a third of the token's ttl, here %s", v.TTL()/3))
	}
	if v.Expires().Sub(now) >= minTTL {
		return client.Problem{}
	}
	p := problem(http.StatusServiceUnavailable, client.CodeNotReady, "the token has less life left than min_ttl and its successor is not there yet")
	p.State, p.Reason, p.RetryAt = string(state), v.Reason(), wholeSeconds(v.NextAttempt())
	return p
}

func (h *Handler) serveToken(w http.ResponseWriter, r *http.Request, t target) {
	ifNoneMatch := joined(r.Header, "If-None-Match")
	a := h.decide(t, ifNoneMatch)
	if a.held() {
		if a = h.hold(r.Context(), t, ifNoneMatch, a); a.status == 0 {
			return // the client is gone
		}
	}
	h.cfg.Reads(a.status)
	h.writeAnswer(w, r, a)
}

func (h *Handler) writeAnswer(w http.ResponseWriter, r *http.Request, a answer) {
	header := w.Header()
	switch a.status {
	case http.StatusOK:
		header.Set("ETag", a.view.ETag())
		header.Set("Vary", "Accept")
		if prefersText(joined(r.Header, "Accept")) {
			write(w, a.status, "text/plain; charset=utf-8", []byte(a.view.Token().Reveal()))
			return
		}
		writeJSON(w, a.status, "application/json", document(a.view, a.now))
	case http.StatusNotModified:
		allowWrite(w)
		header.Set("ETag", a.view.ETag())
		header.Set("Vary", "Accept")
		header.Set("Cache-Control", "no-store")
		w.WriteHeader(a.status)
	default:
		if a.status == http.StatusServiceUnavailable {
			header.Set("Retry-After", retryAfter(a.again, a.now))
		}
		writeProblem(w, a.problem)
	}
}

// document is the token document of a live view.
func document(v cache.View, now time.Time) client.TokenDocument {
	return client.TokenDocument{
		Name:           v.Name(),
		AuthorizedUUID: uuidOf(v),
		Token:          v.Token().Reveal(),
		Generation:     v.Generation(),
		IssuedAt:       wholeSeconds(v.Issued()),
		ExpiresAt:      wholeSeconds(v.Expires()),
		RefreshAt:      momentOf(v.RefreshAt()),
		TTL:            int(v.TTL() / time.Minute),
		ExpiresIn:      int64(v.Expires().Sub(now) / time.Second),
	}
}

// uuidOf is the authorized UUID, nil for a token that any UUID may use.
func uuidOf(v cache.View) *string {
	if v.UUID() == "" {
		return nil
	}
	return new(v.UUID())
}

// momentOf is t for JSON, nil when it is zero.
func momentOf(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(wholeSeconds(t))
}

// wholeSeconds is t as the documents write it: UTC without fractions.
func wholeSeconds(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Second)
}
