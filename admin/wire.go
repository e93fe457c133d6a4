package admin

import (
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// The media types of the answers.
const (
	MediaJSON    = "application/json"
	MediaProblem = "application/problem+json" // RFC 9457: the body is a Problem
)

// The paths of the endpoint; those of one name come from GrantPath.
const (
	PathGrants      = "/v1/grants"
	PathUnblock     = "/v1/unblock"
	PathRevoke      = "/v1/revoke"
	PathBlocks      = "/v1/blocks"
	PathRevocations = "/v1/revocations"
	PathAudit       = "/v1/audit"
	PathReload      = "/v1/reload"
	PathStatus      = "/v1/status"
	PathLive        = "/livez"
)

// GrantPath is the path of one name, escaped so that every valid name, also one
// with slashes, stays one segment. Append "/refresh" or "/unblock" for those.
func GrantPath(name string) string { return PathGrants + "/" + url.PathEscape(name) }

// The values of Problem.Code.
const (
	CodeBadRequest     = "bad_request"        // 400: syntax, unknown fields or parameters, values out of range
	CodeInvalidGrant   = "invalid_grant"      // 400: the grant of a PUT; Faults lists what is wrong
	CodeCrossOrigin    = "cross_origin"       // 403: sent on behalf of a web page
	CodeNotFound       = "not_found"          // 404: no such path
	CodeUnknownName    = "unknown_name"       // 404: nothing is kept for the name; Unknown lists them
	CodeUnknownToken   = "unknown_token"      // 404: no name holds the token
	CodeUnknownBlock   = "unknown_block"      // 404: no block or rule has the number
	CodeMethod         = "method_not_allowed" // 405: the header Allow lists the methods
	CodeInFile         = "in_file"            // 409: the configuration file has the name
	CodeNotBlocked     = "not_blocked"        // 409: there is nothing to unblock
	CodeBlocked        = "blocked"            // 409: the name is blocked, nothing is granted for it
	CodeRuleBlocked    = "rule_blocked"       // 409: a rule blocks the name; BlockRule says which
	CodeEnded          = "ended"              // 409: the grant was removed or is past its until
	CodeTooManyChanges = "too_many_changes"   // 409: the reload would end or narrow too many grants
	CodeTooLarge       = "too_large"          // 413: the body is over MaxBody
	CodeMediaType      = "unsupported_media"  // 415: the body is not application/json
	CodeReloadFailed   = "reload_failed"      // 422: the configuration is faulty, nothing was changed
	CodeInternal       = "internal"           // 500
	CodeTimeout        = "timeout"            // 503: not confirmed in time, it may still take effect
	CodeNotDurable     = "not_durable"        // 507: the disk refuses
)

// Problem is the body of every answer that is not a success: an RFC 9457 problem
// document. Its type is "about:blank" (left out), so Code tells problems apart.
type Problem struct {
	Title     string     `json:"title"`
	Status    int        `json:"status"`
	Code      string     `json:"code"`
	Detail    string     `json:"detail,omitempty"`     // one line: what is wrong and what to do
	Faults    []string   `json:"faults,omitempty"`     // every fault of a grant or a configuration
	Unknown   []string   `json:"unknown,omitempty"`    // the names nothing is kept for
	BlockRule *BlockItem `json:"block_rule,omitempty"` // the rule that blocks the name
}

// GrantItem is what GET /v1/grants lists of a name. All times are UTC; those
// that are not there are left out.
type GrantItem struct {
	Name             string       `json:"name"`
	UUID             string       `json:"uuid,omitempty"` // none: a token for any UUID, or no grant any more
	State            cache.State  `json:"state"`
	Generation       uint64       `json:"generation"`                 // of the newest token; 0: never had one
	IssuedAt         time.Time    `json:"issued_at,omitzero"`         // of the current token
	ExpiresAt        time.Time    `json:"expires_at,omitzero"`        // of the current token
	NextAttempt      time.Time    `json:"next_attempt,omitzero"`      // when a grant is tried next
	LastSuccess      time.Time    `json:"last_success,omitzero"`      // of a grant
	LastError        *LastError   `json:"last_error,omitempty"`       // none: the last attempt was good
	Attempts         int          `json:"attempts"`                   // failed attempts in a row
	LiveTokens       int          `json:"live_tokens"`                // tokens that PubNub accepts and nobody revoked
	RevokesOpen      int          `json:"revokes_open"`               // revokes Access Manager has not confirmed
	UnaccountedUntil time.Time    `json:"unaccounted_until,omitzero"` // a token nobody holds may live until then
	Note             string       `json:"note,omitempty"`
	Source           cache.Source `json:"source,omitempty"` // "file", "admin"
	Required         bool         `json:"required"`         // readiness depends on it
	Blocked          *BlockedBy   `json:"blocked,omitempty"`
}

// LastError is the last attempt, when it failed.
type LastError struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
}

// BlockedBy says why a name is blocked. Exactly one of Decision and Rule is set;
// with a rule, the name stays blocked until the rule is removed.
type BlockedBy struct {
	Reason   string    `json:"reason"`
	Since    time.Time `json:"since"`
	Decision uint64    `json:"decision,omitempty"` // line of the journal
	Rule     uint64    `json:"rule,omitempty"`     // BlockItem.ID
}

// GrantList is the answer of GET /v1/grants.
type GrantList struct {
	Items []GrantItem `json:"items"`
	Next  string      `json:"next,omitempty"` // cursor of the next page, none on the last one
}

// GrantDetail is the answer of GET and PUT /v1/grants/{name} and of its refresh
// and unblock: the item, with its live tokens listed instead of counted
// (GrantItem.LiveTokens is not in its JSON), and more.
type GrantDetail struct {
	GrantItem
	LiveTokens  []TokenItem     `json:"live_tokens"`     // newest first
	Grant       json.RawMessage `json:"grant,omitempty"` // in the form of the configuration file; what PUT takes
	Withdrawals []Withdrawal    `json:"withdrawals"`     // oldest first
	Events      []Event         `json:"events"`          // oldest first
}

// TokenItem is one live token. ID is the short hash of its text.
type TokenItem struct {
	Generation uint64    `json:"generation"`
	ID         string    `json:"id"`
	IssuedAt   time.Time `json:"issued_at"`
	ExpiresAt  time.Time `json:"expires_at"`
	Role       string    `json:"role"` // RoleCurrent, RoleSuperseded
}

// The values of TokenItem.Role.
const (
	RoleCurrent    = "current"    // what readers get
	RoleSuperseded = "superseded" // older, and PubNub still accepts it
)

// Event is one line of a name's short history.
type Event struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// Withdrawal is a token that was taken away from readers and how far its revoke
// has come upstream.
type Withdrawal struct {
	Generation uint64      `json:"generation"`
	ID         string      `json:"id"` // short hash of the token
	Phase      cache.Phase `json:"phase"`
	Reason     string      `json:"reason"`
	Since      time.Time   `json:"since"`
	Attempts   int         `json:"attempts"`
	Next       time.Time   `json:"next,omitzero"`      // next attempt, while it is open
	Failure    string      `json:"failure,omitempty"`  // what Access Manager last said
	ExpiresAt  time.Time   `json:"expires_at"`         // end of the token in any case
	ClosedAt   time.Time   `json:"closed_at,omitzero"` // when it was confirmed, or the token ended
}

// Revocation is one item of GET /v1/revocations.
type Revocation struct {
	Name string `json:"name"`
	Withdrawal
}

// RevocationList is the answer of GET /v1/revocations. A page may be empty and
// still have a next one, and may hold a few more items than were asked for.
type RevocationList struct {
	Items []Revocation `json:"items"`
	Next  string       `json:"next,omitempty"`
}

// RevokeRequest is the body of POST /v1/revoke. Exactly one of Names, UUIDs,
// Match, All and Token is given. It prints without the token.
type RevokeRequest struct {
	Names []string `json:"names,omitempty"`
	UUIDs []string `json:"uuids,omitempty"` // every name whose grant has one of them
	Match string   `json:"match,omitempty"` // RE2 over the whole name
	All   bool     `json:"all,omitempty"`
	Token string   `json:"token,omitempty"` // the name that holds this token; in clear text

	Reason  string `json:"reason"`            // required, at most MaxReason characters
	Regrant bool   `json:"regrant,omitempty"` // grant anew instead of blocking
	DryRun  bool   `json:"dry_run,omitempty"` // only say what it would hit
}

// String describes the request without the token.
func (r RevokeRequest) String() string {
	return fmt.Sprintf("revoke: %d names, %d uuids, match %q, all %t, with token %t, regrant %t, dry run %t",
		len(r.Names), len(r.UUIDs), r.Match, r.All, r.Token != "", r.Regrant, r.DryRun)
}

// GoString is String, so that no verb prints the token.
func (r RevokeRequest) GoString() string { return r.String() }

// The values of RevokeResult.Upstream.
const (
	UpstreamPending = "pending" // revokes have been started and wait for Access Manager
	UpstreamNone    = "none"    // no live token was left to revoke
)

// RevokeResult is the answer of POST /v1/revoke and DELETE /v1/grants/{name}:
// with status 200 when the decision is on disk, 202 when the disk has not
// confirmed in time (Durable is false), and as a part of RevokeProblem with 507
// when it refuses. In all three the withdrawal already holds in the process and
// the revokes upstream have been started.
type RevokeResult struct {
	Decision uint64        `json:"decision,omitempty"` // line of the journal; none for a dry run
	DryRun   bool          `json:"dry_run,omitempty"`
	Count    int           `json:"count"`          // names hit
	Names    []RevokedName `json:"names"`          // at most cache.MaxListed of them
	Rule     *BlockItem    `json:"rule,omitempty"` // the block rule left behind
	Durable  bool          `json:"durable"`
	Upstream string        `json:"upstream"`
}

// RevokedName is what a revoke did to one name.
type RevokedName struct {
	Name             string    `json:"name"`
	Generations      []uint64  `json:"generations"` // of the live tokens withdrawn, newest first
	Blocked          bool      `json:"blocked"`
	RevokesOpen      int       `json:"revokes_open"`
	UnaccountedUntil time.Time `json:"unaccounted_until,omitzero"`
}

// RevokeProblem is the answer 507 to a revoke: the disk refuses. Both parts are
// fields of one object.
type RevokeProblem struct {
	Problem
	RevokeResult
}

// UnblockRequest is the body of POST /v1/unblock: either names, or the consent to
// grant although blocks may have been lost with a damaged disk.
type UnblockRequest struct {
	Names            []string `json:"names,omitempty"`
	AcceptLostBlocks bool     `json:"accept_lost_blocks,omitempty"`
}

// UnblockResult is the answer of POST /v1/unblock.
type UnblockResult struct {
	Names            []string `json:"names,omitempty"` // all are unblocked, or none
	AcceptLostBlocks bool     `json:"accept_lost_blocks,omitempty"`
}

// BlockItem is the block of a name, or a block rule.
type BlockItem struct {
	ID     uint64    `json:"id"`              // of the decision that made it; a decision may have blocked many names
	Name   string    `json:"name,omitempty"`  // empty for a rule
	Match  string    `json:"match,omitempty"` // RE2 over the whole name; empty for a name's block
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// BlockList is the answer of GET /v1/blocks and, with what was lifted, of
// DELETE /v1/blocks/{id}.
type BlockList struct {
	Items []BlockItem `json:"items"`
}

// AuditItem is one line of the journal: what an operator decided.
type AuditItem struct {
	Seq      uint64       `json:"seq"`
	Time     time.Time    `json:"time"`
	Action   cache.Action `json:"action"`
	By       cache.Actor  `json:"by"`
	Names    []string     `json:"names,omitempty"`
	Match    string       `json:"match,omitempty"`
	All      bool         `json:"all,omitempty"`
	Regrant  bool         `json:"regrant,omitempty"`
	Revoke   bool         `json:"revoke,omitempty"`
	Reason   string       `json:"reason,omitempty"`
	Rule     uint64       `json:"rule,omitempty"`
	Detail   string       `json:"detail,omitempty"`
	Standing []BlockItem  `json:"standing,omitempty"` // first line of a journal: what stood before it
}

// AuditList is the answer of GET /v1/audit, oldest first.
type AuditList struct {
	Items []AuditItem `json:"items"`
	Next  uint64      `json:"next,omitempty"` // value of after for the next page, none on the last one
}

// ReloadRequest is the optional body of POST /v1/reload.
type ReloadRequest struct {
	Force bool `json:"force,omitempty"` // also when it ends or narrows many grants
}

// ReloadResult says what a reload changed, or would change.
type ReloadResult struct {
	Added     []string `json:"added"`
	Changed   []string `json:"changed"`
	Narrowed  []string `json:"narrowed"` // of those changed
	Removed   []string `json:"removed"`
	Unchanged int      `json:"unchanged"`
}

// ReloadProblem is the answer 409 too_many_changes: what the reload would do if
// it were forced. Nothing was changed.
type ReloadProblem struct {
	Problem
	ReloadResult
}

// Info is what the process knows of itself; Config.Info fills it.
type Info struct {
	Version      string    `json:"version"`
	SubscribeKey string    `json:"subscribe_key"`
	Origin       string    `json:"origin"`
	StartedAt    time.Time `json:"started_at"`
	Clock        Clock     `json:"clock"`
	Storage      Storage   `json:"storage"`
	Upstream     Upstream  `json:"upstream"`
	// Names counts the names of each state. Nil lets the handler count, which it
	// does only for up to 10,000 names.
	Names map[cache.State]int `json:"names,omitempty"`
}

// Clock is what is known of the server's clock.
type Clock struct {
	OffsetSeconds float64 `json:"offset_seconds"` // server time minus local time
	Known         bool    `json:"known"`          // measured, by this process or one before it
	Suspect       bool    `json:"suspect"`        // the local clock was stepped and the server not asked since
}

// Storage is the condition of the state directory.
type Storage struct {
	Degraded      string `json:"degraded,omitempty"`    // why the disk refuses; empty: it does not
	Quarantined   string `json:"quarantined,omitempty"` // the damaged database that was moved aside
	LostBlocks    bool   `json:"lost_blocks"`           // nothing is granted until the loss is accepted
	UncleanStarts int    `json:"unclean_starts"`        // starts in a row after a stop that was not clean
}

// Upstream is the condition of the way to Access Manager.
type Upstream struct {
	Rate            float64   `json:"rate"` // requests a second, configured
	Burst           int       `json:"burst"`
	MaxInFlight     int       `json:"max_in_flight"`
	InFlight        int       `json:"in_flight"`             // on the wire now
	PausedUntil     time.Time `json:"paused_until,omitzero"` // server time; the service said when to come back
	BreakerOpen     bool      `json:"breaker_open"`          // only single probes go out
	Backlog         int       `json:"backlog"`               // names that are due and wait
	RevokeSupported *bool     `json:"revoke_supported"`      // null: not known yet
}

// Status is the answer of GET /v1/status.
type Status struct {
	Info
	Now     time.Time `json:"now"`               // server time
	Ready   *bool     `json:"ready,omitempty"`   // as the token socket's /readyz
	Missing []string  `json:"missing,omitempty"` // required names without a live token, at most 100
}
