package refresher

import (
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// look asks the cache which names are due and sorts them into the backlog.
func (l *loop) look() {
	began := time.Now()
	defer func() { l.cost = time.Since(began) }()
	now, sure := l.now(), l.clock.Sure()
	l.lastLook, l.again, l.holding = began, false, false
	recs, next, err := l.cache.Due(now, triageLimit)
	if err != nil {
		l.log.Error("due names cannot be read", "error", err)
		l.next = now.Add(lookAgain)
		return
	}
	l.next, l.count = next, len(recs)
	if !next.After(now) {
		l.next = time.Time{} // the list was cut: the rest comes when this is done
	}
	l.backlog.clear()
	var ended []*cache.Record
	for _, rec := range recs {
		if end := nextEnd(rec, now); !end.IsZero() && (l.next.IsZero() || end.Before(l.next)) {
			l.next = end
		}
		switch kind := l.workFor(rec, now, sure); kind {
		case nothing:
		case settle:
			ended = append(ended, rec)
		default:
			l.backlog.push(l.itemFor(rec, kind, now))
		}
	}
	if l.turnedBack {
		ended = append(ended, l.plannedTooLate(now, sure)...)
	}
	l.startSettling(ended)
}

// nextEnd is when a due record changes next without a request: at the end of its
// token or of its grant. The zero time is never.
func nextEnd(rec *cache.Record, now time.Time) time.Time {
	var end time.Time
	if rec.Current != nil {
		end = rec.Current.Expires().Add(-cache.EndMargin)
		if !rec.Removed() && !rec.Grant.Until.IsZero() {
			end = earlier(end, rec.Grant.Until)
		}
	}
	if !end.After(now) {
		return time.Time{}
	}
	return end
}

// lookAgain is when due names are looked at again after the disk has refused.
const lookAgain = 5 * time.Second

func (l *loop) itemFor(rec *cache.Record, kind work, now time.Time) item {
	if kind == withdraw {
		return item{name: rec.Name, kind: kind, at: rec.Withdrawn[dueWithdrawal(rec, now)].Next}
	}
	it := item{name: rec.Name, kind: kind, urgency: urgencyOf(rec, now, l.cache.Waited(rec.Name)), live: rec.HasLive(now)}
	if rec.Current != nil {
		it.at = rec.Current.Expires()
	}
	return it
}

// workFor is what a due record needs now; nothing if it is in flight or held.
func (l *loop) workFor(rec *cache.Record, now, sure time.Time) work {
	if l.withdrawing[rec.Name] {
		return nothing
	}
	if f := l.flying[rec.Name]; f != nil {
		// A grant whose name has moved on is withdrawn when it lands; revoking the
		// tokens known already need not wait for it.
		if f.kind == grant && !f.recs[0].SameVersion(rec) && dueWithdrawal(rec, now) >= 0 {
			return withdraw
		}
		return nothing
	}
	kind := nextWork(rec, now, sure, l.cache.RuleFor(rec.Name) != nil)
	if kind != grant {
		return kind
	}
	if !rec.HasLive(now) && time.Until(l.holdUntil) > 0 {
		l.holding = true
		return nothing
	}
	if l.cache.LostBlocks() {
		return nothing
	}
	return grant
}

// nextWork is what a due record needs at now. What has ended is committed first,
// for those who watch the name. A name without a live token is granted one before
// its old tokens are revoked; otherwise what is due longer comes first.
func nextWork(rec *cache.Record, now, sure time.Time, ruled bool) work {
	if rec.Blank(sure) || settleRecord(rec.Clone(), now, sure, ruled) {
		return settle
	}
	wantsGrant := !ruled && rec.Block == nil && !rec.Ended(now) && due(rec.NextAttempt, now)
	revoke := dueWithdrawal(rec, now)
	switch {
	case wantsGrant && (revoke < 0 || !rec.HasLive(now) || rec.NextAttempt.Before(rec.Withdrawn[revoke].Next)):
		return grant
	case revoke >= 0:
		return withdraw
	}
	if at := rec.Due(); at.IsZero() || at.After(now) {
		return settle // stored with an earlier due time, before a block rule came
	}
	return nothing // it waits for an end that is not sure yet
}

func due(at, now time.Time) bool { return !at.IsZero() && !at.After(now) }

// dueWithdrawal is the index of the revoke to try at now, the longest due; -1 if
// there is none.
func dueWithdrawal(rec *cache.Record, now time.Time) int {
	first := -1
	for i, w := range rec.Withdrawn {
		if w.Open() && due(w.Next, now) && now.Before(w.Token.Expires()) && (first < 0 || w.Next.Before(rec.Withdrawn[first].Next)) {
			first = i
		}
	}
	return first
}

// plannedTooLate finds the records whose plan was made by a clock that ran ahead.
// Those in flight are looked at once more later.
func (l *loop) plannedTooLate(now, sure time.Time) []*cache.Record {
	var found []*cache.Record
	l.turnedBack = false
	for after := ""; ; {
		recs, next, err := l.cache.Records(cache.Query{After: after, Limit: 1000}, now)
		if err != nil {
			l.log.Error("records cannot be read", "error", err)
			l.turnedBack = true
			return found
		}
		for _, rec := range recs {
			if l.flying[rec.Name] != nil || l.withdrawing[rec.Name] {
				l.turnedBack = true
			} else if rec.Due().After(now) && settleRecord(rec.Clone(), now, sure, l.cache.RuleFor(rec.Name) != nil) {
				found = append(found, rec)
			}
		}
		if after = next; after == "" {
			return found
		}
	}
}
