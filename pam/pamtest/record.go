package pamtest

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
)

// maxRecordBytes bounds the texts that one kind of records holds.
const maxRecordBytes = 64 << 20

// GrantRecord is one token that was issued, also if its answer was spoiled or lost.
type GrantRecord struct {
	Time            time.Time // local clock (Config.Now)
	UUID            string    // authorized UUID of the token; empty: any
	TTL             time.Duration
	Issued, Expires time.Time // as the token says: emulator's clock, UTC, whole seconds
	Token           pam.Secret
	Body            []byte // of the request
}

// RevokeRecord is one revoke request, also if it was refused.
type RevokeRecord struct {
	Time   time.Time // local clock
	Token  pam.Secret
	Status int  // as answered; 0: no answer
	Acted  bool // the token was revoked, whatever the answer said
}

// RequestRecord is one request on the wire.
type RequestRecord struct {
	Time      time.Time     // of arrival, local clock
	Duration  time.Duration // until the answer; 0 while there is none
	Op        pam.Op
	Path      string // OpOther only; other paths may hold a token. At most 256 bytes
	Timestamp string // the query parameter, as sent
	Status    int    // as answered; 0: no answer (yet)
	Fault     string // kind of the fault that hit it, "status" or "delay" for KindNone; empty: none
	Acted     bool   // a token was issued or revoked, or a message or metadata taken, whatever the answer said
}

func (r GrantRecord) size() int   { return len(r.UUID) + len(r.Token) + len(r.Body) }
func (r RevokeRecord) size() int  { return len(r.Token) }
func (r RequestRecord) size() int { return len(r.Path) + len(r.Timestamp) }

// Grants returns a copy of the kept records of grants, in the order of issue.
func (s *Server) Grants() []GrantRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grants.all()
}

// Revocations returns a copy of the kept records of revoke requests, in the order of arrival.
func (s *Server) Revocations() []RevokeRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revocations.all()
}

// Requests returns a copy of the kept records of requests, in the order of arrival.
func (s *Server) Requests() []RequestRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests.all()
}

// Stats are counters that stay exact when records are dropped.
type Stats struct {
	Now            time.Time     // emulator's clock, UTC
	ClockOffset    time.Duration // of the emulator's clock
	RevokeDisabled bool
	Requests       uint64                    // arrived
	Answers        map[pam.Op]map[int]uint64 // by op and status; status 0 counts requests that ended without an answer
	Grants         uint64                    // tokens issued
	Live           int                       // tokens issued by this Server, neither ended nor revoked
	MaxPerSecond   int                       // most requests to Access Manager (not the data plane) that arrived within one second

	Published uint64 // messages taken: publish, fire and signal
	Delivered uint64 // messages handed out to subscribers, each copy counted
	Denied    uint64 // requests that the data plane refused with 403, other than by a fault
	Waiting   int    // open long polls
	Messages  int    // kept for subscribers and history, presence events included
	Present   int    // occupants of all channels

	Access Access // in force
}

// Stats returns the counters of this moment.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	answers := make(map[pam.Op]map[int]uint64, len(s.counts))
	for op, byStatus := range s.counts {
		answers[op] = maps.Clone(byStatus)
	}
	return Stats{
		Now:            s.clockLocked().UTC(),
		ClockOffset:    s.offset,
		RevokeDisabled: s.revokeDisabled,
		Requests:       s.requests.total(),
		Answers:        answers,
		Grants:         s.grants.total(),
		Live:           s.tokens.live(s.clockLocked()),
		MaxPerSecond:   s.rate.most,
		Published:      s.hub.published,
		Delivered:      s.hub.delivered,
		Denied:         s.denials.total(),
		Waiting:        len(s.hub.waiters),
		Messages:       len(s.hub.log.items) - s.hub.log.dropped,
		Present:        s.hub.presence.present(),
		Access:         s.access,
	}
}

// recorded are the numbers of a call's records.
type recorded struct {
	request uint64
	revoke  uint64
}

func (s *Server) recordArrival(c *call) recorded {
	params, _ := parseQuery(c.query)
	rec := RequestRecord{Op: c.op, Timestamp: params["timestamp"][:min(20, len(params["timestamp"]))], Fault: c.fault.name()}
	if c.op == OpOther {
		rec.Path = c.path[:min(256, len(c.path))]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rec.Time = s.now()
	if !isData(c.op) {
		s.rate.add(rec.Time)
	}
	seq := recorded{request: s.requests.put(rec)}
	if c.op == pam.OpRevoke {
		seq.revoke = s.revocations.put(RevokeRecord{Time: rec.Time, Token: pam.Secret(c.token)})
	}
	return seq
}

func (s *Server) recordAnswer(c *call, seq recorded, rep reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counts[c.op] == nil {
		s.counts[c.op] = make(map[int]uint64)
	}
	s.counts[c.op][rep.status]++
	if r := s.requests.at(seq.request); r != nil {
		r.Status, r.Acted, r.Duration = rep.status, c.acted, s.now().Sub(r.Time)
	}
	if c.op == pam.OpRevoke {
		if r := s.revocations.at(seq.revoke); r != nil {
			r.Status, r.Acted = rep.status, c.acted
		}
	}
	s.log.LogAttrs(context.Background(), slog.LevelDebug, "request", slog.String("op", string(c.op)), slog.Int("status", rep.status),
		slog.Bool("acted", c.acted), slog.String("fault", c.fault.name()))
}

// sized tells how many bytes of text a record holds.
type sized interface{ size() int }

// ring keeps the newest records; limit and maxRecordBytes bound it.
type ring[T sized] struct {
	limit   int
	items   []T // the first dropped ones are zero
	dropped int // leading items that do not count any more
	first   uint64
	bytes   int
}

// put appends a record and returns its number.
func (r *ring[T]) put(v T) uint64 {
	r.items = append(r.items, v)
	r.bytes += v.size()
	number := r.total() - 1
	for kept := len(r.items) - r.dropped; kept > 1 && (kept > r.limit || r.bytes > maxRecordBytes); kept-- {
		var none T
		r.bytes -= r.items[r.dropped].size()
		r.items[r.dropped] = none
		r.dropped++
	}
	if r.dropped > len(r.items)/2 {
		r.first += uint64(r.dropped)
		r.items = slices.Clone(r.items[r.dropped:])
		r.dropped = 0
	}
	return number
}

// at returns the record with a number, nil if it is gone. It is valid until the next put.
func (r *ring[T]) at(number uint64) *T {
	if number < r.first+uint64(r.dropped) {
		return nil
	}
	return &r.items[number-r.first]
}

func (r *ring[T]) total() uint64 { return r.first + uint64(len(r.items)) }

func (r *ring[T]) all() []T { return slices.Clone(r.items[r.dropped:]) }

// newest returns a copy of at most n records, the newest ones in their order.
func (r *ring[T]) newest(n int) []T {
	return slices.Clone(r.items[max(r.dropped, len(r.items)-n):])
}

// peak finds the most events within one second.
type peak struct {
	recent []time.Time
	most   int
}

func (p *peak) add(t time.Time) {
	if n := len(p.recent); n > 0 && t.Before(p.recent[n-1]) { // the clock was set back
		p.recent = p.recent[:0]
	}
	p.recent = append(p.recent, t)
	after := t.Add(-time.Second)
	old := slices.IndexFunc(p.recent, func(u time.Time) bool { return u.After(after) })
	p.recent = p.recent[old:]
	p.most = max(p.most, len(p.recent))
}
