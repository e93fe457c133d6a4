package pam

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Op is one of the requests a Client makes.
type Op string

// The requests of a Client.
const (
	OpGrant  Op = "grant"
	OpRevoke Op = "revoke"
	OpTime   Op = "time"
)

// Class says what to do about an Error.
type Class int

// The classes. The zero Class is none of them.
const (
	Transient Class = iota + 1 // no answer, a timeout, 5xx or 408: again soon
	Throttled                  // 429, or 503 with Retry-After: every request pauses
	Refused                    // another 4xx, a redirect, or a request that is wrong in itself: again late, and loudly
	Clock                      // 400 or 403, and the service's Date is over 30 s off the signed timestamp
	Malformed                  // a success that makes no sense
	Canceled                   // the caller's context was canceled
)

// String returns the name in lower case.
func (c Class) String() string {
	switch c {
	case Transient:
		return "transient"
	case Throttled:
		return "throttled"
	case Refused:
		return "refused"
	case Clock:
		return "clock"
	case Malformed:
		return "malformed"
	case Canceled:
		return "canceled"
	}
	return "class " + strconv.Itoa(int(c))
}

// maxClockError is how far Date may lie from the signed timestamp before a refusal
// counts as a clock fault. The service accepts 60 s, by PubNub's documentation.
const maxClockError = 30 * time.Second

// errRequest marks a request that was not sent because it is wrong in itself.
var errRequest = errors.New("invalid request")

// errNotSent marks a request that never left: its turn did not come.
var errNotSent = errors.New("not sent")

// Error is what every failing method of a Client returns. Texts that came from the
// service are free of control characters, of secrets and of URLs, and have at most
// 300 characters.
type Error struct {
	Op       Op
	Status   int    // of the last answer; 0 when there was none
	Code     string // the service's message, "Invalid signature"; "" when it sent none
	Detail   string // what the service says about it
	Location string // the part of the request it is about; dots in it mean nothing
	// Retry is how long to send nothing at all: between 1 s and 5 min for 429, or
	// 503 with Retry-After, otherwise 0.
	Retry time.Duration
	// Date is the service's clock in the answer, and Signed the timestamp that was
	// signed; zero when there was none.
	Date   time.Time
	Signed time.Time
	// MayHaveActed means that the service may have accepted the request although no
	// usable answer came: a grant may have issued a token that nobody holds.
	MayHaveActed bool
	// Err is the cause when it was not the answer itself; no URL is in it.
	Err error
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Error returns one line: `grant: Access Manager: 403 Invalid signature: Client and
// server produced different signatures for the same inputs.`
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(string(e.Op))
	if e.Status != 0 {
		b.WriteString(": Access Manager: " + e.answer())
		if e.Detail != "" {
			b.WriteString(": " + e.Detail)
		}
		if e.Location != "" {
			b.WriteString(" (" + e.Location + ")")
		}
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// answer is the status with the service's message, or else the standard text.
func (e *Error) answer() string {
	text := e.Code
	if text == "" {
		text = http.StatusText(e.Status)
	}
	return strings.TrimSpace(strconv.Itoa(e.Status) + " " + text)
}

// Class says what to do about the error.
func (e *Error) Class() Class {
	switch {
	case errors.Is(e.Err, context.Canceled):
		return Canceled
	case errors.Is(e.Err, errRequest):
		return Refused
	case e.Status == 0, e.Status == http.StatusRequestTimeout:
		return Transient
	case e.Status < 300:
		return Malformed
	case e.Status == http.StatusTooManyRequests, e.Retry > 0:
		return Throttled
	case e.Status >= 500:
		return Transient
	case (e.Status == http.StatusBadRequest || e.Status == http.StatusForbidden) && e.clockError().Abs() > maxClockError:
		return Clock
	}
	return Refused
}

// clockError is how far our clock was ahead of the service's when we signed.
func (e *Error) clockError() time.Duration {
	if e.Date.IsZero() || e.Signed.IsZero() {
		return 0
	}
	return e.Signed.Sub(e.Date)
}

// FeatureDisabled reports whether the keyset does not allow revoking tokens.
func (e *Error) FeatureDisabled() bool {
	return e.Status == http.StatusBadRequest && sameText(e.Code, "Feature disabled")
}

// InvalidSignature reports whether the service found another signature than ours,
// which means a wrong secret key or publish key.
func (e *Error) InvalidSignature() bool {
	return (e.Status == http.StatusForbidden || e.Status == http.StatusBadRequest) && sameText(e.Code, "Invalid signature")
}

// sameText compares two messages of the service, which sometimes end in a period.
func sameText(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "."), strings.TrimSuffix(b, "."))
}

// Reason returns one line for people who do not know the code: what happened and,
// where something can be done, what: `Access Manager: 403 Invalid signature: check
// the secret key`.
func (e *Error) Reason() string {
	switch {
	case e.Class() == Canceled:
		return "the request was canceled"
	case errors.Is(e.Err, errRequest), errors.Is(e.Err, errNotSent):
		return e.Err.Error()
	case e.Status == 0:
		return networkReason(e.Err, e.MayHaveActed)
	}
	reason := "Access Manager: " + e.answer()
	if hint := e.hint(); hint != "" {
		reason += ": " + hint
	}
	return reason
}

// hint says what to do about an answer.
func (e *Error) hint() string {
	switch class := e.Class(); {
	case class == Clock:
		ahead := e.clockError().Round(time.Second)
		if ahead > 0 {
			return fmt.Sprintf("the local clock is %s fast", ahead)
		}
		return fmt.Sprintf("the local clock is %s slow", -ahead)
	case class == Throttled && e.Retry > 0:
		return fmt.Sprintf("asked to send nothing for %s", e.Retry.Round(time.Second))
	case class == Throttled:
		return "asked to slow down"
	case class == Malformed:
		return "the answer makes no sense: check the origin and any proxy"
	case e.InvalidSignature():
		return "check the secret key"
	case e.FeatureDisabled():
		return `enable "Revoke v3 Token" in the PubNub admin portal`
	case e.Status >= 500:
		return "a fault on its side"
	case e.Status == http.StatusForbidden:
		return "check the keys, and that Access Manager is enabled for them"
	case e.Status < 400:
		return "redirects are not followed: check the origin"
	case e.Detail != "":
		return e.Detail
	case e.Status == http.StatusNotFound:
		return "check the origin and the subscribe key"
	}
	return ""
}

// networkReason puts the cause of a missing answer into a few words.
func networkReason(err error, sent bool) string {
	if timedOut(err) {
		if sent {
			return "Access Manager did not answer in time"
		}
		return "Access Manager was not reached in time"
	}
	const unreachable = "Access Manager unreachable: "
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return unreachable + e.Err
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return unreachable + e.Error()
	}
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return unreachable + e.Error()
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return unreachable + e.Err.Error()
	}
	if err == nil {
		return unreachable + "no answer"
	}
	return unreachable + err.Error()
}

func timedOut(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}
