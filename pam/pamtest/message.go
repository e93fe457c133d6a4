package pamtest

import (
	"encoding/json"
	"slices"
	"sort"
	"strconv"
)

// messageOverhead is what a kept message costs beyond its texts, in bytes, roughly.
const messageOverhead = 512

// The types of messages (field "e"); a plain message has none.
const typeSignal = 1

// presenceSuffix ends the name of a channel's presence channel.
const presenceSuffix = "-pnpres"

// message is one entry of the log. Its texts are gone when it was dropped.
type message struct {
	token     int64
	channel   string
	publisher string
	payload   json.RawMessage
	meta      json.RawMessage
	kind      int    // typeSignal, 0
	custom    string // custom message type
	seq       int
	stored    bool // shows in history
	dropped   bool
}

func (m *message) size() int {
	return messageOverhead + len(m.channel) + len(m.publisher) + len(m.payload) + len(m.meta) + len(m.custom)
}

// envelope is a message as a subscriber gets it.
type envelope struct {
	Shard     string          `json:"a"`
	Flags     int             `json:"f"`
	Type      int             `json:"e,omitempty"`
	Publisher string          `json:"i,omitempty"`
	Sequence  int             `json:"s,omitempty"`
	Published cursor          `json:"p"`
	Key       string          `json:"k"`
	Channel   string          `json:"c"`
	Meta      json.RawMessage `json:"u,omitempty"`
	Payload   json.RawMessage `json:"d"`
	Match     string          `json:"b"` // what the subscriber asked for: channel, wildcard or group
	Custom    string          `json:"cmt,omitempty"`
}

// cursor is a place in time.
type cursor struct {
	Token  string `json:"t"`
	Region int    `json:"r"`
}

func newCursor(token int64) cursor { return cursor{strconv.FormatInt(token, 10), region} }

func (m *message) envelope(key, match string) envelope {
	return envelope{
		Shard: strconv.Itoa(region), Type: m.kind, Publisher: m.publisher, Sequence: m.seq, Published: newCursor(m.token), Key: key,
		Channel: m.channel, Meta: m.meta, Payload: m.payload, Match: match, Custom: m.custom,
	}
}

// messageLog keeps the latest messages of each channel, all in the order of their timetokens.
type messageLog struct {
	perChannel int
	maxBytes   int
	bytes      int
	items      []*message
	dropped    int                   // among items
	recent     map[string][]*message // by channel
}

func newMessageLog(perChannel, maxBytes int) messageLog {
	return messageLog{perChannel: perChannel, maxBytes: maxBytes, recent: make(map[string][]*message)}
}

// add appends a message, whose timetoken must be the latest.
func (l *messageLog) add(m *message) {
	l.items = append(l.items, m)
	l.bytes += m.size()
	queue := append(l.recent[m.channel], m)
	if len(queue) > l.perChannel {
		l.drop(queue[0])
		queue = queue[1:]
	}
	l.recent[m.channel] = queue
	for oldest := 0; l.bytes > l.maxBytes && oldest < len(l.items)-1; oldest++ {
		if old := l.items[oldest]; !old.dropped {
			l.forget(old)
		}
	}
	if l.dropped > len(l.items)/2+64 {
		l.items = slices.DeleteFunc(l.items, func(m *message) bool { return m.dropped })
		l.dropped = 0
	}
}

// forget drops the oldest message of its channel.
func (l *messageLog) forget(m *message) {
	channel := m.channel
	if rest := l.recent[channel][1:]; len(rest) > 0 {
		l.recent[channel] = rest
	} else {
		delete(l.recent, channel)
	}
	l.drop(m)
}

func (l *messageLog) drop(m *message) {
	l.bytes -= m.size()
	l.dropped++
	*m = message{token: m.token, dropped: true}
}

// after returns the messages later than a timetoken, oldest first.
func (l *messageLog) after(token int64) []*message {
	first := sort.Search(len(l.items), func(i int) bool { return l.items[i].token > token })
	return l.items[first:]
}
