package cache_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam"
)

// standing is what a list of decisions means, from plain values: the names and
// expressions that are blocked, and the tokens that must not be served any more.
type standing struct {
	names  map[string]bool
	rules  map[uint64]*regexp.Regexp
	tokens map[pam.Secret]bool
}

// issued is a token in the order of tokens and decisions.
type issued struct {
	name  string
	token pam.Secret
	after int // decisions before it
}

func standingAfter(ds []cache.Decision, tokens []issued) standing {
	s := standing{map[string]bool{}, map[uint64]*regexp.Regexp{}, map[pam.Secret]bool{}}
	for i, d := range ds {
		hits := func(name string) bool { return slices.Contains(d.Names, name) }
		switch {
		case d.Action == cache.ActRevoke && (d.Match != "" || d.All):
			re := regexp.MustCompile("^(?:" + d.Match + ")$")
			if d.All {
				re = regexp.MustCompile("")
			}
			hits = re.MatchString
			if !d.Regrant {
				s.rules[d.Seq] = re
			}
		case d.Action == cache.ActRevoke && !d.Regrant:
			for _, name := range d.Names {
				s.names[name] = true
			}
		case d.Action == cache.ActUnblock:
			for _, name := range d.Names {
				delete(s.names, name)
			}
		case d.Action == cache.ActRemoveRule:
			delete(s.rules, d.Rule)
		}
		for _, tok := range tokens {
			if withdraws := d.Action == cache.ActRevoke || (d.Action == cache.ActDelete && d.Revoke); withdraws && tok.after <= i && hits(tok.name) {
				s.tokens[tok.token] = true
			}
		}
	}
	return s
}

func (s standing) blocks(name string) bool {
	for _, re := range s.rules {
		if re.MatchString(name) {
			return true
		}
	}
	return s.names[name]
}

// moment is a copy of the files at one point of the history.
type moment struct {
	about string
	state *world
	acked int  // decisions acknowledged by then
	quiet bool // nothing was under way
}

// history makes decisions and grants and copies the files around every commit.
type history struct {
	*world
	decided []cache.Decision
	acked   int
	tokens  []issued
	moments []moment
}

var crashNames = []string{"a", "b", "c/d", "user-1", "user-2", "later"}

func (h *history) copy(about string, quiet bool) {
	h.moments = append(h.moments, moment{fmt.Sprintf("%d %s", len(h.moments), about), h.copyState(), h.acked, quiet})
}

func (h *history) grant(name string, generation uint64) {
	h.put(name, generation)
	h.tokens = append(h.tokens, issued{name, h.token(name, generation).Raw, len(h.decided)})
}

func (h *history) order(d cache.Decision) uint64 {
	h.t.Helper()
	about := fmt.Sprintf("%s %v%s", d.Action, d.Names, d.Match)
	h.store.hook(func(names []string) error { h.copy(about+", before "+strings.Join(names, " "), false); return nil },
		func(names []string) { h.copy(about+", after "+strings.Join(names, " "), false) })
	out, err := h.cache.Decide(d)
	mustDo(h.t, err)
	h.decided = append(h.decided, out.Decision)
	h.copy(about+", decided", false)
	mustDo(h.t, h.cache.Flush())
	h.store.hook(nil, nil)
	h.acked++
	h.copy(about+", acknowledged", true)
	return out.Decision.Seq
}

// live makes the history.
func (h *history) live() {
	for _, name := range crashNames[:5] {
		h.grant(name, 1)
	}
	revoke := func(d cache.Decision) cache.Decision { d.Action, d.Reason = cache.ActRevoke, "stolen"; return d }
	h.order(revoke(cache.Decision{Names: []string{"a", "b"}}))
	h.order(cache.Decision{Action: cache.ActUnblock, Names: []string{"b"}})
	h.grant("b", 2)
	rule := h.order(revoke(cache.Decision{Match: "user-.*"}))
	h.order(revoke(cache.Decision{Match: ".*", Regrant: true}))
	h.grant("b", 3)
	h.grant("c/d", 2)
	encoded, err := cache.EncodeGrant(grantOf("later"))
	mustDo(h.t, err)
	h.order(cache.Decision{Action: cache.ActPut, Names: []string{"later"}, Grant: encoded})
	h.grant("later", 1)
	h.order(cache.Decision{Action: cache.ActRemoveRule, Rule: rule})
	h.grant("user-1", 2)
	h.order(cache.Decision{Action: cache.ActRefresh, Names: []string{"user-1"}})
	h.order(cache.Decision{Action: cache.ActDelete, Names: []string{"later"}, Revoke: true, Reason: "gone"})
	h.order(revoke(cache.Decision{Names: []string{"user-2"}}))
	for range 3 {
		h.order(cache.Decision{Action: cache.ActReload, Detail: "nothing"})
	}
}

// check opens a state and compares it with what its journal says; at least the
// acknowledged decisions have to be in it.
func (h *history) check(about string, w *world, acked int) {
	h.t.Helper()
	w.open()
	defer w.crash()
	ds, err := w.cache.Journal(0, 1000)
	mustDo(h.t, err)
	ds = slices.DeleteFunc(ds, func(d cache.Decision) bool { return d.Action == cache.ActStanding })
	if len(ds) < acked {
		h.t.Errorf("%s: %d decisions, %d were acknowledged", about, len(ds), acked)
	}
	h.compare(about, w, len(ds))
	if w.cache.LostBlocks() || w.cache.Unsaved() != 0 {
		h.t.Errorf("%s: lost blocks %v, %d unsaved", about, w.cache.LostBlocks(), w.cache.Unsaved())
	}
	mustDo(h.t, w.bolt.CheckIndex())
}

// compare fails unless the names are blocked as the first n decisions say, and no
// token is served that they have withdrawn.
func (h *history) compare(about string, w *world, n int) {
	h.t.Helper()
	want := standingAfter(h.decided[:n], h.tokens)
	for _, name := range crashNames {
		state, token := w.state(name)
		blocked := state == cache.Blocked || (state == "unknown" && w.cache.RuleFor(name) != nil)
		if blocked != want.blocks(name) {
			h.t.Errorf("%s, %d decisions: %s is %s, blocked should be %v", about, n, name, state, want.blocks(name))
		}
		if want.tokens[token] {
			h.t.Errorf("%s, %d decisions: %s is served %s, which was withdrawn", about, n, name, token.Reveal())
		}
	}
}

// The process is killed at any moment; the database is an older backup; it is
// lost; the journal has half a line more; and all of it twice. No acknowledged
// decision is undone, and nothing else is decided.
func TestCrashAnywhere(t *testing.T) {
	inWorld(t, func(w *world) {
		h := &history{world: w}
		h.live()
		if len(h.moments) < 40 {
			t.Errorf("only %d moments", len(h.moments))
		}
		var old []moment
		for _, m := range h.moments {
			h.check(m.about, m.state.copyState(), m.acked)

			torn := m.state.copyState()
			file, err := os.OpenFile(torn.path("audit.log"), os.O_APPEND|os.O_WRONLY, 0)
			mustDo(t, err)
			_, err = file.WriteString(`{"seq":99,"action":"unblock","names":["a"`)
			mustDo(t, err)
			mustDo(t, file.Close())
			h.check(m.about+", torn line", torn, m.acked)

			lost := m.state.copyState("audit.log")
			h.check(m.about+", database lost", lost, m.acked)
			if !lost.logged("journal without a database") {
				t.Errorf("%s: a lost database is not told", m.about)
			}
			h.check(m.about+", opened again", lost, m.acked)

			for _, o := range old {
				mixed := m.state.copyState("audit.log")
				data, err := os.ReadFile(o.state.path("tokens.db"))
				mustDo(t, err)
				mustDo(t, os.WriteFile(mixed.path("tokens.db"), data, 0o600))
				h.check(m.about+", database of "+o.about, mixed, m.acked)
			}
			if m.quiet && len(h.decided) > 0 && m.acked%3 == 1 {
				old = append(old, m)
			}
		}
	})
}

// The journal is lost, or the end of it: a new one begins with what stands, so
// that the database may be lost next.
func TestJournalLost(t *testing.T) {
	inWorld(t, func(w *world) {
		h := &history{world: w}
		h.live()
		for _, m := range h.moments {
			if !m.quiet {
				continue
			}
			for _, keep := range []int{0, 1, 2} { // lines
				about := fmt.Sprintf("%s, %d lines of the journal kept", m.about, keep)
				cut := m.state.copyState()
				data, err := os.ReadFile(cut.path("audit.log"))
				mustDo(t, err)
				lines := strings.SplitAfter(string(data), "\n")
				if keep >= len(lines)-1 {
					continue // that is all of it
				}
				if mustDo(t, os.Remove(cut.path("audit.log"))); keep > 0 {
					mustDo(t, os.WriteFile(cut.path("audit.log"), []byte(strings.Join(lines[:keep], "")), 0o600))
				}
				cut.open()
				h.compare(about, cut, m.acked)
				seq := cut.block("another").Decision.Seq
				for _, d := range h.decided[:m.acked] {
					if d.Seq >= seq {
						t.Errorf("%s: the number %d is used again", about, seq)
					}
				}
				h.compare(about+", and used", cut, m.acked)
				cut.crash()
				next := cut.copyState("audit.log")
				next.open()
				for _, name := range append(slices.Clone(crashNames), "another") {
					state, _ := next.state(name)
					want := standingAfter(h.decided[:m.acked], nil).blocks(name) || name == "another"
					if want && state != cache.Blocked && next.cache.RuleFor(name) == nil {
						t.Errorf("%s, then the database: %s is %s", about, name, state)
					}
				}
				next.crash()
			}
		}
	})
}

// The journal is lost after a crash that came before a decision was noted as
// applied. Its number is in a record: the next decision must not have it too.
func TestJournalLostAfterCrash(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 1)
		w.store.hook(func(names []string) error {
			if slices.Contains(names, "\x00meta") {
				return errDisk
			}
			return nil
		}, nil)
		for range 3 {
			_, err := w.cache.Decide(cache.Decision{Action: cache.ActRefresh, Names: []string{"a"}})
			mustDo(t, err)
			if w.cache.Flush() == nil {
				t.Fatal("the number of the decision was stored")
			}
		}
		w.crash()
		mustDo(t, os.Remove(w.path("audit.log")))
		w.open()
		w.block("a")
		w.wantState("a", cache.Blocked)
	})
}

// Replaying an old order to rotate tokens leaves those alone that were granted
// after it, also when the crash came before the order was noted as applied.
func TestReplayIsIdempotent(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 1)
		w.store.hook(func(names []string) error {
			if slices.Contains(names, "\x00meta") {
				return errDisk
			}
			return nil
		}, nil)
		_, err := w.cache.Decide(cache.Decision{Action: cache.ActRevoke, Names: []string{"a"}, Regrant: true, Reason: "rotate"})
		mustDo(t, err)
		if w.cache.Flush() == nil {
			t.Fatal("the number of the decision was stored")
		}
		r := w.record("a")
		r.Current, r.Generation = new(w.token("a", 2)), 2
		mustDo(t, w.cache.Commit(context.Background(), r)[0])
		for range 3 {
			w.reopen()
			if _, token := w.state("a"); token != w.token("a", 2).Raw {
				t.Errorf("served: %q", token.Reveal())
			}
			if n := w.record("a").OpenWithdrawals(); n != 1 {
				t.Errorf("%d tokens to withdraw, want 1", n)
			}
		}
	})
}
