package pamtest

import (
	"crypto/sha256"
	"maps"
	"slices"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
)

// Access is how strictly and how promptly the data plane looks at tokens.
type Access struct {
	// Off lets every request pass, as a keyset does whose Access Manager is not enabled.
	Off bool

	// RevokeDelay is how long a token goes on working after a use that found it valid, revoked or not. PubNub tells users to expect up to 60 s.
	RevokeDelay time.Duration

	// DenyCache is how long a token that was refused on a channel, group or UUID for a permission stays refused there, whatever changes meanwhile.
	// Realistic is 30 s.
	DenyCache time.Duration
}

// SetAccess replaces the rules of Config.Access. What the data plane has remembered under the former ones is forgotten.
func (s *Server) SetAccess(a Access) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.access, s.memory = a, newMemory()
}

func (s *Server) accessOff() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.access.Off
}

// maxRemembered and maxRememberedName bound the refusals that are remembered; more of them are forgotten, and those of longer names.
const (
	maxRemembered     = 100_000
	maxRememberedName = 256
)

// memory is what the data plane remembers of earlier verdicts. Its size follows the tokens used within the two delays of Access.
type memory struct {
	valid   map[[sealLen]byte]time.Time // until when a token counts as not revoked
	denied  map[denialKey]pastDenial
	pruneAt int
}

// denialKey is one token on one resource for one permission.
type denialKey struct {
	token [sha256.Size]byte // hash of its text
	kind  pam.ResourceType
	name  string
	perm  pam.Permission
}

type pastDenial struct {
	denial
	until time.Time
}

func newMemory() memory {
	return memory{valid: make(map[[sealLen]byte]time.Time), denied: make(map[denialKey]pastDenial), pruneAt: minPrune}
}

func (m *memory) knownValid(sum [sealLen]byte, now time.Time) bool { return m.valid[sum].After(now) }

func (m *memory) setValid(sum [sealLen]byte, now time.Time, delay time.Duration) {
	if delay > 0 {
		m.valid[sum] = now.Add(delay)
		m.prune(now)
	}
}

// rememberedDenial returns the refusal that is still remembered for one of the names, for all names that have one.
func (s *Server) rememberedDenial(token [sha256.Size]byte, needs []need) *denial {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.access.DenyCache <= 0 {
		return nil
	}
	now := s.clockLocked()
	var found *denial
	for _, n := range needs {
		var names []string
		for _, name := range n.names {
			past, ok := s.memory.denied[denialKey{token, n.kind, name, n.perm}]
			if !ok || !past.until.After(now) {
				continue
			}
			if found == nil {
				found = &denial{message: past.message, cause: past.cause, reason: "refused a moment ago: " + past.reason}
			}
			names = append(names, name)
		}
		if len(names) > 0 {
			found.refused = append(found.refused, need{kind: n.kind, perm: n.perm, names: names})
		}
	}
	return found
}

// rememberDenial keeps a refusal for each name it is about.
func (s *Server) rememberDenial(token [sha256.Size]byte, d *denial, needs []need) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.access.DenyCache <= 0 {
		return
	}
	now := s.clockLocked()
	if d.refused != nil {
		needs = d.refused
	}
	for _, n := range needs {
		for _, name := range n.names {
			if len(name) > maxRememberedName {
				continue
			}
			s.memory.denied[denialKey{token, n.kind, name, n.perm}] = pastDenial{denial{message: d.message, cause: d.cause, reason: d.reason}, now.Add(s.access.DenyCache)}
		}
	}
	s.memory.prune(now)
}

// prune forgets what no longer holds; its cost is spread over the calls between two runs.
func (m *memory) prune(now time.Time) {
	if len(m.valid)+len(m.denied) < m.pruneAt {
		return
	}
	maps.DeleteFunc(m.valid, func(_ [sealLen]byte, until time.Time) bool { return !until.After(now) })
	maps.DeleteFunc(m.denied, func(_ denialKey, p pastDenial) bool { return !p.until.After(now) })
	if len(m.denied) > maxRemembered {
		clear(m.denied)
	}
	m.pruneAt = max(minPrune, 2*(len(m.valid)+len(m.denied)))
}

// DenialRecord is one request that the data plane refused with 403, other than by a fault.
type DenialRecord struct {
	Time       time.Time // local clock (Config.Now)
	UUID       string    // as the request says, at most 256 bytes
	Op         pam.Op
	Message    string         // of the body: "Forbidden", "Token is expired.", ...
	Cause      string         // the header X-Pn-Cause; empty: none
	Reason     string         // in the emulator's words: what the body does not say
	TokenID    string         // short hash, as pam.Secret.ID; empty: no token
	Permission pam.Permission // that was needed (the first, if several)
	Channels   []string       // refused; at most 100 names of each type
	Groups     []string
	UUIDs      []string
}

func (r DenialRecord) size() int {
	n := len(r.UUID)
	for _, names := range [][]string{r.Channels, r.Groups, r.UUIDs} {
		for _, name := range names {
			n += len(name)
		}
	}
	return n
}

// Denials returns a copy of the kept records of refused requests, in the order of refusal.
func (s *Server) Denials() []DenialRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.denials.all()
}

const maxDenialNames = 100

func (s *Server) recordDenial(c *call, needs []need, d *denial) {
	rec := DenialRecord{Op: c.op, Message: d.message, Cause: d.cause, Reason: d.reason, TokenID: pam.Secret(c.values.Get("auth")).ID()}
	rec.UUID = c.uuid()[:min(256, len(c.uuid()))]
	if d.refused != nil {
		needs = d.refused
	}
	if len(needs) > 0 {
		rec.Permission = needs[0].perm
		p := newForbiddenPayload(needs)
		rec.Channels, rec.Groups, rec.UUIDs = firstNames(p.Channels), firstNames(p.Groups), firstNames(p.UUIDs)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rec.Time = s.now()
	s.denials.put(rec)
}

func firstNames(names []string) []string {
	return slices.Clone(names[:min(maxDenialNames, len(names))])
}
