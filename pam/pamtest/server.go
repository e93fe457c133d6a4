package pamtest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
)

// The keys that the zero [Config] uses. They look like PubNub keys and belong to no keyset.
const (
	DemoPublishKey   = "pub-c-00000000-0000-0000-0000-000000000000"
	DemoSubscribeKey = "sub-c-00000000-0000-0000-0000-000000000000"
	DemoSecretKey    = "sec-c-ZGVtby1kZW1vLWRlbW8tZGVtby1kZW1vLWRlbW8tZGVtbw"
)

// maxBody and maxURI are the limits of PubNub's balancer, in bytes. The URI limit is documented; that of the body is assumed to be equal.
const (
	maxBody = 32 << 10
	maxURI  = 32 << 10
)

// DefaultRecordLimit is how many records of each kind a Server keeps when Config.RecordLimit is zero.
const DefaultRecordLimit = 100_000

// Config is what a [Server] starts with. The zero value is complete.
type Config struct {
	PublishKey   string     // default DemoPublishKey
	SubscribeKey string     // default DemoSubscribeKey; also determines the key that signs tokens, see New
	SecretKey    pam.Secret // default DemoSecretKey; SetSecretKey changes it later

	// Now is the local clock, default time.Now. The emulator's clock is this plus the offset of SetClockOffset.
	Now func() time.Time

	// RevokeDisabled starts the keyset without the option "Revoke v3 Token", as new PubNub keysets are. SetRevokeDisabled changes it later.
	RevokeDisabled bool

	// Access is how the data plane looks at tokens; the zero value asks for them and judges at once. SetAccess changes it later.
	Access Access

	// LongPoll is how long a subscribe request is held that has nothing to tell. Default DefaultLongPoll.
	LongPoll time.Duration

	// ChannelMessages is how many messages of each channel are kept for subscribers who come back and for history. Default
	// DefaultChannelMessages. All channels together never hold more than 64 MiB.
	ChannelMessages int

	// RecordLimit is how many records of each kind (grants, revocations, requests, denials) are kept; the oldest go first. Default
	// DefaultRecordLimit. Records of one kind also never hold more than 64 MiB of tokens and bodies. Counters stay exact.
	RecordLimit int

	// Log gets one line for each request at level debug, without tokens and keys. Nil discards.
	Log *slog.Logger
}

// Server is one emulated keyset. All methods are safe for concurrent use. It starts no goroutine and holds no resource, so nothing needs to be
// closed; requests held by [KindHang] end when their client goes or ClearFaults is called, long polls after Config.LongPoll at the latest.
type Server struct {
	keyset   pam.Keyset // SecretKey is guarded by mu
	now      func() time.Time
	log      *slog.Logger
	tokenKey [sha256.Size]byte
	longPoll time.Duration

	mu             sync.Mutex
	offset         time.Duration
	revokeDisabled bool
	faults         []*activeFault
	released       chan struct{} // closed when faults is replaced; nil without faults
	tokens         tokenBook
	grants         ring[GrantRecord]
	revocations    ring[RevokeRecord]
	requests       ring[RequestRecord]
	denials        ring[DenialRecord]
	counts         map[pam.Op]map[int]uint64
	rate           peak
	access         Access
	memory         memory
	rights         map[[sealLen]byte]*rights
	hub            hub
}

// New returns a Server. Tokens are signed with a key derived from the subscribe key, so a Server started later for the same keyset knows the
// tokens of an earlier one, as the service would; what the earlier one had revoked is forgotten.
func New(c Config) *Server {
	s := &Server{
		keyset: pam.Keyset{
			PublishKey:   cmp.Or(c.PublishKey, DemoPublishKey),
			SubscribeKey: cmp.Or(c.SubscribeKey, DemoSubscribeKey),
			SecretKey:    cmp.Or(c.SecretKey, DemoSecretKey),
		},
		now:            c.Now,
		log:            c.Log,
		revokeDisabled: c.RevokeDisabled,
		counts:         make(map[pam.Op]map[int]uint64),
		tokens:         newTokenBook(),
		longPoll:       cmp.Or(max(0, c.LongPoll), DefaultLongPoll),
		access:         c.Access,
		memory:         newMemory(),
		rights:         make(map[[sealLen]byte]*rights),
		hub:            newHub(cmp.Or(max(0, c.ChannelMessages), DefaultChannelMessages)),
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	limit := c.RecordLimit
	if limit <= 0 {
		limit = DefaultRecordLimit
	}
	s.grants.limit, s.revocations.limit, s.requests.limit, s.denials.limit = limit, limit, limit, limit
	s.tokenKey = sha256.Sum256([]byte("pamtest token key\n" + s.keyset.SubscribeKey))
	return s
}

// Keyset returns the keys a client needs to talk to this Server.
func (s *Server) Keyset() pam.Keyset {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keyset
}

// SetSecretKey replaces the secret key: requests signed with the former one are refused from now on. Tokens stay valid, as they do at PubNub.
func (s *Server) SetSecretKey(secret pam.Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keyset.SecretKey = secret
}

// SetClockOffset sets how far the emulator's clock is ahead of the local one; negative is behind. It shows in the header Date, in /time/0, in
// the issue time of tokens, and decides which timestamps are accepted and which tokens have ended.
func (s *Server) SetClockOffset(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset = d
}

// SetRevokeDisabled switches the keyset's option "Revoke v3 Token" off (true) or on.
func (s *Server) SetRevokeDisabled(disabled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revokeDisabled = disabled
}

// Now returns the time by the emulator's clock.
func (s *Server) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clockLocked()
}

func (s *Server) clockLocked() time.Time { return s.now().Add(s.offset) }

// ServeHTTP answers one request as PubNub would. When a fault asks for a cut connection, or the client is gone, it panics with
// http.ErrAbortHandler, which net/http turns into a closed connection.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.exchange(r.Context(), s.arrive(r), r.Body).write(w)
}

// Handler returns the service together with the control API under /emulator/. Use the Server itself where no control API is wanted.
func (s *Server) Handler() http.Handler {
	control := s.ControlHandler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, controlPrefix) {
			control.ServeHTTP(w, r)
			return
		}
		s.ServeHTTP(w, r)
	})
}

// call is one request on its way through the emulator.
type call struct {
	op        pam.Op
	method    string
	path      string // percent-encoded, as sent
	query     string // as sent
	header    http.Header
	sub       string     // subscribe key of the path, decoded
	token     string     // token of the path, decoded
	data      dataCall   // data plane: what the path says
	values    url.Values // data plane: the query, once it is known to be one
	preflight bool       // a browser's OPTIONS for a path that is served
	body      []byte
	tooLarge  bool      // body is longer than maxBody and not complete
	arrived   time.Time // by the emulator's clock
	fault     *activeFault
	acted     bool // a token was issued or revoked, or a message or metadata taken, whatever the answer says
}

// arrive tells what a request asks for and which fault will hit it.
func (s *Server) arrive(r *http.Request) *call {
	c := &call{method: cmp.Or(r.Method, http.MethodGet), header: r.Header}
	c.path, c.query = target(r)
	c.route()
	s.mu.Lock()
	defer s.mu.Unlock()
	c.arrived = s.clockLocked()
	c.fault = s.pickFaultLocked(c.op)
	return c
}

// target returns the path and the query exactly as they are on the wire. A client's request (Transport) has no RequestURI yet; that of a proxy, and of
// the Go SDK, is absolute.
func target(r *http.Request) (path, query string) {
	uri := cmp.Or(r.RequestURI, r.URL.RequestURI())
	if !strings.HasPrefix(uri, "/") {
		_, host, _ := strings.Cut(uri, "://")
		_, rest, _ := strings.Cut(host, "/")
		uri = "/" + rest
	}
	path, query, _ = strings.Cut(uri, "?")
	return path, query
}

// route tells from method and escaped path what a request asks for: an encoded slash in a token is part of the token.
func (c *call) route() {
	c.op = OpOther
	if c.method == http.MethodGet && c.path == "/time/0" {
		c.op = pam.OpTime
		return
	}
	if c.method == http.MethodOptions {
		c.preflight = knownPath(c.path)
		return
	}
	if data, ok := parseDataPath(c.method, c.path); ok {
		c.op, c.sub, c.data = data.route.op, data.sub, data
		return
	}
	c.routePAM()
}

// routePAM fills op, sub and token for a grant or a revoke.
func (c *call) routePAM() {
	c.op = OpOther
	rest, ok := strings.CutPrefix(c.path, "/v3/pam/")
	if !ok {
		return
	}
	parts := strings.Split(rest, "/")
	if len(parts) < 2 || parts[0] == "" || parts[1] != "grant" {
		return
	}
	sub, err := url.PathUnescape(parts[0])
	if err != nil {
		return
	}
	switch {
	case c.method == http.MethodPost && len(parts) == 2:
		c.op, c.sub = pam.OpGrant, sub
	case c.method == http.MethodDelete && len(parts) == 3 && parts[2] != "":
		if token, err := url.PathUnescape(parts[2]); err == nil {
			c.op, c.sub, c.token = pam.OpRevoke, sub, token
		}
	}
}

// exchange answers one request and keeps its records. It waits only where a fault says so and in long polls, and never longer than ctx lives.
func (s *Server) exchange(ctx context.Context, c *call, body io.Reader) reply {
	seq := s.recordArrival(c)
	rep := s.perform(ctx, c, body)
	s.recordAnswer(c, seq, rep)
	return rep
}

// perform reads the request and answers it through its fault, if there is one.
func (s *Server) perform(ctx context.Context, c *call, body io.Reader) reply {
	f := c.fault
	if f.cutsUnread() {
		return reply{how: deliverNothing}
	}
	if err := c.read(body); err != nil {
		return reply{how: deliverNothing}
	}
	if f == nil {
		return s.serve(ctx, c)
	}
	var rep reply
	if f.AfterWork {
		rep = s.serve(ctx, c)
	}
	if !f.hold(ctx) {
		return reply{how: deliverNothing}
	}
	if !f.AfterWork && !f.spoils() {
		rep = s.serve(ctx, c)
	}
	if f.spoils() {
		rep = f.spoil(rep, c.op)
	}
	return s.stamped(rep)
}

// read takes the whole body; without that net/http does not notice that a client goes away.
func (c *call) read(body io.Reader) error {
	if body == nil {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	if err != nil {
		return err
	}
	c.body, c.tooLarge = b, len(b) > maxBody
	if isData(c.op) {
		c.inflate()
	}
	return nil
}
