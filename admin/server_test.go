package admin

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// serveUnix runs the handler on a real Unix socket and returns a client for it.
func (b *bench) serveUnix() *http.Client {
	path := filepath.Join(b.TempDir(), "admin.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	server := NewServer(NewHandler(b.config), nil)
	done := make(chan struct{})
	go func() {
		server.Serve(l)
		close(done)
	}()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	b.Cleanup(func() {
		transport.CloseIdleConnections()
		server.Close()
		<-done
	})
	return &http.Client{Transport: transport}
}

// Who took a decision is what the kernel says, whatever the request says.
func TestPeer(t *testing.T) {
	b := newBench(t)
	client := b.serveUnix()
	r, err := http.NewRequestWithContext(t.Context(), "POST", "http://admin"+GrantPath("a/b ü")+"/refresh", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Pamsidecar-Via", "somebody else")
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%d %s %v", resp.StatusCode, body, err)
	}
	by := b.lifecycle.by
	if by.Via != "admin" {
		t.Errorf("via %q", by.Via)
	}
	if runtime.GOOS != "linux" {
		return
	}
	if by.UID == nil || *by.UID != os.Getuid() || by.PID == nil || *by.PID != os.Getpid() {
		t.Errorf("decided by %+v", by)
	}
}

func TestServerHead(t *testing.T) {
	client := newBench(t).serveUnix()
	resp, err := client.Head("http://admin/livez")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 || resp.ContentLength <= 0 {
		t.Errorf("%d, %d bytes", resp.StatusCode, resp.ContentLength)
	}
}

// Slashes of a name stay escaped also when the sender left other characters of
// the path as they are, which makes net/http forget how it was escaped.
func TestRawTarget(t *testing.T) {
	for target, want := range map[string]string{
		`/v1/grants/a%2Fb"c/refresh`:           `refresh "a/b\"c"`,
		`/v1/grants/a%2Frefresh{}/refresh`:     `refresh "a/refresh{}"`,
		`http://admin/v1/grants/a%2Fb/refresh`: `refresh "a/b"`,
	} {
		b := newBench(t)
		b.serveRaw("POST " + target + " HTTP/1.1\r\nHost: admin\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		if len(b.lifecycle.calls) != 1 || b.lifecycle.calls[0] != want {
			t.Errorf("%s: calls %q", target, b.lifecycle.calls)
		}
	}
}

// serveRaw sends bytes and returns the whole answer.
func (b *bench) serveRaw(request string) string {
	transport := b.serveUnix().Transport.(*http.Transport)
	conn, err := transport.DialContext(b.Context(), "", "")
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		b.Fatal(err)
	}
	all, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(all), "HTTP/1.1 ") {
		b.Fatalf("%q %v", all, err)
	}
	return string(all)
}
