package admin

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/socket"
)

// NewServer returns a server for h with limits that fit operators: a request has
// to arrive within seconds, an answer may take as long as a decision is waited
// for. It puts the peer of each connection into the context of its requests. Log
// gets what net/http complains of; nil discards.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      changeTimeout + 20*time.Second, // counts from the end of the header, so the body's time is in it
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ConnContext:       socket.WithPeer,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),

		DisableGeneralOptionsHandler: true,
	}
}

// actorOf is who sent a request, as far as the kernel says.
func actorOf(r *http.Request) cache.Actor {
	by := cache.Actor{Via: "admin"}
	if p, ok := socket.PeerFrom(r.Context()); ok {
		by.UID, by.PID = known(p.UID), known(p.PID)
	}
	return by
}

// known is a number of a peer, nil for one the kernel did not give.
func known(n int) *int {
	if n < 0 {
		return nil
	}
	return &n
}
