package socket

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/client"
)

// MaxWait is the longest a request may ask to be held.
const MaxWait = 5 * time.Minute

// DefaultMaxWaiting is how many requests may be held at the same time.
const DefaultMaxWaiting = 10_000

const (
	firstTokenWait = 5 * time.Second  // held without asking, while no token was ever there
	lookAgain      = 15 * time.Second // held requests look again at least this often: clocks may have been stepped
	answerTimeout  = 10 * time.Second // for a client to take one piece of an answer
)

// Config says what a Handler serves. Its functions are called from many goroutines.
type Config struct {
	// Reader is where the tokens come from. Required.
	Reader cache.Reader
	// Now is server time. Required.
	Now func() time.Time
	// Keyset is the answer to GET /v1/keyset.
	Keyset client.Keyset
	// Ready returns what readiness still waits for, nothing when all is well. Nil:
	// the names that Missing finds through Reader.
	Ready func() ([]client.Missing, error)
	// Loopback serves only grants that allow it; others do not exist here.
	Loopback bool
	// MaxWaiting bounds the requests held at the same time; 0 means DefaultMaxWaiting.
	MaxWaiting int
	// Stop, when closed, ends held requests at once with their current answer, and
	// no further request is held. Close it before http.Server.Shutdown. Nil: never.
	Stop <-chan struct{}
	// Reads, when set, is told the status of every answer to a token read.
	Reads func(status int)
	// Log is for faults of the Reader and of the Handler itself; nil discards.
	Log *slog.Logger
}

// Handler is the token socket's http.Handler. It is safe for concurrent use.
type Handler struct {
	cfg     Config
	log     *slog.Logger
	waiting atomic.Int64
}

// NewHandler returns a Handler. It starts nothing.
func NewHandler(cfg Config) *Handler {
	if cfg.MaxWaiting <= 0 {
		cfg.MaxWaiting = DefaultMaxWaiting
	}
	if cfg.Reads == nil {
		cfg.Reads = func(int) {}
	}
	if cfg.Ready == nil {
		cfg.Ready = func() ([]client.Missing, error) { return Missing(cfg.Reader, cfg.Now()) }
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Handler{cfg: cfg, log: log}
}

// Waiting is the number of requests that are held at the moment.
func (h *Handler) Waiting() int { return int(h.waiting.Load()) }

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer h.recovered()
	leaveBody(w, r)
	t, fault := parseTarget(r)
	if fault != nil {
		writeProblem(w, *fault)
		return
	}
	switch t.route {
	case routeToken:
		h.serveToken(w, r, t)
	case routeList:
		h.serveList(w, r)
	case routeKeyset:
		writeJSON(w, http.StatusOK, "application/json", h.cfg.Keyset)
	case routeLive:
		write(w, http.StatusOK, "text/plain; charset=utf-8", []byte("ok\n"))
	case routeReady:
		h.serveReady(w, t)
	}
}

// leaveBody sees to it that a body is never read, neither here nor by the server
// when the answer is written; the next request cannot be found behind it, so the
// connection ends with this one.
func leaveBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w).SetReadDeadline(time.Now())
	}
}

// recovered cuts the connection of a handler that panicked: whatever was already
// written must not look whole. The value of the panic is logged only if it comes
// from the Go runtime, which quotes no data.
func (h *Handler) recovered() {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
		what := fmt.Sprintf("%T", p)
		if err, ok := p.(runtime.Error); ok {
			what = err.Error()
		}
		h.log.Error("token socket: handler panicked", "panic", what, "stack", string(debug.Stack()))
	}
	panic(http.ErrAbortHandler)
}
