package pamtest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// events describes presence messages: action, UUID, occupancy and state.
func events(t *testing.T, messages []envelope) []string {
	t.Helper()
	var all []string
	for _, m := range messages {
		var e struct {
			Action    string
			UUID      string
			Occupancy int
			Timestamp int64
			Data      json.RawMessage
			Refresh   bool `json:"here_now_refresh"`
			Join      []string
			Leave     []string
			Timeout   []string
		}
		if err := json.Unmarshal(m.D, &e); err != nil || e.Timestamp == 0 || !strings.HasSuffix(m.C, "-pnpres") || m.I != "" {
			t.Errorf("event %+v %s", m, m.D)
		}
		text := fmt.Sprintf("%s %s %d", e.Action, e.UUID, e.Occupancy)
		if e.Data != nil {
			text += " " + string(e.Data)
		}
		if e.Action == "interval" {
			text += fmt.Sprintf(" join %d leave %d timeout %d refresh %v", len(e.Join), len(e.Leave), len(e.Timeout), e.Refresh)
		}
		all = append(all, text)
	}
	return all
}

func wantEvents(t *testing.T, what string, messages []envelope, want ...string) {
	t.Helper()
	if got := events(t, messages); !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func (g rig) heartbeat(uuid, channel string, seconds int) {
	g.t.Helper()
	g.expect(ask{path: "/v2/presence/sub-key/{sub}/channel/" + channel + "/heartbeat", uuid: uuid, query: fmt.Sprint("heartbeat=", seconds)}, 200,
		`{"status":200,"message":"OK","service":"Presence"}`)
}

func (g rig) leave(uuid, channel, query string) {
	g.t.Helper()
	g.expect(ask{path: "/v2/presence/sub-key/{sub}/channel/" + channel + "/leave", uuid: uuid, query: query}, 200,
		`{"status":200,"message":"OK","action":"leave","service":"Presence"}`)
}

func TestPresenceEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := openRig(t, pamtest.Config{})
		watch := g.subscriber("", "a-pnpres", "")
		watch.poll()
		own := g.subscriber("bob", "a,a-pnpres", "heartbeat=60")
		own.poll()
		wantEvents(t, "own arrival", own.poll(), "join bob 1")
		g.subscriber("carol", "a", "heartbeat=30").poll()
		wantEvents(t, "arrivals", watch.poll(), "join bob 1", "join carol 2")
		g.heartbeat("bob", "a", 60) // still here: no event

		start := time.Now()
		wantEvents(t, "carol's timeout", watch.poll(), "timeout carol 1")
		if waited := time.Since(start); waited != 30*time.Second {
			t.Errorf("timeout after %v", waited)
		}
		wantEvents(t, "bob's timeout", watch.poll(), "timeout bob 0")
		if waited := time.Since(start); waited != time.Minute {
			t.Errorf("timeout after %v", waited)
		}
		g.heartbeat("dora", "a", 300)
		g.leave("dora", "a", "")
		g.leave("dora", "a", "") // gone already: no event
		wantEvents(t, "a visit", watch.poll(), "join dora 1", "leave dora 0")
		if n := g.Stats().Present; n != 0 {
			t.Errorf("%d present", n)
		}
	})
}

// One who polls does not time out; when the poll ends without another, the timeout starts, and those who wait learn of it in time.
func TestPollKeepsPresent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := openRig(t, pamtest.Config{LongPoll: time.Hour})
		bob := g.subscriber("bob", "a", "heartbeat=20")
		bob.poll()
		watch := g.subscriber("", "a-pnpres", "")
		watch.poll()
		ctx, cancel := context.WithCancel(t.Context())
		go bob.pollCtx(ctx)
		start := time.Now()
		events := make(chan []envelope)
		go func() { events <- watch.poll() }()
		time.Sleep(10 * time.Minute)
		cancel()
		wantEvents(t, "after the poll", <-events, "timeout bob 0")
		if waited := time.Since(start); waited != 10*time.Minute+20*time.Second {
			t.Errorf("timeout after %v", waited)
		}
	})
}

// Leaving ends presence although a poll is still open, and the end of that poll does not bring it back.
func TestLeaveDuringPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := openRig(t, pamtest.Config{LongPoll: time.Minute})
		bob := g.subscriber("bob", "a", "")
		bob.poll()
		go bob.poll()
		synctest.Wait()
		g.leave("bob", "a", "")
		time.Sleep(2 * time.Minute)
		g.expect(ask{path: "/v2/presence/sub-key/{sub}/channel/a"}, 200, `{"status":200,"message":"OK","service":"Presence","uuids":[],"occupancy":0}`)
	})
}

// A channel with many occupants tells of changes every so often.
func TestIntervalEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := openRig(t, pamtest.Config{})
		for i := range 20 {
			g.heartbeat(fmt.Sprint("u", i), "a", 3600)
		}
		watch := g.subscriber("", "a-pnpres", "")
		watch.poll()
		start := time.Now()
		for i := range 5 {
			g.heartbeat(fmt.Sprint("late", i), "a", 3600)
		}
		g.leave("u0", "a", "")
		wantEvents(t, "many", watch.poll(), "interval  24 join 5 leave 1 timeout 0 refresh false")
		if waited := time.Since(start); waited != 20*time.Second {
			t.Errorf("interval of %v", waited)
		}
		for i := range 600 {
			g.heartbeat(fmt.Sprint("crowd", i), "a", 3600)
		}
		wantEvents(t, "too many", watch.poll(), "interval  624 join 0 leave 0 timeout 0 refresh true")
	})
}

func TestHereNow(t *testing.T) {
	g := openRig(t, pamtest.Config{})
	g.send(ask{path: "/v1/channel-registration/sub-key/{sub}/channel-group/g", query: "add=b"})
	g.subscriber("bob", "a", "channel-group=g,g-pnpres&state="+`%7B%22b%22%3A%7B%22mood%22%3A%22ok%22%7D%7D`).poll()
	g.subscriber("alice", "a,a-pnpres", "").poll()
	const presence = "/v2/presence/sub-key/{sub}"
	ok := func(payload string) string {
		return `{"status":200,"message":"OK","payload":` + payload + `,"service":"Presence"}`
	}
	for _, c := range []struct{ path, query, want string }{
		{"/channel/a", "", `{"status":200,"message":"OK","service":"Presence","uuids":["alice","bob"],"occupancy":2}`},
		{"/channel/a", "state=1", `{"status":200,"message":"OK","service":"Presence","uuids":[{"uuid":"alice"},{"uuid":"bob"}],"occupancy":2}`},
		{"/channel/a", "disable_uuids=1", `{"status":200,"message":"OK","service":"Presence","occupancy":2}`},
		{"/channel/a", "limit=1&offset=1", `{"status":200,"message":"OK","service":"Presence","uuids":["bob"],"occupancy":2}`},
		{"/channel/a", "limit=1&offset=9", `{"status":200,"message":"OK","service":"Presence","uuids":[],"occupancy":2}`},
		{"/channel/a,nobody", "", ok(`{"channels":{"a":{"uuids":["alice","bob"],"occupancy":2},"nobody":{"uuids":[],"occupancy":0}},"total_channels":2,"total_occupancy":2}`)},
		{"/channel/,", "channel-group=g&state=1", ok(`{"channels":{"b":{"uuids":[{"uuid":"bob","state":{"mood":"ok"}}],"occupancy":1}},"total_channels":1,"total_occupancy":1}`)},
		{"", "disable-uuids=1", ok(`{"channels":{"a":{"occupancy":2},"b":{"occupancy":1}},"total_channels":2,"total_occupancy":3}`)},
		{"/uuid/bob", "", ok(`{"channels":["a","b"]}`)},
		{"/uuid/nobody", "", ok(`{"channels":[]}`)},
	} {
		g.expect(ask{path: presence + c.path, query: c.query}, 200, c.want)
	}
	g.leave("bob", ",", "channel-group=g")
	g.expect(ask{path: presence + "/uuid/bob"}, 200, ok(`{"channels":["a"]}`))
	if got := g.send(ask{path: presence + "/uuid/bob"}).body; got != `{"status": 200, "message": "OK", "payload": {"channels": ["a"]}, "service": "Presence"}` {
		t.Errorf("%s", got) // with blanks, as recorded
	}
}

func TestState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := openRig(t, pamtest.Config{})
		const presence = "/v2/presence/sub-key/{sub}/channel/"
		watch := g.subscriber("", "a-pnpres", "")
		watch.poll()
		g.heartbeat("bob", "a", 300)
		const state = "state=%7B%22n%22%3A%22a%3A%2C%5C%22b%22%7D"
		g.expect(ask{path: presence + "a,b/uuid/bob/data", query: state}, 200, `{"status":200,"message":"OK","payload":{"n":"a:,\"b"},"service":"Presence"}`)
		wantEvents(t, "state", watch.poll(), "join bob 1", `state-change bob 1 {"n":"a:,\"b"}`)
		g.expect(ask{path: presence + "a/uuid/bob"}, 200, `{"status":200,"message":"OK","payload":{"n":"a:,\"b"},"service":"Presence","uuid":"bob","channel":"a"}`)
		g.expect(ask{path: presence + "a,b,c/uuid/bob"}, 200,
			`{"status":200,"message":"OK","payload":{"channels":{"a":{"n":"a:,\"b"},"b":{"n":"a:,\"b"},"c":{}}},"service":"Presence","uuid":"bob"}`)
		g.expect(ask{path: presence + "b"}, 200, `{"status":200,"message":"OK","service":"Presence","uuids":[],"occupancy":0}`) // a state is no presence
		g.leave("bob", "a", "")
		wantEvents(t, "leave", watch.poll(), `leave bob 0 {"n":"a:,\"b"}`)
		time.Sleep(time.Hour)
		g.expect(ask{path: presence + "b/uuid/bob"}, 200, `{"status":200,"message":"OK","payload":{},"service":"Presence","uuid":"bob","channel":"b"}`)
	})
}
