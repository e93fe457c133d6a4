package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/pamsidecar/pamsidecar/client"
)

// waitPause is the time between two questions of `wait`: the readiness of the
// sidecar is asked for, not held open, so that a sidecar which starts later is
// waited for as well.
const waitPause = 200 * time.Millisecond

func newWaitCommand(a *app) *cobra.Command {
	var (
		socket  string
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "wait [NAME...]",
		Short: "Wait until names have tokens",
		Long: `Exit 0 as soon as each name has a live token; without a name, as soon as every
required grant has one. Waits also for the sidecar itself to start. --timeout 0
asks once: a health check.`,
		Example: examples("pamsidecar wait --timeout 1m checkout", "pamsidecar wait --timeout 0"),
		Args:    anyNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if timeout < 0 {
				return usagef(cmd, "--timeout is not negative")
			}
			return a.waitReady(cmd.Context(), a.connect(tokenSocket, socket), args, timeout)
		},
	}
	tokenSocket.addFlag(cmd, &socket)
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "give up after `DURATION`; 0 asks once")
	return cmd
}

// waitReady asks until nothing is missing. When time is over it prints what is.
func (a *app) waitReady(ctx context.Context, s *sidecar, names []string, timeout time.Duration) error {
	end := time.Now().Add(timeout)
	for {
		lines, err := s.missing(ctx, names, time.Until(end))
		if err == nil && len(lines) == 0 {
			return nil
		}
		if errors.Is(err, context.Canceled) {
			return err
		}
		if time.Until(end) < waitPause {
			if err != nil {
				return err
			}
			for _, line := range lines {
				complain(a.stderr, line)
			}
			complain(a.stderr, "`pamsidecar status` says why and when the next attempt is")
			return exitStatus(1)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(waitPause):
		}
	}
}

// missing asks once which of the names have no live token, a line for each.
// Without names it asks for the whole sidecar.
func (s *sidecar) missing(ctx context.Context, names []string, left time.Duration) ([]string, error) {
	if len(names) == 0 {
		answer, err := s.get(ctx, "/readyz", nil, left)
		if err != nil || answer.status == http.StatusOK {
			return nil, err
		}
		return missingLines("", answer), nil
	}
	var lines []string
	for _, name := range names {
		answer, err := s.get(ctx, "/readyz", url.Values{"name": {name}}, left)
		if err != nil {
			return nil, err
		}
		if answer.status != http.StatusOK {
			lines = append(lines, missingLines(name, answer)...)
		}
	}
	return lines, nil
}

// missingLines is what an answer of /readyz other than 200 says, a line for each
// name. name is the one that was asked for, if any.
func missingLines(name string, a answer) []string {
	var r client.Readiness
	if decodeProblem(a, &r) != nil || len(r.Missing) == 0 && r.Others == 0 {
		line := problemText(problemOf(a))
		if name != "" {
			line = showName(name) + ": " + line
		}
		return []string{line}
	}
	var lines []string
	for _, m := range r.Missing {
		line := fmt.Sprintf("%s: no live token (%s)", showName(m.Name), m.State)
		if m.Reason != "" {
			line += ": " + m.Reason
		}
		if !m.RetryAt.IsZero() {
			line += ", next attempt " + clock(m.RetryAt)
		}
		lines = append(lines, line)
	}
	if r.Others > 0 {
		lines = append(lines, count(r.Others, "more name")+" without a live token")
	}
	return lines
}
