package cache_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam"
)

func generations(out cache.Outcome) string {
	var list []string
	for _, n := range out.Names {
		list = append(list, fmt.Sprintf("%s%v", n.Name, n.Generations))
	}
	return strings.Join(list, " ")
}

func TestRevokeNames(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 3)
		w.put("b", 1)
		r := w.record("a")
		r.Superseded = []cache.Token{w.token("a", 1), w.token("a", 2)}
		r.UnaccountedUntil = w.now.Add(time.Minute)
		r.WithdrawToken(w.token("a", 0), w.now, w.now.Add(time.Minute), "handed over")
		mustDo(t, w.cache.Commit(t.Context(), r)[0])
		out := w.block("a", "nobody", "a")
		if out.Count != 2 || generations(out) != "a[3 2 1] nobody[]" || out.Rule != nil {
			t.Errorf("outcome %+v", out)
		}
		if hit := out.Names[0]; !hit.Blocked || hit.Open != 4 || !hit.UnaccountedUntil.Equal(w.now.Add(time.Minute)) {
			t.Errorf("a: %+v", hit)
		}
		for range 2 {
			w.wantState("a", cache.Blocked)
			w.wantState("b", cache.Fresh)
			w.wantState("nobody", cache.Blocked)
			r := w.record("a")
			if r.OpenWithdrawals() != 4 || !r.Withdrawn[0].Next.Equal(w.now) || r.Current != nil || !r.NextAttempt.IsZero() || r.Block.Decision != out.Decision.Seq || !r.Due().Equal(w.now) {
				t.Errorf("a: %+v", r)
			}
			v, err := w.cache.View("a")
			if err != nil || v.Reason() != "stolen" {
				t.Errorf("reason %q, %v", v.Reason(), err)
			}
			w.reopen()
		}
		blocks, err := w.cache.Blocks()
		if err != nil || len(blocks) != 2 || blocks[0].Name != "a" || blocks[0].ID != out.Decision.Seq || blocks[0].Reason != "stolen" || blocks[0].Since.IsZero() {
			t.Errorf("blocks %+v, %v", blocks, err)
		}
		w.decide(cache.Decision{Action: cache.ActUnblock, Names: []string{"a", "nobody"}})
		for range 2 {
			w.wantState("a", cache.Expired)
			w.wantState("nobody", "unknown")
			w.wantDue(10, "a", noon.Add(10*time.Minute-cache.EndMargin)) // then b
			w.reopen()
		}
	})
}

func TestRevokeRegrant(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 1)
		w.put("blocked", 1)
		w.put("b", 1)
		w.block("blocked")
		out := w.decide(cache.Decision{Action: cache.ActRevoke, Names: []string{"a", "blocked"}, Regrant: true, Reason: "rotate"})
		if generations(out) != "a[1] blocked[]" || out.Names[0].Blocked || !out.Names[1].Blocked {
			t.Errorf("outcome %+v", out)
		}
		out = w.decide(cache.Decision{Action: cache.ActRevoke, Match: "b.*", Regrant: true, Reason: "rotate"})
		if generations(out) != "b[1] blocked[]" || out.Rule != nil {
			t.Errorf("outcome %+v", out)
		}
		for range 2 {
			w.wantState("a", cache.Expired)
			w.wantState("b", cache.Expired)
			w.wantState("blocked", cache.Blocked)
			if a := w.record("a"); !a.NextAttempt.Equal(w.now) || a.OpenWithdrawals() != 1 {
				t.Errorf("a: %+v", a)
			}
			w.reopen()
		}
	})
}

// A block rule holds for every name that matches as a whole, also for those that
// appear later, until it is removed.
func TestRevokeRules(t *testing.T) {
	tests := []struct {
		about   string
		order   cache.Decision
		blocked []string
		free    []string
	}{
		{"match", cache.Decision{Match: "user-[0-9]+"}, []string{"user-1", "user-22"}, []string{"user-", "xuser-1", "user-1x", "admin"}},
		{"alternatives", cache.Decision{Match: "a|b"}, []string{"a", "b"}, []string{"ab", "xa", "bx"}},
		{"all", cache.Decision{All: true}, []string{"a", "ü/\U0010ffff", "line break"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			inWorld(t, func(w *world) {
				all := slices.Concat(tt.blocked, tt.free)
				for _, name := range all {
					w.put(name, 1)
				}
				tt.order.Action, tt.order.Reason = cache.ActRevoke, "stolen"
				out := w.decide(tt.order)
				if out.Count != len(tt.blocked) || out.Rule == nil || out.Rule.ID != out.Decision.Seq {
					t.Errorf("outcome %+v", out)
				}
				check := func(suffix string) {
					t.Helper()
					for range 2 {
						for _, name := range tt.blocked {
							w.wantState(name, cache.Blocked)
							if rule := w.cache.RuleFor(name); rule == nil || rule.ID != out.Rule.ID {
								t.Errorf("%s: rule for %q is %v", suffix, name, rule)
							}
						}
						for _, name := range tt.free {
							w.wantState(name, cache.Fresh)
						}
						w.reopen()
					}
				}
				check("at once")
				for _, name := range all { // gone, and there again
					r := w.record(name)
					r.Grant, r.Current, r.Withdrawn = nil, nil, nil
					mustDo(t, w.cache.Commit(t.Context(), r)[0])
					w.put(name, 1)
				}
				check("names that appear later")
				if rule, err := w.cache.Rule(out.Rule.ID); err != nil || rule.Reason != "stolen" || !rule.Since.Equal(out.Decision.Time) {
					t.Errorf("rule %+v, %v", rule, err)
				}
				w.decide(cache.Decision{Action: cache.ActRemoveRule, Rule: out.Rule.ID})
				for range 2 {
					for _, name := range all {
						w.wantState(name, cache.Fresh)
						if due := w.record(name).NextAttempt; slices.Contains(tt.blocked, name) != due.Equal(w.now) {
							t.Errorf("%q is due at %v", name, due)
						}
					}
					w.reopen()
				}
				if _, err := w.cache.Rule(out.Rule.ID); !errors.Is(err, cache.ErrUnknown) {
					t.Errorf("the rule is still there: %v", err)
				}
			})
		})
	}
}

func TestPutAndDelete(t *testing.T) {
	inWorld(t, func(w *world) {
		g := grantOf("a")
		g.Note, g.Meta, g.Until = "n", map[string]any{"n": 7}, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
		encoded, err := cache.EncodeGrant(g)
		mustDo(t, err)
		put := cache.Decision{Action: cache.ActPut, Names: []string{"a"}, Grant: encoded}
		w.decide(put)
		for range 2 {
			w.wantState("a", cache.Pending)
			if r := w.record("a"); r.Grant.Fingerprint() != g.Fingerprint() || r.Source != cache.FromAdmin || !r.NextAttempt.Equal(w.now) {
				t.Errorf("put: %+v", r)
			}
			w.reopen()
		}
		w.put("a", 1)
		out := w.decide(cache.Decision{Action: cache.ActDelete, Names: []string{"a"}})
		w.wantState("a", cache.Ended)
		if r := w.record("a"); out.Count != 1 || r.Current == nil || r.OpenWithdrawals() != 0 {
			t.Errorf("delete: %+v, %+v", out, r)
		}
		w.decide(put)
		w.wantState("a", cache.Fresh) // its token was never withdrawn
		out = w.decide(cache.Decision{Action: cache.ActDelete, Names: []string{"a"}, Revoke: true, Reason: "gone"})
		if generations(out) != "a[1]" || out.Names[0].Open != 1 || out.Names[0].Blocked {
			t.Errorf("delete and revoke: %+v", out)
		}
		for range 2 {
			w.wantState("a", cache.Ended)
			w.reopen()
		}
	})
}

// A decision that makes no sense changes nothing, and leaves no line that every
// later start would stumble over.
func TestDecideRefuses(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 1)
		bad := []cache.Decision{
			{Action: cache.ActRevoke, Match: "("},
			{Action: cache.ActRevoke, Match: "(", Regrant: true},
			{Action: cache.ActRevoke, Names: []string{"a", "\x00meta"}},
			{Action: cache.ActPut, Names: []string{"a"}, Grant: []byte("x")},
			{Action: cache.ActPut, Names: []string{"a"}},
			{Action: cache.ActRevoke, Names: []string{"a"}, Reason: strings.Repeat("x", 64<<20)},
		}
		for i, d := range bad {
			if _, err := w.cache.Decide(d); err == nil {
				t.Errorf("decision %d was taken", i)
			}
		}
		if n := w.cache.Unsaved(); n != 0 {
			t.Errorf("%d unsaved", n)
		}
		w.wantState("a", cache.Fresh)
		w.block("a")
		w.reopen()
		w.wantState("a", cache.Blocked)
		ds, err := w.cache.Journal(0, 100)
		if err != nil || len(ds) != 2 || ds[1].Seq != ds[0].Seq+1 || ds[0].Action != cache.ActStanding {
			t.Errorf("journal: %+v, %v", ds, err)
		}
	})
}

func TestSelect(t *testing.T) {
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0) }
	inWorld(t, func(w *world) {
		for _, name := range []string{"web", "admin", "other"} {
			w.put(name, 1)
		}
		// A token vector: of test-authorized-uuid, granted at 1627968380 for an hour.
		const raw = "qEF2AkF0GmEI03xDdHRsGDxDcmVzpURjaGFuoWljaGFubmVsLTEY70NncnChb2NoYW5uZWxfZ3JvdXAtMQVDdXNyoENzcGOgRHV1aWShZnV1aWQtMRhoQ3BhdKVEY2hhbqFtXmNoYW5uZWwtXFMqJBjvQ2dycKF0XjpjaGFubmVsX2dyb3VwLVxTKiQFQ3VzcqBDc3BjoER1dWlkoWpedXVpZC1cUyokGGhEbWV0YaBEdXVpZHR0ZXN0LWF1dGhvcml6ZWQtdXVpZENzaWdYIPpU-vCe9rkpYs87YUrFNWkyNq8CVvmKwEjVinnDrJJc"
		r := w.record("other")
		r.Current = &cache.Token{Generation: 1, Raw: raw, Issued: at(1627968380), TTL: time.Hour}
		r.Superseded = []cache.Token{w.token("other", 0)}
		r.WithdrawToken(w.token("other", 9), w.now, w.now, "x")
		mustDo(t, w.cache.Commit(context.Background(), r)[0])
		w.block("barred")
		tests := []struct {
			about   string
			s       cache.Selector
			want    string
			unknown string
		}{
			{"names", cache.Selector{Names: []string{"web", "admin"}}, "web admin", ""},
			{"blocked name", cache.Selector{Names: []string{"barred"}}, "barred", ""},
			{"unknown names", cache.Selector{Names: []string{"web", "x", "\x00meta"}}, "", `unknown names: "x", "\x00meta"`},
			{"uuid of a grant", cache.Selector{UUIDs: []string{"uuid-web", "uuid-admin"}}, "admin web", ""},
			{"uuid of a token only", cache.Selector{UUIDs: []string{"test-authorized-uuid"}}, "other", ""},
			{"unknown uuid", cache.Selector{UUIDs: []string{"uuid-web", "y"}}, "", `unknown names: "y"`},
			{"no uuid", cache.Selector{UUIDs: []string{""}}, "", `unknown names: ""`},
			{"match", cache.Selector{Match: ".*b"}, "web", ""},
			{"match nothing", cache.Selector{Match: "z"}, "", ""},
			{"all", cache.Selector{All: true}, "admin barred other web", ""},
			{"current token", cache.Selector{Token: w.token("web", 1).Raw}, "web", ""},
			{"padded", cache.Selector{Token: raw + "=="}, "other", ""},
			{"superseded token", cache.Selector{Token: w.token("other", 0).Raw}, "other", ""},
			{"withdrawn token", cache.Selector{Token: w.token("other", 9).Raw}, "other", ""},
			{"unknown token", cache.Selector{Token: "secret"}, "", "token #" + pam.Secret("secret").ID() + ": no name holds it: unknown name"},
			{"padding only", cache.Selector{Token: "="}, "", "token #" + pam.Secret("=").ID() + ": no name holds it: unknown name"},
		}
		for _, tt := range tests {
			got, err := w.cache.Select(tt.s)
			if tt.unknown != "" {
				if !errors.Is(err, cache.ErrUnknown) || err.Error() != tt.unknown {
					t.Errorf("%s: %v, want %s", tt.about, err, tt.unknown)
				}
				continue
			}
			if err != nil || strings.Join(got, " ") != tt.want {
				t.Errorf("%s: %q, %v; want %q", tt.about, got, err, tt.want)
			}
		}
		if _, err := w.cache.Select(cache.Selector{Match: "("}); err == nil || errors.Is(err, cache.ErrUnknown) {
			t.Errorf("a bad expression: %v", err)
		}
	})
}

// Many names: all are hit, the first of them are listed.
func TestRevokeMany(t *testing.T) {
	inWorld(t, func(w *world) {
		var recs []*cache.Record
		for i := range cache.MaxListed + 5 {
			r := cache.NewRecord(fmt.Sprintf("n%05d", i))
			g := grantOf(r.Name)
			r.Grant, r.Generation, r.Current = &g, 1, new(w.token(r.Name, 1))
			recs = append(recs, r)
		}
		for _, err := range w.cache.Commit(t.Context(), recs...) {
			mustDo(t, err)
		}
		out := w.decide(cache.Decision{Action: cache.ActRevoke, All: true, Reason: "x"})
		if out.Count != len(recs) || len(out.Names) != cache.MaxListed {
			t.Errorf("%d names, %d listed", out.Count, len(out.Names))
		}
		w.reopen()
		open := 0
		for _, r := range recs {
			open += w.record(r.Name).OpenWithdrawals()
		}
		if open != len(recs) {
			t.Errorf("%d revokes, want %d", open, len(recs))
		}
	})
}
