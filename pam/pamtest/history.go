package pamtest

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"strconv"

	"github.com/pamsidecar/pamsidecar/pam"
)

// maxHistory is how many messages one answer shows without a limit.
const maxHistory = 100

// historyAsk selects messages of a channel: older than start, not older than end, the newest limit of them, in the order of
// time.
type historyAsk struct {
	start, end int64
	limit      int
	oldest     bool // the oldest limit instead
}

func (c *call) historyAsk(limitName string) historyAsk {
	ask := historyAsk{start: math.MaxInt64, limit: maxHistory, oldest: c.values.Get("reverse") == "true"}
	if n, err := strconv.ParseInt(c.values.Get("start"), 10, 64); err == nil {
		ask.start = n
	}
	if n, err := strconv.ParseInt(c.values.Get("end"), 10, 64); err == nil {
		ask.end = n
	}
	if n, err := strconv.Atoi(c.values.Get(limitName)); err == nil && n > 0 {
		ask.limit = min(n, maxHistory)
	}
	return ask
}

// past returns copies of the stored messages that ask selects, oldest first.
func (s *Server) past(channel string, ask historyAsk) []message {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []message
	for _, m := range s.hub.log.recent[channel] {
		if m.stored && m.token < ask.start && m.token >= ask.end {
			found = append(found, *m)
		}
	}
	if ask.oldest {
		return found[:min(ask.limit, len(found))]
	}
	return found[max(0, len(found)-ask.limit):]
}

// historyV2 returns the stored messages of one channel: [[messages], first timetoken, last timetoken].
func (s *Server) historyV2(_ context.Context, c *call) reply {
	if rep, ok := s.authorize(c, channelNeed(pam.Read, c.data.channels...)); !ok {
		return rep
	}
	found := s.past(c.data.channels[0], c.historyAsk("count"))
	items := make([]any, len(found))
	var first, last int64
	for i, m := range found {
		items[i] = m.payload
		if c.values.Get("include_token") == "true" {
			items[i] = map[string]any{"message": m.payload, "timetoken": m.token}
		}
	}
	if len(found) > 0 {
		first, last = found[0].token, found[len(found)-1].token
	}
	return dataReply(encode([]any{items, first, last}))
}

// historyV3 returns the stored messages of channels. Without an option for it, nothing but message and timetoken is shown.
func (s *Server) historyV3(_ context.Context, c *call) reply {
	if len(c.data.channels) == 0 {
		return flat(http.StatusBadRequest, "", "Missing channel")
	}
	if rep, ok := s.authorize(c, channelNeed(pam.Read, c.data.channels...)); !ok {
		return rep
	}
	type answer struct {
		Status   int                         `json:"status"`
		Error    bool                        `json:"error"`
		Message  string                      `json:"error_message"`
		Channels map[string][]map[string]any `json:"channels"`
	}
	rep := answer{Status: http.StatusOK, Channels: make(map[string][]map[string]any)}
	for _, channel := range c.data.channels {
		for _, m := range s.past(channel, c.historyAsk("max")) {
			rep.Channels[channel] = append(rep.Channels[channel], c.historyItem(m))
		}
	}
	return dataReply(encode(rep))
}

func (c *call) historyItem(m message) map[string]any {
	wanted := func(option string) bool { return c.values.Get(option) == "true" }
	item := map[string]any{"message": m.payload, "timetoken": strconv.FormatInt(m.token, 10)}
	if wanted("include_uuid") {
		item["uuid"] = m.publisher
	}
	if wanted("include_message_type") {
		item["message_type"] = nil // a plain message
	}
	if wanted("include_custom_message_type") && m.custom != "" {
		item["custom_message_type"] = m.custom
	}
	if wanted("include_meta") {
		item["meta"] = json.RawMessage(`""`)
		if m.meta != nil {
			item["meta"] = m.meta
		}
	}
	return item
}
