package cache

import (
	"slices"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
)

// Source says who asked for a grant.
type Source string

// The sources of a grant.
const (
	FromFile  Source = "file"  // the configuration file
	FromAdmin Source = "admin" // an operator, at run time
)

// EndMargin is how long before its end a token counts as ended: the estimate of
// server time is at most this wrong, and a token that ends while an answer
// travels is of no use to its reader.
const EndMargin = time.Second

// Limits of what a record keeps.
const (
	maxEvents     = 12
	closedHistory = 24 * time.Hour // how long a finished withdrawal is still listed
	maxClosed     = 16
)

// Token is one token a record holds. It keeps what is needed without decoding
// Raw again. A Token is a value and never changes.
type Token struct {
	Generation uint64        // count of tokens of the name, from 1
	Raw        pam.Secret    // the token as granted; empty once only its hash is kept
	Issued     time.Time     // the token's own timestamp: server time, whole seconds
	TTL        time.Duration // whole minutes
}

// Expires is the moment the service stops accepting the token, by server time.
func (t Token) Expires() time.Time { return t.Issued.Add(t.TTL) }

// Live reports whether the token may still be used at now (server time).
func (t Token) Live(now time.Time) bool { return now.Before(t.Expires().Add(-EndMargin)) }

// Phase is how far the revoke of one token has come upstream.
type Phase string

// The phases of a withdrawal. Only Waiting and Refused are open: they are tried
// again until the token has ended.
const (
	Waiting   Phase = "pending"   // not yet confirmed by Access Manager
	Confirmed Phase = "confirmed" // Access Manager revoked it
	Effective Phase = "effective" // confirmed, and PropagationDelay has passed
	Lapsed    Phase = "ended"     // the token ended before the revoke was confirmed
	Refused   Phase = "refused"   // the keyset does not allow revoking
)

// PropagationDelay is how long PubNub's servers may go on accepting a revoked
// token that they have cached.
const PropagationDelay = time.Minute

// Withdrawal is a token that must not be used any more and its revoke upstream.
type Withdrawal struct {
	Token    Token
	ID       string // short hash of the token, kept when Raw is dropped
	Reason   string
	Since    time.Time
	Phase    Phase // Waiting, Confirmed, Lapsed or Refused; see PhaseAt for Effective
	Closed   time.Time
	Attempts int
	Next     time.Time // next attempt; zero when closed
	Failure  string    // what Access Manager last said
}

// Open reports whether the revoke is still to be confirmed.
func (w Withdrawal) Open() bool { return w.Phase == Waiting || w.Phase == Refused }

// PhaseAt is the phase people are told at now.
func (w Withdrawal) PhaseAt(now time.Time) Phase {
	if w.Phase == Confirmed && !now.Before(w.Closed.Add(PropagationDelay)) {
		return Effective
	}
	return w.Phase
}

// Block is an operator's decision that a name gets no token.
type Block struct {
	Decision uint64    `json:"decision"` // number of the journal line
	Reason   string    `json:"reason"`
	Since    time.Time `json:"since"`
}

// Failure is the last attempt that went wrong.
type Failure struct {
	At     time.Time
	Reason string // for people; never contains a secret
}

// Event is one line of a record's short history.
type Event struct {
	At   time.Time
	Text string
}

// Record is the whole truth about one name. A Record handed out by Cache is the
// caller's own copy: change it and give it back to Commit or Stage. Its slices
// are replaced, never changed in place.
type Record struct {
	Name   string
	Grant  *Grant // nil: nothing is to be granted (removed, or only a block is kept)
	Source Source

	Generation uint64 // of the newest token ever obtained
	Current    *Token
	Superseded []Token // older tokens that may still live
	Withdrawn  []Withdrawal

	GrantedFor  [32]byte // fingerprint of the grant the current token was asked for
	Attempts    int      // failed attempts in a row
	LastAttempt time.Time
	LastSuccess time.Time
	Failure     *Failure
	NextAttempt time.Time // next grant, or one that was given up; zero: none

	Block            *Block
	EndedAt          time.Time // when the grant was removed or its Until passed
	UnaccountedUntil time.Time
	Decision         uint64 // number of the last journal line applied to this record
	Events           []Event

	// Lost says that the record stands for one that could not be read: its tokens
	// are unknown but for the one in memory. It is not stored.
	Lost bool

	version version
	staged  bool // the very content that memory is ahead of the disk with
}

// version tells states of a name apart. It is the fence between a result and the
// decision that overtook it. A state keeps its number when it reaches the disk.
type version struct {
	disk    uint64 // revision of the row it is based on
	memory  uint64 // number of the change in this process that made it; 0: none, it was read
	deletes uint64 // rows deleted so far when it was read: a name begins again at revision 1
}

func (v version) same(o version) bool {
	if v.memory != 0 || o.memory != 0 {
		return v.memory == o.memory
	}
	return v.disk == o.disk
}

// SameVersion reports whether r and o are the same state of a name.
func (r *Record) SameVersion(o *Record) bool { return r.version.same(o.version) }

// Clone returns a copy that shares nothing that is ever changed in place.
func (r *Record) Clone() *Record {
	c := *r
	c.staged = false
	return &c
}

// Blank reports whether nothing is worth keeping: no grant, no block, no live
// token and nothing left to withdraw or to tell at now. A grant that has ended is
// remembered for a day: readers are told that, and operators what became of it.
func (r *Record) Blank(now time.Time) bool {
	return r.Removed() && r.Block == nil && !r.forgetAt().After(now) &&
		len(r.LiveTokens(now)) == 0 && r.OpenWithdrawals() == 0
}

// forgetAt is when a record that nobody asks for any more has nothing left to
// tell.
func (r *Record) forgetAt() time.Time {
	if told := r.EndedAt.Add(closedHistory); !r.EndedAt.IsZero() && told.After(r.UnaccountedUntil) {
		return told
	}
	return r.UnaccountedUntil
}

// Removed reports whether nobody asks for the name any more.
func (r *Record) Removed() bool { return r.Grant == nil || !r.EndedAt.IsZero() }

// HasLive reports whether the current token may be used at now.
func (r *Record) HasLive(now time.Time) bool { return r.Current != nil && r.Current.Live(now) }

// Ended reports whether the grant was removed or has passed its Until at now.
func (r *Record) Ended(now time.Time) bool {
	return r.Removed() || r.pastUntil(now)
}

func (r *Record) pastUntil(now time.Time) bool {
	return r.Grant != nil && !r.Grant.Until.IsZero() && !now.Before(r.Grant.Until)
}

// LiveTokens are the current and superseded tokens that may be used at now,
// newest first.
func (r *Record) LiveTokens(now time.Time) []Token {
	var live []Token
	if r.HasLive(now) {
		live = append(live, *r.Current)
	}
	for _, t := range slices.Backward(r.Superseded) {
		if t.Live(now) {
			live = append(live, t)
		}
	}
	return live
}

// OpenWithdrawals counts the revokes not yet confirmed.
func (r *Record) OpenWithdrawals() int {
	n := 0
	for _, w := range r.Withdrawn {
		if w.Open() {
			n++
		}
	}
	return n
}

// State is what a reader gets at now. It does not know of block rules: a
// rule-blocked name is Blocked whatever this says.
func (r *Record) State(now time.Time) State {
	return stateOf(r.Block != nil, r.Ended(now), r.HasLive(now), r.Failure != nil, r.Generation > 0)
}

// Due is the moment of the name's next work, zero if there is none. A plan that
// was given up (Unplan) is work too: somebody has to see that nothing came of it.
func (r *Record) Due() time.Time {
	var due time.Time
	earliest := func(t time.Time) {
		if !t.IsZero() && (due.IsZero() || t.Before(due)) {
			due = t
		}
	}
	earliest(r.NextAttempt)
	if !r.Removed() && len(r.Superseded)+r.liveCount() > 0 {
		earliest(r.Grant.Until)
	}
	if r.Current != nil {
		earliest(r.Current.Expires().Add(-EndMargin))
	}
	for _, t := range r.Superseded {
		earliest(t.Expires())
	}
	for _, w := range r.Withdrawn {
		if w.Open() {
			earliest(w.Next)
			earliest(w.Token.Expires())
		}
	}
	if r.Removed() && r.Block == nil {
		earliest(r.forgetAt())
	}
	return due
}

func (r *Record) liveCount() int {
	if r.Current == nil {
		return 0
	}
	return 1
}

// Withdraw moves every live token to those to be revoked, first attempt at next,
// and returns their generations, newest first. Tokens that have ended are dropped.
func (r *Record) Withdraw(now, next time.Time, reason string) []uint64 {
	live := r.LiveTokens(now)
	r.Current, r.Superseded = nil, nil
	var generations []uint64
	for _, t := range live {
		r.withdrawToken(t, now, next, reason)
		generations = append(generations, t.Generation)
	}
	return generations
}

// WithdrawToken adds one token to those to be revoked, first attempt at next.
func (r *Record) WithdrawToken(t Token, now, next time.Time, reason string) {
	r.withdrawToken(t, now, next, reason)
}

func (r *Record) withdrawToken(t Token, now, next time.Time, reason string) {
	r.Withdrawn = append(slices.Clone(r.Withdrawn), Withdrawal{
		Token: t, ID: t.Raw.ID(), Reason: reason, Since: now, Phase: Waiting, Next: next,
	})
}

// SetGrant gives the record a grant. A grant that asks for another token, or one
// after a removal, is due now; otherwise the plan stays.
func (r *Record) SetGrant(g Grant, src Source, now time.Time) {
	changed := r.Removed() || r.Grant.Grant.Fingerprint() != g.Grant.Fingerprint() ||
		r.Grant.RegrantAt != g.RegrantAt || !r.Grant.Until.Equal(g.Until)
	if changed && r.Block == nil {
		r.NextAttempt, r.Attempts = now, 0
	}
	if changed {
		r.Note(now, "grant set by "+string(src))
	}
	r.Grant, r.Source, r.EndedAt = &g, src, time.Time{}
}

// Unplan gives up the next grant. One that may be under way stays on record: if
// the process dies before it lands, its token is unaccounted for.
func (r *Record) Unplan(now time.Time) {
	if r.NextAttempt.After(now) {
		r.NextAttempt = time.Time{}
	}
	r.Attempts = 0
}

// End ends the grant: readers get nothing from now on. What still lives upstream
// is for the caller to withdraw.
func (r *Record) End(now time.Time) {
	if r.EndedAt.IsZero() {
		r.EndedAt = now
		r.Unplan(now)
		r.Note(now, "grant ended")
	}
}

// Hasten makes every open withdrawal due at next if it was planned for later.
func (r *Record) Hasten(next time.Time, reason string) {
	r.Withdrawn = slices.Clone(r.Withdrawn)
	for i := range r.Withdrawn {
		w := &r.Withdrawn[i]
		if w.Phase == Waiting && w.Next.After(next) {
			w.Next, w.Reason = next, reason
		}
	}
}

// Note adds a line to the record's short history.
func (r *Record) Note(at time.Time, text string) {
	r.Events = append(slices.Clone(r.Events), Event{at, text})
	if n := len(r.Events) - maxEvents; n > 0 {
		r.Events = r.Events[n:]
	}
}

// Tidy drops what has ended by now: tokens, also the unaccounted, the raw text of
// tokens once their withdrawal is closed, and history that is too old or too long.
func (r *Record) Tidy(now time.Time) {
	if !r.UnaccountedUntil.After(now) {
		r.UnaccountedUntil = time.Time{}
	}
	if r.Current != nil && !r.Current.Live(now) {
		r.Current = nil
	}
	r.Superseded = slices.DeleteFunc(slices.Clone(r.Superseded), func(t Token) bool { return !now.Before(t.Expires()) })
	var kept []Withdrawal
	for _, w := range r.Withdrawn {
		if w.Open() && !now.Before(w.Token.Expires()) {
			w.Phase, w.Closed, w.Next = Lapsed, now, time.Time{}
		}
		if !w.Open() {
			w.Token.Raw = ""
			if now.Sub(w.Closed) > closedHistory {
				continue
			}
		}
		kept = append(kept, w)
	}
	r.Withdrawn = dropOldestClosed(kept)
}

func dropOldestClosed(ws []Withdrawal) []Withdrawal {
	closed := 0
	for _, w := range ws {
		if !w.Open() {
			closed++
		}
	}
	return slices.DeleteFunc(ws, func(w Withdrawal) bool {
		if w.Open() || closed <= maxClosed {
			return false
		}
		closed--
		return true
	})
}
