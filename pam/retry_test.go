package pam

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// step answers one request of a script.
type step func(*http.Request) (*http.Response, error)

// script is a transport without sockets; after its steps it answers a revoke.
type script struct {
	steps []step
	sent  int
	urls  []string
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	next := reply(200, revokeAnswer)
	if s.sent < len(s.steps) {
		next = s.steps[s.sent]
	}
	s.sent++
	s.urls = append(s.urls, r.URL.String())
	return next(r)
}

// reply answers with a status, a body and pairs of header names and values.
func reply(status int, body string, header ...string) step {
	return func(r *http.Request) (*http.Response, error) {
		h := http.Header{}
		for i := 0; i < len(header); i += 2 {
			h.Add(header[i], header[i+1])
		}
		return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
}

func fail(err error) step {
	return func(*http.Request) (*http.Response, error) { return nil, err }
}

// hang never answers.
func hang(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

var errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}

func TestQuickRetries(t *testing.T) {
	dial := fail(errRefused)
	broken := fail(&net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET})
	busy := func(after string) step { return reply(429, "", "Retry-After", after) }
	down := reply(503, "")
	for _, c := range []struct {
		name      string
		steps     []step
		deadline  time.Duration // 0: none
		sent      int
		class     Class // 0: done
		acted     bool
		throttled []time.Duration
		atLeast   time.Duration // waited in all
		atMost    time.Duration
	}{
		{"done at once", nil, 0, 1, 0, false, nil, 0, 0},
		{"dial once", []step{dial}, 0, 2, 0, false, nil, minQuickWait, maxQuickWait},
		{"dial, then 503", []step{dial, down}, 0, 3, 0, false, nil, 2 * minQuickWait, 2 * maxQuickWait},
		{"dial for good", []step{dial, dial, dial, dial}, 0, 3, Transient, false, nil, 2 * minQuickWait, 2 * maxQuickWait},
		{"no time left", []step{dial}, 50 * time.Millisecond, 1, Transient, false, nil, 0, 0},
		{"503 for good", []step{down, down, down, down}, 0, 3, Transient, false, nil, 2 * minQuickWait, 2 * maxQuickWait},
		{"503 with pause", []step{reply(503, "", "Retry-After", "7")}, 0, 2, 0, false, []time.Duration{7 * time.Second}, 7 * time.Second, 7 * time.Second},
		{"503 with garbage", []step{reply(503, "", "Retry-After", "soon")}, 0, 2, 0, false, []time.Duration{time.Second}, time.Second, time.Second},
		{"429 without pause", []step{reply(429, "")}, 0, 2, 0, false, []time.Duration{time.Second}, time.Second, time.Second},
		{"429 with garbage", []step{busy("x")}, 0, 2, 0, false, []time.Duration{time.Second}, time.Second, time.Second},
		{"429 with 0", []step{busy("0")}, 0, 2, 0, false, []time.Duration{time.Second}, time.Second, time.Second},
		{"429 with a day", []step{busy("86400")}, 0, 2, 0, false, []time.Duration{maxPause}, maxPause, maxPause},
		{"429 beyond numbers", []step{busy("99999999999999999999999")}, 0, 2, 0, false, []time.Duration{maxPause}, maxPause, maxPause},
		{"429 with a date", []step{reply(429, "", "Retry-After", "Mon, 01 Jan 2024 00:00:20 GMT", "Date", "Mon, 01 Jan 2024 00:00:10 GMT")}, 0, 2, 0, false, []time.Duration{10 * time.Second}, 10 * time.Second, 10 * time.Second},
		{"429 with a past date", []step{busy("Fri, 01 Jan 1999 00:00:00 GMT")}, 0, 2, 0, false, []time.Duration{time.Second}, time.Second, time.Second},
		{"429 longer than the deadline", []step{busy("30")}, 10 * time.Second, 1, Throttled, false, []time.Duration{30 * time.Second}, 0, 0},
		{"429 for good", []step{busy("2"), busy("3"), busy("4")}, 0, 3, Throttled, false, []time.Duration{2 * time.Second, 3 * time.Second, 4 * time.Second}, 5 * time.Second, 5 * time.Second},
		{"500", []step{reply(500, "", "Retry-After", "5")}, 0, 1, Transient, false, nil, 0, 0},
		{"broken connection", []step{broken}, 0, 1, Transient, true, nil, 0, 0},
		{"timeout of the caller", []step{hang}, 3 * time.Second, 1, Transient, true, nil, 3 * time.Second, 3 * time.Second},
		{"timeout of one request", []step{hang}, 0, 1, Transient, true, nil, requestTimeout, requestTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if c.deadline > 0 {
					bounded, cancel := context.WithTimeout(ctx, c.deadline)
					defer cancel()
					ctx = bounded
				}
				transport := &script{steps: c.steps}
				hooks, afters := 0, 0
				var throttled []time.Duration
				client := newTestClient(t, ClientConfig{
					Transport:     transport,
					BeforeRequest: func(context.Context, Op) error { hooks++; return nil },
					AfterRequest:  func(Exchange) { afters++ },
					Throttled:     func(d time.Duration) { throttled = append(throttled, d) },
				})
				start := time.Now()
				err := client.Revoke(ctx, "some-token-text")
				waited := time.Since(start)
				if transport.sent != c.sent || hooks != c.sent || afters != c.sent {
					t.Errorf("%d requests, %d hooks, %d after, want %d", transport.sent, hooks, afters, c.sent)
				}
				if !slices.Equal(throttled, c.throttled) || waited < c.atLeast || waited > c.atMost {
					t.Errorf("throttled %v, waited %s", throttled, waited)
				}
				if c.class == 0 && err == nil {
					return
				}
				if e := asError(t, err); e.Class() != c.class || e.MayHaveActed != c.acted {
					t.Errorf("%v is %s, acted %v", e, e.Class(), e.MayHaveActed)
				}
			})
		})
	}
}

func TestEveryRequestIsSignedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := &script{steps: []step{reply(429, "", "Retry-After", "20"), reply(503, "")}}
		var client *Client
		client = newTestClient(t, ClientConfig{Transport: transport, BeforeRequest: func(context.Context, Op) error {
			time.Sleep(3 * time.Second) // the limiter; the time is taken after it
			if transport.sent == 2 {
				client.SetSecretKey("sec-c-the-next-secret-key")
			}
			return nil
		}})
		start := time.Now()
		if err := client.Revoke(t.Context(), "some-token-text"); err != nil {
			t.Fatal(err)
		}
		keys := []Secret{testKeys.SecretKey, testKeys.SecretKey, "sec-c-the-next-secret-key"}
		for i, raw := range transport.urls {
			u, err := url.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			signed, signature, _ := strings.Cut(u.RawQuery, "&signature=")
			if want := Sign(keys[i], "DELETE", testKeys.PublishKey, u.EscapedPath(), signed, nil); signature != want {
				t.Errorf("request %d has a wrong signature", i)
			}
			at := []time.Duration{3 * time.Second, 26 * time.Second, 29 * time.Second}[i] // and under a second of backoff
			if want := start.Add(at).Unix(); u.Query().Get("timestamp") != strconv.FormatInt(want, 10) {
				t.Errorf("request %d is not signed for second %d: %s", i, want, signed)
			}
		}
	})
}

func TestContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait := func(ctx context.Context, _ Op) error { <-ctx.Done(); return ctx.Err() }
		for _, c := range []struct {
			name   string
			steps  []step
			before func(context.Context, Op) error
			cause  error
			class  Class
			sent   int
			acted  bool
		}{
			{"canceled in the hook", nil, wait, nil, Canceled, 0, false},
			{"canceled in the hook, with a cause", nil, func(ctx context.Context, _ Op) error { <-ctx.Done(); return context.Cause(ctx) }, errors.New("stop"), Canceled, 0, false},
			{"canceled while sent", []step{hang}, nil, nil, Canceled, 1, true},
			{"canceled while waiting to retry", []step{reply(429, "", "Retry-After", "60")}, nil, nil, Canceled, 1, false},
		} {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(c.cause) })
			transport := &script{steps: c.steps}
			client := newTestClient(t, ClientConfig{Transport: transport, BeforeRequest: c.before})
			_, err := client.Grant(ctx, smallGrant())
			if e := asError(t, err); e.Class() != c.class || e.MayHaveActed != c.acted || transport.sent != c.sent || !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v is %s, acted %v, after %d requests", c.name, e, e.Class(), e.MayHaveActed, transport.sent)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		client := newTestClient(t, ClientConfig{Transport: &script{}, BeforeRequest: wait})
		_, err := client.Grant(ctx, smallGrant())
		if e := asError(t, err); e.Class() != Transient || e.MayHaveActed || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("deadline in the hook: %v is %s", e, e.Class())
		}
		client = newTestClient(t, ClientConfig{Transport: &script{}, BeforeRequest: func(context.Context, Op) error { return errors.New("paused") }})
		_, err = client.Grant(t.Context(), smallGrant())
		if e := asError(t, err); e.Class() != Transient || e.MayHaveActed || e.Reason() != "not sent: paused" {
			t.Errorf("refused by the hook: %v is %s", e, e.Class())
		}
		transport := &script{steps: []step{reply(503, "")}}
		client = newTestClient(t, ClientConfig{Transport: transport, BeforeRequest: func(context.Context, Op) error {
			if transport.sent == 1 {
				return errors.New("paused")
			}
			return nil
		}})
		_, err = client.Grant(t.Context(), smallGrant())
		if e := asError(t, err); e.Status != 503 || e.Class() != Transient || e.MayHaveActed {
			t.Errorf("a retry refused by the hook: %v", e)
		}
	})
}

// TestActed checks over sockets whether the client knows if a request was sent.
func TestActed(t *testing.T) {
	release := make(chan struct{})
	var requests atomic.Int32
	var behave atomic.Value
	server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		switch behave.Load() {
		case "hang":
			select {
			case <-release:
			case <-r.Context().Done():
			}
		case "drop":
			panic(http.ErrAbortHandler)
		case "cut":
			w.Header().Set("Content-Length", "500")
			io.WriteString(w, grantAnswer("qEF2"))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	})
	defer close(release)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + listener.Addr().String()
	listener.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()

	for _, c := range []struct {
		name    string
		origin  string
		behave  string
		acted   bool
		hooks   int
		reason  string
		arrived int32
	}{
		{"refused", closed, "", false, 3, "Access Manager unreachable: connection refused", 0},
		{"untrusted", secure.URL, "", false, 3, "Access Manager unreachable: x509: certificate signed by unknown authority", 0},
		{"no TLS there", strings.Replace(server.URL, "http:", "https:", 1), "", false, 3, "Access Manager unreachable: ", 0},
		{"hanging", server.URL, "hang", true, 1, "Access Manager did not answer in time", 1},
		{"dropped", server.URL, "drop", true, 1, "Access Manager unreachable: EOF", 1},
		{"cut", server.URL, "cut", true, 1, "Access Manager unreachable: reading the answer: unexpected EOF", 1},
	} {
		behave.Store(c.behave)
		requests.Store(0)
		hooks := 0
		client := newTestClient(t, ClientConfig{Origin: c.origin, BeforeRequest: func(context.Context, Op) error { hooks++; return nil }})
		ctx := t.Context()
		if c.behave == "hang" {
			bounded, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			defer cancel()
			ctx = bounded
		}
		_, err := client.Grant(ctx, smallGrant())
		e := asError(t, err)
		if e.Status != 0 || e.Class() != Transient || e.MayHaveActed != c.acted || hooks != c.hooks || !strings.HasPrefix(e.Reason(), c.reason) {
			t.Errorf("%s: %v, class %s, acted %v, %d hooks, reason %q", c.name, e, e.Class(), e.MayHaveActed, hooks, e.Reason())
		}
		if got := requests.Load(); got != c.arrived {
			t.Errorf("%s: %d requests arrived", c.name, got)
		}
	}
}

func TestKeptConnectionIsUsed(t *testing.T) {
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, revokeAnswer) }))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	client := newTestClient(t, ClientConfig{Origin: server.URL})
	for range 5 {
		if err := client.Revoke(t.Context(), "some-token-text"); err != nil {
			t.Fatal(err)
		}
	}
	if got := connections.Load(); got != 1 {
		t.Errorf("%d connections for five requests", got)
	}
}

func TestMaySend(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps func(*connection)
		err   error
		want  bool
	}{
		{"nothing known", func(*connection) {}, io.EOF, true},
		{"dial of a silent transport", func(*connection) {}, errRefused, false},
		{"name of a silent transport", func(*connection) {}, &net.DNSError{Err: "no such host"}, false},
		{"write of a silent transport", func(*connection) {}, &net.OpError{Op: "write", Err: syscall.EPIPE}, true},
		{"asked only", func(c *connection) { c.trace().GetConn("") }, io.EOF, false},
		{"got one", func(c *connection) { tr := c.trace(); tr.GetConn(""); tr.GotConn(httptrace.GotConnInfo{}) }, io.EOF, true},
		{"got a dead one, asked again", func(c *connection) {
			tr := c.trace()
			tr.GetConn("")
			tr.GotConn(httptrace.GotConnInfo{})
			tr.GetConn("")
		}, errRefused, false},
	} {
		var conn connection
		c.steps(&conn)
		if got := conn.maySend(c.err); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}
