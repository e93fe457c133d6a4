// Command pamsidecar keeps PubNub Access Manager tokens alive for the processes
// beside it: it runs the sidecar, and it is how people and scripts speak to a
// running one.
//
// Nothing imports it. It never keeps state of its own: what a command shows
// comes from a socket or a file, and what it changes it changes by asking the
// sidecar. Secrets are never flag values and never printed, except the token
// that `pamsidecar token` was asked for.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// Once the first signal has begun an orderly stop, the next one ends the
	// process as signals do.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv))
}

// run is the whole program but for the process around it: tests call it. It
// returns the exit code: 0 done, 1 failed, 2 wrong use.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, getenv: getenv, version: buildVersion()}
	root := newRootCommand(a)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return report(stderr, root.ExecuteContext(ctx))
}
