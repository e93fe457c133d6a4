package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// stopTime bounds how long the emulator finishes what it has begun.
const stopTime = 3 * time.Second

// maxKeyFile is the longest secret key file that is read, in bytes.
const maxKeyFile = 4 << 10

type emulatorFlags struct {
	listen        string
	publishKey    string
	subscribeKey  string
	secretFile    string
	control       bool
	clockOffset   time.Duration
	revokeDisable bool
}

func newEmulatorCommand(a *app) *cobra.Command {
	var f emulatorFlags
	cmd := &cobra.Command{
		Use:   "emulator",
		Short: "Run an Access Manager of your own, for tests and laptops",
		Long: `Serve PubNub Access Manager (grant, revoke, time) and as much of PubNub itself as
it takes to use a token: publish, subscribe, presence, groups, App Context. Its
tokens look real and mean nothing to PubNub. Without keys it has demo keys. The
control API under /emulator/ injects faults; whoever reaches the address may use
it.`,
		Example: examples("pamsidecar emulator --listen 127.0.0.1:8099", "pamsidecar emulator --clock-offset 5m --revoke-disabled"),
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			server, err := f.server(a)
			if err != nil {
				return err
			}
			return a.serveEmulator(cmd.Context(), server, f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8099", "`ADDR` to serve, host:port; port 0 takes a free one")
	flags.StringVar(&f.publishKey, "publish-key", pamtest.DemoPublishKey, "publish `KEY`")
	flags.StringVar(&f.subscribeKey, "subscribe-key", pamtest.DemoSubscribeKey, "subscribe `KEY`")
	flags.StringVar(&f.secretFile, "secret-key-file", "", "`FILE` with the secret key (default the demo key)")
	flags.BoolVar(&f.control, "control", true, "serve the control API under /emulator/")
	flags.DurationVar(&f.clockOffset, "clock-offset", 0, "`DURATION` by which its clock is ahead of this host's; may be negative")
	flags.BoolVar(&f.revokeDisable, "revoke-disabled", false, "refuse to revoke, as a keyset without that option does")
	return cmd
}

func (f emulatorFlags) server(a *app) (*pamtest.Server, error) {
	c := pamtest.Config{PublishKey: f.publishKey, SubscribeKey: f.subscribeKey, RevokeDisabled: f.revokeDisable}
	if f.secretFile != "" {
		secret, err := readSecretFile(f.secretFile)
		if err != nil {
			return nil, err
		}
		c.SecretKey = secret
	}
	server := pamtest.New(c)
	server.SetClockOffset(f.clockOffset)
	return server, nil
}

// readSecretFile reads the one secret in a file, without the white space around it.
func readSecretFile(path string) (pam.Secret, error) {
	const next = "the file holds the secret key and nothing else"
	file, err := os.Open(path)
	if err != nil {
		return "", failf(next, "read secret key: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxKeyFile+1))
	if err != nil {
		return "", failf(next, "read secret key: %w", err)
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" || len(text) > maxKeyFile || strings.ContainsAny(secret, " \t\r\n") {
		return "", failf(next, "read secret key: %s holds no single key", path)
	}
	return pam.Secret(secret), nil
}

// serveEmulator listens, says where, and serves until ctx ends.
func (a *app) serveEmulator(ctx context.Context, emulator *pamtest.Server, f emulatorFlags) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", f.listen)
	if err != nil {
		return failf("choose another address with --listen", "emulator: %w", err)
	}
	keys := emulator.Keyset()
	fmt.Fprintf(a.stderr, "pamsidecar: emulator at http://%s, publish key %s, subscribe key %s\n",
		listener.Addr(), printable(keys.PublishKey), printable(keys.SubscribeKey))
	return a.serveEmulatorOn(ctx, listener, emulator, f.control)
}

// serveEmulatorOn serves an emulator, with or without its control API, until ctx
// ends. It closes the listener.
func (a *app) serveEmulatorOn(ctx context.Context, listener net.Listener, emulator *pamtest.Server, control bool) error {
	var handler http.Handler = emulator
	if control {
		handler = emulator.Handler()
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          log.New(a.stderr, "pamsidecar: emulator: ", 0),
	}
	stopped := make(chan error, 1)
	forget := context.AfterFunc(ctx, func() { stopped <- stopServer(server) })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		forget()
		return fmt.Errorf("emulator: %w", err)
	}
	return <-stopped
}

// stopServer finishes open requests for a moment, then cuts them.
func stopServer(server *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return server.Close()
	}
	return nil
}
