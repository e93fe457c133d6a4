package pam

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func sample() Token {
	return Token{
		Raw: "qEF2AkF0-raw-token-text", Version: 2, Issued: time.Unix(1700000000, 0).UTC(), TTL: 15 * time.Minute, UUID: "checkout",
		Resources: Permissions{
			Channels: perms{"orders": Read | Write, "exact": Read}, Spaces: perms{"lobby": Join},
			Groups: perms{"feeds": Manage}, UUIDs: perms{"bob": Get}, Users: perms{"eve": Update},
		},
		Patterns: Permissions{
			Channels: perms{"^receipts": Read, "room": Write, "(": Read, "^exact$": Write, "^ex": Read | Write},
			Users:    perms{"^u-": Get},
		},
		Signature: []byte{1, 2, 255},
	}
}

func TestAllows(t *testing.T) {
	for _, c := range []struct {
		resource ResourceType
		id       string
		p        Permission
		entry    string
	}{
		{ResourceChannel, "orders", Read, `resources.channels["orders"]`},
		{ResourceChannel, "orders", Read | Write, `resources.channels["orders"]`},
		{ResourceChannel, "orders", Delete, ""},
		{ResourceChannel, "lobby", Join, `resources.spaces["lobby"]`},
		{ResourceChannel, "receipts.1", Read, `patterns.channels["^receipts"]`},
		{ResourceChannel, "a-room-b", Write, `patterns.channels["room"]`}, // not anchored
		{ResourceChannel, "exact", Write, `patterns.channels["^ex"]`},     // the exact name lacks it; first in text order
		{ResourceChannel, "(", Read, ""},                                  // does not compile
		{ResourceChannel, "other", Read, ""},
		{ResourceGroup, "feeds", Manage, `resources.groups["feeds"]`},
		{ResourceGroup, "orders", Read, ""},
		{ResourceUUID, "bob", Get, `resources.uuids["bob"]`},
		{ResourceUUID, "eve", Update, `resources.users["eve"]`},
		{ResourceUUID, "u-7", Get, `patterns.users["^u-"]`},
		{ResourceUUID, "bob", 0, ""},
		{"space", "lobby", Join, ""},
	} {
		entry, ok := sample().Allows(c.resource, c.id, c.p)
		if entry != c.entry || ok != (c.entry != "") {
			t.Errorf("%s %s %s: got %q %v, want %q", c.resource, c.id, c.p, entry, ok, c.entry)
		}
	}
	for _, word := range []string{"channel", "groups", "uuid", "users", "space"} {
		if _, err := ParseResourceType(word); err != nil {
			t.Error(err)
		}
	}
	if _, err := ParseResourceType("thing"); err == nil {
		t.Error("thing is accepted")
	}
}

func TestSatisfies(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Grant)
		text   string
	}{
		{"same", func(*Grant) {}, ""},
		{"less", func(g *Grant) { g.Resources.Channels = perms{"orders": Read} }, ""},
		{"new words", func(g *Grant) {
			g.Resources = Permissions{Channels: perms{"lobby": Join}, UUIDs: perms{"eve": Update}}
			g.Patterns = Permissions{UUIDs: perms{"^u-": Get}}
		}, ""},
		{"other uuid", func(g *Grant) { g.UUID = "x\ny" }, `uuid "checkout", asked for "x\ny"`},
		{"any uuid", func(g *Grant) { g.UUID, g.AnyUUID = "", true }, "bound to none"},
		{"other ttl", func(g *Grant) { g.TTL = time.Hour }, "ttl of 15 minutes, asked for 60"},
		{"fewer bits", func(g *Grant) { g.Resources.Channels = perms{"orders": Read | Delete} }, `lacks delete for resources.channels["orders"]`},
		{"missing name", func(g *Grant) { g.Resources.Groups = perms{"other": Read} }, `lacks read for resources.groups["other"]`},
		{"missing pattern", func(g *Grant) { g.Patterns.Groups = perms{"^o": Read} }, `lacks read for patterns.groups["^o"]`},
	} {
		g := grantOf(sample())
		c.change(&g)
		err := sample().Satisfies(g)
		if got := fmt.Sprint(err); c.text == "" && err != nil || c.text != "" && (!strings.Contains(got, c.text) || strings.Contains(got, "\n")) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.text)
		}
	}
	unbound := sample()
	unbound.UUID = ""
	g := grantOf(sample())
	if err := unbound.Satisfies(g); err == nil {
		t.Error("an unbound token satisfies a bound grant")
	}
	if err := unbound.Satisfies(grantOf(unbound)); err != nil {
		t.Error(err)
	}
}

func TestNarrower(t *testing.T) {
	for _, c := range []struct {
		name     string
		change   func(*Grant)
		narrower bool
	}{
		{"same", func(*Grant) {}, false},
		{"wider", func(g *Grant) { g.Resources.Channels = perms{"orders": 239, "exact": Read, "new": Read} }, false},
		{"new words", func(g *Grant) {
			g.Resources.Channels["lobby"], g.Resources.Spaces = Join, nil
			g.Resources.UUIDs["eve"], g.Resources.Users = Update, nil
		}, false},
		{"shorter", func(g *Grant) { g.TTL = time.Minute }, false},
		{"entry gone", func(g *Grant) { delete(g.Resources.Channels, "exact") }, true},
		{"fewer bits", func(g *Grant) { g.Resources.Channels["orders"] = Read }, true},
		{"pattern reworded", func(g *Grant) { delete(g.Patterns.Channels, "room"); g.Patterns.Channels["(?:room)"] = Write }, true},
		{"other uuid", func(g *Grant) { g.UUID = "x" }, true},
		{"unbound", func(g *Grant) { g.UUID, g.AnyUUID = "", true }, true},
	} {
		g := grantOf(sample())
		c.change(&g)
		if got := g.Narrower(sample()); got != c.narrower {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}

func TestTokenJSON(t *testing.T) {
	token := Token{
		Raw: "raw", Version: 2, Issued: time.Unix(1700000000, 0).UTC(), TTL: time.Hour,
		Resources: Permissions{Channels: perms{"b": Read | Join, "a": Create}}, Signature: []byte{0xfb, 0xff},
	}
	got, err := json.Marshal(token)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"version":2,"timestamp":1700000000,"ttl":60,"authorized_uuid":null,` +
		`"resources":{"channels":{` +
		`"a":{"read":false,"write":false,"manage":false,"delete":false,"get":false,"update":false,"join":false,"create":true},` +
		`"b":{"read":true,"write":false,"manage":false,"delete":false,"get":false,"update":false,"join":true}},"groups":{},"uuids":{}},` +
		`"patterns":{"channels":{},"groups":{},"uuids":{}},"meta":{},"signature":"-_8"}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var full struct {
		UUID      string `json:"authorized_uuid"`
		Resources map[string]map[string]map[string]bool
	}
	if got, err = json.Marshal(sample()); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(got, &full); err != nil {
		t.Fatal(err)
	}
	if full.UUID != "checkout" || !full.Resources["users"]["eve"]["update"] || !full.Resources["spaces"]["lobby"]["join"] {
		t.Errorf("got %s", got)
	}
}

func TestTokenIsNeverShown(t *testing.T) {
	token := sample()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, value := range []any{token, &token, []Token{token}} {
			if got := fmt.Sprintf(verb, value); strings.Contains(got, "raw-token") || strings.Contains(got, "255") {
				t.Errorf("%s shows %s", verb, got)
			}
		}
	}
	if !reflect.DeepEqual(token, sample()) {
		t.Error("printing changed the token")
	}
}
