package main

import (
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// app is what every command needs of the world around it.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	version        string
}

// Groups of commands in --help.
const (
	groupRun     = "run"
	groupApps    = "apps"
	groupOperate = "operate"
	groupTools   = "tools"
)

// newRootCommand builds the command tree. Commands print to a and return
// errors; run turns those into messages and an exit code.
func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "pamsidecar",
		Short: "Keeps PubNub Access Manager tokens alive for local processes",
		Long: `pamsidecar holds the secret key of a PubNub keyset, obtains a token for each
authorized UUID, replaces it well before it ends, and hands the current one to
local processes over a Unix socket.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(a.stderr)
			_ = cmd.Help()
			return exitStatus(2)
		},
	}
	root.SetFlagErrorFunc(flagError)
	// The root runs only to say that a command is missing or unknown: its usage
	// is that of its commands.
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), "{{if .Runnable}}", "{{if and .Runnable .HasParent}}", 1))
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run it:"},
		&cobra.Group{ID: groupApps, Title: "Get tokens:"},
		&cobra.Group{ID: groupOperate, Title: "Operate it:"},
		&cobra.Group{ID: groupTools, Title: "More:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupRun, newRunCommand(a), newDevCommand(a), newEmulatorCommand(a), newCheckCommand(a))
	add(groupApps, newTokenCommand(a), newWaitCommand(a), newParseCommand(a))
	add(groupOperate, newStatusCommand(a), newRefreshCommand(a), newRevokeCommand(a), newUnblockCommand(a),
		newAuditCommand(a), newReloadCommand(a))
	help := newHelpCommand(a)
	add(groupTools, newCompactCommand(a), newVersionCommand(a), newCompletionCommand(a), help)
	root.SetHelpCommand(help)
	root.CompletionOptions.DisableDefaultCmd = true
	return root
}

// terminal returns the file behind a stream if it is a terminal.
func terminal(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// interactive reports whether somebody is there to be asked.
func (a *app) interactive() bool {
	_, in := terminal(a.stdin)
	_, out := terminal(a.stderr)
	return in && out
}

// examples formats the example lines of a command's help.
func examples(lines ...string) string {
	return "  " + strings.Join(lines, "\n  ")
}
