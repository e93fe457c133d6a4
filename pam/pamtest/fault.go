package pamtest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
)

// FaultKind names what goes wrong.
type FaultKind string

// The kinds of faults. "Answers" means a complete HTTP answer with Fault.Status (default 200).
const (
	// KindNone answers with Fault.Status and Fault.Body; without a Status the request is only delayed.
	KindNone FaultKind = ""
	// KindHang holds the request until its client goes; it is answered normally once the faults are replaced or cleared.
	KindHang FaultKind = "hang"
	// KindCut closes the connection: unread, or with AfterWork when everything is done but the answer.
	KindCut FaultKind = "cut"
	// KindRefused is a connection that cannot be made, and so leaves no record. Only Transport can do that; a real listener has already
	// accepted and closes the connection unread.
	KindRefused FaultKind = "refused"
	// KindBadJSON answers with JSON that ends too early.
	KindBadJSON FaultKind = "bad_json"
	// KindEmpty answers with no body.
	KindEmpty FaultKind = "empty"
	// KindHTML answers with a page, as proxies do.
	KindHTML FaultKind = "html"
	// KindTruncated declares the whole length and closes the connection after half of the body.
	KindTruncated FaultKind = "truncated"
	// KindHugeBody answers with a body of 10 MiB and no declared length.
	KindHugeBody FaultKind = "huge_body"
	// KindRedirect answers with a redirect (Status default 307) to a path that is 404 and counted under OpOther.
	KindRedirect FaultKind = "redirect"
	// KindNoToken answers a grant with a success that holds no token.
	KindNoToken FaultKind = "no_token"
	// KindLess issues a token with one permission bit less than asked.
	KindLess FaultKind = "less"
	// KindOtherUUID issues a token for another UUID.
	KindOtherUUID FaultKind = "other_uuid"
	// KindOtherTTL issues a token with half the ttl, or 2 minutes instead of 1.
	KindOtherTTL FaultKind = "other_ttl"
	// KindAlreadyEnded issues a token that ended a minute ago.
	KindAlreadyEnded FaultKind = "already_ended"
)

// grantKinds hit grants only; of these, those but KindNoToken really issue what they answer.
var grantKinds = []FaultKind{KindNoToken, KindLess, KindOtherUUID, KindOtherTTL, KindAlreadyEnded}

// answerKinds give a complete or begun answer of their own, so Status and RetryAfter apply.
var answerKinds = []FaultKind{KindBadJSON, KindEmpty, KindHTML, KindTruncated, KindHugeBody, KindRedirect, KindNoToken}

// otherKinds neither answer nor issue anything of their own.
var otherKinds = []FaultKind{KindNone, KindHang, KindCut, KindRefused}

// Fault is something that goes wrong on demand. As JSON its fields are op, kind, count, every, delay (as Go writes durations), status, body,
// retry_after and after_work.
type Fault struct {
	Op    pam.Op    // which requests: one operation, or OpPAM, OpData, OpAll; empty for all
	Kind  FaultKind // what goes wrong
	Count int       // how many requests it hits; 0: until replaced or cleared
	Every int       // hits every n-th of the requests it selects (5: the fifth, the tenth); 0 and 1: each

	// Delay passes before anything else happens, then Kind applies. If the client goes meanwhile, nothing is issued or revoked, unless
	// AfterWork is set. Ends early when the faults are replaced or cleared.
	Delay time.Duration

	Status     int    // status of the answer, 200 to 599; 0: the default of the kind
	Body       string // body of the answer, KindNone only; empty: one fit for Status
	RetryAfter string // value of the header Retry-After as it is, valid or not; empty: none

	// AfterWork makes the fault hit after the request was carried out: a token is issued (or revoked) and recorded, and only the answer is
	// late, spoiled or lost. Otherwise nothing happens but the fault. Kinds that alter the token ignore it.
	AfterWork bool
}

// Validate returns a one-line error for a fault that could not do what it says.
func (f Fault) Validate() error {
	answers := slices.Contains(answerKinds, f.Kind)
	known := answers || slices.Contains(grantKinds, f.Kind) || slices.Contains(otherKinds, f.Kind)
	switch {
	case !known:
		return fmt.Errorf("fault: unknown kind %q", f.Kind)
	case !knownSelector(f.Op):
		return fmt.Errorf("fault: unknown op %q", f.Op)
	case slices.Contains(grantKinds, f.Kind) && !selectsOp(f.Op, pam.OpGrant):
		return fmt.Errorf("fault: kind %q is for grants, not for op %q", f.Kind, f.Op)
	case f.Count < 0 || f.Every < 0 || f.Delay < 0:
		return fmt.Errorf("fault: count, every and delay must not be negative")
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return fmt.Errorf("fault: status %d is not between 200 and 599", f.Status)
	case f.Status != 0 && !answers && f.Kind != KindNone:
		return fmt.Errorf("fault: kind %q takes no status", f.Kind)
	case f.Body != "" && (f.Kind != KindNone || f.Status == 0):
		return fmt.Errorf("fault: body needs a status and no kind")
	case f.RetryAfter != "" && !answers && f.Status == 0:
		return fmt.Errorf("fault: retry_after needs an answer of the fault's own")
	case f.Kind == KindNone && f.Status == 0 && f.Delay == 0:
		return fmt.Errorf("fault: nothing to do: kind, status or delay is needed")
	}
	return nil
}

// faultJSON is Fault on the wire.
type faultJSON struct {
	Op         pam.Op    `json:"op,omitempty"`
	Kind       FaultKind `json:"kind,omitempty"`
	Count      int       `json:"count,omitempty"`
	Every      int       `json:"every,omitempty"`
	Delay      string    `json:"delay,omitempty"`
	Status     int       `json:"status,omitempty"`
	Body       string    `json:"body,omitempty"`
	RetryAfter string    `json:"retry_after,omitempty"`
	AfterWork  bool      `json:"after_work,omitempty"`
}

// MarshalJSON writes the fields that are set.
func (f Fault) MarshalJSON() ([]byte, error) {
	wire := faultJSON{f.Op, f.Kind, f.Count, f.Every, "", f.Status, f.Body, f.RetryAfter, f.AfterWork}
	if f.Delay != 0 {
		wire.Delay = f.Delay.String()
	}
	return json.Marshal(wire)
}

// UnmarshalJSON is strict: unknown fields are errors. It does not call Validate.
func (f *Fault) UnmarshalJSON(b []byte) error {
	var wire faultJSON
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&wire); err != nil {
		return err
	}
	delay, err := time.ParseDuration(cmp.Or(wire.Delay, "0s"))
	if err != nil {
		return fmt.Errorf("delay: %w", err)
	}
	*f = Fault{wire.Op, wire.Kind, wire.Count, wire.Every, delay, wire.Status, wire.Body, wire.RetryAfter, wire.AfterWork}
	return nil
}

// SetFault replaces all faults by f. It panics if f.Validate does not return nil.
func (s *Server) SetFault(f Fault) { s.SetFaults(f) }

// ClearFaults ends all faults; requests that wait in one are answered normally.
func (s *Server) ClearFaults() { s.SetFaults() }

// SetFaults replaces all faults. A request is hit by the first one that selects it and has not used up its Count, so a list is a script: two
// times 503, then a lost answer, then all is well. It panics if one is not valid.
func (s *Server) SetFaults(faults ...Fault) {
	for _, f := range faults {
		if err := f.Validate(); err != nil {
			panic(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.released != nil {
		close(s.released)
	}
	s.faults, s.released = nil, nil
	if len(faults) == 0 {
		return
	}
	s.released = make(chan struct{})
	for _, f := range faults {
		s.faults = append(s.faults, &activeFault{Fault: f, released: s.released})
	}
}

// activeFault is a Fault in force. Its counters are guarded by Server.mu; the rest does not change. All methods that a call uses work on nil.
type activeFault struct {
	Fault
	seen, used int
	released   chan struct{}
}

func (s *Server) pickFaultLocked(op pam.Op) *activeFault {
	for _, f := range s.faults {
		if !f.selects(op) || f.spent() {
			continue
		}
		f.seen++
		if f.Every > 1 && f.seen%f.Every != 0 {
			continue
		}
		f.used++
		return f
	}
	return nil
}

func (f *activeFault) spent() bool { return f.Count > 0 && f.used >= f.Count }

func (f *activeFault) selects(op pam.Op) bool {
	if slices.Contains(grantKinds, f.Kind) && op != pam.OpGrant {
		return false
	}
	return selectsOp(f.Op, op)
}
