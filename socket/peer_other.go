//go:build !linux

package socket

import "net"

func peerOf(*net.UnixConn) (Peer, bool) { return Peer{}, false }
