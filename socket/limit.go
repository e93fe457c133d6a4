package socket

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pamsidecar/pamsidecar/client"
)

// DefaultMaxConns is how many connections a listener takes at the same time.
const DefaultMaxConns = 4096

// LimitConns returns l with at most n connections at the same time; n of 0 means
// DefaultMaxConns. Further ones are accepted, told 429 and closed, so that clients
// learn at once what is wrong. That is logged at most once a minute.
func LimitConns(l net.Listener, n int, log *slog.Logger) net.Listener {
	if n <= 0 {
		n = DefaultMaxConns
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &limitListener{Listener: l, max: int64(n), log: log}
}

type limitListener struct {
	net.Listener
	max  int64
	open atomic.Int64
	log  *slog.Logger
	told time.Time  // when it was last logged
	mu   sync.Mutex // of told
}

// Accept returns the next connection within the limit.
func (l *limitListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= l.max {
			return &limitConn{Conn: c, release: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
		}
		l.open.Add(-1)
		l.turnAway(c)
	}
}

// turnAway answers without reading. The answer fits any socket buffer, so it
// cannot block for long.
func (l *limitListener) turnAway(c net.Conn) {
	l.tell()
	_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	_, _ = c.Write(tooManyConns)
	_ = c.Close()
}

func (l *limitListener) tell() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.told) >= time.Minute {
		l.told = now
		l.log.Warn("socket: too many connections, further ones are turned away", "address", l.Addr().String(), "limit", l.max)
	}
}

// tooManyConns is a whole answer as it goes over the wire.
var tooManyConns = func() []byte {
	body := marshal(problem(http.StatusTooManyRequests, client.CodeTooMany, "too many connections are open already"))
	return append([]byte("HTTP/1.1 429 Too Many Requests\r\n"+
		"Content-Type: "+problemType+"\r\n"+
		"Content-Length: "+strconv.Itoa(len(body))+"\r\n"+
		"Cache-Control: no-store\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"), body...)
}()

// limitConn gives its place back when it is closed.
type limitConn struct {
	net.Conn
	release func()
}

// Close closes the connection and makes room for another.
func (c *limitConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// CloseWrite tells the client that nothing more comes, as the server does before
// it gives up on a request that it did not read to its end.
func (c *limitConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// NetConn is the connection underneath, for PeerOf.
func (c *limitConn) NetConn() net.Conn { return c.Conn }
