package admin

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// utc is a time as the answers write it: UTC, whole milliseconds.
func utc(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// future is t, or the zero time if now has reached it.
func future(t, now time.Time) time.Time {
	if !t.After(now) {
		return time.Time{}
	}
	return utc(t)
}

// item is the line of a record in the list.
func (h *handler) item(r *cache.Record, now time.Time) GrantItem {
	it := GrantItem{
		Name:             r.Name,
		State:            h.Records.StateOf(r, now),
		Generation:       r.Generation,
		LastSuccess:      utc(r.LastSuccess),
		Attempts:         r.Attempts,
		LiveTokens:       len(r.LiveTokens(now)),
		RevokesOpen:      r.OpenWithdrawals(),
		UnaccountedUntil: future(r.UnaccountedUntil, now),
		Source:           r.Source,
	}
	if r.Current != nil {
		it.IssuedAt, it.ExpiresAt = utc(r.Current.Issued), utc(r.Current.Expires())
	}
	if r.Failure != nil {
		it.LastError = &LastError{At: utc(r.Failure.At), Reason: r.Failure.Reason}
	}
	if r.Grant != nil {
		it.UUID, it.Note, it.Required = r.Grant.UUID, r.Grant.Note, r.Grant.IsRequired(r.Source)
	}
	switch it.State {
	case cache.Blocked:
		it.Blocked = h.blockedBy(r)
	case cache.Ended:
	default:
		it.NextAttempt = utc(r.NextAttempt)
	}
	return it
}

// blockedBy says what blocks a record. A rule comes first: while it stands,
// lifting the name's own block is of no use.
func (h *handler) blockedBy(r *cache.Record) *BlockedBy {
	if rule := h.Records.RuleFor(r.Name); rule != nil {
		return &BlockedBy{Reason: rule.Reason, Since: utc(rule.Since), Rule: rule.ID}
	}
	if r.Block == nil {
		return nil
	}
	return &BlockedBy{Reason: r.Block.Reason, Since: utc(r.Block.Since), Decision: r.Block.Decision}
}

// detail is all that is told of a record.
func (h *handler) detail(r *cache.Record, now time.Time) (GrantDetail, error) {
	d := GrantDetail{
		GrantItem:   h.item(r, now),
		LiveTokens:  []TokenItem{},
		Withdrawals: []Withdrawal{},
		Events:      []Event{},
	}
	if r.Grant != nil {
		grant, err := json.Marshal(*r.Grant)
		if err != nil {
			return GrantDetail{}, fmt.Errorf("encode the grant of %q: %w", r.Name, err)
		}
		d.Grant = grant
	}
	for _, t := range r.LiveTokens(now) {
		role := RoleSuperseded
		if r.Current != nil && t == *r.Current {
			role = RoleCurrent
		}
		d.LiveTokens = append(d.LiveTokens, TokenItem{t.Generation, t.Raw.ID(), utc(t.Issued), utc(t.Expires()), role})
	}
	for _, w := range r.Withdrawn {
		d.Withdrawals = append(d.Withdrawals, withdrawal(w, now))
	}
	for _, e := range r.Events {
		d.Events = append(d.Events, Event{utc(e.At), e.Text})
	}
	return d, nil
}

func withdrawal(w cache.Withdrawal, now time.Time) Withdrawal {
	return Withdrawal{
		Generation: w.Token.Generation, ID: w.ID, Phase: w.PhaseAt(now), Reason: w.Reason,
		Since: utc(w.Since), Attempts: w.Attempts, Next: utc(w.Next), Failure: w.Failure,
		ExpiresAt: utc(w.Token.Expires()), ClosedAt: utc(w.Closed),
	}
}

func ruleItem(r cache.Rule) BlockItem {
	return BlockItem{ID: r.ID, Match: r.Match, Reason: r.Reason, Since: utc(r.Since)}
}

func blockItem(b cache.BlockInfo) BlockItem {
	return BlockItem{ID: b.ID, Name: b.Name, Match: b.Match, Reason: b.Reason, Since: utc(b.Since)}
}

func auditItem(d cache.Decision) AuditItem {
	it := AuditItem{
		Seq: d.Seq, Time: utc(d.Time), Action: d.Action, By: d.By, Names: d.Names, Match: d.Match, All: d.All,
		Regrant: d.Regrant, Revoke: d.Revoke, Reason: d.Reason, Rule: d.Rule, Detail: d.Detail,
	}
	for _, r := range d.Rules {
		it.Standing = append(it.Standing, ruleItem(r))
	}
	for _, b := range d.Blocks {
		it.Standing = append(it.Standing, BlockItem{ID: b.Block.Decision, Name: b.Name, Reason: b.Block.Reason, Since: utc(b.Block.Since)})
	}
	return it
}
