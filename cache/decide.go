package cache

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
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
// has returned nil. Decisions are applied one after another. One that makes no
// sense (a bad expression or name) is refused and changes nothing.
func (c *Cache) Decide(d Decision) (Outcome, error) {
	if err := d.check(); err != nil {
		return Outcome{}, err
	}
	c.decideMu.Lock()
	defer c.decideMu.Unlock()
	d.Time = c.now().UTC().Truncate(time.Millisecond)
	if err := c.enqueue(&d); err != nil {
		return Outcome{}, err
	}
	out, err := c.apply(d)
	c.journalMu.Lock()
	defer c.journalMu.Unlock()
	c.applied, c.appliedRules = d.Seq, c.ruleValues()
	return out, err
}

// enqueue numbers a decision and hands it over for its journal line, which has to
// be written before any record that the decision changes.
func (c *Cache) enqueue(d *Decision) error {
	c.journalMu.Lock()
	defer c.journalMu.Unlock()
	d.Seq = c.nextSeq
	if _, err := encodeLine(*d); err != nil {
		return err
	}
	c.nextSeq++
	c.unwritten = append(c.unwritten, *d)
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
		c.changeMeta(func(m *meta) { m.LostBlocks = m.LostBlocks && d.Seq <= m.LostSince })
		return out, nil
	case ActStanding:
		return out, c.applyStanding(d)
	}
	return out, nil
}

func (c *Cache) applyRevoke(d Decision, now time.Time) (Outcome, error) {
	out := Outcome{Decision: d}
	many := d.many()
	if many && !d.Regrant {
		rule := d.rule()
		out.Rule = &rule
		c.addRule(rule)
		c.wakeAll()
	}
	var hit RevokedName
	revoke := func(r *Record) {
		generations := r.Withdraw(now, now, d.Reason)
		r.Hasten(now, d.Reason)
		switch {
		case d.Regrant && r.Block == nil:
			r.NextAttempt, r.Attempts = now, 0
		case !d.Regrant:
			if !many {
				r.Block = &Block{d.Seq, d.Reason, d.Time}
			}
			r.Unplan(now)
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

func (c *Cache) applyPut(d Decision, now time.Time) error {
	g, err := d.grant()
	if err != nil {
		return err
	}
	return c.changeNames(d, d.Names, func(r *Record) { r.SetGrant(g, FromAdmin, now) })
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
	if d.LostBlocks {
		c.changeMeta(func(m *meta) { m.LostBlocks, m.LostSince = true, max(m.LostSince, d.Seq) })
	}
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
