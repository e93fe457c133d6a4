package socket

import (
	"context"
	"net"
	"net/http"
	"os"
	"runtime"
	"testing"
)

func TestPeer(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the kernel tells peers on Linux only")
	}
	seen := make(chan Peer, 1)
	path := startServer(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		p, ok := PeerFrom(r.Context())
		if !ok {
			t.Error("no peer")
		}
		seen <- p
	}), nil, 1)
	c := dial(t, path)
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if got, want := <-seen, (Peer{os.Getuid(), os.Getgid(), os.Getpid()}); got != want {
		t.Errorf("peer %+v, want %+v", got, want)
	}
}

func TestNoPeer(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	if p, ok := PeerOf(here); ok {
		t.Errorf("peer %+v of a pipe", p)
	}
	if _, ok := PeerFrom(WithPeer(context.Background(), here)); ok {
		t.Error("peer of a pipe in the context")
	}
}
