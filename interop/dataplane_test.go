package interop

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
	pubnub "github.com/pubnub/go/v7"
)

// everything allows alice all that the data plane knows.
var everything = pam.Grant{
	TTL: time.Minute, UUID: "alice",
	Patterns: pam.Permissions{
		Channels: map[string]pam.Permission{".*": pam.ChannelPermissions},
		Groups:   map[string]pam.Permission{".*": pam.GroupPermissions},
		UUIDs:    map[string]pam.Permission{".*": pam.UUIDPermissions},
	},
}

// allowed are operations that must succeed, each with what the SDK's caller gets. They run in this order against one emulator.
var allowed = []struct {
	name string
	do   func(pn *pubnub.PubNub) (any, error)
	want any
}{
	{"publish", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.Publish().Channel("orders").Message(map[string]any{"n": 1}).Execute()
		return err == nil && resp.Timestamp > 0, err
	}, true},
	{"publish by POST", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.Publish().Channel("orders").Message("by post \u2603").UsePost(true).Execute()
		return err == nil && resp.Timestamp > 0, err
	}, true},
	{"publish with everything", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.Publish().Channel("a b/c \u2603").Message([]any{"x", 1.5, nil, true}).Meta(map[string]any{"k": "v w"}).
			TTL(1).ShouldStore(true).CustomMessageType("my-type").Execute()
		return err == nil && resp.Timestamp > 0, err
	}, true},
	{"fire", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.Fire().Channel("orders").Message("fired").Execute()
		return err == nil && resp.Timestamp > 0, err
	}, true},
	{"signal", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.Signal().Channel("orders").Message("s").Execute()
		return err == nil && resp.Timestamp > 0, err
	}, true},
	{"fetch", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.Fetch().Channels([]string{"orders"}).Count(25).IncludeUUID(true).Execute()
		if err != nil {
			return nil, err
		}
		var seen []string
		for _, m := range resp.Messages["orders"] {
			seen = append(seen, fmt.Sprintf("%v by %s", m.Message, m.UUID))
		}
		return strings.Join(seen, "; "), nil
	}, "map[n:1] by alice; by post \u2603 by alice"},
	{"history", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.History().Channel("orders").Count(1).Execute()
		if err != nil {
			return nil, err
		}
		return fmt.Sprint(len(resp.Messages), resp.Messages[0].Message), nil
	}, "1by post \u2603"},
	{"time", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.Time().Execute()
		return err == nil && time.Since(time.Unix(0, resp.Timetoken*100)).Abs() < time.Minute, err
	}, true},
	{"group add", func(pn *pubnub.PubNub) (any, error) {
		_, _, err := pn.AddChannelToChannelGroup().ChannelGroup("feeds").Channels([]string{"orders", "bills", "mails"}).Execute()
		return nil, err
	}, nil},
	{"group remove", func(pn *pubnub.PubNub) (any, error) {
		_, _, err := pn.RemoveChannelFromChannelGroup().ChannelGroup("feeds").Channels([]string{"mails"}).Execute()
		return nil, err
	}, nil},
	{"group list", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.ListChannelsInChannelGroup().ChannelGroup("feeds").Execute()
		if err != nil {
			return nil, err
		}
		slices.Sort(resp.Channels)
		return fmt.Sprint(resp.ChannelGroup, resp.Channels), nil
	}, "feeds[bills orders]"},
	{"group delete", func(pn *pubnub.PubNub) (any, error) {
		if _, _, err := pn.DeleteChannelGroup().ChannelGroup("feeds").Execute(); err != nil {
			return nil, err
		}
		resp, _, err := pn.ListChannelsInChannelGroup().ChannelGroup("feeds").Execute()
		return err == nil && len(resp.Channels) == 0, err
	}, true},
	{"heartbeat", func(pn *pubnub.PubNub) (any, error) {
		_, _, err := pn.Heartbeat().Channels([]string{"room"}).Execute()
		return nil, err
	}, nil},
	{"set state", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.SetState().Channels([]string{"room"}).State(map[string]any{"mood": "good"}).Execute()
		if err != nil {
			return nil, err
		}
		return fmt.Sprint(resp.State), nil
	}, "map[mood:good]"},
	{"get state", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.GetState().Channels([]string{"room"}).UUID("alice").Execute()
		if err != nil {
			return nil, err
		}
		return fmt.Sprint(resp.State["room"]), nil
	}, "map[mood:good]"},
	{"here now", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.HereNow().Channels([]string{"room"}).IncludeUUIDs(true).IncludeState(true).Execute()
		if err != nil {
			return nil, err
		}
		return fmt.Sprintf("%d %+v", resp.TotalOccupancy, resp.Channels), nil
	}, "1 [{ChannelName:room Occupancy:1 Occupants:[{UUID:alice State:map[mood:good]}]}]"},
	{"here now of several", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.HereNow().Channels([]string{"room", "empty"}).IncludeUUIDs(true).Execute()
		if err != nil {
			return nil, err
		}
		return fmt.Sprint(resp.TotalChannels, resp.TotalOccupancy), nil
	}, "2 1"},
	{"where now", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.WhereNow().UUID("alice").Execute()
		if err != nil {
			return nil, err
		}
		return fmt.Sprint(resp.Channels), nil
	}, "[room]"},
	{"leave", func(pn *pubnub.PubNub) (any, error) {
		if _, err := pn.Leave().Channels([]string{"room"}).Execute(); err != nil {
			return nil, err
		}
		resp, _, err := pn.HereNow().Channels([]string{"room"}).Execute()
		if err != nil {
			return nil, err
		}
		return resp.TotalOccupancy, nil
	}, 0},
	{"set user", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.SetUUIDMetadata().UUID("bob").Name("Bob \u00c9").Email("b@example.com").ExternalID("x1").ProfileURL("https://example.com/b").
			Custom(map[string]any{"age": 41}).Include([]pubnub.PNUUIDMetadataInclude{pubnub.PNUUIDMetadataIncludeCustom}).Execute()
		if err != nil {
			return nil, err
		}
		d := resp.Data
		return fmt.Sprint(d.ID, d.Name, d.Email, d.ExternalID, d.ProfileURL, d.Custom, d.ETag != "", d.Updated != ""), nil
	}, "bobBob \u00c9b@example.comx1https://example.com/bmap[age:41] true true"},
	{"get user", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.GetUUIDMetadata().UUID("bob").Execute()
		if err != nil {
			return nil, err
		}
		return resp.Data.Name, nil
	}, "Bob \u00c9"},
	{"all users", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.GetAllUUIDMetadata().Count(true).Execute()
		if err != nil {
			return nil, err
		}
		return fmt.Sprint(resp.TotalCount, len(resp.Data)), nil
	}, "1 1"},
	{"set channel", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.SetChannelMetadata().Channel("orders").Name("Orders").Description("all of them").
			Custom(map[string]any{"k": true}).Include([]pubnub.PNChannelMetadataInclude{pubnub.PNChannelMetadataIncludeCustom}).Execute()
		if err != nil {
			return nil, err
		}
		return fmt.Sprint(resp.Data.ID, resp.Data.Name, resp.Data.Description, resp.Data.Custom), nil
	}, "ordersOrdersall of themmap[k:true]"},
	{"get channel", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.GetChannelMetadata().Channel("orders").Execute()
		if err != nil {
			return nil, err
		}
		return resp.Data.Description, nil
	}, "all of them"},
	{"set memberships", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.SetMemberships().UUID("bob").Set([]pubnub.PNMembershipsSet{
			{Channel: pubnub.PNMembershipsChannel{ID: "orders"}, Custom: map[string]any{"role": "boss"}}, {Channel: pubnub.PNMembershipsChannel{ID: "bills"}},
		}).Include([]pubnub.PNMembershipsInclude{pubnub.PNMembershipsIncludeCustom, pubnub.PNMembershipsIncludeChannel}).Count(true).Execute()
		if err != nil {
			return nil, err
		}
		var seen []string
		for _, m := range resp.Data {
			seen = append(seen, fmt.Sprint(m.Channel.ID, m.Channel.Name, m.Custom))
		}
		return fmt.Sprint(resp.TotalCount, seen), nil
	}, "2 [billsmap[] ordersOrdersmap[role:boss]]"},
	{"get members", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.GetChannelMembers().Channel("orders").Include([]pubnub.PNChannelMembersInclude{pubnub.PNChannelMembersIncludeUUID}).Execute()
		if err != nil {
			return nil, err
		}
		return fmt.Sprint(len(resp.Data), resp.Data[0].UUID.Name), nil
	}, "1Bob \u00c9"},
	{"manage members", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.ManageChannelMembers().Channel("orders").
			Set([]pubnub.PNChannelMembersSet{{UUID: pubnub.PNChannelMembersUUID{ID: "alice"}}}).
			Remove([]pubnub.PNChannelMembersRemove{{UUID: pubnub.PNChannelMembersUUID{ID: "bob"}}}).Execute()
		if err != nil {
			return nil, err
		}
		return fmt.Sprint(len(resp.Data), resp.Data[0].UUID.ID), nil
	}, "1alice"},
	{"get memberships", func(pn *pubnub.PubNub) (any, error) {
		resp, _, err := pn.GetMemberships().UUID("bob").Execute()
		if err != nil {
			return nil, err
		}
		return fmt.Sprint(len(resp.Data), resp.Data[0].Channel.ID), nil
	}, "1bills"},
	{"remove user", func(pn *pubnub.PubNub) (any, error) {
		if _, _, err := pn.RemoveUUIDMetadata().UUID("bob").Execute(); err != nil {
			return nil, err
		}
		_, status, err := pn.GetUUIDMetadata().UUID("bob").Execute()
		return err != nil && status.StatusCode == 404, nil
	}, true},
	{"remove channel", func(pn *pubnub.PubNub) (any, error) {
		_, _, err := pn.RemoveChannelMetadata().Channel("orders").Execute()
		return nil, err
	}, nil},
}

// Every operation works with a token that allows it, and without one when the request is signed.
func TestAllowed(t *testing.T) {
	for _, mode := range []string{"token", "signature"} {
		r := newRig(t, pamtest.Config{})
		var pn *pubnub.PubNub
		if mode == "token" {
			pn = r.app("alice", r.token(t, everything))
		} else {
			pn = r.server("alice")
		}
		for _, op := range allowed {
			check(t, mode+"/"+op.name, func(t *testing.T) {
				got, err := op.do(pn)
				if err != nil {
					t.Fatal(err)
				}
				if got != op.want {
					t.Errorf("got %v, want %v", got, op.want)
				}
			})
		}
	}
}

// A path the service does not have is never a success.
func TestUnknownPath(t *testing.T) {
	r := newRig(t, pamtest.Config{})
	pn := r.app("alice", r.token(t, everything))
	check(t, "message counts", func(t *testing.T) {
		_, status, err := pn.MessageCounts().Channels([]string{"c"}).ChannelsTimetoken([]int64{15210190573608384}).Execute()
		wantRefused(t, err, status, 404)
	})
	check(t, "files", func(t *testing.T) {
		_, status, err := pn.ListFiles().Channel("c").Execute()
		wantRefused(t, err, status, 404)
	})
}

// What one publishes the other gets, once, with all that belongs to it.
func TestSubscribe(t *testing.T) {
	r := newRig(t, pamtest.Config{})
	token := r.token(t, everything)
	publisher := r.app("alice", token)
	subscriber := r.app("alice", token)
	in := listenTo(t, subscriber)
	if _, _, err := publisher.AddChannelToChannelGroup().ChannelGroup("feeds").Channels([]string{"grouped"}).Execute(); err != nil {
		t.Fatal(err)
	}
	subscriber.Subscribe().Channels([]string{"orders", "wild.*", "sp ace \u2603"}).ChannelGroups([]string{"feeds"}).Execute()
	in.saw(t, pubnub.PNConnectedCategory)
	publish := func(t *testing.T, channel string, message any) int64 {
		t.Helper()
		resp, _, err := publisher.Publish().Channel(channel).Message(message).Meta(map[string]any{"k": "v"}).Execute()
		if err != nil {
			t.Fatal(err)
		}
		return resp.Timestamp
	}
	check(t, "channel", func(t *testing.T) {
		at := publish(t, "orders", "one")
		m := in.message(t, "one")
		if m.Channel != "orders" || m.Subscription != "" || m.Publisher != "alice" || m.Timetoken != at {
			t.Errorf("got %+v", m)
		}
		if meta, _ := m.UserMetadata.(map[string]any); meta["k"] != "v" {
			t.Errorf("meta %v", m.UserMetadata)
		}
	})
	check(t, "wildcard", func(t *testing.T) {
		publish(t, "wild.card", "two")
		if m := in.message(t, "two"); m.Channel != "wild.card" || m.Subscription != "wild.*" {
			t.Errorf("got %+v", m)
		}
	})
	check(t, "channel group", func(t *testing.T) {
		publish(t, "grouped", "three")
		if m := in.message(t, "three"); m.Channel != "grouped" || m.Subscription != "feeds" {
			t.Errorf("got %+v", m)
		}
	})
	check(t, "channel of strange characters", func(t *testing.T) {
		publish(t, "sp ace \u2603", "four")
		if m := in.message(t, "four"); m.Channel != "sp ace \u2603" {
			t.Errorf("got %+v", m)
		}
	})
	check(t, "signal", func(t *testing.T) {
		if _, _, err := publisher.Signal().Channel("orders").Message("ding").Execute(); err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Second, "signal", func() (ok bool) {
			in.locked(func() { ok = len(in.signals) == 1 && in.signals[0].Message == "ding" })
			return ok
		})
	})
	check(t, "not what was fired, not other channels, nothing twice", func(t *testing.T) {
		if _, _, err := publisher.Fire().Channel("orders").Message("fired").Execute(); err != nil {
			t.Fatal(err)
		}
		publish(t, "other", "other")
		publish(t, "orders", "last")
		in.message(t, "last")
		if got := in.payloads(); len(got) != 5 {
			t.Errorf("got %v", got)
		}
	})
	check(t, "from a timetoken", func(t *testing.T) {
		first := publish(t, "late", "a")
		publish(t, "late", "b")
		publish(t, "late", "c")
		late := r.app("alice", token)
		in := listenTo(t, late)
		late.Subscribe().Channels([]string{"late"}).Timetoken(first).Execute()
		in.message(t, "b")
		in.message(t, "c")
		if got := in.payloads(); len(got) != 2 {
			t.Errorf("got %v", got)
		}
	})
	check(t, "burst", func(t *testing.T) {
		const n = 150 // more than one answer holds
		for i := range n {
			publish(t, "orders", fmt.Sprintf("burst %d", i))
		}
		count := func() map[any]int {
			seen := map[any]int{}
			for _, p := range in.payloads() {
				if strings.HasPrefix(fmt.Sprint(p), "burst ") {
					seen[p]++
				}
			}
			return seen
		}
		eventually(t, 10*time.Second, "all messages", func() bool { return len(count()) == n })
		for p, times := range count() {
			if times != 1 {
				t.Errorf("%v came %d times", p, times)
			}
		}
	})
}
