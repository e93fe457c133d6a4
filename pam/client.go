package pam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
)

// DefaultOrigin is where Access Manager is, by PubNub's documentation.
const DefaultOrigin = "https://ps.pndsn.com"

// requester is the user id of our own requests, as every SDK sends one. It is
// unrelated to the UUID of a token.
const requester = "pamsidecar"

// ClientConfig is what NewClient needs. Only Keyset is required.
type ClientConfig struct {
	Keyset Keyset
	// Origin is scheme, host and port, DefaultOrigin when empty. Plain http needs a
	// loopback host or InsecureOrigin.
	Origin         string
	InsecureOrigin bool
	// CAFile is a PEM file with certificates to trust besides the system's.
	CAFile string
	// Transport replaces the Client's own, which keeps connections alive and honours
	// HTTPS_PROXY. CAFile has no effect on it.
	Transport http.RoundTripper
	// Now is the time that is signed, by the service's clock as well as it is known;
	// time.Now when nil.
	Now func() time.Time
	// BeforeRequest is called once before every request on the wire, quick retries
	// included. It may wait as long as ctx lasts; an error stops the call and nothing
	// is sent. The time is taken, and the signature made, after it returned.
	BeforeRequest func(ctx context.Context, op Op) error
	// AfterRequest is called once after every request on the wire.
	AfterRequest func(Exchange)
	// Throttled is called as soon as the service asks for a pause, by 429 or by 503
	// with Retry-After: between 1 s and 5 min in which nothing should be sent.
	Throttled func(time.Duration)
	// UserAgent names the program to the service, in the form "name/version".
	UserAgent string
}

// Exchange is one request on the wire and its answer.
type Exchange struct {
	Op       Op
	Status   int           // 0: no answer
	Duration time.Duration // from sending until the answer was read
	// Sent and Received are by the local clock; Received is when the headers of the
	// answer arrived.
	Sent, Received time.Time
	Date           time.Time // the service's clock in the answer; zero: none
	Err            error     // why there was no whole answer; no URL is in it
}

// Client sends requests to Access Manager. It is safe for concurrent use, starts
// no goroutine of its own, and never follows a redirect. Every error of its methods
// that talk to the service is an *Error. A method ends with its context; where that
// has no deadline, one request on the wire takes at most 15 s.
type Client struct {
	publishKey   string
	subscribeKey string
	secret       atomic.Pointer[Secret]
	origin       url.URL // scheme and host
	transport    http.RoundTripper
	agent        string
	now          func() time.Time
	before       func(context.Context, Op) error
	after        func(Exchange)
	throttled    func(time.Duration)
}

// NewClient checks the configuration and reads CAFile; it sends nothing.
func NewClient(cfg ClientConfig) (*Client, error) {
	if err := cfg.Keyset.check(); err != nil {
		return nil, err
	}
	origin, err := parseOrigin(cfg.Origin, cfg.InsecureOrigin)
	if err != nil {
		return nil, err
	}
	c := &Client{
		publishKey:   cfg.Keyset.PublishKey,
		subscribeKey: cfg.Keyset.SubscribeKey,
		origin:       origin,
		transport:    cfg.Transport,
		agent:        cfg.UserAgent,
		now:          cfg.Now,
		before:       cfg.BeforeRequest,
		after:        cfg.AfterRequest,
		throttled:    cfg.Throttled,
	}
	c.SetSecretKey(cfg.Keyset.SecretKey)
	if c.transport == nil {
		if c.transport, err = newTransport(cfg.CAFile); err != nil {
			return nil, err
		}
	}
	if c.agent == "" {
		c.agent = defaultAgent()
	}
	if strings.ContainsFunc(c.agent, unicode.IsControl) {
		return nil, errors.New("user agent: holds a control character")
	}
	c.setDefaults()
	return c, nil
}

// setDefaults fills the functions that were not given.
func (c *Client) setDefaults() {
	if c.now == nil {
		c.now = time.Now
	}
	if c.before == nil {
		c.before = func(context.Context, Op) error { return nil }
	}
	if c.after == nil {
		c.after = func(Exchange) {}
	}
	if c.throttled == nil {
		c.throttled = func(time.Duration) {}
	}
}

// check finds keys that are missing or cannot be keys.
func (k Keyset) check() error {
	keys := []struct{ name, text string }{
		{"publish key", k.PublishKey}, {"subscribe key", k.SubscribeKey}, {"secret key", k.SecretKey.Reveal()},
	}
	var faults []error
	for _, key := range keys {
		switch {
		case key.text == "":
			faults = append(faults, fmt.Errorf("%s: is missing", key.name))
		case strings.ContainsFunc(key.text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
			faults = append(faults, fmt.Errorf("%s: holds white space or a control character", key.name))
		}
	}
	return errors.Join(faults...)
}

func defaultAgent() string {
	version := "devel"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		version = info.Main.Version
	}
	return "pamsidecar/" + version
}

// String shows nothing but the origin.
func (c *Client) String() string { return "pam.Client(" + c.Origin() + ")" }

// GoString is String.
func (c *Client) GoString() string { return c.String() }

// Origin returns scheme, host and port, without a slash at the end.
func (c *Client) Origin() string { return c.origin.Scheme + "://" + c.origin.Host }

// SetSecretKey replaces the secret key for all requests that are signed from now
// on, quick retries included. The key must not be empty.
func (c *Client) SetSecretKey(key Secret) { c.secret.Store(&key) }

// Grant asks for a token. g is validated first. The token in the answer must parse;
// that it carries what was asked is the caller's to check, with [Token.Satisfies],
// so that a wrong one can be withdrawn.
func (c *Client) Grant(ctx context.Context, g Grant) (Token, error) {
	if err := g.Validate(); err != nil {
		return Token{}, invalid(OpGrant, err)
	}
	body, err := g.requestBody()
	if err != nil {
		return Token{}, invalid(OpGrant, errors.New("meta cannot be written as JSON"))
	}
	x := c.newCall(OpGrant, http.MethodPost, "/grant", "")
	x.body = body
	a, failure := x.do(ctx)
	if failure != nil {
		return Token{}, failure
	}
	token, err := grantedToken(a.body)
	if err != nil {
		return Token{}, x.malformed(a, err)
	}
	return token, nil
}

func invalid(op Op, err error) *Error {
	return &Error{Op: op, Err: fmt.Errorf("%w: %w", errRequest, err)}
}

// grantedToken finds the token in the answer to a grant.
func grantedToken(body []byte) (Token, error) {
	answer, err := parseAnswer(body)
	if err != nil {
		return Token{}, err
	}
	if answer.Data.Token == "" {
		return Token{}, errors.New("the answer holds no token")
	}
	return Parse(answer.Data.Token)
}

// parseAnswer reads a success. Its text decides, whatever the content type says:
// the service sends text/javascript.
func parseAnswer(body []byte) (answerBody, error) {
	var answer answerBody
	if err := json.Unmarshal(body, &answer); err != nil {
		return answerBody{}, errors.New("the answer is not the JSON of Access Manager")
	}
	if answer.Data == nil {
		return answerBody{}, errors.New("the answer holds no data")
	}
	return answer, nil
}

// Revoke withdraws a token, given exactly as it was granted. It returns nil as well
// when the service says that the token has expired or is already revoked. PubNub
// tells users to expect up to 60 s until a revoke holds everywhere. Repeating a
// revoke does no harm.
func (c *Client) Revoke(ctx context.Context, raw Secret) error {
	if raw == "" {
		return invalid(OpRevoke, errors.New("no token given"))
	}
	x := c.newCall(OpRevoke, http.MethodDelete, "/grant/", raw)
	a, failure := x.do(ctx)
	if failure != nil {
		if a != nil && a.tokenIsDead() {
			return nil
		}
		return failure
	}
	answer, err := parseAnswer(a.body)
	if err != nil {
		return x.malformed(a, err)
	}
	if !sameText(answer.Data.Message, "Success") {
		return x.malformed(a, errors.New("the answer does not say that it succeeded"))
	}
	return nil
}

// tokenIsDead reports whether a refused revoke has nothing left to do.
func (a *answer) tokenIsDead() bool {
	if a.status != http.StatusBadRequest && a.status != http.StatusForbidden {
		return false
	}
	return parseErrorBody(a.body).says("Token is expired", "Token is revoked")
}

// Time asks for the service's clock, GET /time/0, which answers a timetoken: 17
// digits that count 100 ns since 1970. The request is not signed, so it also works
// when our own clock is wrong.
func (c *Client) Time(ctx context.Context) (server time.Time, err error) {
	x := &call{client: c, op: OpTime, method: http.MethodGet, path: "/time/0", rawPath: "/time/0"}
	a, failure := x.do(ctx)
	if failure != nil {
		return time.Time{}, failure
	}
	var timetokens []json.Number
	if json.Unmarshal(a.body, &timetokens) != nil || len(timetokens) == 0 {
		return time.Time{}, x.malformed(a, errors.New("the answer is not a timetoken"))
	}
	ticks, err := timetokens[0].Int64()
	if err != nil || len(timetokens[0]) != 17 || ticks < 0 {
		return time.Time{}, x.malformed(a, errors.New("the answer is not a timetoken of 17 digits"))
	}
	const perSecond = 10_000_000
	return time.Unix(ticks/perSecond, ticks%perSecond*100).UTC(), nil
}
