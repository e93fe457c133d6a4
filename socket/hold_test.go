package socket

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/client"
)

// held is a request under way in a bubble.
type held struct {
	rec     *httptest.ResponseRecorder
	started time.Time
	took    chan time.Duration
	leave   context.CancelFunc
}

func (w *world) hold(h http.Handler, uri string, header ...string) *held {
	r := request("GET", uri, header...)
	ctx, cancel := context.WithCancel(r.Context())
	q := &held{httptest.NewRecorder(), time.Now(), make(chan time.Duration, 1), cancel}
	w.t.Cleanup(cancel)
	go func() {
		h.ServeHTTP(q.rec, r.WithContext(ctx))
		q.took <- time.Since(q.started)
	}()
	synctest.Wait()
	return q
}

// answered waits for the answer and checks when it came and its status.
func (q *held) answered(t *testing.T, after time.Duration, status int) {
	t.Helper()
	if took := <-q.took; took != after || q.rec.Code != status {
		t.Errorf("answered %d after %v, want %d after %v: %s", q.rec.Code, took, status, after, q.rec.Body)
	}
}

// bubble runs a test in a world whose server time is the bubble's.
func bubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t, time.Now)) })
}

func TestHeldUntilFirstToken(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.set("x", func(*cache.Record) {})
		q := w.hold(NewHandler(w.cfg), "/v1/tokens/x")
		time.Sleep(3 * time.Second)
		w.give("x", time.Now())
		q.answered(t, 3*time.Second, http.StatusOK)
	})
}

func TestFirstTokenWaitEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.set("x", func(*cache.Record) {})
		h := NewHandler(w.cfg)
		w.hold(h, "/v1/tokens/x").answered(t, 5*time.Second, http.StatusServiceUnavailable)
		w.hold(h, "/v1/tokens/x?wait=0s").answered(t, 0, http.StatusServiceUnavailable)
		w.hold(h, "/v1/tokens/x?wait=1m").answered(t, time.Minute, http.StatusServiceUnavailable)

		// A failed attempt is a change, but no end of waiting.
		q := w.hold(h, "/v1/tokens/x")
		time.Sleep(time.Second)
		w.set("x", func(r *cache.Record) { r.Failure = &cache.Failure{At: time.Now(), Reason: "no network"} })
		q.answered(t, 5*time.Second, http.StatusServiceUnavailable)
		if p := problemOf(t, q.rec); p.Reason != "no network" {
			t.Errorf("problem %+v is not of the moment of the answer", p)
		}

		w.give("x", time.Now().Add(-time.Hour))
		w.hold(h, "/v1/tokens/x").answered(t, 0, http.StatusServiceUnavailable)
	})
}

func TestHeldWhileUnchanged(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := NewHandler(w.cfg)
		w.give("x", time.Now())
		tag := ask(h, "GET", "/v1/tokens/x").Header().Get("Etag")
		w.hold(h, "/v1/tokens/x?wait=5m").answered(t, 0, http.StatusOK)
		w.hold(h, "/v1/tokens/x?wait=20s", "If-None-Match", tag).answered(t, 20*time.Second, http.StatusNotModified)

		q := w.hold(h, "/v1/tokens/x?wait=5m", "If-None-Match", tag)
		time.Sleep(time.Minute)
		w.give("x", time.Now())
		q.answered(t, time.Minute, http.StatusOK)
		if doc := decode[client.TokenDocument](t, q.rec.Body.Bytes()); doc.Generation != 2 || doc.ExpiresIn != 900 {
			t.Errorf("document %s", q.rec.Body)
		}
	})
}

func TestHeldRequestIsToldOfRevoke(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := NewHandler(w.cfg)
		w.give("x", time.Now())
		q := w.hold(h, "/v1/tokens/x?wait=5m", "If-None-Match", "*")
		r := w.hold(h, "/v1/tokens/x?wait=5m", "If-None-Match", "*")
		time.Sleep(7 * time.Second)
		if _, err := w.cache.Decide(cache.Decision{Action: cache.ActRevoke, All: true, Reason: "drill"}); err != nil {
			t.Fatal(err)
		}
		q.answered(t, 7*time.Second, http.StatusGone)
		r.answered(t, 7*time.Second, http.StatusGone)
	})
}

func TestHeldAcrossEnd(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := NewHandler(w.cfg)
		w.set("x", func(r *cache.Record) {
			r.Grant.TTL = time.Minute
			giveToken(r, time.Now())
		})
		tag := ask(h, "GET", "/v1/tokens/x").Header().Get("Etag")
		w.hold(h, "/v1/tokens/x?wait=2m", "If-None-Match", tag).answered(t, 2*time.Minute, http.StatusServiceUnavailable)
	})
}

// TestHeldAcrossUntil: an end that comes with time alone is seen within lookAgain.
func TestHeldAcrossUntil(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.set("x", func(r *cache.Record) {
			r.Grant.Until = time.Now().Add(40 * time.Second)
			giveToken(r, time.Now())
		})
		w.hold(NewHandler(w.cfg), "/v1/tokens/x?wait=5m", "If-None-Match", "*").answered(t, 45*time.Second, http.StatusGone)
	})
}

// TestHeldAcrossClockStep: a correction of server time that makes a token live
// again is seen without a change of the record.
func TestHeldAcrossClockStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		ahead.Store(int64(time.Hour))
		w := newWorld(t, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
		w.give("x", time.Now())
		q := w.hold(NewHandler(w.cfg), "/v1/tokens/x?wait=5m")
		ahead.Store(0)
		q.answered(t, lookAgain, http.StatusOK)
	})
}

func TestHeldForMinTTL(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := NewHandler(w.cfg)
		w.give("x", time.Now().Add(-11*time.Minute))
		w.hold(h, "/v1/tokens/x?min_ttl=5m").answered(t, 0, http.StatusServiceUnavailable)
		q := w.hold(h, "/v1/tokens/x?min_ttl=5m&wait=1m")
		time.Sleep(10 * time.Second)
		w.give("x", time.Now())
		q.answered(t, 10*time.Second, http.StatusOK)
	})
}

func TestClientGone(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.Reads = func(status int) { t.Errorf("read of status %d was counted", status) }
		w.set("x", func(*cache.Record) {})
		h := NewHandler(w.cfg)
		q := w.hold(h, "/v1/tokens/x?wait=5m")
		if h.Waiting() != 1 || !w.cache.Waited("x") {
			t.Errorf("%d waiting", h.Waiting())
		}
		q.leave()
		<-q.took
		if q.rec.Body.Len() > 0 {
			t.Errorf("answered nobody: %s", q.rec.Body)
		}
		if h.Waiting() != 0 || w.cache.Waited("x") {
			t.Errorf("%d waiting after the client left", h.Waiting())
		}
	})
}

func TestStopEndsHeldRequests(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		stop := make(chan struct{})
		w.cfg.Stop = stop
		w.set("x", func(*cache.Record) {})
		w.give("y", time.Now())
		h := NewHandler(w.cfg)
		q, r := w.hold(h, "/v1/tokens/x?wait=5m"), w.hold(h, "/v1/tokens/y?wait=5m", "If-None-Match", "*")
		time.Sleep(time.Second)
		close(stop)
		q.answered(t, time.Second, http.StatusServiceUnavailable)
		r.answered(t, time.Second, http.StatusNotModified)
		w.hold(h, "/v1/tokens/x?wait=5m").answered(t, 0, http.StatusServiceUnavailable)
	})
}

func TestMaxWaiting(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.MaxWaiting = 1
		w.set("x", func(*cache.Record) {})
		h := NewHandler(w.cfg)
		first := w.hold(h, "/v1/tokens/x?wait=1m")
		rec := ask(h, "GET", "/v1/tokens/x?wait=1m")
		if p := problemOf(t, rec); p.Code != client.CodeTooMany || rec.Code != 429 || rec.Header().Get("Retry-After") != "1" {
			t.Errorf("second waiter: %+v %v", p, rec.Header())
		}
		w.hold(h, "/v1/tokens/x").answered(t, 0, http.StatusServiceUnavailable)
		first.answered(t, time.Minute, http.StatusServiceUnavailable)
		w.hold(h, "/v1/tokens/x?wait=1s").answered(t, time.Second, http.StatusServiceUnavailable)
	})
}

// TestRemovedWhileHeld: a name that goes away while a request waits for it.
func TestRemovedWhileHeld(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.set("x", func(*cache.Record) {})
		q := w.hold(NewHandler(w.cfg), "/v1/tokens/x?wait=1m")
		time.Sleep(time.Second)
		w.set("x", func(r *cache.Record) { r.Grant = nil })
		if err := w.cache.Flush(); err != nil {
			t.Fatal(err)
		}
		if took := <-q.took; took != time.Second || q.rec.Code != http.StatusGone && q.rec.Code != http.StatusNotFound {
			t.Errorf("answered %d after %v", q.rec.Code, took)
		}
	})
}

// hasty is a Reader whose name changes right behind the second look at it.
type hasty struct {
	cache.Reader
	looks  int
	change func()
}

func (h *hasty) View(name string) (cache.View, error) {
	v, err := h.Reader.View(name)
	if h.looks++; h.looks == 2 {
		h.change()
	}
	return v, err
}

// TestNoChangeIsMissed: a change between a look and the sleep after it.
func TestNoChangeIsMissed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.set("x", func(*cache.Record) {})
		w.cfg.Reader = &hasty{Reader: w.cache, change: func() { w.give("x", time.Now()) }}
		w.hold(NewHandler(w.cfg), "/v1/tokens/x?wait=1m").answered(t, 0, http.StatusOK)
	})
}
