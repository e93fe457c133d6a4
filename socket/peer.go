package socket

import (
	"context"
	"net"
)

// Peer is the process at the other end of a Unix socket, as the kernel says: the
// one that connected. IDs are those of our own namespaces; a process of a PID
// namespace that we cannot see has PID 0.
type Peer struct{ UID, GID, PID int }

// PeerOf asks the kernel who is at the other end of c, also when c wraps another
// connection that it gives out by NetConn. It reports false for connections that
// are no Unix socket and on systems that do not tell.
func PeerOf(c net.Conn) (Peer, bool) {
	for {
		outer, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = outer.NetConn()
	}
	unixConn, ok := c.(*net.UnixConn)
	if !ok {
		return Peer{}, false
	}
	return peerOf(unixConn)
}

type peerKey struct{}

// WithPeer returns ctx with the peer of c, if there is one. It has the form of
// http.Server.ConnContext.
func WithPeer(ctx context.Context, c net.Conn) context.Context {
	if p, ok := PeerOf(c); ok {
		return context.WithValue(ctx, peerKey{}, p)
	}
	return ctx
}

// PeerFrom is the peer of the connection that a request came over, false if the
// kernel did not tell.
func PeerFrom(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}
