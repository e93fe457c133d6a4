package cache

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
)

// CompileMatch compiles an expression that is to match names as a whole. The
// empty expression is an error.
func CompileMatch(expr string) (*regexp.Regexp, error) {
	if expr == "" {
		return nil, errors.New("match is empty")
	}
	if _, err := regexp.Compile(expr); err != nil {
		return nil, fmt.Errorf("match: %w", err)
	}
	return regexp.Compile(`\A(?:` + expr + `)\z`)
}

// RuleFor returns the first block rule that matches the name, nil if none does.
func (c *Cache) RuleFor(name string) *Rule {
	rules := c.rules.Load()
	if rules == nil {
		return nil
	}
	for _, r := range *rules {
		if r.re.MatchString(name) {
			return r
		}
	}
	return nil
}

// setRules replaces the rules in memory.
func (c *Cache) setRules(rules []Rule) {
	var compiled []*Rule
	for _, r := range rules {
		re, err := CompileMatch(r.Match)
		if err != nil {
			// A rule was compiled before it was accepted. If it no longer compiles,
			// blocking too much is the safe side.
			c.log.Error("block rule cannot be read: every name is blocked", "rule", r.ID, "error", err)
			re = regexp.MustCompile(``)
		}
		r.re = re
		compiled = append(compiled, &r)
	}
	c.rules.Store(&compiled)
}

func (c *Cache) ruleValues() []Rule {
	rules := c.rules.Load()
	if rules == nil {
		return nil
	}
	values := make([]Rule, len(*rules))
	for i, r := range *rules {
		values[i] = *r
		values[i].re = nil
	}
	return values
}

func (c *Cache) addRule(rule Rule) {
	rules := slices.DeleteFunc(c.ruleValues(), func(r Rule) bool { return r.ID == rule.ID })
	c.setRules(append(rules, rule))
}

func (c *Cache) removeRule(id uint64) {
	c.setRules(slices.DeleteFunc(c.ruleValues(), func(r Rule) bool { return r.ID == id }))
}

// Blocks lists the block rules and the names' blocks that stand.
func (c *Cache) Blocks() ([]BlockInfo, error) {
	var infos []BlockInfo
	for _, r := range c.ruleValues() {
		infos = append(infos, BlockInfo{ID: r.ID, Match: r.Match, Reason: r.Reason, Since: r.Since})
	}
	err := c.each(func(r *Record) error {
		if r.Block != nil {
			infos = append(infos, BlockInfo{ID: r.Block.Decision, Name: r.Name, Reason: r.Block.Reason, Since: r.Block.Since})
		}
		return nil
	})
	slices.SortStableFunc(infos, func(a, b BlockInfo) int { return cmp.Compare(a.ID, b.ID) })
	return infos, err
}
