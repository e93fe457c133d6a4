package socket

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/pamsidecar/pamsidecar/client"
)

// LoopbackHeader must be "1" in every request to the loopback listener but the
// health checks. Web pages cannot send it to another origin without asking first.
const LoopbackHeader = "Pam-Sidecar"

// LoopbackOptions say who may use a loopback listener. Exactly one must be set.
type LoopbackOptions struct {
	// Bearer is the secret that callers send as "Authorization: Bearer ...".
	Bearer string
	// TrustNamespace serves every process in the network namespace.
	TrustNamespace bool
}

// GuardLoopback returns h behind the rules of the loopback listener: the caller's
// address and the Host header are loopback, there is no Origin header, LoopbackHeader
// is there and the bearer is right. /livez and /readyz need neither of the last two.
// It does not keep the bearer, only its hash.
func GuardLoopback(h http.Handler, o LoopbackOptions) (http.Handler, error) {
	if (o.Bearer != "") == o.TrustNamespace {
		return nil, errors.New("loopback listener: needs either a bearer or trust in the network namespace")
	}
	g := &loopbackGuard{next: h, open: o.TrustNamespace, bearer: sha256.Sum256([]byte(o.Bearer))}
	return g, nil
}

type loopbackGuard struct {
	next   http.Handler
	open   bool
	bearer [sha256.Size]byte
}

func (g *loopbackGuard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p := g.check(r); p.Status != 0 {
		leaveBody(w, r)
		w.Header().Set("Connection", "close")
		writeProblem(w, p)
		return
	}
	g.next.ServeHTTP(w, r)
}

// check is what is wrong with r; the status is 0 if nothing is.
func (g *loopbackGuard) check(r *http.Request) client.Problem {
	switch {
	case !loopbackAddress(r.RemoteAddr):
		return forbidden("only processes on this host are served here")
	case !loopbackHost(r.Host):
		return forbidden("the Host header must name the loopback: localhost, 127.0.0.1 or [::1]")
	case len(r.Header.Values("Origin")) > 0:
		return forbidden("requests with an Origin header are refused: web pages are not served here")
	}
	if path, _ := requestTarget(r); path == "/livez" || path == "/readyz" {
		return client.Problem{}
	}
	if marks := r.Header.Values(LoopbackHeader); len(marks) != 1 || marks[0] != "1" {
		return forbidden("the header " + LoopbackHeader + ": 1 is required here")
	}
	if !g.open && !g.authorized(r) {
		return problem(http.StatusUnauthorized, client.CodeUnauthorized, "the bearer is missing or wrong: send Authorization: Bearer with the content of the bearer file")
	}
	return client.Problem{}
}

func forbidden(detail string) client.Problem {
	return problem(http.StatusForbidden, client.CodeNotAllowed, detail)
}

func (g *loopbackGuard) authorized(r *http.Request) bool {
	given := r.Header.Values("Authorization")
	if len(given) != 1 {
		return false
	}
	scheme, bearer, _ := strings.Cut(given[0], " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(bearer)))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(sum[:], g.bearer[:]) == 1
}

// loopbackAddress reports whether an address and port is of the loopback.
func loopbackAddress(address string) bool {
	a, err := netip.ParseAddrPort(address)
	return err == nil && a.Addr().Unmap().IsLoopback()
}

// loopbackHost reports whether a Host header, with or without a port, names the
// loopback.
func loopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// ListenLoopback listens on a loopback address with a port, like "127.0.0.1:7070",
// "[::1]:7070" or "localhost:7070" (which means 127.0.0.1). Port 0 takes any free
// port.
func ListenLoopback(address string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("listen on loopback %q: write it as 127.0.0.1:7070", address)
	}
	if strings.EqualFold(host, "localhost") {
		host = "127.0.0.1"
	}
	if a, err := netip.ParseAddr(host); err != nil || !a.Unmap().IsLoopback() {
		return nil, fmt.Errorf("listen on loopback %q: %q is not a loopback address: write 127.0.0.1 or [::1]", address, host)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if isAddressInUse(err) {
		return nil, fmt.Errorf("listen on loopback %s: port %s is taken: stop the process that listens there or choose another port: %w", address, port, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on loopback %s: %w", address, err)
	}
	return l, nil
}
