package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/config"
)

// stateFile is the database in the state directory.
const stateFile = "tokens.db"

func newCompactCommand(a *app) *cobra.Command {
	var stateDir, file string
	cmd := &cobra.Command{
		Use:   "compact --state-dir DIR | --config FILE",
		Short: "Give unused space of the database back, offline",
		Long: `Rewrite the database in a state directory so that it holds nothing but its rows.
The sidecar must be stopped; it does the same by itself at a start when more than
half of the file is unused. On an error the file stays as it was.`,
		Example: examples("pamsidecar compact --state-dir /var/lib/pamsidecar"),
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (stateDir == "") == (file == "") {
				return usagef(cmd, "give either --state-dir or --config")
			}
			if file != "" {
				c, err := config.Load(file, a.configOptions())
				if err != nil {
					return &failure{err, "correct the configuration, or name the directory with --state-dir"}
				}
				stateDir = c.StateDir
			}
			return a.compact(filepath.Join(stateDir, stateFile))
		},
	}
	cmd.Flags().StringVar(&stateDir, "state-dir", "", "state directory (`DIR`) of a stopped sidecar")
	cmd.Flags().StringVar(&file, "config", "", "configuration `FILE` that names it")
	return cmd
}

func (a *app) compact(path string) error {
	before, after, err := cache.CompactFile(path, cache.BoltOptions{})
	switch {
	case err == nil:
		fmt.Fprintf(a.stdout, "%s: %d bytes, were %d\n", path, after, before)
		return nil
	case errors.Is(err, cache.ErrLocked):
		return &failure{err, "stop the sidecar first, then compact, then start it again"}
	case errors.Is(err, fs.ErrNotExist):
		return &failure{err, "a state directory holds " + stateFile + " once a sidecar has run with it"}
	case errors.Is(err, fs.ErrPermission):
		return &failure{err, "run as the sidecar's user or as root"}
	default:
		return &failure{err, "the file was not changed"}
	}
}
