package pam

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

const (
	requestTimeout = 15 * time.Second // of one request on the wire
	maxAnswer      = 64 << 10         // bytes of an answer, unpacked
)

// call is one call of a Client's method: at most three requests on the wire. It is
// the http.RoundTripper of those requests and belongs to one goroutine.
type call struct {
	client  *Client
	op      Op
	method  string
	path    string // decoded
	rawPath string // as it is sent and signed
	body    []byte
	token   Secret // never to be shown

	stopped error     // why the last request was not sent
	signed  time.Time // the timestamp of the last request
	last    *answer
	wait    time.Duration // before the next quick retry
}

// answer is what one request on the wire brought back.
type answer struct {
	status   int
	date     time.Time
	throttle time.Duration // the pause the service asked for
	body     []byte
	tooLong  bool
	err      error // why there is no whole answer
	acted    bool  // the service may have received the request
}

func (c *Client) newCall(op Op, method, path string, token Secret) *call {
	prefix := "/v3/pam/"
	return &call{
		client:  c,
		op:      op,
		method:  method,
		path:    prefix + c.subscribeKey + path + token.Reveal(),
		rawPath: prefix + EncodeValue(c.subscribeKey) + path + EncodeValue(token.Reveal()),
		token:   token,
	}
}

// do sends the request, and again where that is certain to do no harm. An answer
// with an *Error is that of the last request; without one it is a whole 200.
func (x *call) do(ctx context.Context) (*answer, *Error) {
	// A nil interface, not a nil slice, makes a request without a body.
	var body any
	if x.body != nil {
		body = x.body
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, x.method, x.client.Origin(), body)
	if err != nil {
		return nil, &Error{Op: x.op, Err: cleanError(err, x.token, *x.client.secret.Load())}
	}
	req.Header.Set("User-Agent", x.client.agent)
	if x.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	// The first request is prepared here, each retry by the retrier.
	if err := x.prepare(req.Request); err == nil {
		if resp, _ := x.retrier().Do(req); resp != nil {
			resp.Body.Close()
		}
	}
	return x.outcome(ctx)
}

// retrier is made for one call, so that its decisions need no way around the
// interfaces of go-retryablehttp. That package must not log, nor make the error:
// it shows the URL, and a revoke has the token in it.
func (x *call) retrier() *retryablehttp.Client {
	return &retryablehttp.Client{
		HTTPClient: &http.Client{
			Transport:     x,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		RetryMax:     maxQuickRetries,
		CheckRetry:   x.checkRetry,
		Backoff:      func(_, _ time.Duration, _ int, _ *http.Response) time.Duration { return x.wait },
		ErrorHandler: func(resp *http.Response, err error, _ int) (*http.Response, error) { return resp, err },
		PrepareRetry: x.prepare,
	}
}

// prepare runs once before each request on the wire: it waits for the hook, takes
// the time and signs.
func (x *call) prepare(req *http.Request) error {
	if x.stopped = x.client.before(req.Context(), x.op); x.stopped != nil {
		return x.stopped
	}
	x.last = nil
	u := x.client.origin
	u.Path, u.RawPath = x.path, x.rawPath
	u.RawQuery = x.query(u.EscapedPath())
	req.URL = &u // a new one: the last request may still be in use
	return nil
}

// query returns the parameters sorted by key, and the signature after them.
func (x *call) query(path string) string {
	sdk := "pnsdk=" + EncodeValue(x.client.agent)
	if x.op == OpTime {
		return sdk + "&uuid=" + requester
	}
	x.signed = time.Unix(x.client.now().Unix(), 0).UTC()
	query := sdk + "&timestamp=" + strconv.FormatInt(x.signed.Unix(), 10) + "&uuid=" + requester
	secret := *x.client.secret.Load()
	return query + "&signature=" + Sign(secret, x.method, x.client.publishKey, path, query, x.body)
}

// RoundTrip sends one request and reads the whole answer.
func (x *call) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(req.Context(), requestTimeout)
	defer cancel()
	var conn connection
	traced := httptrace.WithClientTrace(ctx, conn.trace())
	sent := time.Now()
	resp, err := x.client.transport.RoundTrip(req.WithContext(traced))
	received := time.Now()
	a := &answer{}
	x.last = a
	if err != nil {
		a.acted = conn.maySend(err)
		a.err = x.cause(ctx, err)
	} else {
		x.read(ctx, a, resp)
	}
	x.client.after(Exchange{
		Op: x.op, Status: a.status, Duration: time.Since(sent), Sent: sent, Received: received, Date: a.date, Err: a.err,
	})
	if a.throttle > 0 {
		x.client.throttled(a.throttle)
	}
	if err != nil {
		return nil, a.err
	}
	resp.Body = io.NopCloser(bytes.NewReader(a.body))
	return resp, nil
}

// read takes what matters from an answer and closes it.
func (x *call) read(ctx context.Context, a *answer, resp *http.Response) {
	defer resp.Body.Close()
	a.status = resp.StatusCode
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		a.date = date
	}
	a.throttle = pause(resp.StatusCode, resp.Header, a.date, x.client.now)
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case len(body) > maxAnswer:
		a.tooLong = true
	case err == nil:
		a.body = body
	case a.status < 300: // otherwise the status says enough
		a.err = fmt.Errorf("reading the answer: %w", x.cause(ctx, err))
		a.acted = true
	}
}

// cause is the error without URL and secrets; when the context has ended, that is
// the cause, whatever the transport calls it.
func (x *call) cause(ctx context.Context, err error) error {
	cleaned := cleanError(err, x.token, *x.client.secret.Load())
	switch ended := ctx.Err(); {
	case ended == nil || errors.Is(cleaned, ended):
		return cleaned
	default:
		return &cleanedError{text: cleaned.Error(), kind: ended}
	}
}

// outcome makes the result of the call from what its last request brought.
func (x *call) outcome(ctx context.Context) (*answer, *Error) {
	a := x.last
	if a == nil && x.stopped == nil {
		return nil, &Error{Op: x.op, Err: errNotSent}
	}
	if a == nil {
		return nil, &Error{Op: x.op, Err: fmt.Errorf("%w: %w", errNotSent, x.cause(ctx, x.stopped))}
	}
	if a.status == http.StatusOK && a.err == nil && !a.tooLong {
		return a, nil
	}
	e := x.failure(a)
	if a.harmless() && errors.Is(ctx.Err(), context.Canceled) {
		e.Err = context.Canceled // while waiting to try again
	}
	return a, e
}

// failure turns an answer that is no success into an error.
func (x *call) failure(a *answer) *Error {
	e := &Error{Op: x.op, Signed: x.signed, MayHaveActed: a.acted && x.op != OpTime}
	if a.err != nil {
		e.Err = a.err
		return e
	}
	secret := *x.client.secret.Load()
	body := parseErrorBody(a.body)
	e.Status = a.status
	e.Date = a.date
	e.Retry = a.throttle
	e.Code = clean(body.Message, x.token, secret)
	e.Detail = clean(body.detail(), x.token, secret)
	e.Location = clean(body.location(), x.token, secret)
	if x.op == OpGrant {
		e.MayHaveActed = a.status < 300 || a.status >= 500 && a.status != http.StatusServiceUnavailable
	}
	if a.tooLong && a.status < 300 {
		e.Err = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	return e
}

// malformed is the error for a success that cannot be used.
func (x *call) malformed(a *answer, err error) *Error {
	return &Error{
		Op: x.op, Status: a.status, Date: a.date, Signed: x.signed, MayHaveActed: x.op == OpGrant,
		Err: cleanError(err, x.token, *x.client.secret.Load()),
	}
}

var _ http.RoundTripper = (*call)(nil)
