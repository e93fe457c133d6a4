package cache

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/pamsidecar/pamsidecar/pam"
)

// ErrBlocked: the name is blocked, so it cannot be refreshed.
var ErrBlocked = errors.New("blocked")

// ErrEnded: the name's grant was removed or is past its until.
var ErrEnded = errors.New("ended")

// UnknownNamesError lists the names of an order under which nothing is kept. It
// is an ErrUnknown.
type UnknownNamesError struct{ Names []string }

func (e *UnknownNamesError) Error() string {
	return fmt.Sprintf("unknown names: %s", strings.Join(quoteAll(e.Names), ", "))
}

// Is makes the error an ErrUnknown.
func (e *UnknownNamesError) Is(target error) bool { return target == ErrUnknown }

// RuleBlockedError says that a name is blocked by a rule, which has to be removed
// to lift the block.
type RuleBlockedError struct {
	Name string
	Rule Rule
}

func (e *RuleBlockedError) Error() string {
	return fmt.Sprintf("%q is blocked by rule %d, which matches %q: remove the rule", e.Name, e.Rule.ID, e.Rule.Match)
}

func quoteAll(names []string) []string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = fmt.Sprintf("%q", n)
	}
	return quoted
}

// Outcome is what a decision did in memory.
type Outcome struct {
	Decision Decision      // with its number and time
	Count    int           // names it applied to
	Names    []RevokedName // at most MaxListed of them
	Rule     *Rule         // the block rule it left, nil if none
}

// Decide makes a decision hold in this process: when it returns, no reader gets
// what the decision forbids. It is durable once a Flush that began afterwards
// has returned nil. Decisions are applied one after another.
func (c *Cache) Decide(d Decision) (Outcome, error) {
	c.decideMu.Lock()
	defer c.decideMu.Unlock()
	c.journalMu.Lock()
	d.Seq = c.nextSeq
	c.nextSeq++
	c.journalMu.Unlock()
	d.Time = c.now().UTC().Truncate(time.Millisecond)
	out, err := c.apply(d)
	c.journalMu.Lock()
	defer c.journalMu.Unlock()
	c.unwritten = append(c.unwritten, d)
	c.applied = d.Seq
	return out, err
}

// replay applies decisions that are in the journal and not in the store.
func (c *Cache) replay(ds []Decision) error {
	slices.SortStableFunc(ds, func(a, b Decision) int { return int(int64(a.Seq) - int64(b.Seq)) })
	for _, d := range ds {
		if _, err := c.apply(d); err != nil {
			return fmt.Errorf("replay journal line %d: %w", d.Seq, err)
		}
		c.applied = d.Seq
	}
	if len(ds) == 0 {
		return nil
	}
	c.log.Info("journal replayed", "decisions", len(ds), "last", c.applied)
	if err := c.Flush(); err != nil {
		c.log.Error("replayed decisions hold in memory only", "error", err)
	}
	return nil
}

// apply changes memory as the decision says. It is idempotent: a record that a
// later decision has reached is left alone.
func (c *Cache) apply(d Decision) (Outcome, error) {
	out := Outcome{Decision: d}
	now := c.now()
	switch d.Action {
	case ActRevoke:
		return c.applyRevoke(d, now)
	case ActUnblock:
		return out, c.changeNames(d, d.Names, func(r *Record) {
			r.Block, r.NextAttempt, r.Attempts = nil, now, 0
			r.Note(now, "unblocked")
		})
	case ActRefresh:
		return out, c.changeNames(d, d.Names, func(r *Record) {
			r.NextAttempt, r.Attempts = now, 0
			r.Note(now, "refresh asked for")
		})
	case ActPut:
		return out, c.applyPut(d, now)
	case ActDelete:
		return c.applyDelete(d, now)
	case ActRemoveRule:
		return out, c.applyRemoveRule(d, now)
	case ActAcceptLost:
		return out, c.updateMeta(func(m *meta) { m.LostBlocks = false })
	case ActStanding:
		return out, c.applyStanding(d)
	}
	return out, nil
}

func (c *Cache) applyRevoke(d Decision, now time.Time) (Outcome, error) {
	out := Outcome{Decision: d}
	many := d.Match != "" || d.All
	if many && !d.Regrant {
		out.Rule = &Rule{ID: d.Seq, Match: d.matchExpr(), Reason: d.Reason, Since: d.Time}
		c.addRule(*out.Rule)
		c.wakeAll()
	}
	var hit RevokedName
	revoke := func(r *Record) {
		generations := r.Withdraw(now, now, d.Reason)
		r.Hasten(now, d.Reason)
		switch {
		case d.Regrant && r.Block == nil:
			r.NextAttempt, r.Attempts = now, 0
		case !many && !d.Regrant:
			r.Block, r.NextAttempt, r.Attempts = &Block{d.Seq, d.Reason, d.Time}, time.Time{}, 0
		}
		r.Note(now, "revoked: "+d.Reason)
		hit = RevokedName{
			Name: r.Name, Generations: generations, Blocked: out.Rule != nil || r.Block != nil,
			Open: r.OpenWithdrawals(), UnaccountedUntil: r.UnaccountedUntil,
		}
	}
	count := func() { out.add(hit) }
	if !many {
		err := c.changeNames(d, d.Names, revoke, count)
		return out, err
	}
	re, err := CompileMatch(d.matchExpr())
	if err != nil {
		return out, err
	}
	err = c.changeMatching(d, re, revoke, count)
	return out, err
}

func (o *Outcome) add(n RevokedName) {
	o.Count++
	if len(o.Names) < MaxListed {
		o.Names = append(o.Names, n)
	}
}

func (d Decision) matchExpr() string {
	if d.All {
		return "(?s).*"
	}
	return d.Match
}

func (c *Cache) applyPut(d Decision, now time.Time) error {
	var g storedGrant
	if err := cbor.Unmarshal(d.Grant, &g); err != nil {
		return fmt.Errorf("read the grant: %w", err)
	}
	return c.changeNames(d, d.Names, func(r *Record) {
		r.SetGrant(g.grant(), FromAdmin, now)
	})
}

func (c *Cache) applyDelete(d Decision, now time.Time) (Outcome, error) {
	out := Outcome{Decision: d}
	var hit RevokedName
	err := c.changeNames(d, d.Names, func(r *Record) {
		r.End(now)
		var generations []uint64
		if d.Revoke {
			generations = r.Withdraw(now, now, d.Reason)
			r.Hasten(now, d.Reason)
		}
		hit = RevokedName{Name: r.Name, Generations: generations, Blocked: r.Block != nil, Open: r.OpenWithdrawals(), UnaccountedUntil: r.UnaccountedUntil}
	}, func() { out.add(hit) })
	return out, err
}

func (c *Cache) applyRemoveRule(d Decision, now time.Time) error {
	var re *regexp.Regexp
	for _, r := range *c.rules.Load() {
		if r.ID == d.Rule {
			re = r.re
		}
	}
	c.removeRule(d.Rule)
	if re == nil {
		return nil
	}
	return c.changeMatching(d, re, func(r *Record) {
		if r.Block == nil && !r.Removed() {
			r.NextAttempt, r.Attempts = now, 0
		}
		r.Note(now, fmt.Sprintf("block rule %d removed", d.Rule))
	})
}

func (c *Cache) applyStanding(d Decision) error {
	for _, rule := range d.Rules {
		c.addRule(rule)
	}
	for _, b := range d.Blocks {
		err := c.changeNames(d, []string{b.Name}, func(r *Record) {
			r.Withdraw(c.now(), c.now(), b.Block.Reason)
			r.Block, r.NextAttempt = &b.Block, time.Time{}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// changeNames stages a change of the named records; a name without a record gets
// one, for a block outlives everything else. change may run more than once for a
// record; done runs once after each that was staged.
func (c *Cache) changeNames(d Decision, names []string, change func(*Record), done ...func()) error {
	for _, name := range names {
		if err := c.change(d.Seq, name, change, done...); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cache) changeMatching(d Decision, re *regexp.Regexp, change func(*Record), done ...func()) error {
	return c.each(func(r *Record) error {
		if !re.MatchString(r.Name) {
			return nil
		}
		return c.change(d.Seq, r.Name, change, done...)
	})
}

// change stages a change of one record, anew if the refresher commits meanwhile.
func (c *Cache) change(seq uint64, name string, change func(*Record), done ...func()) error {
	for {
		r, err := c.Record(name)
		if errors.Is(err, ErrUnknown) {
			r, err = NewRecord(name), nil
		}
		if err != nil {
			return err
		}
		if r.Decision >= seq {
			return nil
		}
		r.Decision = seq
		change(r)
		if err := c.Stage(r); errors.Is(err, ErrConflict) {
			continue
		}
		for _, fn := range done {
			fn()
		}
		return nil
	}
}

// Update changes one record of the refresher's own accord and commits it, anew
// if the name moves on meanwhile. A name without a record gets an empty one.
// change reports whether there is anything to write. An error that wraps
// ErrDegraded means that the change holds in memory.
func (c *Cache) Update(name string, change func(*Record) bool) error {
	for {
		r, err := c.Record(name)
		if errors.Is(err, ErrUnknown) {
			r, err = NewRecord(name), nil
		}
		if err != nil {
			return err
		}
		if !change(r) {
			return nil
		}
		if err := c.commits.commit([]*Record{r})[0]; !errors.Is(err, ErrConflict) {
			return err
		}
	}
}

// NewRecord returns the empty record of a name that has none yet.
func NewRecord(name string) *Record { return &Record{Name: name} }

// Select resolves whom a revoke is for to names, except for Match and All, which
// stay as they are and give the names they hit now. Unknown names are an
// *UnknownNamesError and nothing else is selected.
func (c *Cache) Select(s Selector) ([]string, error) {
	switch {
	case s.Match != "" || s.All:
		d := Decision{Match: s.Match, All: s.All}
		re, err := CompileMatch(d.matchExpr())
		if err != nil {
			return nil, err
		}
		return c.namesWhere(func(r *Record) bool { return re.MatchString(r.Name) })
	case len(s.UUIDs) > 0:
		return c.selectUUIDs(s.UUIDs)
	case s.Token != "":
		names, err := c.namesWhere(func(r *Record) bool { return r.Holds(s.Token) })
		if err == nil && len(names) == 0 {
			err = fmt.Errorf("token #%s: no name holds it: %w", s.Token.ID(), ErrUnknown)
		}
		return names, err
	}
	var unknown []string
	for _, name := range s.Names {
		if _, err := c.Record(name); errors.Is(err, ErrUnknown) {
			unknown = append(unknown, name)
		} else if err != nil {
			return nil, err
		}
	}
	if len(unknown) > 0 {
		return nil, &UnknownNamesError{unknown}
	}
	return s.Names, nil
}

func (c *Cache) selectUUIDs(uuids []string) ([]string, error) {
	seen := map[string]bool{}
	names, err := c.namesWhere(func(r *Record) bool {
		hit := r.Grant != nil && slices.Contains(uuids, r.Grant.UUID)
		if hit {
			seen[r.Grant.UUID] = true
		}
		return hit
	})
	unknown := slices.DeleteFunc(slices.Clone(uuids), func(u string) bool { return seen[u] })
	if err == nil && len(unknown) > 0 {
		err = &UnknownNamesError{unknown}
	}
	return names, err
}

func (c *Cache) namesWhere(match func(*Record) bool) ([]string, error) {
	var names []string
	err := c.each(func(r *Record) error {
		if match(r) {
			names = append(names, r.Name)
		}
		return nil
	})
	return names, err
}

// Holds reports whether the record knows the token, in whatever role. Padding
// makes no difference.
func (r *Record) Holds(s pam.Secret) bool {
	bare := func(s pam.Secret) string { return strings.TrimRight(s.Reveal(), "=") }
	is := func(t Token) bool { return t.Raw != "" && bare(t.Raw) == bare(s) }
	return (r.Current != nil && is(*r.Current)) || slices.ContainsFunc(r.Superseded, is) ||
		slices.ContainsFunc(r.Withdrawn, func(w Withdrawal) bool { return is(w.Token) })
}

// EncodeGrant is the form of a grant in a put decision.
func EncodeGrant(g Grant) ([]byte, error) { return recordEncoding.Marshal(storeGrant(g)) }

// Rule returns the rule with that number, ErrUnknown if there is none.
func (c *Cache) Rule(id uint64) (Rule, error) {
	for _, r := range c.ruleValues() {
		if r.ID == id {
			return r, nil
		}
	}
	return Rule{}, fmt.Errorf("block rule %d: %w", id, ErrUnknown)
}

// Journal returns up to limit decisions with a number above after, oldest first.
func (c *Cache) Journal(after uint64, limit int) ([]Decision, error) {
	return c.journal.read(after, limit)
}

// blockFromJournal is what the journal says of a name's own block.
func (c *Cache) blockFromJournal(name string) (*Block, error) {
	ds, err := c.journal.read(0, 1<<30)
	if err != nil {
		return nil, err
	}
	var block *Block
	for _, d := range ds {
		switch {
		case d.Action == ActStanding:
			block = nil
			for _, b := range d.Blocks {
				if b.Name == name {
					block = &b.Block
				}
			}
		case !slices.Contains(d.Names, name):
		case d.Action == ActRevoke && !d.Regrant:
			block = &Block{d.Seq, d.Reason, d.Time}
		case d.Action == ActUnblock:
			block = nil
		}
	}
	return block, nil
}

// beginJournal writes the first line of a new journal: the blocks and block
// rules that stand.
func (c *Cache) beginJournal(path string) error {
	d := Decision{Action: ActStanding, Rules: c.ruleValues(), By: Actor{Via: "start"}}
	err := c.each(func(r *Record) error {
		if r.Block != nil {
			d.Blocks = append(d.Blocks, StandingBlock{r.Name, *r.Block})
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.Seq, d.Time = c.nextSeq, c.now().UTC().Truncate(time.Millisecond)
	c.nextSeq++
	if err := c.journal.append([]Decision{d}); err != nil {
		return err
	}
	c.applied = d.Seq
	return errors.Join(syncBoltDir(filepath.Dir(path)), c.Flush())
}
