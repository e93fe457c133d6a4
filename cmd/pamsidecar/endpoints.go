package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/pamsidecar/pamsidecar/admin"
	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/client"
	"github.com/pamsidecar/pamsidecar/config"
	"github.com/pamsidecar/pamsidecar/refresher"
	"github.com/pamsidecar/pamsidecar/socket"
)

// maxConnections bounds the connections of each listener.
const maxConnections = 4096

// drainTime bounds how long open requests are finished at the end.
const drainTime = 3 * time.Second

// endpoint is one listener with its server.
type endpoint struct {
	name     string
	listener net.Listener
	server   *http.Server
}

func (e endpoint) serve() error {
	if err := e.server.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// stop finishes open requests for a moment, then cuts them.
func (e endpoint) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if e.server.Shutdown(ctx) != nil {
		e.server.Close()
	}
}

// listen binds every endpoint, or none.
func (s *daemon) listen(cfg *config.Config, stop <-chan struct{}) (endpoints []endpoint, err error) {
	defer func() {
		if err != nil {
			for _, e := range endpoints {
				e.listener.Close()
			}
		}
	}()
	add := func(name string, l net.Listener, server *http.Server) {
		endpoints = append(endpoints, endpoint{name, socket.LimitConns(l, maxConnections, s.log), server})
	}
	l, err := socket.Listen(cfg.Listen.Token.Path, socket.ListenOptions{Mode: cfg.Listen.Token.Mode, Group: cfg.Listen.Token.Group})
	if err != nil {
		return endpoints, fmt.Errorf("token socket: %w", err)
	}
	add("token socket", l, socket.NewServer(s.tokenHandler(stop, false), s.log))
	l, err = socket.Listen(cfg.Listen.Admin.Path, socket.ListenOptions{Mode: cfg.Listen.Admin.Mode, Group: cfg.Listen.Admin.Group})
	if err != nil {
		return endpoints, fmt.Errorf("admin socket: %w", err)
	}
	add("admin socket", l, admin.NewServer(s.adminHandler(), s.log))
	if cfg.Listen.Loopback == nil {
		return endpoints, nil
	}
	guarded, err := s.loopbackHandler(cfg.Listen.Loopback, stop)
	if err != nil {
		return endpoints, err
	}
	if l, err = socket.ListenLoopback(cfg.Listen.Loopback.Address); err != nil {
		return endpoints, fmt.Errorf("loopback listener: %w", err)
	}
	add("loopback", l, socket.NewServer(guarded, s.log))
	return endpoints, nil
}

func (s *daemon) tokenHandler(stop <-chan struct{}, loopback bool) http.Handler {
	cfg := s.config.Load()
	return socket.NewHandler(socket.Config{
		Reader: s.cache, Now: s.clock.Now, Ready: s.missing, Loopback: loopback, Stop: stop, Log: s.log,
		Keyset: client.Keyset{PublishKey: cfg.Keyset.PublishKey, SubscribeKey: cfg.Keyset.SubscribeKey, Origin: s.upstream.Origin()},
	})
}

func (s *daemon) missing() ([]client.Missing, error) {
	var missing []client.Missing
	for _, m := range s.refresher.Missing() {
		missing = append(missing, client.Missing{Name: m.Name, State: string(m.State), Reason: m.Reason, RetryAt: m.RetryAt})
	}
	return missing, nil
}

func (s *daemon) loopbackHandler(c *config.LoopbackConfig, stop <-chan struct{}) (http.Handler, error) {
	o := socket.LoopbackOptions{TrustNamespace: c.TrustNamespace}
	if c.BearerFile != "" {
		data, err := os.ReadFile(c.BearerFile)
		if err != nil {
			return nil, fmt.Errorf("loopback bearer_file: %w", err)
		}
		if o.Bearer = strings.TrimRight(string(data), "\r\n"); o.Bearer == "" {
			return nil, fmt.Errorf("loopback bearer_file %s is empty", c.BearerFile)
		}
	}
	return socket.GuardLoopback(s.tokenHandler(stop, true), o)
}

func (s *daemon) adminHandler() http.Handler {
	return admin.NewHandler(admin.Config{
		Records: s.cache, Lifecycle: lifecycle{s.refresher, s}, Now: s.clock.Now,
		ParseGrant: func(data []byte) (cache.Grant, error) {
			return config.ParseGrant(data, config.Options{ParseSchedule: refresher.ParseSchedule})
		},
		Info: s.info,
		Ready: func() (names []string) {
			for _, m := range s.refresher.Missing() {
				names = append(names, m.Name)
			}
			return names
		},
		Log: s.log,
	})
}

// info is what operators see of the process.
func (s *daemon) info() admin.Info {
	st := s.refresher.Status()
	i := admin.Info{
		Version: s.version, SubscribeKey: s.config.Load().Keyset.SubscribeKey, Origin: s.upstream.Origin(), StartedAt: s.started.UTC(),
		Clock: admin.Clock{OffsetSeconds: st.Clock.Offset.Seconds(), Known: st.Clock.Known, Suspect: st.Clock.Suspect},
		Storage: admin.Storage{
			Quarantined: s.store.Quarantined(), LostBlocks: s.cache.LostBlocks(), UncleanStarts: s.cache.UncleanStarts(),
		},
		Upstream: admin.Upstream{
			Rate: st.Rate, Burst: st.Burst, MaxInFlight: st.InFlight, InFlight: st.Requests,
			BreakerOpen: st.BreakerOpen, Backlog: st.Backlog, RevokeSupported: st.RevokeSupported,
		},
	}
	if err := s.cache.Degraded(); err != nil {
		i.Storage.Degraded = err.Error()
	}
	if st.PausedUntil.After(time.Now()) {
		i.Upstream.PausedUntil = st.PausedUntil.Add(st.Clock.Offset).UTC()
	}
	return i
}
