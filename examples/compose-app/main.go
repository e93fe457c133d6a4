// Command compose-app is an app beside a sidecar, in the way any language can be:
// it reads a PubNub token from the sidecar's socket, then asks for the next one
// and gets it the moment there is one. It prints what it would give to the SDK,
// but for the token itself.
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
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
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
	fmt.Printf("reading the token of %q from %s\n", name, socket)
	a := &app{client: unixClient(socket), name: name, out: os.Stdout}
	a.run(ctx)
}

// unixClient speaks HTTP over a Unix socket whatever the URL says.
func unixClient(socket string) *http.Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial}}
}

// app follows one name.
type app struct {
	client *http.Client
	name   string
	out    io.Writer
	last   string // the trouble that was told last
}

// run uses every token of the name, one after the other, until ctx ends.
func (a *app) run(ctx context.Context) {
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
		a.use(t)
		return resp.Header.Get("ETag")
	case http.StatusNotModified:
		return etag // nothing new within the wait
	default:
		a.rest(ctx, "no token: "+problem(resp), retryAfter(resp))
		return "" // what was in use before is not to be used any more
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
	return a.client.Do(req)
}

// rest tells a trouble, once, and waits.
func (a *app) rest(ctx context.Context, trouble string, d time.Duration) {
	if ctx.Err() != nil {
		return
	}
	if trouble != a.last {
		fmt.Fprintln(a.out, trouble)
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

// token is what this app needs of the sidecar's answer.
type token struct {
	Name       string    `json:"name"`
	Token      string    `json:"token"`
	Generation uint64    `json:"generation"`
	ExpiresAt  time.Time `json:"expires_at"`
}

// id is the short hash that the sidecar's log shows too. The token itself is a
// credential and belongs into no log.
func (t token) id() string {
	sum := sha256.Sum256([]byte(t.Token))
	return hex.EncodeToString(sum[:4])
}

// use is where an app hands the token to its PubNub client: pubnub.setToken(t.Token).
// The token it replaces is still good for a while, so nothing is interrupted.
func (a *app) use(t token) {
	fmt.Fprintf(a.out, "generation %d  token #%s  expires_at %s\n", t.Generation, t.id(), t.ExpiresAt.Format(time.RFC3339))
	a.last = ""
}
