package pamtest

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"github.com/pamsidecar/pamsidecar/pam"
)

const serviceRegistry = "channel-registry"

// maxInGroup is how many channels a group holds (documented).
const maxInGroup = 2000

// groupBook is the channel groups. A group without channels does not exist.
type groupBook struct {
	channels map[string]map[string]bool // by group
	bytes    int
}

// entryOverhead is what one entry of a map costs beyond its texts, in bytes, roughly.
const entryOverhead = 128

func groupEntrySize(group, channel string) int { return entryOverhead + len(group) + len(channel) }

func (b *groupBook) add(group string, channels []string) bool {
	grown := 0
	for _, channel := range channels {
		grown += groupEntrySize(group, channel)
	}
	if len(b.channels[group])+len(channels) > maxInGroup || b.bytes+grown > maxGroups {
		return false
	}
	if b.channels[group] == nil && len(channels) > 0 {
		b.channels[group] = make(map[string]bool)
	}
	for _, channel := range channels {
		if !b.channels[group][channel] {
			b.channels[group][channel] = true
			b.bytes += groupEntrySize(group, channel)
		}
	}
	return true
}

func (b *groupBook) remove(group string, channels []string) {
	for _, channel := range channels {
		if b.channels[group][channel] {
			delete(b.channels[group], channel)
			b.bytes -= groupEntrySize(group, channel)
		}
	}
	if len(b.channels[group]) == 0 {
		delete(b.channels, group)
	}
}

type groupAnswer struct {
	Status  int    `json:"status"`
	Message string `json:"message,omitempty"`
	Payload any    `json:"payload,omitempty"`
	Service string `json:"service"`
	Error   bool   `json:"error"`
}

func groupDone() reply {
	return spacedReply(groupAnswer{Status: http.StatusOK, Message: "OK", Service: serviceRegistry})
}

// changeGroup adds channels, removes channels, or lists those of a group. To list, the docs speak neither of read nor of manage; here both will do.
func (s *Server) changeGroup(_ context.Context, c *call) reply {
	group := c.data.group
	add, remove := splitNames(c.values.Get("add")), splitNames(c.values.Get("remove"))
	if len(add)+len(remove) == 0 {
		return s.listGroup(c)
	}
	if rep, ok := s.authorize(c, groupNeed(pam.Manage, group)); !ok {
		return rep
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.hub.groups.add(group, add) {
		return flat(http.StatusBadRequest, serviceRegistry, "Maximum channel count exceeded.")
	}
	s.hub.groups.remove(group, remove)
	return groupDone()
}

func (s *Server) listGroup(c *call) reply {
	n := groupNeed(pam.Read, c.data.group)
	n.alt = pam.Manage
	if rep, ok := s.authorize(c, n); !ok {
		return rep
	}
	s.mu.Lock()
	channels := slices.Sorted(maps.Keys(s.hub.groups.channels[c.data.group]))
	s.mu.Unlock()
	type payload struct {
		Channels []string `json:"channels"`
		Group    string   `json:"group"`
	}
	return spacedReply(groupAnswer{Status: http.StatusOK, Payload: payload{nonNil(channels), c.data.group}, Service: serviceRegistry})
}

// deleteGroup removes a group with all its channels.
func (s *Server) deleteGroup(_ context.Context, c *call) reply {
	if rep, ok := s.authorize(c, groupNeed(pam.Manage, c.data.group)); !ok {
		return rep
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hub.groups.remove(c.data.group, slices.Collect(maps.Keys(s.hub.groups.channels[c.data.group])))
	return groupDone()
}

// listGroups lists all groups. Which permission the service wants for that is not known; here any good token will do.
func (s *Server) listGroups(_ context.Context, c *call) reply {
	if rep, ok := s.authorize(c); !ok {
		return rep
	}
	s.mu.Lock()
	groups := slices.Sorted(maps.Keys(s.hub.groups.channels))
	s.mu.Unlock()
	type payload struct {
		Groups    []string `json:"groups"`
		Namespace string   `json:"namespace"`
	}
	return spacedReply(groupAnswer{Status: http.StatusOK, Payload: payload{Groups: nonNil(groups)}, Service: serviceRegistry})
}

func nonNil(names []string) []string {
	if names == nil {
		return []string{}
	}
	return names
}
