package cache

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pamsidecar/pamsidecar/pam"
)

var recordNow = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// in is recordNow and some minutes.
func in(minutes float64) time.Time {
	return recordNow.Add(time.Duration(minutes * float64(time.Minute)))
}

// tokenUntil is a token that the service accepts until the given moment.
func tokenUntil(generation uint64, end time.Time) Token {
	return Token{Generation: generation, Raw: pam.Secret(fmt.Sprintf("token-%d", generation)), Issued: end.Add(-10 * time.Minute), TTL: 10 * time.Minute}
}

func hourGrant() *Grant {
	return &Grant{Name: "a", Grant: pam.Grant{TTL: time.Hour, UUID: "u"}}
}

// Every combination of what a state depends on, decided by the first line that
// fits: the order of the words of the design.
func TestStateTable(t *testing.T) {
	// blocked, ended, live, last attempt bad, had a token; * for either
	lines := []struct {
		pattern string
		want    State
	}{
		{"1****", Blocked}, {"01***", Ended}, {"0010*", Fresh}, {"0011*", Failing}, {"000*1", Expired}, {"000*0", Pending},
	}
	endings := map[string]func(*Record){
		"removed":    func(r *Record) { r.EndedAt = in(-1) },
		"no grant":   func(r *Record) { r.Grant = nil },
		"past until": func(r *Record) { r.Grant.Until = recordNow },
	}
	deaths := map[string]*Token{"none": nil, "ended": new(tokenUntil(1, in(-1))), "ends in a second": new(tokenUntil(1, recordNow.Add(EndMargin)))}
	for bits := range 32 {
		code := fmt.Sprintf("%05b", bits)
		line := slices.IndexFunc(lines, func(l struct {
			pattern string
			want    State
		}) bool {
			for i := range code {
				if l.pattern[i] != '*' && l.pattern[i] != code[i] {
					return false
				}
			}
			return true
		})
		want := lines[line].want
		for ending, end := range endings {
			for death, dead := range deaths {
				r := &Record{Name: "a", Grant: hourGrant()}
				r.Grant.Until = recordNow.Add(time.Nanosecond)
				if code[4] == '1' {
					r.Generation = 1
				}
				if code[3] == '1' {
					r.Failure = &Failure{At: in(-1), Reason: "no"}
				}
				if r.Current = dead; code[2] == '1' {
					r.Current = new(tokenUntil(1, recordNow.Add(EndMargin+time.Nanosecond)))
				}
				if code[1] == '1' {
					end(r)
				}
				if code[0] == '1' {
					r.Block = &Block{Reason: "because"}
				}
				v := View{newBlock(r)}
				if got := r.State(recordNow); got != want || v.State(recordNow) != want {
					t.Errorf("%s (%s, token %s): record %s, view %s, want %s", code, ending, death, got, v.State(recordNow), want)
				}
				if v.underRule(&Rule{}).State(recordNow) != Blocked {
					t.Errorf("%s: not blocked under a rule", code)
				}
			}
		}
	}
	if !Fresh.Live() || !Failing.Live() || Blocked.Live() || Ended.Live() || Expired.Live() || Pending.Live() || len(States) != 6 {
		t.Error("readers get a token in the states fresh and failing and in no other")
	}
}

// A view and its record agree at any moment, whatever the record.
func TestViewStateIsRecordState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := genRecord().Filter(func(r *Record) bool { return r.Current == nil || r.Current.Raw != "" }).Draw(t, "record")
		v := View{newBlock(r)}
		now := genTime().Draw(t, "now")
		if v.State(now) != r.State(now) {
			t.Fatalf("view %s, record %s", v.State(now), r.State(now))
		}
		if r.State(now).Live() && (v.Token() != r.Current.Raw || !now.Before(v.Expires())) {
			t.Fatal("a live state without a live token")
		}
	})
}

func TestViewFields(t *testing.T) {
	r := &Record{Name: "a", Grant: hourGrant(), Generation: 7, Current: new(tokenUntil(6, in(10))), NextAttempt: in(5), Failure: &Failure{Reason: "no"}}
	v := View{newBlock(r)}
	want := fmt.Sprintf(`"6.%s"`, r.Current.Raw.ID())
	if v.Name() != "a" || v.UUID() != "u" || v.Generation() != 6 || v.ETag() != want || v.Reason() != "no" || !v.HadToken() {
		t.Errorf("got %+v", *v.b)
	}
	if !v.Issued().Equal(in(0)) || !v.Expires().Equal(in(10)) || v.TTL() != 10*time.Minute || !v.RefreshAt().Equal(in(5)) || !v.NextAttempt().Equal(in(5)) {
		t.Errorf("times: %+v", *v.b)
	}
	ruled := v.underRule(&Rule{Reason: "all"})
	r.Block = &Block{Reason: "stolen"}
	blocked := View{newBlock(r)}
	if blocked.Reason() != "stolen" || !blocked.NextAttempt().IsZero() || ruled.Reason() != "all" || !ruled.NextAttempt().IsZero() {
		t.Error("a blocked name tells why, and that no attempt is planned")
	}
	r.Current, r.Block = nil, nil
	if v = (View{newBlock(r)}); v.Generation() != 7 || v.Token() != "" || !v.Expires().IsZero() || !v.RefreshAt().IsZero() {
		t.Errorf("without a token: %+v", *v.b)
	}
}

func TestDueTable(t *testing.T) {
	none := time.Time{}
	tests := []struct {
		about  string
		change func(*Record)
		want   time.Time
	}{
		{"nothing planned", func(r *Record) {}, none},
		{"attempt", func(r *Record) { r.NextAttempt = in(3) }, in(3)},
		{"attempt, blocked", func(r *Record) { r.NextAttempt, r.Block = in(3), &Block{} }, in(3)},
		{"attempt, removed", func(r *Record) { r.NextAttempt, r.EndedAt = in(3), in(0) }, in(3)},
		{"attempt, no grant", func(r *Record) { r.NextAttempt, r.Grant = in(3), nil }, in(3)},
		{"attempt before the end", func(r *Record) { r.NextAttempt, r.Current = in(3), new(tokenUntil(1, in(10))) }, in(3)},
		{"attempt after the end", func(r *Record) { r.NextAttempt, r.Current = in(30), new(tokenUntil(1, in(10))) }, in(10).Add(-EndMargin)},
		{"end of a token, removed", func(r *Record) { r.EndedAt, r.Current = in(0), new(tokenUntil(1, in(10))) }, in(10).Add(-EndMargin)},
		{"superseded", func(r *Record) { r.Superseded = []Token{tokenUntil(1, in(4)), tokenUntil(2, in(2))} }, in(2)},
		{"until without tokens", func(r *Record) { r.Grant.Until = in(1) }, none},
		{"until", func(r *Record) { r.Grant.Until, r.Current = in(1), new(tokenUntil(1, in(10))) }, in(1)},
		{"until, superseded only", func(r *Record) { r.Grant.Until, r.Superseded = in(1), []Token{tokenUntil(1, in(10))} }, in(1)},
		{"revoke", func(r *Record) {
			r.Withdrawn = []Withdrawal{{Token: tokenUntil(1, in(9)), Phase: Waiting, Next: in(2)}}
		}, in(2)},
		{"revoke, blocked", func(r *Record) {
			r.Block, r.Withdrawn = &Block{}, []Withdrawal{{Token: tokenUntil(1, in(9)), Phase: Waiting, Next: in(2)}}
		}, in(2)},
		{"revoke refused", func(r *Record) {
			r.Withdrawn = []Withdrawal{{Token: tokenUntil(1, in(9)), Phase: Refused, Next: in(60)}}
		}, in(9)},
		{"revoke closed", func(r *Record) { r.Withdrawn = []Withdrawal{{Token: tokenUntil(1, in(9)), Phase: Confirmed}} }, none},
		{"unaccounted", func(r *Record) { r.UnaccountedUntil = in(5) }, none},
		{"unaccounted, removed", func(r *Record) { r.UnaccountedUntil, r.EndedAt = in(5), in(0) }, in(0).Add(closedHistory)},
		{"unaccounted, removed long ago", func(r *Record) { r.UnaccountedUntil, r.EndedAt = in(5), in(0).Add(-closedHistory) }, in(5)},
		{"unaccounted, removed, blocked", func(r *Record) { r.UnaccountedUntil, r.EndedAt, r.Block = in(5), in(0), &Block{} }, none},
	}
	for _, tt := range tests {
		r := &Record{Name: "a", Grant: hourGrant()}
		tt.change(r)
		if got := r.Due(); !got.Equal(tt.want) {
			t.Errorf("%s: due %v, want %v", tt.about, got, tt.want)
		}
	}
}

// A due time never lies beyond the end of the current token, and once what has
// ended is tidied and what was due has been done, the name is not due again.
func TestDueBounds(t *testing.T) {
	near := rapid.Map(rapid.Int64Range(-120, 120), func(n int64) time.Time { return recordNow.Add(time.Duration(n) * time.Second) })
	rapid.Check(t, func(t *rapid.T) {
		r := &Record{Name: "a"}
		maybe := func(what string) bool { return rapid.Bool().Draw(t, what) }
		if maybe("grant") {
			r.Grant = hourGrant()
			if maybe("until") {
				r.Grant.Until = near.Draw(t, "until")
			}
		}
		if maybe("removed") {
			r.EndedAt = near.Draw(t, "ended")
		}
		if maybe("block") {
			r.Block = &Block{}
		}
		if maybe("current") {
			r.Current = new(tokenUntil(9, near.Draw(t, "end")))
		}
		for i := range rapid.IntRange(0, 2).Draw(t, "superseded") {
			r.Superseded = append(r.Superseded, tokenUntil(uint64(i), near.Draw(t, "end")))
		}
		for i := range rapid.IntRange(0, 2).Draw(t, "withdrawn") {
			phase := rapid.SampledFrom([]Phase{Waiting, Refused, Confirmed, Lapsed}).Draw(t, "phase")
			r.Withdrawn = append(r.Withdrawn, Withdrawal{Token: tokenUntil(uint64(i+4), near.Draw(t, "end")), Phase: phase, Next: near.Draw(t, "next")})
		}
		r.NextAttempt, r.UnaccountedUntil = near.Draw(t, "attempt"), near.Draw(t, "unaccounted")
		if due := r.Due(); r.Current != nil && (due.IsZero() || !due.Before(r.Current.Expires())) {
			t.Fatalf("due %v, the token ends at %v", due, r.Current.Expires())
		}
		// Done: the attempt, the revokes that were due, the end of the grant.
		if !r.NextAttempt.After(recordNow) {
			r.NextAttempt = in(1)
		}
		r.Withdrawn = slices.Clone(r.Withdrawn)
		for i := range r.Withdrawn {
			r.Withdrawn[i].Next = in(1)
		}
		if r.Ended(recordNow) {
			r.Withdraw(recordNow, in(1), "ended")
		}
		r.Tidy(recordNow)
		if due := r.Due(); !due.IsZero() && !due.After(recordNow) {
			t.Fatalf("due again at %v, now is %v: %+v", due, recordNow, r)
		}
	})
}

// What changes a clone leaves the record alone: the two share slices.
func TestCloneShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := genRecord().Draw(t, "record")
		before, err := encodeRecord(r)
		if err != nil {
			t.Fatal(err)
		}
		now := genTime().Draw(t, "now")
		for range 2 {
			c := r.Clone()
			c.Note(now, "x")
			c.Hasten(time.Time{}, "hurry")
			c.Tidy(now)
			c.WithdrawToken(tokenUntil(1, now), now, now, "y")
			c.Withdraw(now, now, "z")
			c.SetGrant(Grant{Name: "other"}, FromAdmin, now)
			c.End(now)
		}
		if after, _ := encodeRecord(r); !bytes.Equal(after, before) {
			t.Fatal("the record has changed with its clone")
		}
	})
}

func TestWithdraw(t *testing.T) {
	r := &Record{
		Name: "a", Current: new(tokenUntil(5, in(10))),
		Superseded: []Token{tokenUntil(2, in(-1)), tokenUntil(3, in(2)), tokenUntil(4, in(3))},
		Withdrawn:  []Withdrawal{{Token: tokenUntil(1, in(1)), Phase: Waiting, Next: in(1)}, {Token: tokenUntil(0, in(1)), Phase: Refused, Next: in(30)}},
	}
	if got := r.Withdraw(recordNow, in(1), "stolen"); !slices.Equal(got, []uint64{5, 4, 3}) {
		t.Errorf("withdrawn %v, want the live ones, newest first", got)
	}
	if r.Current != nil || len(r.Superseded) != 0 || r.OpenWithdrawals() != 5 {
		t.Errorf("left: %+v", r)
	}
	last := r.Withdrawn[4]
	if last.Token.Generation != 3 || last.ID != last.Token.Raw.ID() || last.ID == "" || last.Reason != "stolen" || last.Phase != Waiting || !last.Next.Equal(in(1)) || !last.Since.Equal(recordNow) {
		t.Errorf("got %+v", last)
	}
	r.Hasten(recordNow, "at once")
	for i, w := range r.Withdrawn {
		if want := w.Phase == Waiting; want != w.Next.Equal(recordNow) {
			t.Errorf("withdrawal %d (%s): next %v", i, w.Phase, w.Next)
		}
	}
	r.Hasten(in(5), "later")
	if !r.Withdrawn[0].Next.Equal(recordNow) {
		t.Error("Hasten has put off a revoke")
	}
}

func TestTidy(t *testing.T) {
	closed := Withdrawal{Token: tokenUntil(1, in(10)), Phase: Confirmed, Closed: in(-1)}
	r := &Record{Name: "a", Current: new(tokenUntil(9, recordNow.Add(EndMargin))), Superseded: []Token{tokenUntil(7, in(0)), tokenUntil(8, in(1))}, UnaccountedUntil: in(0)}
	r.Withdrawn = []Withdrawal{
		{Token: tokenUntil(5, in(0)), Phase: Waiting, Next: in(0)}, {Token: tokenUntil(6, in(1)), Phase: Refused, Next: in(0)},
		{Token: tokenUntil(4, in(-9999)), Phase: Confirmed, Closed: recordNow.Add(-closedHistory - 1)},
	}
	r.Withdrawn = append(r.Withdrawn, slices.Repeat([]Withdrawal{closed}, maxClosed+3)...)
	r.Tidy(recordNow)
	if r.Current != nil || len(r.Superseded) != 1 || !r.UnaccountedUntil.IsZero() {
		t.Errorf("what has ended is still there: %+v", r)
	}
	if n := len(r.Withdrawn); n != maxClosed+1 {
		t.Errorf("%d withdrawals are kept, want the open one and the %d newest closed", n, maxClosed)
	}
	for _, w := range r.Withdrawn {
		if w.Open() != (w.Token.Raw != "") || w.Token.Generation == 4 || (w.Phase == Lapsed && !w.Next.IsZero()) {
			t.Errorf("kept %+v", w)
		}
	}
	// The one that lapsed was the oldest of too many.
	r.Withdrawn = []Withdrawal{{Token: tokenUntil(5, in(0)), Phase: Waiting, Next: in(0)}}
	r.Tidy(recordNow)
	if w := r.Withdrawn[0]; w.Phase != Lapsed || !w.Closed.Equal(recordNow) || w.PhaseAt(in(99)) != Lapsed {
		t.Errorf("a token that ended before its revoke: %+v", w)
	}
	if closed.PhaseAt(in(-1).Add(PropagationDelay-1)) != Confirmed || closed.PhaseAt(in(-1).Add(PropagationDelay)) != Effective {
		t.Error("a confirmed revoke is effective after the propagation delay")
	}
}

func TestSetGrantAndEnd(t *testing.T) {
	base := Record{Name: "a", Grant: hourGrant(), Source: FromFile, NextAttempt: in(30), Attempts: 2}
	tests := []struct {
		about  string
		change func(*Record, *Grant)
		due    time.Time
	}{
		{"the same", func(r *Record, g *Grant) {}, in(30)},
		{"note and loopback", func(r *Record, g *Grant) { g.Note, g.Loopback = "x", true }, in(30)},
		{"ttl", func(r *Record, g *Grant) { g.TTL = time.Minute }, in(0)},
		{"calendar", func(r *Record, g *Grant) { g.RegrantAt = "@daily" }, in(0)},
		{"until", func(r *Record, g *Grant) { g.Until = in(99) }, in(0)},
		{"new", func(r *Record, g *Grant) { r.Grant = nil }, in(0)},
		{"after a removal", func(r *Record, g *Grant) { r.End(in(-1)) }, in(0)},
		{"blocked", func(r *Record, g *Grant) { g.TTL, r.Block = time.Minute, &Block{} }, in(30)},
	}
	for _, tt := range tests {
		r, g := base.Clone(), *hourGrant()
		tt.change(r, &g)
		r.SetGrant(g, FromAdmin, recordNow)
		if !r.NextAttempt.Equal(tt.due) || r.Removed() || r.Source != FromAdmin || !reflect.DeepEqual(*r.Grant, g) {
			t.Errorf("%s: %+v", tt.about, r)
		}
	}
	r := base.Clone()
	r.End(recordNow)
	r.End(in(5))
	if !r.EndedAt.Equal(recordNow) || !r.NextAttempt.IsZero() || r.State(recordNow) != Ended || len(r.Events) != 1 {
		t.Errorf("ended: %+v", r)
	}
	for i := range 2 * maxEvents {
		r.Note(in(float64(i)), strings.Repeat("x", i))
	}
	if len(r.Events) != maxEvents || !r.Events[maxEvents-1].At.Equal(in(2*maxEvents-1)) {
		t.Errorf("%d events, the last of %v", len(r.Events), r.Events[len(r.Events)-1].At)
	}
}

func TestBlank(t *testing.T) {
	tests := []struct {
		about  string
		change func(*Record)
		want   bool
	}{
		{"empty", func(r *Record) {}, true},
		{"removed", func(r *Record) { r.Grant, r.EndedAt, r.Generation = hourGrant(), in(-9), 7 }, false},
		{"removed a day ago", func(r *Record) { r.Grant, r.EndedAt, r.Generation = hourGrant(), in(0).Add(-closedHistory), 7 }, true},
		{"grant", func(r *Record) { r.Grant = hourGrant() }, false},
		{"block", func(r *Record) { r.Block = &Block{} }, false},
		{"live token", func(r *Record) { r.Current = new(tokenUntil(1, in(1))) }, false},
		{"superseded token", func(r *Record) { r.Superseded = []Token{tokenUntil(1, in(1))} }, false},
		{"ended token", func(r *Record) { r.Current = new(tokenUntil(1, in(0))) }, true},
		{"open withdrawal", func(r *Record) { r.Withdrawn = []Withdrawal{{Phase: Refused}} }, false},
		{"closed withdrawal", func(r *Record) { r.Withdrawn = []Withdrawal{{Phase: Lapsed}} }, true},
		{"unaccounted", func(r *Record) { r.UnaccountedUntil = in(1) }, false},
		{"unaccounted before", func(r *Record) { r.UnaccountedUntil = in(0) }, true},
	}
	for _, tt := range tests {
		r := &Record{Name: "a"}
		tt.change(r)
		if got := r.Blank(recordNow); got != tt.want {
			t.Errorf("%s: blank is %v", tt.about, got)
		}
	}
}
