package pamtest

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// defaultPresence is how long a UUID counts as present after it was last heard of, when it does not say.
	defaultPresence = 300 * time.Second

	// announceMax is the occupancy above which a channel no longer announces each arrival, as by default at PubNub.
	announceMax = 20

	// announceInterval is how often it tells what has changed instead.
	announceInterval = 20 * time.Second

	// maxDelta is how many UUIDs an interval event names; beyond, it asks its readers to call here now.
	maxDelta = 500
)

// The presence events.
const (
	actionJoin     = "join"
	actionLeave    = "leave"
	actionTimeout  = "timeout"
	actionState    = "state-change"
	actionInterval = "interval"
)

// presence is who is on which channel.
type presence struct {
	rooms map[string]*room
	count int       // of occupants
	bytes int       // of occupants and their states
	due   time.Time // when the next thing happens by itself; zero: never
}

// room is the presence of one channel.
type room struct {
	channel   string
	occupants map[string]*occupant
	here      int // of occupants
	delta     *delta
}

// occupant is a UUID on a channel.
type occupant struct {
	room    *room
	uuid    string
	here    bool // false: only its state is kept
	gone    bool // no longer in the room's list
	polls   int  // open long polls; with one it does not time out
	timeout time.Duration
	until   time.Time
	state   json.RawMessage
}

// delta is what changed on a channel with many occupants since its last interval event.
type delta struct {
	due                  time.Time
	join, leave, timeout []string
}

// visit is what a request says about its sender's presence.
type visit struct {
	uuid    string
	timeout time.Duration
	states  map[string]json.RawMessage // by channel
}

func (c *call) visit() visit {
	v := visit{uuid: c.uuid(), timeout: defaultPresence}
	if seconds, err := strconv.Atoi(c.values.Get("heartbeat")); err == nil && 0 < seconds && seconds <= 3600 {
		v.timeout = time.Duration(seconds) * time.Second
	}
	_ = json.Unmarshal([]byte(c.values.Get("state")), &v.states) // what is not an object of states is none
	return v
}

// attended returns the channels on which a subscriber counts as present: not the presence channels, but those of its groups.
func (h *hub) attended(channels, groups []string) []string {
	var names []string
	add := func(name string) {
		if !strings.HasSuffix(name, presenceSuffix) {
			names = append(names, name)
		}
	}
	for _, name := range channels {
		add(name)
	}
	for _, group := range groups {
		for name := range h.groups.channels[group] {
			add(name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// arrive notes that a UUID is on a channel; nil if that cannot be kept.
func (h *hub) arrive(channel string, v visit, now time.Time) *occupant {
	o := h.presence.entry(channel, v.uuid)
	if o == nil {
		return nil
	}
	if state, ok := v.states[channel]; ok {
		h.presence.setState(o, state)
	}
	o.timeout = v.timeout
	h.stay(o, now)
	if !o.here {
		o.here = true
		o.room.here++
		h.announce(o, actionJoin, now)
	}
	return o
}

// entry finds or makes an occupant, absent at first.
func (p *presence) entry(channel, uuid string) *occupant {
	r := p.rooms[channel]
	if r != nil && r.occupants[uuid] != nil {
		return r.occupants[uuid]
	}
	o := &occupant{uuid: uuid, timeout: defaultPresence}
	size := o.size() + len(channel)
	if uuid == "" || p.count >= maxOccupants || p.bytes+size > maxPresence {
		return nil
	}
	if r == nil {
		r = &room{channel: channel, occupants: make(map[string]*occupant)}
		p.rooms[channel] = r
	}
	o.room = r
	r.occupants[uuid] = o
	p.count++
	p.bytes += size
	return o
}

func (o *occupant) size() int { return entryOverhead + len(o.uuid) + len(o.state) }

// setState keeps a state if there is room for it.
func (p *presence) setState(o *occupant, state json.RawMessage) {
	if p.bytes+len(state)-len(o.state) <= maxPresence {
		p.bytes += len(state) - len(o.state)
		o.state = state
	}
}

// stay counts the timeout of an occupant anew.
func (h *hub) stay(o *occupant, now time.Time) {
	if !o.gone {
		o.until = now.Add(o.timeout)
		h.expect(o.until)
	}
}

// expect lets sweep run at t. Those who wait for presence events learn of it, since there is nobody else to run it.
func (h *hub) expect(t time.Time) {
	if !h.presence.due.IsZero() && !t.Before(h.presence.due) {
		return
	}
	h.presence.due = t
	for w := range h.waiters {
		if w.sub.presence {
			w.signal()
		}
	}
}

// depart ends a UUID's presence on a channel.
func (h *hub) depart(channel, uuid, action string, now time.Time) {
	r := h.presence.rooms[channel]
	if r == nil || r.occupants[uuid] == nil {
		return
	}
	o := r.occupants[uuid]
	delete(r.occupants, uuid)
	h.presence.count--
	h.presence.bytes -= o.size() + len(channel)
	o.gone = true
	if o.here {
		r.here--
		h.announce(o, action, now)
	}
	h.presence.tidy(r)
}

// present counts the occupants of all rooms.
func (p *presence) present() int {
	n := 0
	for _, r := range p.rooms {
		n += r.here
	}
	return n
}

// tidy forgets a room that holds nothing.
func (p *presence) tidy(r *room) {
	if len(r.occupants) == 0 && r.delta == nil {
		delete(p.rooms, r.channel)
	}
}

// sweep lets happen what is due: timeouts and interval events. It is called by requests, there is no goroutine for it.
func (h *hub) sweep(now time.Time) {
	if h.presence.due.IsZero() || now.Before(h.presence.due) {
		return
	}
	h.presence.due = time.Time{}
	var next time.Time
	later := func(t time.Time) bool {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
		return t.After(now)
	}
	for _, r := range h.presence.rooms {
		for uuid, o := range r.occupants {
			if o.polls == 0 && !later(o.until) {
				h.depart(r.channel, uuid, actionTimeout, now)
			}
		}
		if r.delta != nil && !later(r.delta.due) {
			h.announceDelta(r, now)
		}
	}
	if !next.IsZero() {
		h.expect(next)
	}
}

// presenceEvent is the payload of a message on a presence channel.
type presenceEvent struct {
	Action    string          `json:"action"`
	Timestamp int64           `json:"timestamp"` // seconds
	UUID      string          `json:"uuid,omitempty"`
	Occupancy int             `json:"occupancy"`
	Data      json.RawMessage `json:"data,omitempty"` // state
	Refresh   bool            `json:"here_now_refresh,omitempty"`
	Join      []string        `json:"join,omitempty"`
	Leave     []string        `json:"leave,omitempty"`
	Timeout   []string        `json:"timeout,omitempty"`
}

// announce tells of a change, at once or in the next interval event.
func (h *hub) announce(o *occupant, action string, now time.Time) {
	r := o.room
	if r.here <= announceMax || action == actionState {
		h.postPresence(r.channel, presenceEvent{Action: action, Timestamp: now.Unix(), UUID: o.uuid, Occupancy: r.here, Data: o.state}, now)
		return
	}
	if r.delta == nil {
		r.delta = &delta{due: now.Add(announceInterval)}
		h.expect(r.delta.due)
	}
	list := map[string]*[]string{actionJoin: &r.delta.join, actionLeave: &r.delta.leave, actionTimeout: &r.delta.timeout}[action]
	if len(*list) <= maxDelta { // one more than is ever shown
		*list = append(*list, o.uuid)
	}
}

func (h *hub) announceDelta(r *room, now time.Time) {
	d := r.delta
	r.delta = nil
	event := presenceEvent{Action: actionInterval, Timestamp: now.Unix(), Occupancy: r.here, Join: d.join, Leave: d.leave, Timeout: d.timeout}
	if len(d.join)+len(d.leave)+len(d.timeout) > maxDelta {
		event.Join, event.Leave, event.Timeout, event.Refresh = nil, nil, nil, true
	}
	h.postPresence(r.channel, event, now)
	h.presence.tidy(r)
}

func (h *hub) postPresence(channel string, event presenceEvent, now time.Time) {
	h.post(&message{channel: channel + presenceSuffix, payload: json.RawMessage(encode(event))}, now)
}
