// Command compose-app is an app beside a sidecar, in the way any language can be:
// it reads a PubNub token from the sidecar's socket, then asks for the next one
// and gets it the moment there is one. Meanwhile it publishes a message every
// second with the token it has. It prints all that, but never a token.
//
// docker-compose.yml runs it. It never needs to know when a token ends.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	socket := os.Getenv("PAMSIDECAR_SOCKET")
	if socket == "" {
		socket = "/run/pamsidecar/token.sock"
	}
	name := "checkout"
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	a := newApp(name, unixClient(socket), nil, os.Stdout)
	a.out.Printf("reading the token of %q from %s", name, socket)
	a.run(ctx)
}

// unixClient speaks HTTP over a Unix socket whatever the URL says.
func unixClient(socket string) *http.Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial}}
}

// app follows one name and publishes.
type app struct {
	name    string
	sidecar *http.Client
	pubnub  *http.Client
	out     *log.Logger
	last    string                 // the trouble with the sidecar that was told last
	current atomic.Pointer[access] // nil before the first token
}

// newApp returns an app that reaches PubNub through transport, nil for the usual way.
func newApp(name string, sidecar *http.Client, transport http.RoundTripper, out io.Writer) *app {
	return &app{
		name:    name,
		sidecar: sidecar,
		pubnub: &http.Client{
			Transport: transport,
			Timeout:   5 * time.Second,
			// The URL has the token in it: no other place is to see it.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		out: log.New(out, "", 0),
	}
}

// run follows and publishes until ctx ends.
func (a *app) run(ctx context.Context) {
	var both sync.WaitGroup
	both.Go(func() { a.publishAll(ctx) })
	both.Go(func() { a.follow(ctx) })
	both.Wait()
}

// follow takes every token of the name, one after the other.
func (a *app) follow(ctx context.Context) {
	etag := ""
	for ctx.Err() == nil {
		etag = a.step(ctx, etag)
	}
}

// step waits for a token other than the one with this ETag and uses it. It returns
// the ETag of the token in use.
func (a *app) step(ctx context.Context, etag string) string {
	resp, err := a.ask(ctx, etag)
	if err != nil {
		a.rest(ctx, "the sidecar does not answer", time.Second)
		return etag
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		var t token
		if err := json.NewDecoder(resp.Body).Decode(&t); err != nil {
			a.rest(ctx, "the answer cannot be read", time.Second)
			return etag
		}
		keys, err := a.keyset(ctx) // with every token: they belong together
		if err != nil {
			a.rest(ctx, "the keyset cannot be read", time.Second)
			return etag
		}
		a.use(access{keys, t})
		return resp.Header.Get("ETag")
	case http.StatusNotModified:
		return etag // nothing new within the wait
	default:
		a.rest(ctx, "no token: "+problem(resp), retryAfter(resp))
		return "" // publish goes on with the old token: here, its refusal is to be seen
	}
}

// ask holds the request until there is another token than the one named by etag,
// or for half a minute.
func (a *app) ask(ctx context.Context, etag string) (*http.Response, error) {
	target := "http://sidecar/v1/tokens/" + url.PathEscape(a.name) + "?wait=30s"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	return a.sidecar.Do(req)
}

// keyset is what a client of PubNub needs besides its user ID and token.
func (a *app) keyset(ctx context.Context) (k keyset, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sidecar/v1/keyset", nil)
	if err != nil {
		return k, err
	}
	resp, err := a.sidecar.Do(req)
	if err != nil {
		return k, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return k, errors.New(resp.Status)
	}
	return k, json.NewDecoder(resp.Body).Decode(&k)
}

// rest tells a trouble, once, and waits.
func (a *app) rest(ctx context.Context, trouble string, d time.Duration) {
	if ctx.Err() != nil {
		return
	}
	if trouble != a.last {
		a.out.Print(trouble)
		a.last = trouble
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// problem is why there is no token: the reason in the problem document.
func problem(resp *http.Response) string {
	var p struct{ Code, Detail, Reason string }
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil && !errors.Is(err, io.EOF) {
		return resp.Status
	}
	text := fmt.Sprintf("%d %s: %s", resp.StatusCode, p.Code, p.Detail)
	if p.Reason != "" {
		text += " (" + p.Reason + ")"
	}
	return text
}

func retryAfter(resp *http.Response) time.Duration {
	seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || seconds < 1 {
		return 5 * time.Second
	}
	return time.Duration(min(seconds, 60)) * time.Second
}

// keyset and token are what this app needs of the sidecar's answers.
type keyset struct {
	PublishKey   string `json:"publish_key"`
	SubscribeKey string `json:"subscribe_key"`
	Origin       string `json:"origin"`
}

type token struct {
	UUID       string    `json:"authorized_uuid"` // empty if any user ID may use the token
	Token      string    `json:"token"`
	Generation uint64    `json:"generation"`
	ExpiresAt  time.Time `json:"expires_at"`
}

type access struct {
	keyset
	token
}

// id is the short hash that the sidecar's log shows too. The token itself is a
// credential and belongs into no log.
func (t token) id() string {
	sum := sha256.Sum256([]byte(t.Token))
	return hex.EncodeToString(sum[:4])
}

// use makes the next message go out with this token. An app with a PubNub SDK hands
// it over here: pubnub.setToken(t.Token). The token it replaces is still good for a
// while, so nothing is interrupted.
func (a *app) use(t access) {
	a.out.Printf("generation %d  token #%s  expires_at %s", t.Generation, t.id(), t.ExpiresAt.Format(time.RFC3339))
	a.last = ""
	a.current.Store(&t)
}
