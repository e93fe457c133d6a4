package pamtest

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The limits of what the data plane keeps. None of them is PubNub's.
const (
	maxLogBytes  = 64 << 20 // bytes of messages
	maxWaiters   = 10_000   // open long polls
	maxOccupants = 10_000   // entries of presence
	maxPresence  = 64 << 20 // bytes of presence
	maxGroups    = 16 << 20 // bytes of channel groups
	maxObjects   = 64 << 20 // bytes of App Context
)

// DefaultLongPoll is how long a subscribe request is held when Config.LongPoll is zero. The SDKs give up after 310 s; ten less lets the answer come
// first.
const DefaultLongPoll = 300 * time.Second

// DefaultChannelMessages is how many messages of a channel are kept when Config.ChannelMessages is zero, as many as PubNub's queue holds.
const DefaultChannelMessages = 100

// region is the data centre that the emulator claims to be.
const region = 4

// hub is the state of the data plane. All of it is guarded by Server.mu.
type hub struct {
	log      messageLog
	last     int64 // the latest timetoken given
	waiters  map[*waiter]struct{}
	groups   groupBook
	presence presence
	objects  objectStore

	published uint64
	delivered uint64
}

func newHub(perChannel int) hub {
	return hub{
		log:      newMessageLog(perChannel, maxLogBytes),
		waiters:  make(map[*waiter]struct{}),
		groups:   groupBook{channels: make(map[string]map[string]bool)},
		presence: presence{rooms: make(map[string]*room)},
		objects:  newObjectStore(),
	}
}

// timetoken gives a timetoken (units of 100 ns) that is later than any before, also when the clock was set back.
func (h *hub) timetoken(now time.Time) int64 {
	h.last = max(h.last+1, now.UnixNano()/100)
	return h.last
}

// nowToken is timetoken for code that does not hold the lock.
func (s *Server) nowToken() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strconv.FormatInt(s.hub.timetoken(s.clockLocked()), 10)
}

// serveData answers a request to the data plane.
func (s *Server) serveData(ctx context.Context, c *call) reply {
	if c.sub != s.Keyset().SubscribeKey {
		return flat(http.StatusBadRequest, serviceAccessManager, "Invalid Subscribe Key")
	}
	values, err := url.ParseQuery(c.query)
	if err != nil {
		return flat(http.StatusBadRequest, serviceAccessManager, "Could Not Parse Request")
	}
	c.values = values
	return c.data.route.serve(s, ctx, c)
}

// uuid returns who the request says it is from.
func (c *call) uuid() string { return c.values.Get("uuid") }

// groups returns the channel groups of the query.
func (c *call) groups() []string { return splitNames(c.values.Get("channel-group")) }

// inflate undoes the Content-Encoding of a body, which the JavaScript SDK uses for what it posts. A body that is not as declared stays as it is and
// fails as JSON.
func (c *call) inflate() {
	var r io.Reader
	var err error
	switch strings.ToLower(c.header.Get("Content-Encoding")) {
	case "deflate":
		if r, err = zlib.NewReader(bytes.NewReader(c.body)); err != nil {
			r, err = flate.NewReader(bytes.NewReader(c.body)), nil
		}
	case "gzip":
		r, err = gzip.NewReader(bytes.NewReader(c.body))
	default:
		return
	}
	if err != nil {
		return
	}
	b, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if err == nil {
		c.body, c.tooLarge = b, len(b) > maxBody
	}
}

// dataReply is a success of publish, subscribe, presence and channel groups.
func dataReply(body string) reply {
	rep := textReply(http.StatusOK, body)
	rep.header.Set("Content-Type", `text/javascript; charset="UTF-8"`)
	rep.header.Set("Cache-Control", "no-cache")
	return rep
}

// spacedReply is dataReply with the blanks that presence and channel groups send.
func spacedReply(v any) reply { return dataReply(spaced(v)) }

// spaced encodes v with a blank after each colon and comma.
func spaced(v any) string {
	compact := encode(v)
	var b strings.Builder
	inText, escaped := false, false
	for _, ch := range []byte(compact) {
		b.WriteByte(ch)
		switch {
		case escaped:
			escaped = false
		case inText && ch == '\\':
			escaped = true
		case ch == '"':
			inText = !inText
		case !inText && (ch == ':' || ch == ','):
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// encode returns v as JSON in one line, with '<', '>' and '&' as they are.
func encode(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // the types of this package always encode
		panic(err)
	}
	return strings.TrimRight(b.String(), "\n")
}

// preflight answers a browser that asks whether it may send a request.
func preflight() reply {
	rep := textReply(http.StatusOK, "")
	rep.header.Set("Access-Control-Allow-Methods", "GET, POST, PATCH, DELETE, OPTIONS")
	rep.header.Set("Access-Control-Allow-Headers", "Origin, X-Requested-With, Content-Type, Content-Encoding, Accept, If-Match")
	rep.header.Set("Access-Control-Max-Age", "86400")
	return rep
}

// knownPath reports whether some method of the path is served.
func knownPath(path string) bool {
	if path == "/time/0" {
		return true
	}
	if _, ok := parseDataPath("", path); ok {
		return true
	}
	return slices.ContainsFunc([]string{http.MethodPost, http.MethodDelete}, func(method string) bool {
		c := call{method: method, path: path}
		c.routePAM()
		return c.op != OpOther
	})
}
