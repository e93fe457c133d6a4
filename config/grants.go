package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam"
)

// maxTokenSize is the largest estimated token that is accepted, in bytes of its
// text. A revoke carries the token in its address, and the service takes
// addresses of at most 32 KiB; the rest is room for the other parameters, for
// escapes and for the estimate.
const maxTokenSize = 24 << 10

// grantPlace is where things of a grant stand, for findings that need a clock.
type grantPlace struct {
	line, column           int
	untilLine, untilColumn int
}

// laterGrantKeys are keys of a grant that this version does not know how to keep.
var laterGrantKeys = map[string]string{
	"allow":       "this version cannot enforce it yet: remove it, and keep the mode and the group of the socket tight",
	"match":       "this version cannot make grants on demand yet: remove it, and list each name or put grants at run time through the admin socket",
	"idle":        "this version cannot end idle grants yet: remove it, or set until",
	"revoke_idle": "this version cannot end idle grants yet: remove it, or revoke through the admin socket",
	"limit":       "this version has no limit on demand yet, because it has no match: remove it",
	"files":       "this version cannot write token files yet: remove it, and let the app read the socket, or write the output of pamsidecar token",
	"channels":    "put it under resources or patterns",
	"groups":      "put it under resources or patterns",
	"uuids":       "put it under resources or patterns",
	"users":       "put it under resources or patterns",
	"spaces":      "put it under resources or patterns",
}

// grantDecoder reads the list of grants.
type grantDecoder struct {
	*decoder
	grants []cache.Grant
	places []grantPlace
	nodes  []*node
	names  map[string]*node // where each name was first given
}

func (g *grantDecoder) list(n *node) {
	if n.kind == nullKind || !g.is(n, listKind) {
		return // no grants at all is linted
	}
	g.names = make(map[string]*node, len(n.children))
	for _, item := range n.children {
		if item.kind == textKind || item.kind == numberKind || item.kind == boolKind {
			g.fault(item, "must be a list of mappings, each beginning with uuid or name")
			continue
		}
		grant, nameAt, ok := g.grant(item)
		if !ok {
			continue
		}
		if first := g.names[grant.Name]; first != nil {
			g.report(nameAt.line, nameAt.column, nameAt.path(), fmt.Sprintf(
				"the name %q is already used at line %d:%d: give one of the two grants another name", grant.Name, first.line, first.column))
			continue
		}
		if grant.Name != "" {
			g.names[grant.Name] = nameAt
		}
		g.grants = append(g.grants, grant)
		g.nodes = append(g.nodes, item)
		g.places = append(g.places, placeOf(item))
	}
}

func placeOf(n *node) grantPlace {
	p := grantPlace{line: n.line, column: n.column}
	if until := n.child("until"); until != nil {
		p.untilLine, p.untilColumn = until.line, until.column
	}
	return p
}

// grant reads one grant and checks it whole. nameAt is the value the name came
// from. It reports whether n is a mapping.
func (d *decoder) grant(n *node) (grant cache.Grant, nameAt *node, ok bool) {
	var g cache.Grant
	start := len(d.faults)
	d.hidden = nil
	ok = d.mapping(n, fields{
		known: map[string]func(*node){
			"name":       d.setText(&g.Name),
			"uuid":       d.setText(&g.UUID),
			"any_uuid":   d.setBool(&g.AnyUUID),
			"ttl":        func(v *node) { g.TTL = d.ttl(v) },
			"note":       d.setText(&g.Note),
			"resources":  func(v *node) { g.Resources = d.permissions(v) },
			"patterns":   func(v *node) { g.Patterns = d.permissions(v) },
			"meta":       func(v *node) { g.Meta = d.meta(v) },
			"loopback":   d.setBool(&g.Loopback),
			"required":   func(v *node) { g.Required = new(bool); d.setBool(g.Required)(v) },
			"regrant_at": func(v *node) { g.RegrantAt = d.schedule(v) },
			"until":      func(v *node) { g.Until = d.until(v) },
		},
		refused: laterGrantKeys,
	})
	if !ok {
		return g, n, false
	}
	if n.child("ttl") == nil {
		d.missing(n, "ttl", "write for example ttl: 15m (10m to 1h is advised)")
	}
	nameAt = d.name(n, &g)
	d.validate(n, g, start)
	g.Grant = g.Folded()
	if len(d.faults) == start {
		d.tokenSize(n, g)
	}
	return g, nameAt, true
}

// missing reports a key that is not there, at the mapping that should have it.
func (d *decoder) missing(n *node, key, advice string) {
	d.report(n.line, n.column, joinPath(n.path(), key), key+" is missing: "+advice)
}

// ttl reads a lifetime; its bounds are checked with the whole grant.
func (d *decoder) ttl(n *node) time.Duration {
	s := n.text
	if n.kind != numberKind {
		var ok bool
		if s, ok = d.text(n); !ok {
			return 0
		}
	}
	if _, err := strconv.ParseUint(s, 10, 32); err == nil {
		d.fault(n, "write \"%sm\": a duration needs a unit", s)
		return 0
	}
	ttl, err := time.ParseDuration(s)
	if err != nil || n.kind == numberKind {
		d.fault(n, "not a duration: write it like 15m, 1h or 1h30m (the units are h, m and s)")
		return 0
	}
	return ttl
}

// schedule reads a cron expression.
func (d *decoder) schedule(n *node) string {
	s, ok := d.text(n)
	if !ok || d.o.ParseSchedule == nil {
		return s
	}
	if err := d.o.ParseSchedule(s); err != nil {
		d.fault(n, "not a calendar: %v: write five fields, minute hour day month weekday, like \"CRON_TZ=UTC 0 3 * * *\"", err)
		return ""
	}
	return s
}

// until reads a moment.
func (d *decoder) until(n *node) time.Time {
	s, ok := d.text(n)
	if !ok {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, s)
	switch {
	case err != nil:
		d.fault(n, "not a moment in the form of RFC 3339: write it like 2027-06-30T00:00:00Z")
		return time.Time{}
	case t.Year() < 2000:
		d.fault(n, "lies before the year 2000")
		return time.Time{}
	}
	return t.UTC()
}

// name fills in the name and gives the value it came from.
func (d *decoder) name(n *node, g *cache.Grant) *node {
	own, uuid := n.child("name"), n.child("uuid")
	if own != nil {
		if g.Name == "" {
			return own // already reported
		}
		if err := cache.ValidName(g.Name); err != nil {
			d.fault(own, "%s", strings.TrimPrefix(err.Error(), "name "))
			g.Name = ""
		} else if d.o.Name != "" && g.Name != d.o.Name {
			d.fault(own, "is %q, but the grant is put under %q: remove it, or make both the same", g.Name, d.o.Name)
		}
		return own
	}
	if d.o.Name != "" {
		g.Name = d.o.Name
		return n
	}
	if g.AnyUUID && uuid == nil {
		d.missing(n, "name", "a grant with any_uuid needs a name of its own")
		return n
	}
	if uuid != nil {
		g.Name = g.UUID
		return uuid
	}
	return n
}

// validate maps what package pam finds wrong to the places in the file. What was
// already reported while reading, from fault start on, is not said again.
func (d *decoder) validate(n *node, g cache.Grant, start int) {
	faults, _ := g.Validate().(pam.Faults)
	before := slices.Clone(d.hidden)
	for _, f := range d.faults[start:] {
		before = append(before, f.Path)
	}
	for _, f := range faults {
		at, path := find(n, f.Path)
		if alreadySaid(before, n.path(), path, f.Path) {
			continue
		}
		line, column := at.line, at.column
		if len(f.Path) > 1 && at.key != nil { // the entry as a whole: its key
			line, column = at.key.line, at.key.column
		}
		name := f.Path[len(f.Path)-1]
		if len(f.Path) > 2 || f.Path[0] == "meta" {
			name = strconv.Quote(name)
		}
		d.report(line, column, path, say(name, f.Message))
	}
}

// find goes down from n along keys as far as they exist. It returns the last
// value there is, and the path of what was looked for.
func find(n *node, keys []string) (at *node, path string) {
	at, path = n, n.path()
	next := n
	for _, key := range keys {
		path = joinPath(path, key)
		if next == nil {
			continue
		}
		if next = next.child(key); next != nil {
			at = next
		}
	}
	return at, path
}

// alreadySaid reports whether a fault found earlier explains this one: the value
// at fault was not read, or what it says is missing was refused under another key.
func alreadySaid(before []string, grant, path string, elements []string) bool {
	for _, earlier := range before {
		if under(earlier, path) {
			return true
		}
		if len(elements) == 1 && elements[0] == "resources" && lostPermissions(grant, earlier) {
			return true
		}
		if len(elements) == 1 && elements[0] == "uuid" && under(earlier, joinPath(grant, "match")) {
			return true
		}
	}
	return false
}

// lostPermissions reports whether a fault at path may be why a grant has no
// permissions: it lies in them, or is a key that was not understood.
func lostPermissions(grant, path string) bool {
	for _, key := range []string{"name", "uuid", "any_uuid", "ttl", "note", "meta", "loopback", "required", "regrant_at", "until",
		"allow", "match", "idle", "revoke_idle", "limit", "files"} {
		if under(path, joinPath(grant, key)) {
			return false
		}
	}
	return true
}

// tokenSize refuses a grant whose token could not be revoked.
func (d *decoder) tokenSize(n *node, g cache.Grant) {
	if size := g.EstimatedTokenSize(); size > maxTokenSize {
		d.report(n.line, n.column, n.path(), fmt.Sprintf(
			"the token would have about %s bytes, and above %s it can be too long to use or revoke: use patterns for many names, or split the grant",
			thousands(size), thousands(maxTokenSize)))
	}
}
