package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pamsidecar/pamsidecar/admin"
)

// orderTime is what an operator's order may take beyond the usual.
const orderTime = answerTime

// order sends a request that changes something and decodes a good answer into
// out, if out is not nil. Other answers become errors.
func (s *sidecar) order(ctx context.Context, method, path string, query url.Values, body, out any) error {
	answer, err := s.do(ctx, method, path, query, body, orderTime)
	if err != nil {
		return err
	}
	if answer.status/100 != 2 {
		return adminFailure(answer)
	}
	if out == nil {
		return nil
	}
	return answer.decode(out)
}

// adminProblem reads the problem document of the admin endpoint.
func adminProblem(a answer) admin.Problem {
	var p admin.Problem
	if decodeProblem(a, &p) != nil || p.Code == "" && p.Title == "" {
		p = admin.Problem{Detail: fmt.Sprintf("the sidecar answered %d %s", a.status, http.StatusText(a.status))}
	}
	return p
}

// adminFailure is the error of an answer that is none of the good ones.
func adminFailure(a answer) error {
	p := adminProblem(a)
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	for _, fault := range p.Faults {
		text += "\n  " + fault
	}
	if len(p.Unknown) > 1 {
		text += ": " + showNames(p.Unknown)
	}
	return failf(adminAdvice(p), "%s", text)
}

// adminAdvice says what to do about a problem of the admin endpoint.
func adminAdvice(p admin.Problem) string {
	switch p.Code {
	case admin.CodeUnknownName:
		return "`pamsidecar status` lists the names; nothing was changed"
	case admin.CodeUnknownToken:
		return "no name holds this token: it has ended, was revoked, or comes from elsewhere; revoke by name to be sure"
	case admin.CodeUnknownBlock:
		return "`pamsidecar status` lists the block rules and their numbers"
	case admin.CodeNotBlocked:
		return "`pamsidecar status --state blocked` lists what is; nothing was changed"
	case admin.CodeBlocked:
		return "allow it again first: pamsidecar unblock NAME"
	case admin.CodeRuleBlocked:
		if p.BlockRule != nil {
			return fmt.Sprintf("remove the rule, for every name it matches: pamsidecar unblock --rule %d", p.BlockRule.ID)
		}
		return "remove the rule with pamsidecar unblock --rule ID"
	case admin.CodeEnded:
		return "give it a grant in the configuration, then pamsidecar reload"
	case admin.CodeReloadFailed:
		return "nothing was changed; `pamsidecar check --config FILE` shows the faults"
	case admin.CodeTimeout:
		return "it may still take effect: look at pamsidecar status"
	case admin.CodeNotDurable:
		return "free space on, or repair, the disk of the state directory; pamsidecar status shows whether it recovered"
	default:
		return "the sidecar's log says more"
	}
}

func newRefreshCommand(a *app) *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "refresh NAME...",
		Short: "Replace the tokens of names now",
		Long: `Make the next grant of each name due now. The current token stays in use until
the new one is there, and lives until its own end.`,
		Example: examples("pamsidecar refresh checkout"),
		Args:    someNames,
		RunE: func(cmd *cobra.Command, names []string) error {
			s := a.connect(adminSocket, socket)
			failed := false
			for _, name := range names {
				err := s.order(cmd.Context(), http.MethodPost, grantPath(name)+"/refresh", nil, nil, nil)
				if err != nil && len(names) == 1 {
					return fmt.Errorf("%s: %w", showName(name), err)
				}
				if err != nil {
					failed = true
					report(a.stderr, fmt.Errorf("%s: %w", showName(name), err))
					continue
				}
				fmt.Fprintf(a.stdout, "%s: due now\n", showName(name))
			}
			if failed {
				return exitStatus(1)
			}
			return nil
		},
	}
	adminSocket.addFlag(cmd, &socket)
	return cmd
}

// grantPath is the escaped path of one name on the admin socket.
func grantPath(name string) string { return admin.PathGrants + "/" + segment(name) }

func newUnblockCommand(a *app) *cobra.Command {
	var (
		socket string
		rule   uint64
		accept bool
	)
	cmd := &cobra.Command{
		Use:   "unblock NAME... | --rule ID | --accept-lost-blocks",
		Short: "Allow blocked names again",
		Long: `Lift the blocks that a revoke left behind: of names, all of them or none; or with
--rule a block rule, for every name it matches (pamsidecar status lists rules).
--accept-lost-blocks lets grants go on after a damaged disk may have lost blocks:
revoke again whoever must stay out first.`,
		Example: examples("pamsidecar unblock alice bob", "pamsidecar unblock --rule 12"),
		Args:    anyNames,
		RunE: func(cmd *cobra.Command, names []string) error {
			byRule := cmd.Flags().Changed("rule")
			if countTrue(len(names) > 0, byRule, accept) != 1 {
				return usagef(cmd, "give either names, or --rule ID, or --accept-lost-blocks")
			}
			s := a.connect(adminSocket, socket)
			switch {
			case byRule:
				return a.removeRule(cmd.Context(), s, rule)
			case accept:
				return a.acceptLostBlocks(cmd.Context(), s)
			default:
				return a.unblockNames(cmd.Context(), s, names)
			}
		},
	}
	adminSocket.addFlag(cmd, &socket)
	cmd.Flags().Uint64Var(&rule, "rule", 0, "number (`ID`) of a block rule")
	cmd.Flags().BoolVar(&accept, "accept-lost-blocks", false, "grant again although blocks may have been lost")
	return cmd
}

func (a *app) unblockNames(ctx context.Context, s *sidecar, names []string) error {
	if err := s.order(ctx, http.MethodPost, admin.PathUnblock, nil, admin.UnblockRequest{Names: names}, nil); err != nil {
		return err
	}
	for _, name := range names {
		fmt.Fprintf(a.stdout, "%s: allowed again, due now\n", showName(name))
	}
	return nil
}

func (a *app) acceptLostBlocks(ctx context.Context, s *sidecar) error {
	err := s.order(ctx, http.MethodPost, admin.PathUnblock, nil, admin.UnblockRequest{AcceptLostBlocks: true}, nil)
	if err == nil {
		fmt.Fprintln(a.stdout, "grants go on; blocks that were lost are gone")
	}
	return err
}

func (a *app) removeRule(ctx context.Context, s *sidecar, id uint64) error {
	var removed admin.BlockList
	path := admin.PathBlocks + "/" + strconv.FormatUint(id, 10)
	if err := s.order(ctx, http.MethodDelete, path, nil, nil, &removed); err != nil {
		return err
	}
	if len(removed.Items) == 0 {
		fmt.Fprintf(a.stdout, "block rule %d removed\n", id)
	}
	for _, b := range removed.Items {
		fmt.Fprintf(a.stdout, "removed: %s\n", blockText(b))
	}
	return nil
}

// blockText is one block or block rule on a line.
func blockText(b admin.BlockItem) string {
	if b.Match != "" {
		return fmt.Sprintf("block rule %d: names that match %s, %q, since %s", b.ID, printable(b.Match), b.Reason, clock(b.Since))
	}
	return fmt.Sprintf("block of %s: %q, since %s", showName(b.Name), b.Reason, clock(b.Since))
}

func newReloadCommand(a *app) *cobra.Command {
	var (
		socket string
		force  bool
	)
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Make the sidecar read its configuration again",
		Long: `Validate the configuration file, then put it into force, and print what changed.
A faulty file changes nothing. One that would end or narrow many grants (over 5
and over a tenth of them) needs --force.`,
		Example: examples("pamsidecar check --config FILE && pamsidecar reload"),
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.reload(cmd.Context(), a.connect(adminSocket, socket), force)
		},
	}
	adminSocket.addFlag(cmd, &socket)
	cmd.Flags().BoolVar(&force, "force", false, "also when it ends or narrows many grants")
	return cmd
}

func (a *app) reload(ctx context.Context, s *sidecar, force bool) error {
	answer, err := s.do(ctx, http.MethodPost, admin.PathReload, nil, admin.ReloadRequest{Force: force}, orderTime)
	if err != nil {
		return err
	}
	var result admin.ReloadResult
	if answer.status == http.StatusConflict && adminProblem(answer).Code == admin.CodeTooManyChanges {
		if err := answer.decode(&result); err != nil {
			return err
		}
		fmt.Fprintln(a.stderr, "pamsidecar: nothing was changed; this reload would do:")
		fmt.Fprint(a.stderr, reloadText(result))
		return failf("if this is what you want: pamsidecar reload --force", "%s", adminProblem(answer).Detail)
	}
	if answer.status/100 != 2 {
		return adminFailure(answer)
	}
	if err := answer.decode(&result); err != nil {
		return err
	}
	fmt.Fprint(a.stdout, reloadText(result))
	return nil
}

// reloadText is what a reload changed, a line for each kind of change.
func reloadText(r admin.ReloadResult) string {
	var b strings.Builder
	line := func(what string, names []string) {
		if len(names) > 0 {
			fmt.Fprintf(&b, "%-9s %d: %s\n", what, len(names), showNames(names))
		}
	}
	line("added", r.Added)
	line("changed", r.Changed)
	line("narrowed", r.Narrowed)
	line("removed", r.Removed)
	fmt.Fprintf(&b, "%-9s %d\n", "unchanged", r.Unchanged)
	return b.String()
}

func countTrue(conditions ...bool) int {
	n := 0
	for _, c := range conditions {
		if c {
			n++
		}
	}
	return n
}
