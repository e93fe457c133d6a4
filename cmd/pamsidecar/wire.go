package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/config"
	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/refresher"
)

// databaseFile is the store within the state directory.
const databaseFile = "tokens.db"

// daemon is one running sidecar: everything that is wired together, before and
// while it serves.
type daemon struct {
	log     *slog.Logger
	version string
	started time.Time

	config  atomic.Pointer[config.Config] // the one in use
	load    func() (*config.Config, error)
	level   *slog.LevelVar
	reloads sync.Mutex

	listening func() // nil, or called once every endpoint accepts

	secretMu sync.Mutex
	secret   pam.Secret

	store     *cache.Bolt
	cache     *cache.Cache
	clock     *refresher.Clock
	limiter   *refresher.Limiter
	upstream  *pam.Client
	refresher *refresher.Refresher
}

// daemonOptions is what openDaemon needs besides the configuration.
type daemonOptions struct {
	log     *slog.Logger
	level   *slog.LevelVar
	version string
	// load reads the configuration again, for reload.
	load func() (*config.Config, error)
	// listening, if not nil, is called once every endpoint accepts connections.
	listening func()
}

// openDaemon opens the state and wires the packages. Nothing runs and nothing
// listens yet; close releases it.
func openDaemon(cfg *config.Config, o daemonOptions) (*daemon, error) {
	s := &daemon{log: o.log, level: o.level, version: o.version, load: o.load, listening: o.listening, started: time.Now()}
	s.config.Store(cfg)
	var err error
	if s.secret, err = cfg.SecretKey(); err != nil {
		return nil, err
	}
	s.clock = refresher.NewClock(nil)
	s.limiter = refresher.NewLimiter(cfg.Upstream.Rate, cfg.Upstream.Burst)
	s.upstream, err = pam.NewClient(pam.ClientConfig{
		Keyset:         pam.Keyset{PublishKey: cfg.Keyset.PublishKey, SubscribeKey: cfg.Keyset.SubscribeKey, SecretKey: s.secret},
		Origin:         cfg.Origin,
		InsecureOrigin: cfg.InsecureOrigin,
		CAFile:         cfg.OriginCAFile,
		Now:            s.clock.Signing,
		BeforeRequest:  s.waitForTurn,
		AfterRequest:   s.observe,
		Throttled:      s.throttled,
		UserAgent:      "pamsidecar/" + o.version,
	})
	if err != nil {
		return nil, err
	}
	if err := s.openState(cfg); err != nil {
		return nil, err
	}
	s.refresher = refresher.New(refresher.Config{
		Cache: s.cache, Upstream: s.upstream, Clock: s.clock, Limiter: s.limiter,
		InFlight: cfg.Upstream.InFlight, ReloadSecret: s.reloadSecret, Log: o.log,
	})
	s.useSecret(s.secret)
	return s, nil
}

// openState opens database and journal.
func (s *daemon) openState(cfg *config.Config) error {
	if err := checkStateDir(cfg.StateDir); err != nil {
		return err
	}
	store, err := cache.OpenBolt(filepath.Join(cfg.StateDir, databaseFile), cache.BoltOptions{Log: s.log})
	if err != nil {
		return err
	}
	s.store = store
	s.cache, err = cache.Open(store, cfg.StateDir, cache.Options{
		Identity:    cache.Identity{SubscribeKey: cfg.Keyset.SubscribeKey, Origin: s.upstream.Origin()},
		Now:         s.clock.Now,
		Measured:    s.clock.Restore,
		Quarantined: store.Quarantined(),
		Log:         s.log,
	})
	if err != nil {
		return fmt.Errorf("state_dir %s: %w", cfg.StateDir, err)
	}
	if s.cache.LostBlocks() {
		s.log.Error("blocks may have been lost with the state: nothing is granted until an operator runs: pamsidecar unblock --accept-lost-blocks")
	}
	return nil
}

// checkStateDir refuses a state directory that is not there or that others can
// change.
func checkStateDir(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("state_dir %s does not exist: create it, owned by uid %d, with mode 0700", dir, os.Getuid())
	case err != nil:
		return fmt.Errorf("state_dir: %w", err)
	case !info.IsDir():
		return fmt.Errorf("state_dir %s is not a directory", dir)
	case info.Mode().Perm()&0o002 != 0:
		return fmt.Errorf("state_dir %s can be written by everybody (mode %04o): set mode 0700", dir, info.Mode().Perm())
	}
	probe, err := os.CreateTemp(dir, ".probe-*")
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("state_dir %s is not writable for uid %d: make that user its owner", dir, os.Getuid())
	case err != nil:
		// A full or failing disk does not stop what is already on it from being served.
		return nil
	}
	probe.Close()
	return os.Remove(probe.Name())
}

// close releases what openDaemon opened. It reports the first fault.
func (s *daemon) close() error {
	if err := s.cache.Close(); err != nil {
		return fmt.Errorf("close state: %w", err)
	}
	return nil
}

// waitForTurn is the one hook before each request on the wire.
func (s *daemon) waitForTurn(ctx context.Context, op pam.Op) error {
	lane := refresher.Granting
	if op == pam.OpRevoke {
		lane = refresher.Revoking
	}
	return s.limiter.Wait(ctx, lane)
}

func (s *daemon) observe(x pam.Exchange) {
	s.refresher.Observe(x)
	s.log.Debug("request", "op", string(x.Op), "status", x.Status, "duration", x.Duration.Round(time.Microsecond))
}

func (s *daemon) throttled(d time.Duration) {
	s.limiter.Pause(d)
	s.log.Warn("access manager asks for a pause", "pause", d)
}

// reloadSecret reads the secret key again and reports whether it changed.
func (s *daemon) reloadSecret() bool {
	secret, err := s.config.Load().SecretKey()
	if err != nil {
		s.log.Error("secret key cannot be read again", "error", err)
		return false
	}
	s.secretMu.Lock()
	defer s.secretMu.Unlock()
	if secret == s.secret {
		return false
	}
	s.secret = secret
	s.upstream.SetSecretKey(secret)
	s.log.Info("secret key changed", "secret", secret)
	s.useSecret(secret)
	return true
}

// useSecret lets what an earlier secret key was refused be tried again.
func (s *daemon) useSecret(secret pam.Secret) {
	if err := s.refresher.UseSecret(secret.ID()); err != nil {
		s.log.Error("what was refused with another secret key is not tried sooner", "error", err)
	}
}
