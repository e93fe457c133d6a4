package pam

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

type perms = map[string]Permission

func checkout() Grant {
	return Grant{
		TTL:  15 * time.Minute,
		UUID: "checkout",
		Resources: Permissions{
			Channels: perms{"orders": Read | Write, "orders-pnpres": Read},
			Groups:   perms{"order-feeds": Read},
			UUIDs:    perms{"checkout": Get | Update},
		},
		Patterns: Permissions{Channels: perms{`^receipts\.[a-z0-9]+$`: Read}},
		Meta:     map[string]any{"service": "checkout", "n": int64(3), "f": 1.5, "ok": true, "none": nil},
	}
}

func TestValidateAccepts(t *testing.T) {
	changes := map[string]func(*Grant){
		"as it is":  func(*Grant) {},
		"shortest":  func(g *Grant) { g.TTL = MinTTL },
		"longest":   func(g *Grant) { g.TTL = MaxTTL },
		"any uuid":  func(g *Grant) { g.AnyUUID, g.UUID = true, "" },
		"long uuid": func(g *Grant) { g.UUID = strings.Repeat("é", 92) },
		"all bits":  func(g *Grant) { g.Resources.Channels["x"] = ChannelPermissions },
		"users, spaces": func(g *Grant) {
			*g = Grant{TTL: time.Minute, UUID: "u", Resources: Permissions{Users: perms{"u": Get}, Spaces: perms{"s": Join}}}
		},
		"only patterns": func(g *Grant) { g.Resources = Permissions{} },
		"non-capturing": func(g *Grant) { g.Patterns.Channels["^(?:a|b)$"] = Read },
		"json number":   func(g *Grant) { g.Meta["j"] = json.Number("1e3") },
		"dots in names": func(g *Grant) { g.Resources.Channels["a.b.c"] = Read },
	}
	for name, change := range changes {
		g := checkout()
		change(&g)
		if err := g.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValidateFaults(t *testing.T) {
	none := Grant{TTL: time.Minute, UUID: "u"}
	one := func(p Permissions) Grant { return Grant{TTL: time.Minute, UUID: "u", Resources: p} }
	pattern := func(text string) Grant {
		return Grant{TTL: time.Minute, UUID: "u", Patterns: Permissions{UUIDs: perms{text: Get}}}
	}
	meta := func(value any) Grant {
		g := one(Permissions{Channels: perms{"c": Read}})
		g.Meta = map[string]any{"a.b": value}
		return g
	}
	with := func(change func(*Grant)) Grant { g := checkout(); change(&g); return g }
	for _, c := range []struct {
		name  string
		grant Grant
		path  []string
		text  string
	}{
		{"no ttl", with(func(g *Grant) { g.TTL = 0 }), []string{"ttl"}, "1 to 43,200"},
		{"negative ttl", with(func(g *Grant) { g.TTL = -time.Minute }), []string{"ttl"}, "1 to 43,200"},
		{"ttl too long", with(func(g *Grant) { g.TTL = MaxTTL + time.Minute }), []string{"ttl"}, "1 to 43,200"},
		{"half minutes", with(func(g *Grant) { g.TTL = 90 * time.Second }), []string{"ttl"}, "not whole minutes: use 2m"},
		{"no uuid", with(func(g *Grant) { g.UUID = "" }), []string{"uuid"}, "missing"},
		{"long uuid", with(func(g *Grant) { g.UUID = strings.Repeat("é", 93) }), []string{"uuid"}, "at most 92"},
		{"control in uuid", with(func(g *Grant) { g.UUID = "a\x00" }), []string{"uuid"}, "control"},
		{"c1 control in uuid", with(func(g *Grant) { g.UUID = "a\u0085" }), []string{"uuid"}, "control"},
		{"uuid not UTF-8", with(func(g *Grant) { g.UUID = "\xff" }), []string{"uuid"}, "UTF-8"},
		{"uuid and any", with(func(g *Grant) { g.AnyUUID = true }), []string{"any_uuid"}, "together"},
		{"nothing", none, []string{"resources"}, "grants nothing"},
		{"mask 0", one(Permissions{Channels: perms{"a.b": 0}}), []string{"resources", "channels", "a.b"}, "no permission: a channel takes read, write, manage, delete, get, update, join"},
		{"create", one(Permissions{Channels: perms{"c": Create | Read}}), []string{"resources", "channels", "c"}, "create is not for a channel: it takes read"},
		{"group write", one(Permissions{Groups: perms{"g": Read | Write}}), []string{"resources", "groups", "g"}, "write is not for a group: it takes read, manage"},
		{"uuid read", one(Permissions{UUIDs: perms{"u": Read}}), []string{"resources", "uuids", "u"}, "read is not for a UUID: it takes delete, get, update"},
		{"user read", one(Permissions{Users: perms{"u": Read}}), []string{"resources", "users", "u"}, "read is not for a user"},
		{"unknown bit", one(Permissions{Spaces: perms{"s": 256}}), []string{"resources", "spaces", "s"}, "0x100 is not for a space"},
		{"empty name", one(Permissions{Groups: perms{"": Read}}), []string{"resources", "groups", ""}, "empty"},
		{"name not UTF-8", one(Permissions{Groups: perms{"\xff": Read}}), []string{"resources", "groups", "\xff"}, "UTF-8"},
		{"empty pattern", pattern(""), []string{"patterns", "uuids", ""}, "empty"},
		{"capture", pattern("^(a|b)$"), []string{"patterns", "uuids", "^(a|b)$"}, "`(?:`"},
		{"named capture", pattern("(?P<x>a)"), []string{"patterns", "uuids", "(?P<x>a)"}, "`(?:`"},
		{"broken", pattern("[a-"), []string{"patterns", "uuids", "[a-"}, "not an RE2 expression: missing closing ]"},
		{"lookahead", pattern("(?=a)"), []string{"patterns", "uuids", "(?=a)"}, "not an RE2"},
		{"double repeat", pattern("a**"), []string{"patterns", "uuids", "a**"}, "not an RE2"},
		{"pattern not UTF-8", pattern("\xff"), []string{"patterns", "uuids", "\xff"}, "not an RE2"},
		{"meta list", meta([]int{1}), []string{"meta", "a.b"}, "[]int is not allowed"},
		{"meta map", meta(map[string]any{}), []string{"meta", "a.b"}, "not allowed"},
		{"meta NaN", meta(math.NaN()), []string{"meta", "a.b"}, "finite"},
		{"meta infinite", meta(float32(math.Inf(1))), []string{"meta", "a.b"}, "finite"},
		{"meta number", meta(json.Number("x")), []string{"meta", "a.b"}, "not a number"},
		{"meta not UTF-8", meta("\xff"), []string{"meta", "a.b"}, "UTF-8"},
		{"both words", one(Permissions{Channels: perms{"c": Read}, Spaces: perms{"s": Read}}), []string{"resources", "spaces"}, "both"},
		{"both words across", Grant{TTL: time.Minute, UUID: "u", Resources: Permissions{UUIDs: perms{"u": Get}}, Patterns: Permissions{Users: perms{"u": Get}}}, []string{"patterns", "users"}, "both"},
	} {
		faults, ok := errors.AsType[Faults](c.grant.Validate())
		if !ok || len(faults) != 1 {
			t.Errorf("%s: got %v, want one fault", c.name, faults)
			continue
		}
		f := faults[0]
		if !slices.Equal(f.Path, c.path) || !strings.Contains(f.Message, c.text) || strings.Contains(f.Error(), "\n") {
			t.Errorf("%s: got %q %q", c.name, f.Path, f.Message)
		}
	}
}

func TestValidateFindsAllFaults(t *testing.T) {
	g := Grant{
		TTL:       time.Second,
		Resources: Permissions{Channels: perms{"": 0, "b": 16}, Spaces: perms{"s": 0}},
		Patterns:  Permissions{Groups: perms{"(": 2}},
		Meta:      map[string]any{"x": []any{}, "y": math.Inf(-1)},
	}
	err := g.Validate()
	faults, _ := errors.AsType[Faults](err)
	if len(faults) != 11 {
		t.Errorf("%d faults: %v", len(faults), err)
	}
	if _, ok := errors.AsType[Fault](err); !ok {
		t.Error("the single faults are not in the chain")
	}
	if again := g.Validate(); again.Error() != err.Error() {
		t.Error("the order of the faults changes")
	}
	for _, want := range []string{"ttl: ", `resources.channels["b"]: `, "resources.spaces: ", `meta["x"]: `} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestFoldedAndFingerprint(t *testing.T) {
	old := Grant{TTL: time.Hour, UUID: "u", Resources: Permissions{Spaces: perms{"c": 3}, Users: perms{"u": 32}}, Patterns: Permissions{Spaces: perms{"^x": 1}}, Meta: map[string]any{"n": 1.0}}
	newer := Grant{TTL: time.Hour, UUID: "u", Resources: Permissions{Channels: perms{"c": 3}, UUIDs: perms{"u": 32}, Groups: perms{}}, Patterns: Permissions{Channels: perms{"^x": 1}}, Meta: map[string]any{"n": uint8(1)}}
	if old.Fingerprint() != newer.Fingerprint() || old.Folded().Fingerprint() != old.Fingerprint() {
		t.Error("equal grants have different fingerprints")
	}
	both := Permissions{Channels: perms{"c": 1, "d": 1}, Spaces: perms{"c": 2}}
	if got := both.folded().Channels; !maps.Equal(got, perms{"c": 3, "d": 1}) || both.Channels["c"] != 1 {
		t.Errorf("folded to %v, from %v", got, both.Channels)
	}
	seen := map[[32]byte]string{}
	for name, change := range map[string]func(*Grant){
		"as it is": func(*Grant) {},
		"ttl":      func(g *Grant) { g.TTL *= 2 },
		"uuid":     func(g *Grant) { g.UUID = "v" },
		"any":      func(g *Grant) { g.AnyUUID, g.UUID = true, "" },
		"mask":     func(g *Grant) { g.Resources.Channels["orders"] = Read },
		"name":     func(g *Grant) { g.Resources.Channels["order"] = Read },
		"section":  func(g *Grant) { g.Patterns.Groups, g.Patterns.Channels = g.Patterns.Channels, nil },
		"side":     func(g *Grant) { g.Resources, g.Patterns = g.Patterns, g.Resources },
		"no meta":  func(g *Grant) { g.Meta = nil },
		"text":     func(g *Grant) { g.Meta["n"] = "3" },
		"float":    func(g *Grant) { g.Meta["n"] = 3.5 },
		"false":    func(g *Grant) { g.Meta["ok"] = false },
		"null":     func(g *Grant) { g.Meta["ok"] = nil },
	} {
		g := checkout()
		change(&g)
		if other, taken := seen[g.Fingerprint()]; taken {
			t.Errorf("%s and %s have the same fingerprint", name, other)
		}
		seen[g.Fingerprint()] = name
	}
	const release1 = "1698be3f"
	if got := Secret(string(fingerprintBytes(checkout()))).ID(); got != release1 {
		t.Errorf("the fingerprint has changed since the first release: %s", got)
	}
}

func fingerprintBytes(g Grant) []byte { sum := g.Fingerprint(); return sum[:] }

func TestRequestBody(t *testing.T) {
	g := Grant{TTL: time.Hour, AnyUUID: true, Resources: Permissions{Spaces: perms{"room-1": 3}, Users: perms{"a": 32}}}
	body, err := g.requestBody()
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"ttl":60,"permissions":{` +
		`"resources":{"channels":{"room-1":3},"groups":{},"uuids":{"a":32},"users":{},"spaces":{}},` +
		`"patterns":{"channels":{},"groups":{},"uuids":{},"users":{},"spaces":{}},"meta":{}}}`
	if string(body) != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
	body, _ = checkout().requestBody()
	if !strings.Contains(string(body), `"uuid":"checkout"`) || !strings.Contains(string(body), `"service":"checkout"`) {
		t.Errorf("got %s", body)
	}
}

func TestEstimatedTokenSize(t *testing.T) {
	valid, _ := tokenVectors(t)
	checked := 0
	for _, v := range valid {
		token, err := Parse(v.Token)
		if err != nil {
			t.Fatal(err)
		}
		if len(token.Resources.Spaces)+len(token.Resources.Users)+len(token.Patterns.Spaces)+len(token.Patterns.Users) > 0 {
			continue
		}
		g := grantOf(token)
		if slices.ContainsFunc(slices.Collect(maps.Values(g.Meta)), func(v any) bool { return checkMeta(v) != "" }) {
			continue
		}
		checked++
		if got := g.EstimatedTokenSize(); got < len(v.Token) || got > len(v.Token)+80 {
			t.Errorf("%s: estimated %d, is %d", v.Source, got, len(v.Token))
		}
	}
	if checked == 0 {
		t.Error("no vector was compared")
	}
}

// grantOf returns the grant that asks for exactly what a token has.
func grantOf(t Token) Grant {
	return Grant{TTL: t.TTL, UUID: t.UUID, AnyUUID: t.UUID == "", Resources: t.Resources, Patterns: t.Patterns, Meta: t.Meta}
}

func TestFoldedKeepsTheGrant(t *testing.T) {
	g := checkout()
	if !reflect.DeepEqual(g, g.Folded()) || !reflect.DeepEqual(g, checkout()) {
		t.Error("folding changed a grant without old words")
	}
}
