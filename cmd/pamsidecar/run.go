package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/spf13/cobra"

	"github.com/pamsidecar/pamsidecar/config"
)

func newRunCommand(a *app) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the sidecar",
		Long: `Keep the tokens of every grant in the configuration alive and serve them until
interrupted. SIGHUP reads the configuration again.`,
		Example: examples("pamsidecar run --config /etc/pamsidecar/pamsidecar.yaml"),
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.runSidecar(cmd.Context(), a.loadConfig(a.configPath(path)), nil)
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "configuration `FILE` (default $PAMSIDECAR_CONFIG, then "+config.DefaultPath+")")
	return cmd
}

// loadConfig returns the function that reads the configuration file.
func (a *app) loadConfig(path string) func() (*config.Config, error) {
	return func() (*config.Config, error) {
		return config.Load(path, a.configOptions())
	}
}

// runSidecar runs a sidecar from its configuration file until ctx ends. listening,
// if not nil, is called once every endpoint accepts connections.
func (a *app) runSidecar(ctx context.Context, load func() (*config.Config, error), listening func()) error {
	cfg, err := load()
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	level := new(slog.LevelVar)
	level.Set(cfg.Log.Level)
	log := newLogger(a.stderr, cfg.Log.Format, level)
	for _, f := range cfg.Lint() {
		log.Warn("configuration", "finding", f.String())
	}
	s, err := openDaemon(cfg, daemonOptions{log: log, level: level, version: a.version, load: load, listening: listening})
	if err != nil {
		return err
	}
	return errors.Join(s.serve(ctx), s.close())
}

func newLogger(w io.Writer, format string, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// serve applies the configuration, listens and works until ctx ends or a part
// fails. It waits for all parts.
func (s *daemon) serve(ctx context.Context) error {
	cfg := s.config.Load()
	if _, err := s.refresher.Apply(ctx, cfg.Grants, true); err != nil {
		return fmt.Errorf("apply the configuration: %w", err)
	}
	stopHolding := make(chan struct{})
	endpoints, err := s.listen(cfg, stopHolding)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var parts sync.WaitGroup
	part := func(name string, run func() error) {
		parts.Go(func() {
			if err := run(); err != nil {
				stop(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	for _, e := range endpoints {
		part(e.name, e.serve)
		s.log.Info("listening", "endpoint", e.name, "address", e.listener.Addr().String())
	}
	if s.listening != nil {
		s.listening()
	}
	part("reload on SIGHUP", func() error { return s.reloadOnSignal(ctx) })
	// The refresher goes on while open requests are finished.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	part("refresher", func() error { return s.refresher.Run(work) })

	<-ctx.Done()
	s.log.Info("stopping")
	close(stopHolding)
	for _, e := range endpoints {
		e.stop()
	}
	stopWork()
	parts.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
