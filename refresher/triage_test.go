package refresher

import (
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam"
)

// tokenEnding is a token of an hour that ends at noon and d.
func tokenEnding(d time.Duration) *cache.Token {
	return &cache.Token{Generation: 3, Raw: "t", Issued: noon.Add(d - time.Hour), TTL: time.Hour}
}

func revokeAt(d, end time.Duration) cache.Withdrawal {
	return cache.Withdrawal{Token: *tokenEnding(end), Phase: cache.Waiting, Since: noon.Add(-time.Hour), Next: noon.Add(d), Attempts: 1}
}

// record is a name with a grant that is due since d.
func recordDue(d time.Duration, change func(*cache.Record)) *cache.Record {
	r := cache.NewRecord("alice")
	r.Grant, r.NextAttempt = &cache.Grant{Name: "alice", Grant: pam.Grant{TTL: time.Hour, UUID: "alice"}}, noon.Add(d)
	if change != nil {
		change(r)
	}
	return r
}

func TestNextWork(t *testing.T) {
	const s, m, h = time.Second, time.Minute, time.Hour
	for _, c := range []struct {
		name  string
		rec   *cache.Record
		ruled bool
		want  work
	}{
		{"due", recordDue(0, nil), false, grant},
		{"due with a live token", recordDue(-m, func(r *cache.Record) { r.Current = tokenEnding(m) }), false, grant},
		{"its token has ended", recordDue(-m, func(r *cache.Record) { r.Current = tokenEnding(-m) }), false, settle},
		{"its token ends within the margin", recordDue(-m, func(r *cache.Record) { r.Current = tokenEnding(s) }), false, settle},
		{"an older token has ended", recordDue(-m, func(r *cache.Record) {
			r.Current, r.Superseded = tokenEnding(m), []cache.Token{*tokenEnding(-s)}
		}), false, settle},
		{"under a rule", recordDue(-m, nil), true, settle},
		{"blocked", recordDue(-m, func(r *cache.Record) { r.Block = &cache.Block{} }), false, settle},
		{"blocked, revoke due", recordDue(h, func(r *cache.Record) {
			r.NextAttempt, r.Block, r.Withdrawn = time.Time{}, &cache.Block{}, []cache.Withdrawal{revokeAt(-m, h)}
		}), false, withdraw},
		{"revoke later", recordDue(-m, func(r *cache.Record) { r.Withdrawn = []cache.Withdrawal{revokeAt(m, h)} }), false, grant},
		{"no live token: the grant comes first", recordDue(-s, func(r *cache.Record) {
			r.Withdrawn = []cache.Withdrawal{revokeAt(-m, h)}
		}), false, grant},
		{"live token: the revoke is due longer", recordDue(-s, func(r *cache.Record) {
			r.Current, r.Withdrawn = tokenEnding(30*m), []cache.Withdrawal{revokeAt(-m, h)}
		}), false, withdraw},
		{"live token: the grant is due longer", recordDue(-m, func(r *cache.Record) {
			r.Current, r.Withdrawn = tokenEnding(30*m), []cache.Withdrawal{revokeAt(-s, h), revokeAt(-2*s, h)}
		}), false, grant},
		{"a token to revoke has ended", recordDue(m, func(r *cache.Record) {
			r.Current, r.Failure, r.Withdrawn = tokenEnding(30*m), &cache.Failure{}, []cache.Withdrawal{revokeAt(-m, 0)}
		}), false, settle},
		{"past until", recordDue(-m, func(r *cache.Record) {
			r.Grant.Until, r.Current = noon, tokenEnding(30*m)
		}), false, settle},
		{"nothing left of it", recordDue(0, func(r *cache.Record) { r.Grant, r.NextAttempt = nil, time.Time{} }), false, settle},
	} {
		if got := nextWork(c.rec, noon, noon, c.ruled); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// TestNextWorkInDoubt: what has ended by the later estimate alone is left as it is.
func TestNextWorkInDoubt(t *testing.T) {
	rec := recordDue(time.Minute, func(r *cache.Record) {
		r.Current, r.Failure, r.Attempts = tokenEnding(-time.Minute), &cache.Failure{}, 1
	})
	for name, sure := range map[string]time.Time{"an earlier estimate": noon.Add(-time.Hour), "never measured": {}} {
		if got := nextWork(rec, noon, sure, false); got != nothing {
			t.Errorf("%s: %d", name, got)
		}
	}
}

// TestSettlingEnds: what is settled once has nothing to settle at the same moment.
func TestSettlingEnds(t *testing.T) {
	for name, rec := range map[string]*cache.Record{
		"ended":   recordDue(-time.Minute, func(r *cache.Record) { r.Current = tokenEnding(-time.Minute) }),
		"blocked": recordDue(-time.Minute, func(r *cache.Record) { r.Block = &cache.Block{} }),
		"until": recordDue(-time.Minute, func(r *cache.Record) {
			r.Grant.Until, r.Current, r.Superseded = noon, tokenEnding(time.Minute), []cache.Token{*tokenEnding(30 * time.Second)}
		}),
		"lapsed": recordDue(time.Hour, func(r *cache.Record) {
			r.Withdrawn = []cache.Withdrawal{revokeAt(-time.Minute, -time.Second), revokeAt(5*time.Hour, time.Hour)}
		}),
		"unaccounted": recordDue(0, func(r *cache.Record) {
			r.EndedAt, r.NextAttempt, r.UnaccountedUntil = noon.Add(-time.Hour), time.Time{}, noon
		}),
	} {
		if !settleRecord(rec, noon, noon, false) {
			t.Errorf("%s: nothing to settle", name)
		}
		if settleRecord(rec, noon, noon, false) {
			t.Errorf("%s: not settled at once", name)
		}
	}
}

// TestReplan: plans of a clock that ran ahead are brought forward, and no others.
func TestReplan(t *testing.T) {
	const s, m, h = time.Second, time.Minute, time.Hour
	live := func(change func(*cache.Record)) func(*cache.Record) {
		return func(r *cache.Record) {
			r.Current = tokenEnding(50 * m) // granted ten minutes ago: replaced within the next 29
			if change != nil {
				change(r)
			}
		}
	}
	failed := func(attempts int, last time.Duration) func(*cache.Record) {
		return func(r *cache.Record) {
			r.Failure, r.Attempts, r.LastAttempt = &cache.Failure{}, attempts, noon.Add(last)
		}
	}
	for _, c := range []struct {
		name string
		rec  *cache.Record
		want time.Duration // of the next attempt, after noon
	}{
		{"at its point", recordDue(28*m, live(nil)), 28 * m},
		{"beyond its point", recordDue(40*m, live(nil)), 29 * m},
		{"at the end of the grant", recordDue(45*m, live(func(r *cache.Record) { r.Grant.Until = noon.Add(45 * m) })), 45 * m},
		{"failed just now", recordDue(50*s, failed(9, -s)), 50 * s},
		{"refused just now", recordDue(15*m, failed(9, 0)), 15 * m},
		{"failed in the future", recordDue(h+50*s, failed(9, h)), 0},
		{"failed long ago", recordDue(h, failed(9, -h)), 0},
		{"failed with a live token, in the future", recordDue(h+5*s, live(failed(3, h))), 0},
		{"never tried", recordDue(h, nil), 0},
		{"due", recordDue(-m, nil), -m},
	} {
		changed := replan(c.rec, noon)
		if got := c.rec.NextAttempt.Sub(noon); got.Round(s) != c.want {
			t.Errorf("%s: in %s, want %s", c.name, got, c.want)
		}
		if again := replan(c.rec, noon); again {
			t.Errorf("%s: changed twice, at first %v", c.name, changed)
		}
	}
}

func TestReplanRevokes(t *testing.T) {
	const s, m, h = time.Second, time.Minute, time.Hour
	for _, c := range []struct {
		name        string
		since, next time.Duration
		attempts    int
		phase       cache.Phase
		want        time.Duration
	}{
		{"at once", 0, 0, 0, cache.Waiting, 0},
		{"handover", -10 * s, 50 * s, 0, cache.Waiting, 50 * s},
		{"at once, ordered in the future", 5 * h, 5 * h, 0, cache.Waiting, 0},
		{"handover, planned in the future", 5 * h, 5*h + m, 0, cache.Waiting, m},
		{"failed in the future", -h, 5*h + 30*s, 4, cache.Waiting, 0},
		{"refused just now", -h, h, 4, cache.Refused, h},
		{"refused in the future", -h, 6 * h, 4, cache.Refused, 0},
		{"failed just now", -h, 40 * s, 4, cache.Waiting, 40 * s},
	} {
		w := cache.Withdrawal{
			Token: *tokenEnding(24 * h), Phase: c.phase, Since: noon.Add(c.since), Next: noon.Add(c.next), Attempts: c.attempts,
		}
		rec := recordDue(-m, func(r *cache.Record) { r.Withdrawn = []cache.Withdrawal{w} })
		replan(rec, noon)
		if got := rec.Withdrawn[0].Next.Sub(noon); got != c.want {
			t.Errorf("%s: in %s, want %s", c.name, got, c.want)
		}
	}
}
