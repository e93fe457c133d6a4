package pamtest

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
)

const servicePresence = "Presence"

// maxHereNow is how many UUIDs of a channel here now shows without a limit.
const maxHereNow = 1000

type presenceDone struct {
	Status  int    `json:"status"`
	Message string `json:"message"`
	Action  string `json:"action,omitempty"`
	Service string `json:"service"`
}

// readNeeds is what most calls of presence need: read on the channels and groups.
func (c *call) readNeeds() []need {
	return []need{channelNeed(pam.Read, c.data.channels...), groupNeed(pam.Read, c.groups()...)}
}

// heartbeat keeps a UUID present on channels and those of groups.
func (s *Server) heartbeat(_ context.Context, c *call) reply {
	if rep, ok := s.authorize(c, c.readNeeds()...); !ok {
		return rep
	}
	if c.uuid() == "" {
		return flat(http.StatusBadRequest, servicePresence, "No UUID specified")
	}
	v := c.visit()
	s.withHub(func(h *hub, now time.Time) {
		for _, channel := range h.attended(c.data.channels, c.groups()) {
			h.arrive(channel, v, now)
		}
	})
	return spacedReply(presenceDone{Status: http.StatusOK, Message: "OK", Service: servicePresence})
}

// leave ends a UUID's presence. It needs no permission (documented), so not even a token.
func (s *Server) leave(_ context.Context, c *call) reply {
	if c.uuid() == "" {
		return flat(http.StatusBadRequest, servicePresence, "No UUID specified")
	}
	s.withHub(func(h *hub, now time.Time) {
		for _, channel := range h.attended(c.data.channels, c.groups()) {
			h.depart(channel, c.uuid(), actionLeave, now)
		}
	})
	return spacedReply(presenceDone{http.StatusOK, "OK", actionLeave, servicePresence})
}

// withHub runs f with the lock held and what is due done.
func (s *Server) withHub(f func(h *hub, now time.Time)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clockLocked()
	s.hub.sweep(now)
	f(&s.hub, now)
}

// roomJSON is a channel in here now.
type roomJSON struct {
	UUIDs     []any `json:"uuids,omitzero"`
	Occupancy int   `json:"occupancy"`
}

type occupantJSON struct {
	UUID  string          `json:"uuid"`
	State json.RawMessage `json:"state,omitempty"`
}

// roomView is how here now shows a channel.
type roomView struct {
	state, hideUUIDs bool
	limit, offset    int
}

func (c *call) roomView() roomView {
	q := c.values
	v := roomView{state: q.Get("state") == "1", hideUUIDs: q.Get("disable_uuids") == "1" || q.Get("disable-uuids") == "1", limit: maxHereNow}
	if n, err := strconv.Atoi(q.Get("limit")); err == nil && n >= 0 {
		v.limit = min(n, maxHereNow)
	}
	if n, err := strconv.Atoi(q.Get("offset")); err == nil && n > 0 {
		v.offset = n
	}
	return v
}

func (v roomView) show(r *room) roomJSON {
	if r == nil {
		r = new(room)
	}
	out := roomJSON{Occupancy: r.here}
	if v.hideUUIDs {
		return out
	}
	out.UUIDs = []any{}
	for _, uuid := range slices.Sorted(maps.Keys(r.occupants)) {
		switch o := r.occupants[uuid]; {
		case !o.here:
		case v.state:
			out.UUIDs = append(out.UUIDs, occupantJSON{uuid, o.state})
		default:
			out.UUIDs = append(out.UUIDs, uuid)
		}
	}
	out.UUIDs = out.UUIDs[min(v.offset, len(out.UUIDs)):]
	out.UUIDs = out.UUIDs[:min(v.limit, len(out.UUIDs))]
	return out
}

// hereNow tells who is on channels and on those of groups. One channel is answered in another form than several.
func (s *Server) hereNow(_ context.Context, c *call) reply {
	if rep, ok := s.authorize(c, c.readNeeds()...); !ok {
		return rep
	}
	view := c.roomView()
	groups := c.groups()
	shown := make(map[string]roomJSON)
	s.withHub(func(h *hub, _ time.Time) {
		for _, channel := range h.attended(c.data.channels, groups) {
			shown[channel] = view.show(h.presence.rooms[channel])
		}
	})
	if len(groups) > 0 || len(c.data.channels) != 1 {
		return hereNowReply(shown)
	}
	one := shown[c.data.channels[0]]
	return spacedReply(struct {
		Status  int    `json:"status"`
		Message string `json:"message"`
		Service string `json:"service"`
		roomJSON
	}{http.StatusOK, "OK", servicePresence, one})
}

// hereNowEverywhere tells who is on all channels. Which permission the service wants for that is not known; here any good token will do.
func (s *Server) hereNowEverywhere(_ context.Context, c *call) reply {
	if rep, ok := s.authorize(c); !ok {
		return rep
	}
	view := c.roomView()
	shown := make(map[string]roomJSON)
	s.withHub(func(h *hub, _ time.Time) {
		for channel, r := range h.presence.rooms {
			if r.here > 0 {
				shown[channel] = view.show(r)
			}
		}
	})
	return hereNowReply(shown)
}

func hereNowReply(shown map[string]roomJSON) reply {
	type payload struct {
		Channels  map[string]roomJSON `json:"channels"`
		Rooms     int                 `json:"total_channels"`
		Occupancy int                 `json:"total_occupancy"`
	}
	p := payload{Channels: shown, Rooms: len(shown)}
	for _, r := range shown {
		p.Occupancy += r.Occupancy
	}
	return presencePayload(p)
}

func presencePayload(payload any) reply {
	return spacedReply(struct {
		Status  int    `json:"status"`
		Message string `json:"message"`
		Payload any    `json:"payload"`
		Service string `json:"service"`
	}{http.StatusOK, "OK", payload, servicePresence})
}

// whereNow tells on which channels a UUID is. It needs no permission (documented).
func (s *Server) whereNow(_ context.Context, c *call) reply {
	channels := []string{}
	s.withHub(func(h *hub, _ time.Time) {
		for channel, r := range h.presence.rooms {
			if o := r.occupants[c.data.id]; o != nil && o.here {
				channels = append(channels, channel)
			}
		}
	})
	slices.Sort(channels)
	return presencePayload(map[string][]string{"channels": channels})
}

// setState sets the state of a UUID on channels and on those of groups; it lasts as long as the presence, or a presence timeout for one who is absent.
func (s *Server) setState(_ context.Context, c *call) reply {
	if rep, ok := s.authorize(c, c.readNeeds()...); !ok {
		return rep
	}
	state := json.RawMessage(c.values.Get("state"))
	var object map[string]any
	if err := json.Unmarshal(state, &object); err != nil || object == nil {
		return flat(http.StatusBadRequest, servicePresence, "Invalid JSON specified.")
	}
	s.withHub(func(h *hub, now time.Time) {
		for _, channel := range h.attended(c.data.channels, c.groups()) {
			o := h.presence.entry(channel, c.data.id)
			if o == nil {
				continue
			}
			h.presence.setState(o, state)
			if !o.here {
				h.stay(o, now)
				continue
			}
			h.announce(o, actionState, now)
		}
	})
	return presencePayload(state)
}

// getState returns the state of a UUID; one channel is answered in another form than several.
func (s *Server) getState(_ context.Context, c *call) reply {
	if rep, ok := s.authorize(c, c.readNeeds()...); !ok {
		return rep
	}
	states := make(map[string]json.RawMessage)
	s.withHub(func(h *hub, _ time.Time) {
		for _, channel := range h.attended(c.data.channels, c.groups()) {
			states[channel] = json.RawMessage("{}")
			if r := h.presence.rooms[channel]; r != nil && r.occupants[c.data.id] != nil && r.occupants[c.data.id].state != nil {
				states[channel] = r.occupants[c.data.id].state
			}
		}
	})
	type answer struct {
		Status  int    `json:"status"`
		Message string `json:"message"`
		Payload any    `json:"payload"`
		Service string `json:"service"`
		UUID    string `json:"uuid"`
		Channel string `json:"channel,omitempty"`
	}
	rep := answer{http.StatusOK, "OK", map[string]any{"channels": states}, servicePresence, c.data.id, ""}
	if len(c.groups()) == 0 && len(c.data.channels) == 1 {
		rep.Channel = c.data.channels[0]
		rep.Payload = states[rep.Channel]
	}
	return spacedReply(rep)
}
