package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/pamsidecar/pamsidecar/admin"
	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/refresher"
)

// lifecycle is what operators can order.
type lifecycle struct {
	*refresher.Refresher
	daemon *daemon
}

// Reload reads the configuration again and applies it.
func (l lifecycle) Reload(ctx context.Context, force bool, by cache.Actor) (admin.ReloadResult, error) {
	diff, err := l.daemon.reload(ctx, force, by)
	if errors.Is(err, cache.ErrTooManyChanges) {
		err = &admin.TooManyChangesError{Err: err}
	}
	return admin.ReloadResult{
		Added: diff.Added, Changed: diff.Changed, Narrowed: diff.Narrowed, Removed: diff.Removed, Unchanged: diff.Unchanged,
	}, err
}

// reload reads the configuration again and applies its grants, log level and
// secret key. A faulty file changes nothing.
func (s *daemon) reload(ctx context.Context, force bool, by cache.Actor) (cache.Diff, error) {
	s.reloads.Lock()
	defer s.reloads.Unlock()
	cfg, err := s.load()
	if err != nil {
		return cache.Diff{}, &admin.FaultyConfigurationError{Err: err}
	}
	if _, err := cfg.SecretKey(); err != nil {
		return cache.Diff{}, &admin.FaultyConfigurationError{Err: err}
	}
	old := s.config.Load()
	if cfg.Keyset.SubscribeKey != old.Keyset.SubscribeKey || cfg.Keyset.PublishKey != old.Keyset.PublishKey || cfg.Origin != old.Origin || cfg.StateDir != old.StateDir {
		err := errors.New("keyset, origin and state_dir cannot change while running: stop the sidecar, and start it with another state_dir")
		return cache.Diff{}, &admin.FaultyConfigurationError{Err: err}
	}
	diff, err := s.refresher.Apply(ctx, cfg.Grants, force)
	if err != nil {
		return diff, err
	}
	s.config.Store(cfg)
	s.level.Set(cfg.Log.Level)
	s.reloadSecret()
	s.log.Info("configuration reloaded", "added", diff.Added, "changed", diff.Changed, "narrowed", diff.Narrowed, "removed", diff.Removed, "unchanged", diff.Unchanged)
	if old.Listen.Token != cfg.Listen.Token || old.Listen.Admin != cfg.Listen.Admin || old.Upstream != cfg.Upstream {
		s.log.Warn("changes of listen and upstream take effect at the next start")
	}
	return diff, s.refresher.NoteReload(by, diff)
}

// reloadOnSignal reloads at each SIGHUP until ctx ends.
func (s *daemon) reloadOnSignal(ctx context.Context) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
			if _, err := s.reload(ctx, false, cache.Actor{Via: "SIGHUP"}); err != nil {
				s.log.Error("configuration not reloaded: the old one stays in use", "error", err)
			}
		}
	}
}
