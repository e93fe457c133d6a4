package socket

import (
	"context"
	"net/http"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/client"
)

// hold waits until the answer would be neither 304 nor 503 any more, or until the
// time the client gave has passed, and returns the answer of that moment. The
// answer is the zero answer if the client went away. a is the answer so far.
func (h *Handler) hold(ctx context.Context, t target, ifNoneMatch string, a answer) answer {
	patience := t.wait
	if !t.waits && a.first {
		patience = firstTokenWait
	}
	if patience == 0 || h.stopping() {
		return a
	}
	defer h.waiting.Add(-1)
	if int(h.waiting.Add(1)) > h.cfg.MaxWaiting {
		if !t.waits {
			return a
		}
		return refuse(problem(http.StatusTooManyRequests, client.CodeTooMany, "too many requests are waiting already"))
	}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		if a, over := h.holdOnce(ctx, t, ifNoneMatch, timeout.C); over {
			return a
		}
	}
}

// holdOnce looks, and unless the answer is final it sleeps until something may
// have changed. It subscribes before it looks, so no change goes unseen. over says
// that waiting has come to its end.
func (h *Handler) holdOnce(ctx context.Context, t target, ifNoneMatch string, timeout <-chan time.Time) (a answer, over bool) {
	changed, done := h.cfg.Reader.Changed(t.name)
	defer done()
	a = h.decide(t, ifNoneMatch)
	if !a.held() || !t.waits && !a.first {
		return a, true
	}
	clock := time.NewTimer(untilTimeTells(a))
	defer clock.Stop()
	select {
	case <-changed:
		return a, false
	case <-clock.C:
		return a, false
	case <-timeout:
	case <-h.cfg.Stop:
	case <-ctx.Done():
		return answer{}, true
	}
	return h.decide(t, ifNoneMatch), true
}

// untilTimeTells is when time alone may change the answer: at the end of the token
// or, because the clock may be corrected, after lookAgain.
func untilTimeTells(a answer) time.Duration {
	if a.status != http.StatusNotModified {
		return lookAgain
	}
	end := a.view.Expires().Add(-cache.EndMargin)
	return max(time.Millisecond, min(lookAgain, end.Sub(a.now)))
}

// stopping reports whether requests are no longer to be held.
func (h *Handler) stopping() bool {
	select {
	case <-h.cfg.Stop:
		return true
	default:
		return false
	}
}
