package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/pamsidecar/pamsidecar/config"
	"github.com/pamsidecar/pamsidecar/refresher"
)

func newCheckCommand(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check [--config FILE]",
		Short: "Validate a configuration and warn of what it may not mean",
		Long: `Read a configuration as the sidecar would and print every fault with its place, a
line each; then warnings about what is valid but hardly meant. Exit 1 on a fault,
0 with warnings only. Contacts nobody.`,
		Example: examples("pamsidecar check --config /etc/pamsidecar/pamsidecar.yaml"),
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			return a.check(a.configPath(file))
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration `FILE` (default $PAMSIDECAR_CONFIG, then "+config.DefaultPath+")")
	return cmd
}

// configPath is the configuration file: the flag, the environment, the default.
func (a *app) configPath(flagged string) string {
	return cmp.Or(flagged, a.getenv("PAMSIDECAR_CONFIG"), config.DefaultPath)
}

// configOptions is how every command reads the configuration.
func (a *app) configOptions() config.Options {
	return config.Options{Getenv: a.getenv, ParseSchedule: refresher.ParseSchedule}
}

func (a *app) check(file string) error {
	c, err := config.Load(file, a.configOptions())
	if faults, ok := errors.AsType[config.Faults](err); ok && !missing(file) {
		for _, f := range faults {
			fmt.Fprintln(a.stdout, printable(f.Error()))
		}
		return failf("correct them and check again", "%s: %s", file, count(len(faults), "fault"))
	}
	if err != nil {
		return &failure{err, "name the configuration with --config FILE or PAMSIDECAR_CONFIG"}
	}
	warnings := warningsOf(c)
	for _, w := range warnings {
		fmt.Fprintln(a.stdout, printable(w))
	}
	fmt.Fprintf(a.stdout, "ok: %s, %s\n", count(len(c.Grants), "grant"), count(len(warnings), "warning"))
	return nil
}

// warningsOf is what Lint finds in the file and what can be seen on this host.
// The host is none of the file's faults: it may be checked elsewhere than run.
func warningsOf(c *config.Config) []string {
	var warnings []string
	for _, f := range c.Lint() {
		warnings = append(warnings, f.String())
	}
	if _, err := c.SecretKey(); err != nil {
		warnings = append(warnings, fmt.Sprintf("%s: warning: %v", c.Path, err))
	}
	for _, socket := range []struct {
		key string
		config.SocketConfig
	}{{"listen.token", c.Listen.Token}, {"listen.admin", c.Listen.Admin}} {
		if problem := socketProblem(socket.SocketConfig); problem != "" {
			warnings = append(warnings, fmt.Sprintf("%s: warning: %s: %s", c.Path, socket.key, problem))
		}
	}
	return warnings
}

// maxSocketPath is the longest path of a socket in bytes; macOS allows three
// less than Linux.
const maxSocketPath = 104

// socketProblem says why the sidecar could not listen here, "" for no reason.
func socketProblem(s config.SocketConfig) string {
	dir := filepath.Dir(s.Path)
	info, err := os.Stat(dir)
	switch {
	case len(s.Path) >= maxSocketPath:
		return fmt.Sprintf("path is longer than the %d bytes that a socket may have", maxSocketPath-1)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("directory %s does not exist here", dir)
	case err != nil:
		return fmt.Sprintf("directory of the socket: %v", err)
	case !info.IsDir():
		return fmt.Sprintf("%s is not a directory", dir)
	case info.Mode().Perm()&0o002 != 0:
		return fmt.Sprintf("directory %s can be written by everybody, who could then replace the socket", dir)
	case s.Group != "" && !groupExists(s.Group):
		return fmt.Sprintf("group %s does not exist here", s.Group)
	}
	return ""
}

// groupExists reports whether a group is known by its name; a number needs no
// name.
func groupExists(group string) bool {
	if _, err := strconv.ParseUint(group, 10, 32); err == nil {
		return true
	}
	_, err := user.LookupGroup(group)
	return err == nil
}
