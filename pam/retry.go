package pam

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Quick retries bridge a short trouble inside one call; the refresher decides about
// everything longer.
const (
	maxQuickRetries = 2
	minQuickWait    = 100 * time.Millisecond
	maxQuickWait    = 400 * time.Millisecond
	minPause        = time.Second
	maxPause        = 5 * time.Minute
)

// harmless reports whether the service certainly did not accept the request, so
// that sending it again cannot make two tokens of one grant.
func (a *answer) harmless() bool {
	if a.err != nil {
		return !a.acted
	}
	return a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable
}

// checkRetry decides about a quick retry and how long to wait before it. There is
// none that could not start before the deadline.
func (x *call) checkRetry(ctx context.Context, _ *http.Response, _ error) (bool, error) {
	if ctx.Err() != nil || x.last == nil || !x.last.harmless() {
		return false, nil
	}
	x.wait = x.last.throttle
	if x.wait == 0 {
		x.wait = minQuickWait + rand.N(maxQuickWait-minQuickWait)
	}
	deadline, bounded := ctx.Deadline()
	return !bounded || time.Until(deadline) > x.wait, nil
}

// pause returns for how long the service wants no requests: 0 unless it answered
// 429, or 503 with Retry-After; then between 1 s and 5 min. date is the service's
// clock in the answer, zero when it gave none.
func pause(status int, header http.Header, date time.Time, now func() time.Time) time.Duration {
	values, given := header["Retry-After"]
	switch {
	case status == http.StatusTooManyRequests:
	case status == http.StatusServiceUnavailable && given:
	default:
		return 0
	}
	if len(values) == 0 {
		return minPause
	}
	if date.IsZero() {
		date = now()
	}
	return min(max(retryAfter(strings.TrimSpace(values[0]), date), minPause), maxPause)
}

// retryAfter reads whole seconds or an HTTP date; 0 for anything else.
func retryAfter(value string, now time.Time) time.Duration {
	if at, err := http.ParseTime(value); err == nil {
		return at.Sub(now)
	}
	seconds, err := strconv.ParseUint(value, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return maxPause
	}
	if err != nil {
		return 0
	}
	return time.Duration(min(seconds, uint64(maxPause/time.Second))) * time.Second
}

// connection observes whether a request got as far as a connection.
type connection struct {
	asked atomic.Bool // the transport reports what it does
	got   atomic.Bool // the request was given a connection, and may have been sent
}

// trace returns the hooks. A transport that finds a kept connection closed before
// it wrote anything asks for another one, which starts the observation anew.
func (c *connection) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn: func(string) { c.asked.Store(true); c.got.Store(false) },
		GotConn: func(httptrace.GotConnInfo) { c.got.Store(true) },
	}
}

// maySend reports whether the request that ended with err may have reached the
// service. Of a transport that reports nothing only an error in connecting proves
// that it did not.
func (c *connection) maySend(err error) bool {
	if c.got.Load() {
		return true
	}
	return !c.asked.Load() && !connecting(err)
}

// connecting reports whether err is one of making a connection: name, dial, TLS.
func connecting(err error) bool {
	if e, ok := errors.AsType[*net.OpError](err); ok && (e.Op == "dial" || e.Op == "proxyconnect") {
		return true
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
