package interop

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
	pubnub "github.com/pubnub/go/v7"
	"github.com/pubnub/go/v7/pnerr"
)

// channelFlags are single permissions of a channel as both sides write them.
var channelFlags = []struct {
	sdk pubnub.ChannelPermissions
	pam pam.Permission
}{
	{pubnub.ChannelPermissions{Read: true}, pam.Read},
	{pubnub.ChannelPermissions{Write: true}, pam.Write},
	{pubnub.ChannelPermissions{Manage: true}, pam.Manage},
	{pubnub.ChannelPermissions{Delete: true}, pam.Delete},
	{pubnub.ChannelPermissions{Get: true}, pam.Get},
	{pubnub.ChannelPermissions{Update: true}, pam.Update},
	{pubnub.ChannelPermissions{Join: true}, pam.Join},
	{allChannel, pam.ChannelPermissions},
}

// Each permission alone, on each type of resource, goes through the SDK's grant, the emulator and both parsers unchanged.
func TestGrantEachPermission(t *testing.T) {
	r := newRig(t, pamtest.Config{})
	pn := r.server("admin")
	for _, c := range channelFlags {
		check(t, "channel "+c.pam.String(), func(t *testing.T) {
			token := sdkGranted(t)(pn.GrantToken().TTL(1).AuthorizedUUID("alice").Channels(map[string]pubnub.ChannelPermissions{"c": c.sdk}).
				ChannelsPattern(map[string]pubnub.ChannelPermissions{"^c.+$": c.sdk}).Execute())
			got := agreed(t, token)
			if got.Resources.Channels["c"] != c.pam || got.Patterns.Channels["^c.+$"] != c.pam {
				t.Errorf("got %s and %s", got.Resources.Channels["c"], got.Patterns.Channels["^c.+$"])
			}
		})
	}
	for want, p := range map[pam.Permission]pubnub.GroupPermissions{
		pam.Read: {Read: true}, pam.Manage: {Manage: true}, pam.GroupPermissions: {Read: true, Manage: true},
	} {
		check(t, "group "+want.String(), func(t *testing.T) {
			token := sdkGranted(t)(pn.GrantToken().TTL(1).ChannelGroups(map[string]pubnub.GroupPermissions{"g": p}).
				ChannelGroupsPattern(map[string]pubnub.GroupPermissions{"^g": p}).Execute())
			got := agreed(t, token)
			if got.Resources.Groups["g"] != want || got.Patterns.Groups["^g"] != want {
				t.Errorf("got %s and %s", got.Resources.Groups["g"], got.Patterns.Groups["^g"])
			}
		})
	}
	for want, p := range map[pam.Permission]pubnub.UUIDPermissions{
		pam.Get: {Get: true}, pam.Update: {Update: true}, pam.Delete: {Delete: true}, pam.UUIDPermissions: {Get: true, Update: true, Delete: true},
	} {
		check(t, "uuid "+want.String(), func(t *testing.T) {
			token := sdkGranted(t)(pn.GrantToken().TTL(1).UUIDs(map[string]pubnub.UUIDPermissions{"u": p}).
				UUIDsPattern(map[string]pubnub.UUIDPermissions{"^u": p}).Execute())
			got := agreed(t, token)
			if got.Resources.UUIDs["u"] != want || got.Patterns.UUIDs["^u"] != want {
				t.Errorf("got %s and %s", got.Resources.UUIDs["u"], got.Patterns.UUIDs["^u"])
			}
		})
	}
}

// Everything a grant can hold, by both builders of the SDK.
func TestGrantEverything(t *testing.T) {
	r := newRig(t, pamtest.Config{})
	pn := r.server("admin")
	const user = "user \u2603 ~!*'()[]@:$,;=&%"
	meta := map[string]any{"text": "v <&> \u00e9", "int": 7, "negative": -7, "float": 1.25, "yes": true, "no": false, "": "empty key"}
	wantMeta := map[string]any{"text": "v <&> \u00e9", "int": int64(7), "negative": int64(-7), "float": 1.25, "yes": true, "no": false, "": "empty key"}
	channels := map[string]pam.Permission{"orders": pam.ChannelPermissions, "a.b-c_d=e@f": pam.Read, strings.Repeat("n", 92): pam.Write}
	wantChannels := map[string]pubnub.ChannelPermissions{"orders": allChannel, "a.b-c_d=e@f": {Read: true}, strings.Repeat("n", 92): {Write: true}}

	check(t, "channels, groups, uuids", func(t *testing.T) {
		token := sdkGranted(t)(pn.GrantToken().TTL(60).Meta(meta).AuthorizedUUID(user).Channels(wantChannels).
			ChannelGroups(map[string]pubnub.GroupPermissions{"g": {Read: true, Manage: true}}).
			UUIDs(map[string]pubnub.UUIDPermissions{"u": {Get: true, Update: true, Delete: true}}).
			ChannelsPattern(map[string]pubnub.ChannelPermissions{`^(?:a|b)\.[a-z0-9]+$`: {Read: true, Join: true}}).
			ChannelGroupsPattern(map[string]pubnub.GroupPermissions{"group-.*": {Read: true}}).
			UUIDsPattern(map[string]pubnub.UUIDPermissions{`^u-\d{3}$`: {Get: true}}).Execute())
		got := agreed(t, token)
		if got.UUID != user || got.TTL != time.Hour || !maps.Equal(got.Resources.Channels, channels) || !maps.Equal(got.Meta, wantMeta) {
			t.Errorf("got %q %s %v %v", got.UUID, got.TTL, got.Resources.Channels, got.Meta)
		}
	})
	check(t, "spaces, users", func(t *testing.T) {
		token := sdkGranted(t)(pn.GrantToken().TTL(60).Meta(meta).AuthorizedUserId(user).
			SpacesPermissions(map[pubnub.SpaceId]pubnub.SpacePermissions{"s": pubnub.SpacePermissions(allChannel)}).
			UsersPermissions(map[pubnub.UserId]pubnub.UserPermissions{"u": {Get: true, Update: true, Delete: true}}).
			SpacePatternsPermissions(map[string]pubnub.SpacePermissions{"^s": {Read: true}}).
			UserPatternsPermissions(map[string]pubnub.UserPermissions{"^u": {Get: true}}).Execute())
		got := agreed(t, token)
		if got.Resources.Channels["s"] != pam.ChannelPermissions || got.Resources.UUIDs["u"] != pam.UUIDPermissions ||
			got.Patterns.Channels["^s"] != pam.Read || got.Patterns.UUIDs["^u"] != pam.Get {
			t.Errorf("got %+v %+v", got.Resources, got.Patterns)
		}
		if len(got.Resources.Spaces)+len(got.Resources.Users) != 0 {
			t.Errorf("the SDK sends real spaces now: %+v", got.Resources)
		}
	})
	check(t, "bound to nobody", func(t *testing.T) {
		token := sdkGranted(t)(pn.GrantToken().TTL(1).Channels(map[string]pubnub.ChannelPermissions{"c": {Read: true}}).Execute())
		if got := agreed(t, token); got.UUID != "" {
			t.Errorf("bound to %q", got.UUID)
		}
	})
	check(t, "the SDK does not keep the token", func(t *testing.T) {
		if _, _, err := pn.Publish().Channel("c").Message(1).Execute(); err != nil { // signed, so it may
			t.Error(err)
		}
		app := r.app("alice", "")
		_, status, err := app.Publish().Channel("c").Message(1).Execute()
		wantRefused(t, err, status, 403, "Forbidden")
	})
	for _, ttl := range []int{1, 15, 43200} {
		check(t, fmt.Sprintf("ttl %d", ttl), func(t *testing.T) {
			token := sdkGranted(t)(pn.GrantToken().TTL(ttl).Channels(map[string]pubnub.ChannelPermissions{"c": {Read: true}}).Execute())
			if got := agreed(t, token); got.TTL != time.Duration(ttl)*time.Minute {
				t.Errorf("got %s, want %d minutes", got.TTL, ttl)
			}
		})
	}
}

// sdkGranted takes the results of the SDK's Execute and returns the token.
func sdkGranted(t *testing.T) func(*pubnub.PNGrantTokenResponse, pubnub.StatusResponse, error) string {
	t.Helper()
	return func(resp *pubnub.PNGrantTokenResponse, status pubnub.StatusResponse, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if status.StatusCode != 200 || resp.Data.Message != "Success" || resp.Data.Token == "" {
			t.Fatalf("status %d, %q", status.StatusCode, resp.Data.Message)
		}
		return resp.Data.Token
	}
}

// agreed parses a token with pam and with the SDK, which must read the same.
func agreed(t *testing.T, token string) pam.Token {
	t.Helper()
	if got := compareParsers(token); got.class != "both" {
		t.Fatalf("%s: %s", got.class, got.detail)
	}
	parsed, err := pam.Parse(token)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// What the SDK refuses itself never reaches the service.
func TestGrantRefusedBySDK(t *testing.T) {
	r := newRig(t, pamtest.Config{})
	grant := func(pn *pubnub.PubNub, ttl int) error {
		_, _, err := pn.GrantToken().TTL(ttl).Channels(map[string]pubnub.ChannelPermissions{"c": {Read: true}}).Execute()
		return err
	}
	noSecret, noPublish := r.config("admin"), r.config("admin")
	noPublish.PublishKey, noPublish.SecretKey = "", "sec-c-x"
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"ttl 0", grant(r.server("admin"), 0), "Invalid TTL"},
		{"ttl -1", grant(r.server("admin"), -1), "Invalid TTL"},
		{"no secret key", grant(r.start(noSecret), 1), "Missing Secret Key"},
		{"no publish key", grant(r.start(noPublish), 1), "Missing Publish Key"},
		{"no ttl", second(r.server("admin").GrantToken().Channels(map[string]pubnub.ChannelPermissions{"c": {Read: true}}).Execute()), "Invalid TTL"},
		{"revoke without token", second(r.server("admin").RevokeToken().Execute()), "Missing PAMv3 token"},
	} {
		check(t, c.name, func(t *testing.T) {
			var invalid *pnerr.ValidationError
			if !errors.As(c.err, &invalid) || !strings.Contains(c.err.Error(), c.want) {
				t.Errorf("got %v, want %q", c.err, c.want)
			}
		})
	}
	check(t, "nothing was sent", func(t *testing.T) {
		if sent := r.Requests(); len(sent) != 0 {
			t.Errorf("%d requests", len(sent))
		}
	})
}

// second is the error of an Execute.
func second[R, S any](_ R, _ S, err error) error { return err }

// What the service refuses, as the SDK's caller sees it.
func TestGrantRefused(t *testing.T) {
	channels := map[string]pubnub.ChannelPermissions{"c": {Read: true}}
	patterns := func(pattern string) func(pn *pubnub.PubNub) (*pubnub.PNGrantTokenResponse, pubnub.StatusResponse, error) {
		return func(pn *pubnub.PubNub) (*pubnub.PNGrantTokenResponse, pubnub.StatusResponse, error) {
			return pn.GrantToken().TTL(1).UUIDsPattern(map[string]pubnub.UUIDPermissions{pattern: {Get: true}}).Execute()
		}
	}
	plainGrant := func(pn *pubnub.PubNub) (*pubnub.PNGrantTokenResponse, pubnub.StatusResponse, error) {
		return pn.GrantToken().TTL(1).Channels(channels).Execute()
	}
	for _, c := range []struct {
		name   string
		spoil  func(r *rig, c *pubnub.Config)
		grant  func(pn *pubnub.PubNub) (*pubnub.PNGrantTokenResponse, pubnub.StatusResponse, error)
		status int
		texts  []string
	}{
		{"wrong secret key", func(_ *rig, c *pubnub.Config) { c.SecretKey = "sec-c-other" }, plainGrant, 403,
			[]string{`"Invalid signature"`, "Client and server produced different signatures for the same inputs.", `"signature"`}},
		{"wrong publish key", func(_ *rig, c *pubnub.Config) { c.PublishKey = "pub-c-other" }, plainGrant, 403, []string{`"Invalid signature"`}},
		{"wrong subscribe key", func(_ *rig, c *pubnub.Config) { c.SubscribeKey = "sub-c-other" }, plainGrant, 400, []string{`"Invalid Subscribe Key"`}},
		{"clock 61 s slow", func(r *rig, _ *pubnub.Config) { r.SetClockOffset(62 * time.Second) }, plainGrant, 403, []string{`"source":"grant"`}},
		{"clock 61 s fast", func(r *rig, _ *pubnub.Config) { r.SetClockOffset(-62 * time.Second) }, plainGrant, 403, []string{`"source":"grant"`}},
		{"ttl 43201", nil, func(pn *pubnub.PubNub) (*pubnub.PNGrantTokenResponse, pubnub.StatusResponse, error) {
			return pn.GrantToken().TTL(43201).Channels(channels).Execute()
		}, 400, []string{`"Invalid ttl"`, "Range should be 1 to 43200 minute(s).", `"location":"ttl"`}},
		{"bad pattern", nil, patterns("!<[^>]+>++"), 400,
			[]string{`"Invalid RegExp"`, "Syntax error: multiple repeat.", `permissions.patterns.uuids.!<[^>]+>++`}},
		{"unclosed pattern", nil, patterns("a[b"), 400, []string{`"Invalid RegExp"`, "Syntax error: "}},
		{"look-ahead", nil, patterns("a(?=b)"), 400, []string{`"Invalid RegExp"`, "Syntax error: "}},
		{"capturing group", nil, patterns("(!<[^>]+>)+"), 400,
			[]string{`"Invalid RegExp"`, "Only non-capturing groups are allowed. Try replacing `(` with `(?:`.", `permissions.patterns.uuids.(!<[^>]+>)+`}},
		{"named group", nil, patterns("(?P<x>a)"), 400, []string{`"Invalid RegExp"`, "Only non-capturing groups are allowed."}},
		{"no permission on a name", nil, func(pn *pubnub.PubNub) (*pubnub.PNGrantTokenResponse, pubnub.StatusResponse, error) {
			return pn.GrantToken().TTL(1).UUIDs(map[string]pubnub.UUIDPermissions{"uuid-1": {}}).Execute()
		}, 400, []string{`"Invalid permissions"`, "Unexpected value: `permissions.resources.uuids.uuid-1` must be positive and non-zero."}},
		{"nothing granted", nil, func(pn *pubnub.PubNub) (*pubnub.PNGrantTokenResponse, pubnub.StatusResponse, error) {
			return pn.GrantToken().TTL(1).Execute()
		}, 400, []string{`"This grant contains no permissions"`, "What are you granting?"}},
		{"service says 503", func(r *rig, _ *pubnub.Config) { r.SetFault(pamtest.Fault{Op: pam.OpGrant, Status: 503}) }, plainGrant, 503, nil},
		{"service says 429", func(r *rig, _ *pubnub.Config) { r.SetFault(pamtest.Fault{Op: pam.OpGrant, Status: 429}) }, plainGrant, 429,
			[]string{"Too many requests."}},
	} {
		check(t, c.name, func(t *testing.T) {
			r := newRig(t, pamtest.Config{})
			config := r.config("admin")
			config.SecretKey = r.Keyset().SecretKey.Reveal()
			if c.spoil != nil {
				c.spoil(r, config)
			}
			_, status, err := c.grant(r.start(config))
			wantRefused(t, err, status, c.status, c.texts...)
			if n := len(r.Grants()); n != 0 {
				t.Errorf("%d tokens were issued", n)
			}
		})
	}
}

// Grants of all kinds through pam, whose tokens the SDK must read alike.
func TestTokensAgree(t *testing.T) {
	r := newRig(t, pamtest.Config{})
	long := func(names ...string) map[string]pam.Permission {
		out := map[string]pam.Permission{}
		for i, name := range names {
			out[name] = []pam.Permission{pam.Read, pam.ChannelPermissions, pam.Write | pam.Delete, pam.Join}[i%4]
		}
		return out
	}
	many := map[string]pam.Permission{}
	for i := range 300 {
		many["channel-"+strings.Repeat("x", i%40)+string(rune('a'+i%26))+strings.Repeat("y", i/40)] = pam.Permission(1 + i%2)
	}
	for name, g := range map[string]pam.Grant{
		"one name":       {TTL: time.Minute, UUID: "a", Resources: pam.Permissions{Channels: long("c")}},
		"any uuid":       {TTL: time.Minute, AnyUUID: true, Resources: pam.Permissions{Channels: long("c")}},
		"longest ttl":    {TTL: 43200 * time.Minute, UUID: "a", Resources: pam.Permissions{Channels: long("c")}},
		"utf-8":          {TTL: time.Minute, UUID: "\u00e9\u00e8 \u2603 \U0001f4a9", Resources: pam.Permissions{Channels: long("\u2603", "\U0001f4a9", "e\u0301")}},
		"lengths":        {TTL: 255 * time.Minute, UUID: strings.Repeat("u", 92), Resources: pam.Permissions{Channels: long(strings.Repeat("a", 23), strings.Repeat("b", 24), strings.Repeat("c", 92))}},
		"many":           {TTL: 256 * time.Minute, UUID: "a", Resources: pam.Permissions{Channels: many}},
		"spaces":         {TTL: time.Minute, UUID: "a", Resources: pam.Permissions{Spaces: long("s"), Users: map[string]pam.Permission{"u": pam.Get}}},
		"patterns":       {TTL: time.Minute, UUID: "a", Patterns: pam.Permissions{Channels: long(`^a\.[0-9]+$`, ".*"), Groups: map[string]pam.Permission{"^g": pam.Manage}}},
		"meta of a kind": {TTL: time.Minute, UUID: "a", Resources: pam.Permissions{Channels: long("c")}, Meta: map[string]any{"s": "", "i": int64(1) << 40, "n": int64(-1), "f": -0.5, "b": true, "k \u2603": "x"}},
		"big numbers":    {TTL: time.Minute, UUID: "a", Resources: pam.Permissions{Channels: long("c")}, Meta: map[string]any{"max": int64(1)<<53 - 1, "tiny": 5e-324, "huge": 1.5e308}},
	} {
		check(t, name, func(t *testing.T) {
			token := agreed(t, r.token(t, g))
			if err := token.Satisfies(g); err != nil {
				t.Error(err)
			}
			if len(token.Signature) != 32 {
				t.Errorf("signature of %d bytes", len(token.Signature))
			}
		})
	}
	check(t, "null in meta", func(t *testing.T) {
		token := r.token(t, pam.Grant{TTL: time.Minute, UUID: "a", Resources: pam.Permissions{Channels: long("c")}, Meta: map[string]any{"k": nil}})
		if got := compareParsers(token); got.class != "only pam" || !slices.Equal(got.why, []reason{innerNull}) {
			t.Errorf("%s for %v: %s; SDK version 7.4.0 panics", got.class, got.why, got.detail)
		}
	})
}
