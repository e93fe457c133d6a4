package interop

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
	pubnub "github.com/pubnub/go/v7"
)

// guarded are operations with the permissions that PubNub documents for them: each works with exactly these, and with none of them missing.
var guarded = []struct {
	name string
	do   func(pn *pubnub.PubNub) (pubnub.StatusResponse, error)
	need []permission
}{
	{"publish", func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.Publish().Channel("c").Message("m").Execute())
	}, []permission{{pam.ResourceChannel, "c", pam.Write}}},
	{"publish by POST", func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.Publish().Channel("c").Message("m").UsePost(true).Execute())
	}, []permission{{pam.ResourceChannel, "c", pam.Write}}},
	{"fire", func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.Fire().Channel("c").Message("m").Execute())
	}, []permission{{pam.ResourceChannel, "c", pam.Write}}},
	{"signal", func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.Signal().Channel("c").Message("m").Execute())
	}, []permission{{pam.ResourceChannel, "c", pam.Write}}},
	{"fetch", func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.Fetch().Channels([]string{"c", "d"}).Execute())
	}, []permission{{pam.ResourceChannel, "c", pam.Read}, {pam.ResourceChannel, "d", pam.Read}}},
	{"here now", func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.HereNow().Channels([]string{"c"}).ChannelGroups([]string{"g"}).Execute())
	}, []permission{{pam.ResourceChannel, "c", pam.Read}, {pam.ResourceGroup, "g", pam.Read}}},
	{"heartbeat", func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.Heartbeat().Channels([]string{"c"}).Execute())
	}, []permission{{pam.ResourceChannel, "c", pam.Read}}},
	{"group add", func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.AddChannelToChannelGroup().ChannelGroup("g").Channels([]string{"c"}).Execute())
	}, []permission{{pam.ResourceGroup, "g", pam.Manage}}},
	{"group remove", func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.RemoveChannelFromChannelGroup().ChannelGroup("g").Channels([]string{"c"}).Execute())
	}, []permission{{pam.ResourceGroup, "g", pam.Manage}}},
	{"group delete", func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.DeleteChannelGroup().ChannelGroup("g").Execute())
	}, []permission{{pam.ResourceGroup, "g", pam.Manage}}},
	{"get user", func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.GetUUIDMetadata().UUID("u").Execute())
	}, []permission{{pam.ResourceUUID, "u", pam.Get}}},
	{"set user", func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.SetUUIDMetadata().UUID("u").Name("n").Execute())
	}, []permission{{pam.ResourceUUID, "u", pam.Update}}},
	{"remove user", func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.RemoveUUIDMetadata().UUID("u").Execute())
	}, []permission{{pam.ResourceUUID, "u", pam.Delete}}},
	{"get channel", func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.GetChannelMetadata().Channel("c").Execute())
	}, []permission{{pam.ResourceChannel, "c", pam.Get}}},
	{"set channel", func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.SetChannelMetadata().Channel("c").Name("n").Execute())
	}, []permission{{pam.ResourceChannel, "c", pam.Update}}},
	{"remove channel", func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.RemoveChannelMetadata().Channel("c").Execute())
	}, []permission{{pam.ResourceChannel, "c", pam.Delete}}},
	{"set memberships", func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.SetMemberships().UUID("u").Set([]pubnub.PNMembershipsSet{{Channel: pubnub.PNMembershipsChannel{ID: "c"}}}).Execute())
	}, []permission{{pam.ResourceChannel, "c", pam.Join}, {pam.ResourceUUID, "u", pam.Update}}},
	{"get memberships", func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.GetMemberships().UUID("u").Execute())
	}, []permission{{pam.ResourceUUID, "u", pam.Get}}},
	{"set members", func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.SetChannelMembers().Channel("c").Set([]pubnub.PNChannelMembersSet{{UUID: pubnub.PNChannelMembersUUID{ID: "u"}}}).Execute())
	}, []permission{{pam.ResourceChannel, "c", pam.Manage}}},
	{"get members", func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.GetChannelMembers().Channel("c").Execute())
	}, []permission{{pam.ResourceChannel, "c", pam.Get}}},
}

// permission is one bit on one resource.
type permission struct {
	kind pam.ResourceType
	name string
	bit  pam.Permission
}

// third is status and error of an Execute.
func third[R any](_ R, status pubnub.StatusResponse, err error) (pubnub.StatusResponse, error) {
	return status, err
}

// exactly grants alice these permissions and nothing else.
func exactly(need []permission) pam.Grant {
	g := pam.Grant{TTL: time.Minute, UUID: "alice", Resources: pam.Permissions{
		Channels: map[string]pam.Permission{}, Groups: map[string]pam.Permission{}, UUIDs: map[string]pam.Permission{},
	}}
	for _, n := range need {
		section(g.Resources, n.kind)[n.name] |= n.bit
	}
	return g
}

// without grants alice everything there is on these names, but for one bit.
func without(need []permission, i int) pam.Grant {
	g := exactly(nil)
	for _, n := range need {
		section(g.Resources, n.kind)[n.name] = allOf(n.kind)
	}
	g.Resources.Channels["something"] = pam.Read // a grant of nothing is refused
	lost := need[i]
	section(g.Resources, lost.kind)[lost.name] &^= lost.bit
	return g
}

func section(p pam.Permissions, kind pam.ResourceType) map[string]pam.Permission {
	switch kind {
	case pam.ResourceGroup:
		return p.Groups
	case pam.ResourceUUID:
		return p.UUIDs
	}
	return p.Channels
}

func allOf(kind pam.ResourceType) pam.Permission {
	switch kind {
	case pam.ResourceGroup:
		return pam.GroupPermissions
	case pam.ResourceUUID:
		return pam.UUIDPermissions
	}
	return pam.ChannelPermissions
}

// missing is what no operation finds when nothing was set before.
func missing(status pubnub.StatusResponse, err error) bool {
	return err != nil && status.StatusCode == 404
}

func TestPermissions(t *testing.T) {
	r := newRig(t, pamtest.Config{})
	for _, op := range guarded {
		check(t, op.name+"/with exactly what it needs", func(t *testing.T) {
			if status, err := op.do(r.app("alice", r.token(t, exactly(op.need)))); err != nil && !missing(status, err) {
				t.Error(err)
			}
		})
		for i, lost := range op.need {
			check(t, op.name+"/without "+lost.bit.String()+" on "+string(lost.kind), func(t *testing.T) {
				status, err := op.do(r.app("alice", r.token(t, without(op.need, i))))
				wantRefused(t, err, status, 403, `"Forbidden"`)
				wantPayload(t, err, lost)
			})
		}
		check(t, op.name+"/without a token", func(t *testing.T) {
			status, err := op.do(r.app("alice", ""))
			wantRefused(t, err, status, 403, `"Forbidden"`)
		})
		check(t, op.name+"/with the token of another", func(t *testing.T) {
			status, err := op.do(r.app("mallory", r.token(t, exactly(op.need))))
			wantRefused(t, err, status, 403)
		})
	}
}

// wantPayload checks that a refusal names what is missing, and only that.
func wantPayload(t *testing.T, err error, lost permission) {
	t.Helper()
	var body struct {
		Payload map[string][]string
		Error   bool
		Service string
	}
	if err := json.Unmarshal(serverError(t, err).Body, &body); err != nil {
		t.Fatal(err)
	}
	key := map[pam.ResourceType]string{pam.ResourceChannel: "channels", pam.ResourceGroup: "channel-groups", pam.ResourceUUID: "uuids"}[lost.kind]
	if !slices.Equal(body.Payload[key], []string{lost.name}) || len(body.Payload) != 1 || !body.Error || body.Service != "Access Manager" {
		t.Errorf("got %+v, want %s [%s]", body, key, lost.name)
	}
}

// A pattern allows what it matches, anywhere unless it is anchored.
func TestPatterns(t *testing.T) {
	r := newRig(t, pamtest.Config{})
	for _, c := range []struct {
		pattern, channel string
		ok               bool
	}{
		{"^inbox-[a-z]+$", "inbox-alice", true},
		{"^inbox-[a-z]+$", "inbox-alice2", false},
		{"^inbox-[a-z]+$", "my-inbox-alice", false},
		{"chat", "the-chat-room", true},
		{"some_*", "some", true},
		{"some_*", "som", false},
		{`^(?:a|b)\.c$`, "b.c", true},
		{`^(?:a|b)\.c$`, "bxc", false},
	} {
		check(t, c.pattern+" "+c.channel, func(t *testing.T) {
			token := r.token(t, pam.Grant{TTL: time.Minute, UUID: "alice", Patterns: pam.Permissions{
				Channels: map[string]pam.Permission{c.pattern: pam.Write},
			}})
			_, status, err := r.app("alice", token).Publish().Channel(c.channel).Message(1).Execute()
			if c.ok && err != nil {
				t.Error(err)
			}
			if !c.ok {
				wantRefused(t, err, status, 403, "Forbidden", c.channel)
			}
		})
	}
}

// The life of a token as an app sees it: it works, it is replaced, it is revoked, it ends.
func TestTokenLife(t *testing.T) {
	publish := func(pn *pubnub.PubNub) (pubnub.StatusResponse, error) {
		return third(pn.Publish().Channel("c").Message(1).Execute())
	}
	grant := exactly([]permission{{pam.ResourceChannel, "c", pam.Write | pam.Read}})
	check(t, "ended", func(t *testing.T) {
		r := newRig(t, pamtest.Config{})
		pn := r.app("alice", r.token(t, grant))
		if _, err := publish(pn); err != nil {
			t.Fatal(err)
		}
		r.SetClockOffset(59 * time.Second)
		if _, err := publish(pn); err != nil {
			t.Error("ended too early:", err)
		}
		r.SetClockOffset(61 * time.Second)
		status, err := publish(pn)
		wantRefused(t, err, status, 403, `"Token is expired."`)
		pn.SetToken(r.token(t, grant))
		if _, err := publish(pn); err != nil {
			t.Error("not even with a new token:", err)
		}
	})
	check(t, "revoked", func(t *testing.T) {
		r := newRig(t, pamtest.Config{})
		token := r.token(t, grant)
		pn, admin := r.app("alice", token), r.server("admin")
		if _, err := publish(pn); err != nil {
			t.Fatal(err)
		}
		if _, status, err := admin.RevokeToken().Token(token).Execute(); err != nil || status.StatusCode != 200 {
			t.Fatal(status.StatusCode, err)
		}
		status, err := publish(pn)
		wantRefused(t, err, status, 403, `"Token is revoked"`)
		if _, _, err := admin.RevokeToken().Token(token).Execute(); err != nil {
			t.Error("a second revoke:", err)
		}
		pn.SetToken(r.token(t, grant))
		if _, err := publish(pn); err != nil {
			t.Error("not even with a new token:", err)
		}
	})
	check(t, "revoked, with PubNub's delay", func(t *testing.T) {
		r := newRig(t, pamtest.Config{Access: pamtest.Access{RevokeDelay: time.Minute}})
		long := grant
		long.TTL = 10 * time.Minute
		token := r.token(t, long)
		pn := r.app("alice", token)
		if _, err := publish(pn); err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.server("admin").RevokeToken().Token(token).Execute(); err != nil {
			t.Fatal(err)
		}
		if _, err := publish(pn); err != nil {
			t.Error("at once:", err)
		}
		r.SetClockOffset(61 * time.Second)
		status, err := publish(pn)
		wantRefused(t, err, status, 403, `"Token is revoked"`)
	})
	check(t, "not a token", func(t *testing.T) {
		r := newRig(t, pamtest.Config{})
		status, err := publish(r.app("alice", "old-style-auth-key"))
		wantRefused(t, err, status, 403)
	})
	check(t, "of another keyset", func(t *testing.T) {
		r, other := newRig(t, pamtest.Config{}), newRig(t, pamtest.Config{SubscribeKey: "sub-c-other"})
		status, err := publish(r.app("alice", other.token(t, grant)))
		wantRefused(t, err, status, 403)
	})
	check(t, "forged", func(t *testing.T) {
		r := newRig(t, pamtest.Config{})
		data, err := sdkBase64(r.token(t, exactly([]permission{{pam.ResourceChannel, "c", pam.Read}})))
		if err != nil {
			t.Fatal(err)
		}
		forged := bytes.Replace(data, []byte("\x61c\x01"), []byte("\x61c\x03"), 1)
		status, err := publish(r.app("alice", base64.URLEncoding.EncodeToString(forged)))
		wantRefused(t, err, status, 403)
	})
	check(t, "bound to nobody", func(t *testing.T) {
		r := newRig(t, pamtest.Config{})
		any := grant
		any.UUID, any.AnyUUID = "", true
		if _, err := publish(r.app("whoever", r.token(t, any))); err != nil {
			t.Error(err)
		}
	})
	check(t, "refusal remembered", func(t *testing.T) {
		r := newRig(t, pamtest.Config{Access: pamtest.Access{DenyCache: 30 * time.Second}})
		pn := r.app("alice", r.token(t, exactly([]permission{{pam.ResourceChannel, "c", pam.Read}})))
		status, err := publish(pn)
		wantRefused(t, err, status, 403, "Forbidden")
		pn.SetToken(r.token(t, grant))
		if _, err := publish(pn); err != nil {
			t.Error("with another token:", err)
		}
	})
}

// What the SDK's caller sees of a revoke.
func TestRevoke(t *testing.T) {
	grant := exactly([]permission{{pam.ResourceChannel, "c", pam.Write}})
	check(t, "ended token", func(t *testing.T) {
		r := newRig(t, pamtest.Config{Now: func() time.Time { return time.Now().Add(-61 * time.Second) }})
		r.SetClockOffset(0)
		token := r.token(t, grant)
		r.SetClockOffset(61 * time.Second) // which is the time by the SDK's clock
		_, status, err := r.server("admin").RevokeToken().Token(token).Execute()
		wantRefused(t, err, status, 400, `"Invalid token"`, `"Token is expired."`, `"source":"revoke"`, `"location":"token"`)
	})
	check(t, "not a token", func(t *testing.T) {
		r := newRig(t, pamtest.Config{})
		_, status, err := r.server("admin").RevokeToken().Token("bad token;,/?").Execute()
		wantRefused(t, err, status, 400, `"Invalid token"`, `"source":"revoke"`)
	})
	check(t, "feature disabled", func(t *testing.T) {
		r := newRig(t, pamtest.Config{RevokeDisabled: true})
		_, status, err := r.server("admin").RevokeToken().Token(r.token(t, grant)).Execute()
		wantRefused(t, err, status, 400, `"Feature disabled"`, `"Token revocation is disabled."`, `"location":"subscribe-key"`)
	})
	check(t, "wrong secret key", func(t *testing.T) {
		r := newRig(t, pamtest.Config{})
		c := r.config("admin")
		c.SecretKey = "sec-c-other"
		_, status, err := r.start(c).RevokeToken().Token(r.token(t, grant)).Execute()
		wantRefused(t, err, status, 403, `"Invalid signature"`, `"source":"revoke"`)
	})
}

// A subscriber is told that access was denied and stops; a new token alone does not bring it back.
func TestSubscriberDenied(t *testing.T) {
	grant := exactly([]permission{{pam.ResourceChannel, "c", pam.Write | pam.Read}})
	for _, c := range []struct {
		name  string
		user  string
		token func(r *rig) string
	}{
		{"no token", "alice", func(*rig) string { return "" }},
		{"other uuid", "bob", func(r *rig) string { return r.token(t, grant) }},
		{"only write", "alice", func(r *rig) string {
			return r.token(t, exactly([]permission{{pam.ResourceChannel, "c", pam.Write}}))
		}},
		{"ended", "alice", func(r *rig) string {
			token := r.token(t, grant)
			r.SetClockOffset(2 * time.Minute)
			return token
		}},
	} {
		check(t, c.name, func(t *testing.T) {
			r := newRig(t, pamtest.Config{})
			pn := r.app(c.user, c.token(r))
			in := listenTo(t, pn)
			pn.Subscribe().Channels([]string{"c"}).Execute()
			in.saw(t, pubnub.PNAccessDeniedCategory)
			eventually(t, 5*time.Second, "end of the subscription", func() bool { return len(pn.GetSubscribedChannels()) == 0 })
			if n := in.count(pubnub.PNConnectedCategory); n != 0 {
				t.Errorf("connected %d times", n)
			}
		})
	}
	check(t, "subscribing again with a good token", func(t *testing.T) {
		r := newRig(t, pamtest.Config{})
		pn := r.app("alice", "")
		in := listenTo(t, pn)
		pn.Subscribe().Channels([]string{"c"}).Execute()
		in.saw(t, pubnub.PNAccessDeniedCategory)
		eventually(t, 5*time.Second, "end of the subscription", func() bool { return len(pn.GetSubscribedChannels()) == 0 })
		pn.SetToken(r.token(t, grant))
		pn.Subscribe().Channels([]string{"c"}).Execute()
		in.saw(t, pubnub.PNConnectedCategory)
	})
}
