package pamtest

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
)

// maxDelivery is how many messages one answer holds; those beyond come with the next.
const maxDelivery = 100

// subscription is what a subscribe request asks for.
type subscription struct {
	channels []string
	groups   []string
	presence bool // some presence channel is among them
}

func newSubscription(channels, groups []string) subscription {
	isPresence := func(name string) bool { return strings.HasSuffix(name, presenceSuffix) }
	return subscription{channels, groups, slices.ContainsFunc(channels, isPresence) || slices.ContainsFunc(groups, isPresence)}
}

// match tells whether a message of the channel is for this subscription, and by which of its names: the channel itself, else a wildcard, else a
// group. A message that several names select is delivered once.
func (sub *subscription) match(channel string, groups *groupBook) (string, bool) {
	if slices.Contains(sub.channels, channel) {
		return channel, true
	}
	base, presence := strings.CutSuffix(channel, presenceSuffix)
	for _, name := range sub.channels {
		wild, wildPresence := strings.CutSuffix(name, presenceSuffix)
		prefix, ok := strings.CutSuffix(wild, ".*")
		if ok && wildPresence == presence && strings.HasPrefix(base, prefix+".") && base != wild {
			return name, true
		}
	}
	for _, name := range sub.groups {
		group, groupPresence := strings.CutSuffix(name, presenceSuffix)
		if groupPresence == presence && groups.channels[group][base] {
			return name, true
		}
	}
	return "", false
}

// waiter is an open long poll.
type waiter struct {
	sub     subscription
	present []*occupant   // its entries in presence
	wake    chan struct{} // buffers one
}

func (w *waiter) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// subscribe answers at once when there is no timetoken (or 0) or when there are messages after it. Otherwise it holds the request until a message
// comes, the hold ends, or the client goes. The token counts at the start only: a request that is held goes on when its token ends. The parameters
// filter-expr, tr and those of the SDKs' bookkeeping are ignored.
func (s *Server) subscribe(ctx context.Context, c *call) reply {
	sub := newSubscription(c.data.channels, c.groups())
	if len(sub.channels)+len(sub.groups) == 0 {
		return flat(http.StatusBadRequest, serviceAccessManager, "Channel or Channel Group Required")
	}
	if rep, ok := s.authorize(c, channelNeed(pam.Read, sub.channels...), groupNeed(pam.Read, sub.groups...)); !ok {
		return rep
	}
	text := c.values.Get("tt")
	after, err := strconv.ParseInt(text, 10, 64)
	if text != "" && (err != nil || after < 0) {
		return flat(http.StatusBadRequest, serviceAccessManager, "Invalid Timetoken")
	}
	if after == 0 {
		return s.start(c, sub)
	}
	w := &waiter{sub: sub, wake: make(chan struct{}, 1)}
	if !s.join(c, w) {
		return flat(http.StatusTooManyRequests, "", "Too many requests.")
	}
	defer s.quit(w)
	return s.await(ctx, w, after)
}

// start gives the timetoken to begin with. The subscriber's own arrival comes after it, so that it can be seen.
func (s *Server) start(c *call, sub subscription) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, now := &s.hub, s.clockLocked()
	h.sweep(now)
	token, v := h.timetoken(now), c.visit()
	for _, channel := range h.attended(sub.channels, sub.groups) {
		h.arrive(channel, v, now)
	}
	return subscribeReply(newCursor(token), nil)
}

// join enters a subscriber into presence and into the list of those who wait; false if that is full.
func (s *Server) join(c *call, w *waiter) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, now := &s.hub, s.clockLocked()
	if len(h.waiters) >= maxWaiters {
		return false
	}
	h.sweep(now)
	h.waiters[w] = struct{}{}
	v := c.visit()
	for _, channel := range h.attended(w.sub.channels, w.sub.groups) {
		if o := h.arrive(channel, v, now); o != nil {
			o.polls++
			w.present = append(w.present, o)
		}
	}
	return true
}

// quit undoes join; presence lasts until its timeout.
func (s *Server) quit(w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.hub.waiters, w)
	now := s.clockLocked()
	for _, o := range w.present {
		o.polls--
		s.hub.stay(o, now)
	}
}

// await holds a request until there is something to tell.
func (s *Server) await(ctx context.Context, w *waiter, after int64) reply {
	hold := time.NewTimer(s.longPoll)
	defer hold.Stop()
	for waiting := true; ctx.Err() == nil; {
		found := s.collect(w, after)
		switch {
		case len(found.messages) > 0:
			return subscribeReply(found.messages[len(found.messages)-1].Published, found.messages)
		case !waiting:
			return subscribeReply(newCursor(found.token), nil)
		}
		waiting = w.pause(ctx, hold, found.due)
	}
	return reply{how: deliverNothing}
}

// pause waits for a message, the time of the next presence event, or the end of the client; false when the hold is over.
func (w *waiter) pause(ctx context.Context, hold *time.Timer, due time.Duration) bool {
	var presence <-chan time.Time
	if due > 0 {
		timer := time.NewTimer(due)
		defer timer.Stop()
		presence = timer.C
	}
	select {
	case <-w.wake:
	case <-presence:
	case <-ctx.Done():
	case <-hold.C:
		return false
	}
	return true
}

// collected is what a long poll finds.
type collected struct {
	messages []envelope
	token    int64         // later than all that was looked at
	due      time.Duration // until presence has something to say that may be for the subscriber; 0: nothing
}

func (s *Server) collect(w *waiter, after int64) (found collected) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, now := &s.hub, s.clockLocked()
	h.sweep(now)
	for _, m := range h.log.after(after) {
		if m.dropped {
			continue
		}
		if match, ok := w.sub.match(m.channel, &h.groups); ok {
			found.messages = append(found.messages, m.envelope(s.keyset.SubscribeKey, match))
		}
		if len(found.messages) == maxDelivery {
			break
		}
	}
	h.delivered += uint64(len(found.messages))
	found.token = h.timetoken(now)
	if w.sub.presence && !h.presence.due.IsZero() {
		found.due = max(time.Millisecond, h.presence.due.Sub(now))
	}
	return found
}

func subscribeReply(t cursor, messages []envelope) reply {
	if messages == nil {
		messages = []envelope{}
	}
	return dataReply(encode(struct {
		T cursor     `json:"t"`
		M []envelope `json:"m"`
	}{t, messages}))
}
