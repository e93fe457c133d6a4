package config

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// The first attempt to replace a token is drawn between 50 and 65 % of its
// lifetime.
const (
	meanAttempt          = 0.575 // of the lifetime: how long a generation lasts on average
	latestAttemptPercent = 65
)

// Thresholds of the warnings.
const (
	advisedTTL     = 10 * time.Minute
	advisedToken   = 4 << 10 // bytes of the token's text
	advisedRateUse = 0.5     // of upstream.rate
)

// SurvivedOutage is the longest outage of the service that readers of a token of
// this lifetime certainly do not notice: from the latest first attempt to
// replace it to its end.
func SurvivedOutage(ttl time.Duration) time.Duration {
	return ttl - ttl*latestAttemptPercent/100
}

// RateNeeded is how many requests per second the grants take on average when
// nothing fails.
func RateNeeded(grants []cache.Grant) float64 {
	need := 0.0
	for _, g := range grants {
		if g.TTL > 0 {
			need += 1 / (meanAttempt * g.TTL.Seconds())
		}
	}
	return need
}

// GrantPosition is where Grants[i] stands in the file: line and column from 1.
func (c *Config) GrantPosition(i int) (line, column int) {
	return c.places[i].line, c.places[i].column
}

// Lint says what is valid but probably not wanted, in the order of the places. It
// looks at the clock and at the modes of the files with secrets.
func (c *Config) Lint() []Finding {
	findings := slices.Clone(c.hints)
	now := c.now()
	for i, g := range c.Grants {
		if p := c.places[i]; !g.Until.IsZero() && !g.Until.After(now) {
			findings = append(findings, Finding{File: c.Path, Line: p.untilLine, Column: p.untilColumn,
				Path:    "grants[" + strconv.Itoa(i) + "].until",
				Message: "until lies in the past: " + shownName(g.Name) + " has no token; remove the grant, or choose a later moment"})
		}
	}
	findings = append(findings, c.lintMode("keyset.secret_key_file", c.Keyset.SecretKeyFile, c.secretAt)...)
	if l := c.Listen.Loopback; l != nil {
		findings = append(findings, c.lintMode("listen.loopback.bearer_file", l.BearerFile, c.bearerAt)...)
	}
	sortFindings(findings)
	return findings
}

// lintMode warns of a file with a secret that others can read or change.
func (c *Config) lintMode(key, path string, at place) []Finding {
	if path == "" {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o077 == 0 || info.Mode()&fs.ModeNamedPipe != 0 {
		return nil
	}
	f := Finding{Path: key, Message: fmt.Sprintf("%s: %s has mode %04o, so others can reach the secret: chmod 600 it", key, path, info.Mode().Perm())}
	if at.line > 0 {
		f.File, f.Line, f.Column = c.Path, at.line, at.column
	}
	return []Finding{f}
}

// place is a line and a column; the zero place is none.
type place struct{ line, column int }

func placeAt(n *node) place {
	if n == nil {
		return place{}
	}
	return place{n.line, n.column}
}

// lintFile finds what depends on the file alone.
func (d *decoder) lintFile(c *Config, root *node, g *grantDecoder) {
	if c.Keyset.SecretFromEnv {
		d.hints = append(d.hints, Finding{Path: EnvSecretKey,
			Message: EnvSecretKey + " is for development: every process of the same user can read it; use " + EnvSecretKeyFile + " or secret_key_file"})
	}
	if len(g.grants) == 0 {
		d.hint(nearest(root, "grants"), "no grants: no name gets a token until one is put through the admin socket")
	}
	for i, grant := range g.grants {
		d.lintGrant(g.nodes[i], grant)
	}
	d.lintRate(root, c)
}

func (d *decoder) lintGrant(n *node, g cache.Grant) {
	if g.TTL < advisedTTL {
		d.hint(n.child("ttl"), "ttl %s survives an outage of at most %s at PubNub: %s or more is advised",
			shortDuration(g.TTL), shortDuration(SurvivedOutage(g.TTL)), shortDuration(advisedTTL))
	}
	if size := g.EstimatedTokenSize(); size > advisedToken {
		d.hint(n, "the token of %s has about %s bytes, and every request of its readers carries it: above %s use patterns, or split the grant",
			shownName(g.Name), thousands(size), thousands(advisedToken))
	}
	d.lintEntries(n.child("resources"), resourceAdvice)
	d.lintEntries(n.child("patterns"), patternAdvice)
}

// lintEntries asks advice about every name or pattern of one side of a grant.
func (d *decoder) lintEntries(side *node, advice func(string) string) {
	if side == nil {
		return
	}
	for _, section := range side.children {
		for _, entry := range section.children {
			if text := advice(entry.key.text); text != "" {
				d.hints = append(d.hints, Finding{File: d.file, Line: entry.key.line, Column: entry.key.column,
					Path: entry.path(), Message: strconv.Quote(entry.key.text) + " " + text})
			}
		}
	}
}

// lintRate warns when renewing the grants takes much of the rate.
func (d *decoder) lintRate(root *node, c *Config) {
	need := RateNeeded(c.Grants)
	if need <= advisedRateUse*c.Upstream.Rate {
		return
	}
	shortest, longest := c.Grants[0].TTL, c.Grants[0].TTL
	for _, g := range c.Grants {
		shortest, longest = min(shortest, g.TTL), max(longest, g.TTL)
	}
	ttl := "ttl " + shortDuration(shortest)
	if shortest != longest {
		ttl = "ttls from " + shortDuration(shortest) + " to " + shortDuration(longest)
	}
	consequence := "little is left for retries and revokes"
	if need > c.Upstream.Rate {
		consequence = "tokens will end before they are replaced"
	}
	count := "1 grant at " + ttl + " needs"
	if n := len(c.Grants); n > 1 {
		count = thousands(n) + " grants at " + ttl + " need"
	}
	at := root.descend("upstream", "rate")
	if at == nil {
		at = root.child("grants").key
	}
	d.hint(at, "%s %s of %s requests/s: %s; raise ttl or upstream.rate",
		count, perSecond(need), strconv.FormatFloat(c.Upstream.Rate, 'f', -1, 64), consequence)
}

// perSecond prints a rate with as many digits as help.
func perSecond(rate float64) string {
	if rate < 1 {
		return strconv.FormatFloat(rate, 'g', 2, 64)
	}
	return strconv.FormatFloat(rate, 'f', 1, 64)
}

// thousands prints a count with commas.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// shortDuration prints a duration without parts that are zero: 15m, not 15m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// shownName is a name as messages show it.
func shownName(name string) string { return strconv.Quote(name) }
