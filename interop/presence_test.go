package interop

import (
	"fmt"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
	pubnub "github.com/pubnub/go/v7"
)

// Presence events come on the presence channel, for which the token needs its own permission.
func TestPresence(t *testing.T) {
	r := newRig(t, pamtest.Config{})
	grant := pam.Grant{TTL: time.Minute, UUID: "watcher", Resources: pam.Permissions{Channels: map[string]pam.Permission{
		"room": pam.Read, "room-pnpres": pam.Read,
	}}}
	watcher := r.app("watcher", r.token(t, grant))
	in := listenTo(t, watcher)
	watcher.Subscribe().Channels([]string{"room"}).WithPresence(true).Execute()
	in.saw(t, pubnub.PNConnectedCategory)
	guest := r.app("alice", r.token(t, everything))
	listenTo(t, guest)
	check(t, "own join", func(t *testing.T) { in.event(t, "join", "watcher") })
	check(t, "join", func(t *testing.T) {
		guest.Subscribe().Channels([]string{"room"}).Execute()
		if p := in.event(t, "join", "alice"); p.Channel != "room" || p.Occupancy != 2 {
			t.Errorf("got %+v", p)
		}
	})
	check(t, "state", func(t *testing.T) {
		if _, _, err := guest.SetState().Channels([]string{"room"}).State(map[string]any{"mood": "good"}).Execute(); err != nil {
			t.Fatal(err)
		}
		if p := in.event(t, "state-change", "alice"); fmt.Sprint(p.State) != "map[mood:good]" {
			t.Errorf("got %+v", p)
		}
	})
	check(t, "leave", func(t *testing.T) {
		guest.Unsubscribe().Channels([]string{"room"}).Execute()
		if p := in.event(t, "leave", "alice"); p.Occupancy != 1 {
			t.Errorf("got %+v", p)
		}
	})
	check(t, "without the permission for it", func(t *testing.T) {
		blind := grant
		blind.Resources = pam.Permissions{Channels: map[string]pam.Permission{"room": pam.Read}}
		pn := r.app("watcher", r.token(t, blind))
		in := listenTo(t, pn)
		pn.Subscribe().Channels([]string{"room"}).WithPresence(true).Execute()
		in.saw(t, pubnub.PNAccessDeniedCategory)
	})
}

// A subscription to a channel group needs read on the group, not on its channels.
func TestGroupSubscriber(t *testing.T) {
	r := newRig(t, pamtest.Config{})
	admin := r.server("admin")
	if _, _, err := admin.AddChannelToChannelGroup().ChannelGroup("g").Channels([]string{"c"}).Execute(); err != nil {
		t.Fatal(err)
	}
	check(t, "read on the group is enough", func(t *testing.T) {
		pn := r.app("alice", r.token(t, exactly([]permission{{pam.ResourceGroup, "g", pam.Read}})))
		in := listenTo(t, pn)
		pn.Subscribe().ChannelGroups([]string{"g"}).Execute()
		in.saw(t, pubnub.PNConnectedCategory)
		if _, _, err := admin.Publish().Channel("c").Message("x").Execute(); err != nil {
			t.Fatal(err)
		}
		if m := in.message(t, "x"); m.Channel != "c" || m.Subscription != "g" {
			t.Errorf("got %+v", m)
		}
	})
	check(t, "read on its channel is not", func(t *testing.T) {
		pn := r.app("alice", r.token(t, exactly([]permission{{pam.ResourceChannel, "c", pam.Read}})))
		in := listenTo(t, pn)
		pn.Subscribe().ChannelGroups([]string{"g"}).Execute()
		in.saw(t, pubnub.PNAccessDeniedCategory)
	})
	check(t, "one of several is not", func(t *testing.T) {
		pn := r.app("alice", r.token(t, exactly([]permission{{pam.ResourceChannel, "c", pam.Read}})))
		in := listenTo(t, pn)
		pn.Subscribe().Channels([]string{"c", "d"}).Execute()
		in.saw(t, pubnub.PNAccessDeniedCategory)
	})
}
