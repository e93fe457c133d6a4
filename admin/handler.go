// Package admin serves operators over HTTP: what is held and what will end when,
// revoke, refresh, unblock, grants at run time, blocks, the journal and reload.
// The command gives its handler to a Unix socket that only operators may open;
// the command line's client decodes the same wire types.
//
// It decides nothing: it reads records and passes orders to a Lifecycle. It never
// talks to Access Manager, never writes a record and never sends a token to
// anybody: tokens appear as short hashes only.
package admin

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// Limits of requests.
const (
	MaxBody   = 1 << 20 // bytes of a request body
	MaxReason = 500     // characters of a revoke's reason
	MaxLimit  = 1000    // items of a page
	// DefaultLimit is how many items a page has when the request does not say.
	DefaultLimit = 100
)

// changeTimeout bounds a request that changes something. It is far above the 2 s
// a revoke waits for the disk, and below the server's write timeout.
const changeTimeout = 20 * time.Second

// Lifecycle takes the decisions of operators. All methods may be called
// concurrently and return when the decision is on disk. The errors named are
// compared with errors.Is and errors.As; every method may also return
// cache.ErrDegraded when the disk refuses.
type Lifecycle interface {
	// Refresh makes the grant of a name due now. cache.ErrUnknown,
	// cache.ErrBlocked, cache.ErrEnded.
	Refresh(ctx context.Context, name string, by cache.Actor) error
	// Revoke withdraws live tokens. It waits at most 2 s for the disk and tells
	// in the result whether it confirmed. cache.ErrUnknown, perhaps as a
	// *cache.UnknownNamesError.
	Revoke(ctx context.Context, r cache.Revocation) (cache.RevokeResult, error)
	// Unblock lifts the blocks of all names, or of none. cache.ErrUnknown,
	// cache.ErrNotBlocked, *cache.RuleBlockedError.
	Unblock(ctx context.Context, names []string, by cache.Actor) error
	// AcceptLostBlocks lets grants go on after blocks may have been lost.
	AcceptLostBlocks(ctx context.Context, by cache.Actor) error
	// RemoveRule removes a block rule. cache.ErrUnknown.
	RemoveRule(ctx context.Context, id uint64, by cache.Actor) error
	// Put creates or replaces a grant at run time. cache.ErrInFile.
	Put(ctx context.Context, g cache.Grant, by cache.Actor) error
	// Delete ends a grant that was put, and withdraws its tokens if revoke is
	// set. cache.ErrInFile, cache.ErrUnknown.
	Delete(ctx context.Context, name string, revoke bool, by cache.Actor) (cache.RevokeResult, error)
	// Reload reads the configuration again and says what it changed. It changes
	// nothing when it returns a *FaultyConfigurationError, or a
	// *TooManyChangesError with what it would change if force were set.
	Reload(ctx context.Context, force bool, by cache.Actor) (ReloadResult, error)
}

// FaultyConfigurationError says that a reload changed nothing because the
// configuration cannot be taken. If Err unwraps to several errors, each is told.
type FaultyConfigurationError struct{ Err error }

func (e *FaultyConfigurationError) Error() string { return e.Err.Error() }
func (e *FaultyConfigurationError) Unwrap() error { return e.Err }

// TooManyChangesError says that a reload changed nothing because it would have
// ended or narrowed so many grants that it looks like a mistake.
type TooManyChangesError struct{ Err error }

func (e *TooManyChangesError) Error() string { return e.Err.Error() }
func (e *TooManyChangesError) Unwrap() error { return e.Err }

// Records is what the handler reads; *cache.Cache implements it.
type Records interface {
	// Record returns a copy of the record of a name, cache.ErrUnknown if nothing
	// is kept for it.
	Record(name string) (*cache.Record, error)
	// Records returns one page in the order of names and the cursor of the next,
	// empty at the end.
	Records(q cache.Query, now time.Time) (recs []*cache.Record, next string, err error)
	// StateOf is the state of a record with block rules applied.
	StateOf(r *cache.Record, now time.Time) cache.State
	// RuleFor returns the first block rule that blocks the name, nil if none does.
	RuleFor(name string) *cache.Rule
	// Blocks lists the blocks of names and the block rules.
	Blocks() ([]cache.BlockInfo, error)
	// Journal returns up to limit decisions after the given line, oldest first.
	Journal(after uint64, limit int) ([]cache.Decision, error)
}

// Config is what NewHandler needs. Records, Lifecycle, Now, ParseGrant and Info
// are required.
type Config struct {
	Records   Records
	Lifecycle Lifecycle
	// Now is the estimate of server time.
	Now func() time.Time
	// ParseGrant strictly decodes a grant in the form of the configuration file,
	// written as JSON, and validates it. The handler adds the name of the path
	// when the body has none. An error that unwraps to several is told as a list.
	ParseGrant func([]byte) (cache.Grant, error)
	// Info describes the process. It must be cheap.
	Info func() Info
	// Ready returns the required names without a live token. Nil leaves
	// readiness out of the status.
	Ready func() (missing []string)
	// Log gets one line for each request that changes something. Nil: no log.
	Log *slog.Logger
}

// NewHandler returns the endpoint. It is safe for concurrent use, starts no
// goroutine and trusts nothing a request says about who sent it: that is the
// peer of the connection (package socket).
func NewHandler(c Config) http.Handler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &handler{c}
}

// handler is the endpoint. Its methods with the signature of operation.run are
// one operation each.
type handler struct{ Config }

// ServeHTTP answers one request and logs it if it was to change something.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	rq := &request{Request: r, by: actorOf(r)}
	status, body := h.answer(rq)
	if rq.op.changes {
		h.logChange(rq, status, body, time.Since(began))
	}
	if rq.allow != "" {
		w.Header().Set("Allow", rq.allow)
	}
	send(w, status, body, h.Log)
}

// answer routes and runs the request. A panic becomes an answer here, because
// net/http would print its value, whatever that contains.
func (h *handler) answer(rq *request) (status int, body any) {
	defer func() {
		if v := recover(); v != nil {
			h.logPanic(rq, v)
			p := problem(http.StatusInternalServerError, CodeInternal, "the request failed inside pamsidecar; its log says where")
			status, body = p.Status, p
		}
	}()
	if err := h.prepare(rq); err != nil {
		return refusal(err)
	}
	ctx := rq.Context()
	if rq.op.changes {
		// A decision is not taken back because the one who took it hung up.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), changeTimeout)
		defer cancel()
	}
	status, body, err := rq.op.run(h, ctx, rq)
	if err != nil {
		return refusal(err)
	}
	return status, body
}

// logChange writes the one line of a request that changes something: never what
// was sent, only where it went and how it ended. What cannot be a name is left
// out: it could be a token in the wrong place.
func (h *handler) logChange(rq *request, status int, body any, took time.Duration) {
	code, decision := "", uint64(0)
	switch b := body.(type) {
	case *Problem:
		code = b.Code
	case RevokeProblem:
		code, decision = b.Code, b.Decision
	case ReloadProblem:
		code = b.Code
	case RevokeResult:
		decision = b.Decision
	}
	name := rq.name
	if cache.ValidName(name) != nil {
		name = ""
	}
	uid, pid := -1, -1
	if rq.by.UID != nil {
		uid = *rq.by.UID
	}
	if rq.by.PID != nil {
		pid = *rq.by.PID
	}
	h.Log.Info("admin request", "op", rq.op.name, "name", name, "status", status, "code", code,
		"decision", decision, "uid", uid, "pid", pid, "ms", took.Milliseconds())
}

// logPanic says where a panic came from. Its value is shown only if it is the
// runtime's, which holds no data.
func (h *handler) logPanic(rq *request, v any) {
	what := fmt.Sprintf("%T", v)
	if err, ok := v.(runtime.Error); ok {
		what = err.Error()
	}
	h.Log.Error("admin request panicked", "op", rq.op.name, "panic", what, "stack", string(debug.Stack()))
}
