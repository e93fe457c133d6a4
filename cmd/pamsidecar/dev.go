package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pamsidecar/pamsidecar/config"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// devGrants are the sample grants of a new dev directory.
const devGrants = `grants:
  - uuid: alice
    ttl: 2m
    note: sample, a short life so that you see rotations
    loopback: true
    resources:
      channels: {lobby: [read, write], inbox.alice: [read, write]}
      uuids: {alice: [get, update]}
  - uuid: bob
    ttl: 15m
    note: sample
    loopback: true
    resources:
      channels: {lobby: [read]}
  - uuid: checkout
    ttl: 15m
    note: sample of a service with a pattern
    loopback: true
    resources:
      channels: {orders: [read, write]}
      groups: {order-feeds: [read]}
    patterns:
      channels: {"^receipts\\.[a-z0-9]+$": [read]}
    meta: {service: checkout}
`

type devFlags struct {
	dir      string
	loopback string
	emulator string
	grants   string
}

func newDevCommand(a *app) *cobra.Command {
	var f devFlags
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run emulator and sidecar together, nothing to configure",
		Long: `Run an emulated Access Manager and a sidecar in one process, with three sample
grants, and print what to type next. Everything is kept in one directory; started
again, it goes on with the same tokens.`,
		Example: examples("pamsidecar dev", "pamsidecar dev --grants grants.yaml"),
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.runDev(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "dir", devDir, "`DIR` for configuration, sockets and state")
	flags.StringVar(&f.loopback, "loopback", "127.0.0.1:7070", "`ADDR` that also serves the tokens")
	flags.StringVar(&f.emulator, "emulator-addr", "127.0.0.1:8099", "`ADDR` of the emulator")
	flags.StringVar(&f.grants, "grants", "", "YAML `FILE` whose grants replace the samples")
	return cmd
}

// runDev serves emulator and sidecar until ctx ends.
func (a *app) runDev(ctx context.Context, f devFlags) error {
	path, err := f.prepare()
	if err != nil {
		return err
	}
	cfg, err := a.loadConfig(path)()
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	emulator := pamtest.New(pamtest.Config{})
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", f.emulator)
	if err != nil {
		return failf("choose another address with --emulator-addr", "emulator: %w", err)
	}
	emulatorCtx, stopEmulator := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() { served <- a.serveEmulatorOn(emulatorCtx, listener, emulator, true) }()

	err = a.runSidecar(ctx, a.loadConfig(path), func() { a.tellDev(f, cfg) })
	stopEmulator()
	return errors.Join(err, <-served)
}

// prepare makes the directory complete and writes the configuration for this
// start. Grants that a person changed there stay.
func (f devFlags) prepare() (path string, err error) {
	for _, dir := range []string{f.dir, filepath.Join(f.dir, "token"), filepath.Join(f.dir, "admin"), filepath.Join(f.dir, "state")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", fmt.Errorf("dev directory: %w", err)
		}
	}
	path = filepath.Join(f.dir, "pamsidecar.yaml")
	grants, err := f.grantsText(path)
	if err != nil {
		return "", err
	}
	files := map[string]string{
		filepath.Join(f.dir, ".gitignore"): "*\n",
		filepath.Join(f.dir, "secret_key"): pamtest.DemoSecretKey + "\n",
		path:                               f.configText() + grants,
	}
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return "", fmt.Errorf("dev directory: %w", err)
		}
	}
	return path, nil
}

// grantsText is the grants section: of the file asked for, of the present
// configuration, or the samples.
func (f devFlags) grantsText(path string) (string, error) {
	source := path
	if f.grants != "" {
		source = f.grants
	}
	data, err := os.ReadFile(source)
	if f.grants == "" && errors.Is(err, fs.ErrNotExist) {
		return devGrants, nil
	}
	if err != nil {
		return "", fmt.Errorf("grants: %w", err)
	}
	text := string(data)
	if at := strings.Index("\n"+text, "\ngrants:"); at >= 0 {
		return text[at:], nil
	}
	return "", failf("the file needs a line that begins with grants:", "grants: %s has no grants section", source)
}

func (f devFlags) configText() string {
	return fmt.Sprintf(`# Written by pamsidecar dev at every start; what stands under grants: is yours.
keyset:
  publish_key: %s
  subscribe_key: %s
  secret_key_file: secret_key
origin: http://%s
state_dir: state
listen:
  token: {path: token/token.sock, mode: "0600"}
  admin: {path: admin/admin.sock, mode: "0600"}
  loopback: {address: %q, i_trust_this_network_namespace: true}
`, pamtest.DemoPublishKey, pamtest.DemoSubscribeKey, f.emulator, f.loopback)
}

// tellDev prints what to type next.
func (a *app) tellDev(f devFlags, cfg *config.Config) {
	name := "NAME"
	if len(cfg.Grants) > 0 {
		name = cfg.Grants[0].Name
	}
	self := invokedAs()
	token, admin := filepath.Join(f.dir, "token", "token.sock"), filepath.Join(f.dir, "admin", "admin.sock")
	var flag, adminFlag string
	if f.dir != devDir {
		flag, adminFlag = " --socket "+token, " --admin "+admin
	}
	lines := []string{
		"An emulated Access Manager and a sidecar are running. Try, in another terminal:",
		"",
		"  curl --unix-socket " + token + " http://localhost/v1/tokens/" + name,
		"  curl -H 'Pam-Sidecar: 1' http://" + f.loopback + "/v1/tokens/" + name,
		"  " + self + " token " + name + flag,
		"  " + self + " status" + adminFlag,
		"  " + self + " refresh " + name + adminFlag + "        # see a rotation now",
		"  " + self + " revoke " + name + " --reason 'trying it'" + adminFlag,
		"",
		"The grants are in " + cfg.Path + ". Ctrl-C ends; started again, it goes on with the same tokens.",
		"",
	}
	fmt.Fprintln(a.stdout, strings.Join(lines, "\n"))
}

// invokedAs is how the person who reads this can call the program again.
func invokedAs() string {
	self, err := os.Executable()
	if err == nil && strings.Contains(self, "go-build") {
		return "go run ./cmd/pamsidecar"
	}
	if len(os.Args) > 0 && strings.ContainsRune(os.Args[0], filepath.Separator) {
		return os.Args[0]
	}
	return "pamsidecar"
}
