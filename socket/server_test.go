package socket

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/client"
)

func readAll(r io.Reader) (string, error) {
	body, err := io.ReadAll(r)
	return string(body), err
}

func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec
}

// startServer serves h on a Unix socket with the limits of NewServer and returns
// its path.
func startServer(t *testing.T, h http.Handler, change func(s *http.Server), conns int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token.sock")
	l, err := Listen(path, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(h, nil)
	if change != nil {
		change(s)
	}
	go s.Serve(LimitConns(l, conns, nil))
	t.Cleanup(func() { s.Close() })
	return path
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func readResponse(t *testing.T, r *bufio.Reader) (*http.Response, string) {
	t.Helper()
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := readAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, body
}

func TestOverTheWire(t *testing.T) {
	path := startServer(t, NewHandler(newWorld(t, atNoon).fill().cfg), nil, 0)
	tests := []struct {
		about, request string
		status         int
		closes         bool
	}{
		{"document", "GET /v1/tokens/fresh HTTP/1.1\r\nHost: x\r\n\r\n", 200, false},
		{"raw name", "GET /v1/tokens/\xc3\xbc%2Fwatch HTTP/1.1\r\nHost: x\r\n\r\n", 404, false},
		{"absolute form", "GET http://x/v1/tokens/a%2Fwatch HTTP/1.1\r\nHost: x\r\n\r\n", 200, false},
		{"malformed escape", "GET /v1/tokens/%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400, true},
		{"bad name keeps the connection", "GET /v1/tokens/%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400, false},
		{"body announced and never sent", "GET /v1/tokens/fresh HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", 400, true},
		{"chunked body never sent", "GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 400, true},
		{"expect", "GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", 400, true},
		{"post never sent", "POST /v1/tokens/fresh HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", 405, true},
		{"options", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404, false},
		{"huge header", "GET /livez HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 30<<10) + "\r\n\r\n", 431, true},
	}
	for _, test := range tests {
		t.Run(test.about, func(t *testing.T) {
			c := dial(t, path)
			go io.WriteString(c, test.request)
			r := bufio.NewReader(c)
			res, body := readResponse(t, r)
			if res.StatusCode != test.status {
				t.Fatalf("status %d, want %d: %s", res.StatusCode, test.status, body)
			}
			if !test.closes {
				io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
				if res, body := readResponse(t, r); res.StatusCode != 200 || body != "ok\n" {
					t.Errorf("next request: %d %q", res.StatusCode, body)
				}
				return
			}
			if _, err := r.ReadByte(); err == nil || isTimeout(err) {
				t.Errorf("connection is kept: %v", err)
			}
		})
	}
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

func TestSlowHeaderLosesConnection(t *testing.T) {
	path := startServer(t, http.NotFoundHandler(), func(s *http.Server) { s.ReadHeaderTimeout = 30 * time.Millisecond }, 0)
	for _, sent := range []string{"", "GET /livez HTTP/1.1\r\nHo"} {
		c := dial(t, path)
		io.WriteString(c, sent)
		if _, err := readAll(c); isTimeout(err) {
			t.Errorf("after %q the connection is kept", sent)
		}
	}
}

// deadlines is a ResponseWriter that records the deadlines it is given and the
// writes that had none.
type deadlines struct {
	*httptest.ResponseRecorder
	set    time.Time
	faults []string
}

func (d *deadlines) SetWriteDeadline(at time.Time) error {
	d.set = at
	return nil
}

func (d *deadlines) Write(p []byte) (int, error) {
	if left := time.Until(d.set); left <= 0 || left > answerTimeout {
		d.faults = append(d.faults, fmt.Sprintf("%.20q with %v left", p, left))
	}
	return d.ResponseRecorder.Write(p)
}

func TestEveryAnswerHasADeadline(t *testing.T) {
	h := NewHandler(newWorld(t, atNoon).fill().cfg)
	for _, uri := range []string{"/v1/tokens/fresh", "/v1/tokens/blocked", "/v1/tokens", "/v1/keyset", "/livez", "/readyz", "/nothing"} {
		d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		h.ServeHTTP(d, request("GET", uri))
		if len(d.faults) > 0 || d.set.IsZero() {
			t.Errorf("%s: %v", uri, d.faults)
		}
	}
}

func TestServerLimits(t *testing.T) {
	s := NewServer(http.NotFoundHandler(), nil)
	if s.ReadHeaderTimeout <= 0 || s.IdleTimeout <= 0 || s.WriteTimeout <= MaxWait || s.MaxHeaderBytes != 16<<10 || s.ReadTimeout != 0 {
		t.Errorf("%+v", s)
	}
}

func TestServerLogQuotesNobody(t *testing.T) {
	var out bytes.Buffer
	l := serverLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	l.Printf("http: panic serving %v: %v\n%s", "@", "token-of-test", "stack with token-of-test")
	l.Printf("http: Accept error: %v; retrying in %v", "too many open files", time.Second)
	if got := out.String(); strings.Contains(got, "token-of-test") || !strings.Contains(got, "panic serving @") ||
		!strings.Contains(got, "level=WARN") || !strings.Contains(got, "too many open files") {
		t.Errorf("log: %s", got)
	}
}

func TestHandlerPanicCutsTheConnection(t *testing.T) {
	var out bytes.Buffer
	w := newWorld(t, atNoon)
	w.cfg.Log = slog.New(slog.NewTextHandler(&out, nil))
	w.cfg.Ready = func() ([]client.Missing, error) { panic("token-of-test") }
	defer func() {
		if recover() != http.ErrAbortHandler {
			t.Error("the connection is not cut")
		}
		if got := out.String(); !strings.Contains(got, "handler panicked") || strings.Contains(got, "token-of-test") {
			t.Errorf("log: %s", got)
		}
	}()
	w.ask("GET", "/readyz")
}

func TestTooManyConnections(t *testing.T) {
	path := startServer(t, NewHandler(newWorld(t, atNoon).cfg), nil, 2)
	var open []net.Conn
	for range 2 {
		c := dial(t, path)
		io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		readResponse(t, bufio.NewReader(c))
		open = append(open, c)
	}
	res, body := readResponse(t, bufio.NewReader(dial(t, path)))
	if p := decode[client.Problem](t, []byte(body)); res.StatusCode != 429 || p.Code != client.CodeTooMany || !res.Close {
		t.Errorf("third connection: %d %s", res.StatusCode, body)
	}
	open[0].Close()
	// The place is free as soon as the server has seen the close.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		c := dial(t, path)
		io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		if res, _ := readResponse(t, bufio.NewReader(c)); res.StatusCode == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("a closed connection keeps its place")
		}
	}
}

func TestLimitConnsGivesOnePlaceBack(t *testing.T) {
	l := LimitConns(nil, 1, nil).(*limitListener)
	l.open.Store(1)
	here, there := net.Pipe()
	defer there.Close()
	c := &limitConn{Conn: here, release: func() { l.open.Add(-1) }}
	inner := &limitListener{Listener: &oneConn{here}, max: 2, log: l.log}
	got, err := inner.Accept()
	if err != nil {
		t.Fatal(err)
	}
	got.Close()
	got.Close()
	if n := inner.open.Load(); n != 0 {
		t.Errorf("%d open after closing twice", n)
	}
	if c.NetConn() != here {
		t.Error("the connection underneath is hidden")
	}
}

type oneConn struct{ c net.Conn }

func (o *oneConn) Accept() (net.Conn, error) { return o.c, nil }
func (o *oneConn) Close() error              { return nil }
func (o *oneConn) Addr() net.Addr            { return &net.UnixAddr{Name: "x", Net: "unix"} }

func TestHeldOverTheWire(t *testing.T) {
	stop := make(chan struct{})
	w := newWorld(t, time.Now)
	w.cfg.Stop = stop
	w.set("x", func(*cache.Record) {})
	h := NewHandler(w.cfg)
	var server *http.Server
	path := startServer(t, h, func(s *http.Server) { server = s }, 0)
	const hold = "GET /v1/tokens/x?wait=5m HTTP/1.1\r\nHost: x\r\n\r\n"

	gone := dial(t, path)
	io.WriteString(gone, hold)
	eventually(t, "the request is held", func() bool { return h.Waiting() == 1 })
	gone.Close()
	eventually(t, "the handler sees that the client left", func() bool { return h.Waiting() == 0 })

	c := dial(t, path)
	r := bufio.NewReader(c)
	io.WriteString(c, hold)
	eventually(t, "the request is held", func() bool { return h.Waiting() == 1 })
	w.give("x", time.Now())
	if res, body := readResponse(t, r); res.StatusCode != http.StatusOK {
		t.Errorf("%d %s", res.StatusCode, body)
	}

	w.set("x", func(r *cache.Record) { r.Current = nil })
	io.WriteString(c, hold)
	eventually(t, "the request is held", func() bool { return h.Waiting() == 1 })
	close(stop)
	if res, body := readResponse(t, r); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// eventually polls what another goroutine brings about.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not seen: %s", what)
		}
	}
}

func TestGuardReadsNoBody(t *testing.T) {
	guard, err := GuardLoopback(http.NotFoundHandler(), LoopbackOptions{TrustNamespace: true})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, startServer(t, guard, nil, 0))
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
	r := bufio.NewReader(c)
	if res, body := readResponse(t, r); res.StatusCode != http.StatusForbidden {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if _, err := r.ReadByte(); err == nil || isTimeout(err) {
		t.Errorf("connection is kept: %v", err)
	}
}
