package cache

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
)

// Actor is who took a decision, as far as the kernel and the caller said.
type Actor struct {
	UID *int   `json:"uid,omitempty"`
	PID *int   `json:"pid,omitempty"`
	Via string `json:"via,omitempty"` // "admin", "reload"
}

// Action is what a journal line decides.
type Action string

// The actions.
const (
	ActRevoke     Action = "revoke"
	ActUnblock    Action = "unblock"
	ActRemoveRule Action = "remove_rule"
	ActRefresh    Action = "refresh"
	ActPut        Action = "put"
	ActDelete     Action = "delete"
	ActAcceptLost Action = "accept_lost_blocks"
	ActReload     Action = "reload"   // told, changes nothing when replayed
	ActStanding   Action = "standing" // first line of a journal: what stood before it
)

// Decision is one journal line: what an operator decided. Seq and Time are
// filled in when it is written.
type Decision struct {
	Seq     uint64    `json:"seq"`
	Time    time.Time `json:"time"`
	Action  Action    `json:"action"`
	By      Actor     `json:"by"`
	Names   []string  `json:"names,omitempty"`
	Match   string    `json:"match,omitempty"` // RE2 over the whole name
	All     bool      `json:"all,omitempty"`
	Regrant bool      `json:"regrant,omitempty"`
	Revoke  bool      `json:"revoke,omitempty"` // delete: withdraw the tokens too
	Reason  string    `json:"reason,omitempty"`
	Rule    uint64    `json:"rule,omitempty"`  // remove_rule
	Grant   []byte    `json:"grant,omitempty"` // put: the grant, CBOR
	Detail  string    `json:"detail,omitempty"`

	Blocks     []StandingBlock `json:"blocks,omitempty"`      // standing
	Rules      []Rule          `json:"rules,omitempty"`       // standing
	LostBlocks bool            `json:"lost_blocks,omitempty"` // standing: and others may be missing
}

// check reports why a decision cannot be applied, whatever it is applied to.
func (d Decision) check() error {
	for _, name := range d.Names {
		if err := ValidName(name); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	switch d.Action {
	case ActRevoke:
		if !d.many() {
			return nil
		}
		_, err := CompileMatch(d.matchExpr())
		return err
	case ActPut:
		_, err := d.grant()
		return err
	}
	return nil
}

// many reports whether the decision is for all names that match.
func (d Decision) many() bool { return d.Match != "" || d.All }

func (d Decision) matchExpr() string {
	if d.All {
		return "(?s).*"
	}
	return d.Match
}

// rule is the block rule that a revoke leaves.
func (d Decision) rule() Rule {
	return Rule{ID: d.Seq, Match: d.matchExpr(), Reason: d.Reason, Since: d.Time}
}

// grant is the grant of a put.
func (d Decision) grant() (Grant, error) {
	var g storedGrant
	if err := recordDecoding.Unmarshal(d.Grant, &g); err != nil {
		return Grant{}, fmt.Errorf("read the grant: %w", err)
	}
	return g.grant(), nil
}

// EncodeGrant is the form of a grant in a put decision.
func EncodeGrant(g Grant) ([]byte, error) { return recordEncoding.Marshal(storeGrant(g)) }

// StandingBlock is a name's block as a new journal begins with it.
type StandingBlock struct {
	Name  string `json:"name"`
	Block Block  `json:"block"`
}

// Rule blocks every name that its expression matches as a whole, also names that
// appear later. Its ID is the number of the journal line that made it.
type Rule struct {
	ID     uint64    `json:"id"`
	Match  string    `json:"match"` // RE2 over the whole name; ".*" for all
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`

	re *regexp.Regexp
}

// Selector says whom a revoke is for. Exactly one field is set.
type Selector struct {
	Names []string
	UUIDs []string
	Match string // RE2 over the whole name, not empty
	All   bool
	Token pam.Secret // the name that holds this token
}

// Revocation is an operator's order to revoke.
type Revocation struct {
	Selector
	Regrant bool   // grant anew instead of blocking
	Reason  string // required
	DryRun  bool   // only say what it would hit
	By      Actor
}

// RevokeResult says what a revoke did.
type RevokeResult struct {
	Decision uint64        // number of the journal line, 0 for a dry run
	Count    int           // names hit
	Names    []RevokedName // at most MaxListed of them
	Rule     *Rule         // the block rule left behind, nil if none
	Durable  bool          // journal line and records are on disk
	DiskErr  error         // the disk refused; the withdrawal holds in this process
}

// MaxListed bounds the names listed in an answer.
const MaxListed = 1000

// RevokedName is what a revoke did to one name.
type RevokedName struct {
	Name             string
	Generations      []uint64 // the live tokens withdrawn, newest first
	Blocked          bool
	Open             int // revokes waiting for Access Manager
	UnaccountedUntil time.Time
}

// BlockInfo is a name's block or a block rule, as operators list them.
type BlockInfo struct {
	ID     uint64 // of the rule; of the journal line for a name's block
	Name   string // empty for a rule
	Match  string // empty for a name's block
	Reason string
	Since  time.Time
}

// Query selects records to list.
type Query struct {
	State  State  // empty: all
	Prefix string // of the name
	After  string // names after this one, in byte order
	Limit  int    // 1 to 1000; 0 means 100
}

// Diff is what applying a configuration file changes.
type Diff struct {
	Added, Changed, Narrowed, Removed []string // names, sorted; Narrowed are part of Changed
	Unchanged                         int
}

// Empty reports whether nothing changes.
func (d Diff) Empty() bool { return len(d.Added)+len(d.Changed)+len(d.Removed) == 0 }

// ErrTooManyChanges: a configuration would end or narrow so many grants that it
// looks like a mistake.
var ErrTooManyChanges = errors.New("too many grants would end or be narrowed")

// TooManyChangesError is an ErrTooManyChanges with its numbers.
type TooManyChangesError struct{ Ended, Narrowed, Of int }

func (e *TooManyChangesError) Error() string {
	return fmt.Sprintf("the new configuration would end %d and narrow %d of %d grants: use force if that is meant", e.Ended, e.Narrowed, e.Of)
}

// Is makes the error an ErrTooManyChanges.
func (e *TooManyChangesError) Is(target error) bool { return target == ErrTooManyChanges }
