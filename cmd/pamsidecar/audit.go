package main

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pamsidecar/pamsidecar/admin"
	"github.com/pamsidecar/pamsidecar/cache"
)

func newAuditCommand(a *app) *cobra.Command {
	var (
		socket string
		asJSON bool
		after  uint64
	)
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show what operators decided",
		Long: `Print the journal of operators' decisions, oldest first, a line each: number,
time, what, by whom, about whom, why.`,
		Example: examples("pamsidecar audit", "pamsidecar audit --json --after 120"),
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.audit(cmd.Context(), a.connect(adminSocket, socket), after, asJSON)
		},
	}
	adminSocket.addFlag(cmd, &socket)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one decision a line")
	cmd.Flags().Uint64Var(&after, "after", 0, "only decisions after number `N`")
	return cmd
}

// audit prints the journal page by page.
func (a *app) audit(ctx context.Context, s *sidecar, after uint64, asJSON bool) error {
	query := url.Values{"limit": {strconv.Itoa(admin.MaxLimit)}}
	for {
		query.Set("after", strconv.FormatUint(after, 10))
		var page admin.AuditList
		if err := s.read(ctx, admin.PathAudit, query, &page); err != nil {
			return err
		}
		for _, item := range page.Items {
			if err := a.printDecision(item, asJSON); err != nil {
				return err
			}
		}
		if page.Next <= after {
			return nil
		}
		after = page.Next
	}
}

func (a *app) printDecision(d admin.AuditItem, asJSON bool) error {
	if asJSON {
		return printJSONLine(a.stdout, d)
	}
	_, err := fmt.Fprintln(a.stdout, printable(decisionText(d)))
	return err
}

// decisionText is one line of the journal for people.
func decisionText(d admin.AuditItem) string {
	parts := []string{fmt.Sprintf("%4d  %s  %-8s", d.Seq, clock(d.Time), d.Action), actorText(d.By)}
	switch {
	case d.All:
		parts = append(parts, "every name")
	case d.Match != "":
		parts = append(parts, "match "+d.Match)
	case len(d.Names) > 0:
		parts = append(parts, showNames(d.Names))
	}
	if d.Rule > 0 {
		parts = append(parts, fmt.Sprintf("rule %d", d.Rule))
	}
	if d.Regrant {
		parts = append(parts, "regrant")
	}
	if d.Revoke {
		parts = append(parts, "with revoke")
	}
	if len(d.Standing) > 0 {
		parts = append(parts, count(len(d.Standing), "block")+" stood before")
	}
	if d.Detail != "" {
		parts = append(parts, d.Detail)
	}
	if d.Reason != "" {
		parts = append(parts, strconv.Quote(d.Reason))
	}
	return strings.Join(parts, "  ")
}

// actorText says who decided.
func actorText(by cache.Actor) string {
	var parts []string
	if by.UID != nil {
		parts = append(parts, fmt.Sprintf("uid %d", *by.UID))
	}
	if by.PID != nil {
		parts = append(parts, fmt.Sprintf("pid %d", *by.PID))
	}
	if by.Via != "" && by.Via != "admin" || len(parts) == 0 && by.Via != "" {
		parts = append(parts, by.Via)
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, " ")
}
