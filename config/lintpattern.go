package config

import (
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
)

// resourceAdvice says why a name under resources is probably meant as a pattern,
// "" if it is not. Characters that are common in names, such as . | + and @, mean
// nothing.
func resourceAdvice(name string) string {
	const moved = ", but resources are exact names: move it to patterns as a regular expression"
	switch {
	case strings.ContainsAny(name, `\`), strings.HasPrefix(name, "^"), strings.HasSuffix(name, "$"),
		strings.Contains(name, ".*"), strings.Contains(name, ".+"), strings.Contains(name, "(?"),
		bracketed.MatchString(name):
		return "looks like a regular expression" + moved
	case strings.Contains(name, "*"):
		return "looks like a glob" + moved
	}
	return ""
}

var bracketed = regexp.MustCompile(`\[[^\]]+\]`)

// patternAdvice says why a pattern probably matches something else than meant, ""
// if it does not. The pattern is valid RE2.
func patternAdvice(pattern string) string {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return ""
	}
	if repeated := starredLiteral(re); repeated != "" {
		return "looks like a glob: in a regular expression " + strconv.Quote(repeated+"*") + " is any number of " + strconv.Quote(repeated) + ": write " + globAdvice(pattern)
	}
	begins, ends := anchored(re, syntax.OpBeginText, false), anchored(re, syntax.OpEndText, true)
	const found = "Access Manager finds it anywhere in a name"
	switch {
	case !begins && !ends:
		return "is not anchored, and " + found + ": write ^ at its begin and $ at its end"
	case !begins:
		return "is not anchored at its begin, so any text may stand before it: write ^ there"
	case !ends:
		return "is not anchored at its end, so any text may follow it: write $ there"
	}
	return ""
}

// starredLiteral finds one plain character repeated by *, as in chat-*.
func starredLiteral(re *syntax.Regexp) string {
	if re.Op == syntax.OpStar && re.Sub[0].Op == syntax.OpLiteral && len(re.Sub[0].Rune) == 1 {
		return string(re.Sub[0].Rune)
	}
	for _, sub := range re.Sub {
		if s := starredLiteral(sub); s != "" {
			return s
		}
	}
	return ""
}

var plainGlob = regexp.MustCompile(`^[\pL\pN_.:@=*-]+$`)

// globAdvice is the expression a glob probably stands for.
func globAdvice(glob string) string {
	text := strings.TrimSuffix(strings.TrimPrefix(glob, "^"), "$")
	if !plainGlob.MatchString(text) {
		return ".* for any text"
	}
	parts := strings.Split(text, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return "^" + strings.Join(parts, ".*") + "$"
}

// anchored reports whether every match begins (or, with last, ends) with op.
func anchored(re *syntax.Regexp, op syntax.Op, last bool) bool {
	switch re.Op {
	case op:
		return true
	case syntax.OpCapture:
		return anchored(re.Sub[0], op, last)
	case syntax.OpConcat:
		if last {
			return anchored(re.Sub[len(re.Sub)-1], op, last)
		}
		return anchored(re.Sub[0], op, last)
	case syntax.OpAlternate:
		for _, sub := range re.Sub {
			if !anchored(sub, op, last) {
				return false
			}
		}
		return true
	}
	return false
}
