package cache

import (
	"fmt"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
)

// State is the one word for what a reader of a name gets.
type State string

// The states, in the order in which they apply.
const (
	Blocked State = "blocked" // an operator revoked without a new grant
	Ended   State = "ended"   // past its until, or removed
	Fresh   State = "fresh"   // live token, last attempt good
	Failing State = "failing" // live token, last attempt bad
	Expired State = "expired" // had a token, none is live
	Pending State = "pending" // never had a token
)

// States lists every state in the order in which they apply.
var States = []State{Blocked, Ended, Fresh, Failing, Expired, Pending}

// Live reports whether readers get a token in this state.
func (s State) Live() bool { return s == Fresh || s == Failing }

// stateOf is the one function that decides a state.
func stateOf(blocked, ended, live, failed, had bool) State {
	switch {
	case blocked:
		return Blocked
	case ended:
		return Ended
	case live && !failed:
		return Fresh
	case live:
		return Failing
	case had:
		return Expired
	default:
		return Pending
	}
}

// View is what readers see of a name: a handle on an immutable block. The zero
// View is not usable. Views are safe for concurrent use and never go stale by
// themselves: only State depends on the time given.
type View struct{ b *block }

// block is the immutable content behind a View.
type block struct {
	name, uuid  string
	generation  uint64
	token       Token
	refreshAt   time.Time
	retryAt     time.Time
	until       time.Time
	reason      string
	blockReason string
	blocked     bool
	ended       bool
	failed      bool
	loopback    bool
	required    bool
	version     version
}

func newBlock(r *Record) *block {
	b := &block{name: r.Name, generation: r.Generation, version: r.version, ended: !r.EndedAt.IsZero() || r.Grant == nil}
	if r.Grant != nil {
		b.uuid, b.loopback, b.until = r.Grant.UUID, r.Grant.Loopback, r.Grant.Until
		b.required = r.Grant.IsRequired(r.Source)
	}
	if !r.Removed() && r.Block == nil {
		if r.Block == nil && !r.Removed() {
			b.retryAt = r.NextAttempt
		}
	}
	if r.Current != nil {
		b.token, b.refreshAt = *r.Current, r.NextAttempt
	}
	if r.Failure != nil {
		b.failed, b.reason = true, r.Failure.Reason
	}
	if r.Block != nil {
		b.blocked, b.blockReason = true, r.Block.Reason
	}
	return b
}

// Name is the name the view is of.
func (v View) Name() string { return v.b.name }

// UUID is the authorized UUID, empty for a token that any UUID may use.
func (v View) UUID() string { return v.b.uuid }

// State is what a reader gets at now (server time).
func (v View) State(now time.Time) State {
	b := v.b
	ended := b.ended || (!b.until.IsZero() && !now.Before(b.until))
	live := b.token.Raw != "" && b.token.Live(now)
	return stateOf(b.blocked, ended, live, b.failed, b.generation > 0)
}

// Generation is the generation of the current token; of the last one obtained
// when there is no current token; 0 before the first.
func (v View) Generation() uint64 {
	if v.b.token.Raw != "" {
		return v.b.token.Generation
	}
	return v.b.generation
}

// Token is the current token. Serve it only while State is live.
func (v View) Token() pam.Secret { return v.b.token.Raw }

// Issued is the current token's own timestamp, zero without a token.
func (v View) Issued() time.Time { return v.b.token.Issued }

// Expires is the end of the current token by server time, zero without a token.
func (v View) Expires() time.Time {
	if v.b.token.Raw == "" {
		return time.Time{}
	}
	return v.b.token.Expires()
}

// TTL is the lifetime of the current token in whole minutes, zero without one.
func (v View) TTL() time.Duration { return v.b.token.TTL }

// RefreshAt is when the current token is to be replaced.
func (v View) RefreshAt() time.Time { return v.b.refreshAt }

// NextAttempt is when a grant is tried next, zero when none is planned.
func (v View) NextAttempt() time.Time { return v.b.retryAt }

// Reason is why there is no good token: the block's reason for a blocked name,
// otherwise what the last attempt met. Empty when all is well.
func (v View) Reason() string {
	if v.b.blocked {
		return v.b.blockReason
	}
	return v.b.reason
}

// HadToken reports whether the name ever had a token.
func (v View) HadToken() bool { return v.b.generation > 0 }

// Loopback reports whether the loopback listener may serve the name.
func (v View) Loopback() bool { return v.b.loopback }

// Required reports whether readiness depends on the name.
func (v View) Required() bool { return v.b.required }

// ETag names the current token for conditional requests: generation and short
// token hash, in quotes.
func (v View) ETag() string {
	return fmt.Sprintf(`"%d.%s"`, v.b.token.Generation, v.b.token.Raw.ID())
}

// underRule returns the same view blocked by a block rule.
func (v View) underRule(rule *Rule) View {
	b := *v.b
	b.blocked, b.blockReason, b.retryAt = true, rule.Reason, time.Time{}
	return View{&b}
}

// Reader is what the sockets need of a Cache.
type Reader interface {
	// View returns the view of a name, ErrUnknown if nothing is kept for it.
	View(name string) (View, error)
	// Changed returns a channel that is closed at the name's next change, and a
	// function to call when it is of no more interest.
	Changed(name string) (<-chan struct{}, func())
	// List returns up to limit views of names after the given one, in byte order.
	List(after string, limit int) ([]View, error)
}
