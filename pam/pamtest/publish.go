package pamtest

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
)

// maxSignal is the longest payload of a signal, in bytes (documented).
const maxSignal = 64

// publish takes a message for a channel. One with store=0 and norep=true is what the SDKs call fire: accepted, but not for subscribers.
func (s *Server) publish(_ context.Context, c *call) reply {
	m, rep, ok := s.acceptMessage(c)
	if !ok {
		return rep
	}
	q := c.values
	m.stored = q.Get("store") != "0"
	m.seq, _ = strconv.Atoi(q.Get("seqn"))
	fire := q.Get("norep") == "true" && !m.stored
	return s.deliver(c, m, !fire)
}

// signal takes a message of at most 64 bytes that is not stored.
func (s *Server) signal(_ context.Context, c *call) reply {
	m, rep, ok := s.acceptMessage(c)
	if !ok {
		return rep
	}
	if len(m.payload) > maxSignal {
		return s.publishError("Signal size too large")
	}
	m.kind = typeSignal
	return s.deliver(c, m, true)
}

// acceptMessage checks what publish and signal have in common. The order of the checks is not known.
func (s *Server) acceptMessage(c *call) (*message, reply, bool) {
	if c.data.pub != s.Keyset().PublishKey {
		return nil, s.publishError("Invalid Key"), false
	}
	channel := c.data.channels[0]
	if rep, ok := s.authorize(c, channelNeed(pam.Write, channel)); !ok {
		return nil, rep, false
	}
	payload := []byte(c.data.payload)
	if c.method == http.MethodPost {
		payload = c.body
	}
	if !json.Valid(payload) {
		return nil, s.publishError("Invalid JSON"), false
	}
	m := &message{channel: channel, publisher: c.uuid(), payload: payload, custom: c.values.Get("custom_message_type")}
	if meta := c.values.Get("meta"); meta != "" {
		m.meta = json.RawMessage(meta)
		if !json.Valid(m.meta) { // what the service makes of it is not known
			m.meta = json.RawMessage(encode(meta))
		}
	}
	return m, reply{}, true
}

// publishError is a refusal in publish's own form; that of a wrong publish key was recorded.
func (s *Server) publishError(text string) reply {
	rep := dataReply(encode([]any{0, text, s.nowToken()}))
	rep.status = http.StatusBadRequest
	return rep
}

// deliver gives the message its timetoken and hands it to those who wait for it.
func (s *Server) deliver(c *call, m *message, toSubscribers bool) reply {
	s.mu.Lock()
	c.acted = true
	s.hub.published++
	if toSubscribers {
		s.hub.post(m, s.clockLocked())
	} else {
		m.token = s.hub.timetoken(s.clockLocked())
	}
	token := m.token
	s.mu.Unlock()
	body := encode([]any{1, "Sent", strconv.FormatInt(token, 10)})
	if c.data.callback != "0" {
		body = c.data.callback + "(" + body + ")"
	}
	return dataReply(body)
}

// post adds a message to the log and wakes the long polls it is for.
func (h *hub) post(m *message, now time.Time) {
	m.token = h.timetoken(now)
	h.log.add(m)
	for w := range h.waiters {
		if _, ok := w.sub.match(m.channel, &h.groups); ok {
			w.signal()
		}
	}
}
