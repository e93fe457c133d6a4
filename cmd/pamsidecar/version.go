package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by builds that know better than the Go tool, with
// -ldflags "-X main.version=v1.2.3".
var version string

// buildVersion is the version of the program: as the build set it, or as the Go
// tool recorded it, "(devel)" when it was built without one.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

// buildRevision is the commit the program was built from, "" if not recorded.
func buildRevision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	var revision, at, modified string
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.time":
			at = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				modified = " (modified)"
			}
		}
	}
	if revision == "" {
		return ""
	}
	return revision + " " + at + modified
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Long:    "Print the version, the commit if it is known, the Go version and the platform.",
		Example: examples("pamsidecar version"),
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			fmt.Fprintf(a.stdout, "pamsidecar %s\n", a.version)
			if revision := buildRevision(); revision != "" {
				fmt.Fprintf(a.stdout, "commit %s\n", revision)
			}
			fmt.Fprintf(a.stdout, "%s %s/%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}
