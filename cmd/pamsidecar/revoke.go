package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/pamsidecar/pamsidecar/admin"
)

type revokeFlags struct {
	socket     string
	reason     string
	match      string
	regrant    bool
	uuids      bool
	all        bool
	tokenStdin bool
	dryRun     bool
	yes        bool
	asJSON     bool
}

func newRevokeCommand(a *app) *cobra.Command {
	var f revokeFlags
	cmd := &cobra.Command{
		Use:   "revoke NAME... | --match RE | --all | --token-stdin",
		Short: "Withdraw every live token of names, and block them",
		Long: `Withdraw every live token of the names, at once for readers, then at PubNub, which
may take another minute to refuse them. The names are blocked until unblocked,
with --match and --all by a rule that also holds for names to come; --regrant
grants new tokens instead.`,
		Example: examples(
			`pamsidecar revoke alice --reason "left the team"`,
			`pamsidecar revoke --match 'kiosk-[0-9]+' --reason "ticket 812" --dry-run`,
		),
		Args: anyNames,
		RunE: func(cmd *cobra.Command, names []string) error {
			if err := f.validate(cmd, names); err != nil {
				return err
			}
			return a.revoke(cmd, f, names)
		},
	}
	adminSocket.addFlag(cmd, &f.socket)
	flags := cmd.Flags()
	flags.StringVar(&f.reason, "reason", "", "`TEXT` that says why; required, kept in the journal")
	flags.BoolVar(&f.regrant, "regrant", false, "grant anew instead of blocking")
	flags.BoolVar(&f.uuids, "uuid", false, "the arguments are UUIDs: every name of theirs")
	flags.StringVar(&f.match, "match", "", "every name that this expression (`RE`2) matches as a whole")
	flags.BoolVar(&f.all, "all", false, "every name")
	flags.BoolVar(&f.tokenStdin, "token-stdin", false, "the name that holds the token on standard input")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only show what it would hit")
	flags.BoolVar(&f.yes, "yes", false, "do not ask before --match and --all")
	flags.BoolVar(&f.asJSON, "json", false, "print the sidecar's answer")
	return cmd
}

func (f revokeFlags) validate(cmd *cobra.Command, names []string) error {
	byMatch := cmd.Flags().Changed("match")
	switch {
	case countTrue(len(names) > 0, byMatch, f.all, f.tokenStdin) != 1:
		return usagef(cmd, "give either names, or --match RE, or --all, or --token-stdin")
	case byMatch && f.match == "":
		return usagef(cmd, "--match is empty; --all means every name")
	case f.uuids && len(names) == 0:
		return usagef(cmd, "--uuid needs UUIDs as arguments")
	case strings.TrimSpace(f.reason) == "":
		return usagef(cmd, "--reason is required: why is this revoked?")
	case utf8.RuneCountInString(f.reason) > admin.MaxReason:
		return usagef(cmd, "--reason is longer than %d characters", admin.MaxReason)
	}
	return nil
}

// wide reports whether the revoke is for names nobody has listed.
func (f revokeFlags) wide() bool { return f.all || f.match != "" }

func (a *app) revoke(cmd *cobra.Command, f revokeFlags, names []string) error {
	req := admin.RevokeRequest{Match: f.match, All: f.all, Reason: f.reason, Regrant: f.regrant, DryRun: f.dryRun}
	switch {
	case f.tokenStdin:
		token, err := a.readToken()
		if err != nil {
			return err
		}
		req.Token = token.Reveal()
	case f.uuids:
		req.UUIDs = names
	default:
		req.Names = names
	}
	s := a.connect(adminSocket, f.socket)
	if f.wide() && !f.dryRun && !f.yes {
		if !a.interactive() {
			return usagef(cmd, "--match and --all need --yes where nobody can be asked; --dry-run shows what they hit")
		}
		if err := a.confirmRevoke(cmd.Context(), s, req); err != nil {
			return err
		}
	}
	answer, err := s.do(cmd.Context(), http.MethodPost, admin.PathRevoke, nil, req, orderTime)
	if err != nil {
		return err
	}
	return a.tellRevoke(answer, req, f.asJSON)
}

// confirmRevoke shows what a revoke would hit and asks. Nil is yes.
func (a *app) confirmRevoke(ctx context.Context, s *sidecar, req admin.RevokeRequest) error {
	req.DryRun = true
	var result admin.RevokeResult
	if err := s.order(ctx, http.MethodPost, admin.PathRevoke, nil, req, &result); err != nil {
		return err
	}
	return a.askRevoke(req, result)
}

func (a *app) askRevoke(req admin.RevokeRequest, result admin.RevokeResult) error {
	fmt.Fprintf(a.stderr, "This revokes the tokens of %s", count(result.Count, "name"))
	if listed := revokedNames(result.Names); len(listed) > 0 {
		fmt.Fprintf(a.stderr, ": %s", showNames(listed))
	}
	if req.Regrant {
		fmt.Fprint(a.stderr, ".\nNew tokens are granted. ")
	} else {
		fmt.Fprint(a.stderr, ".\nThey and all names to come that match stay blocked until the rule is removed. ")
	}
	fmt.Fprint(a.stderr, "Go on? [y/N] ")
	line, err := bufio.NewReader(io.LimitReader(a.stdin, 100)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was revoked")
}

func revokedNames(names []admin.RevokedName) []string {
	list := make([]string, len(names))
	for i, n := range names {
		list[i] = n.Name
	}
	return list
}

// tellRevoke prints what a revoke did. A revoke that is not on disk is an error
// although it holds in the running sidecar.
func (a *app) tellRevoke(answer answer, req admin.RevokeRequest, asJSON bool) error {
	refused := answer.status == http.StatusInsufficientStorage
	if answer.status/100 != 2 && !refused {
		return adminFailure(answer)
	}
	var result admin.RevokeResult
	if err := answer.decode(&result); err != nil {
		return err
	}
	if asJSON {
		if err := printRawJSON(a.stdout, answer.body); err != nil {
			return err
		}
	} else {
		fmt.Fprint(a.stdout, revokeText(req, result))
	}
	switch {
	case result.DryRun || req.DryRun || result.Durable && !refused:
		return nil
	case refused:
		return failf("keep the sidecar running, make room on or repair the disk of the state directory, then revoke again",
			"NOT ON DISK: the disk refuses (%s). The tokens are withdrawn in the running sidecar and at PubNub, but the block is lost if it restarts",
			adminProblem(answer).Detail)
	default:
		return failf("`pamsidecar audit` lists it once it is on disk",
			"NOT YET ON DISK: the disk has not confirmed in time. The tokens are withdrawn in the running sidecar and at PubNub")
	}
}

// revokeText tells what a revoke did, or with dry run would do.
func revokeText(req admin.RevokeRequest, r admin.RevokeResult) string {
	var b strings.Builder
	verb := "revoked"
	if req.DryRun {
		verb = "would revoke"
	}
	for _, n := range r.Names {
		fmt.Fprintf(&b, "%s: %s\n", showName(n.Name), revokedText(n, req.DryRun))
	}
	if more := r.Count - len(r.Names); more > 0 {
		fmt.Fprintf(&b, "and %s\n", count(more, "more name"))
	}
	fmt.Fprintf(&b, "%s: %s", verb, count(r.Count, "name"))
	if r.Decision > 0 {
		fmt.Fprintf(&b, " (journal line %d)", r.Decision)
	}
	b.WriteByte('\n')
	if req.DryRun {
		return b.String()
	}
	switch {
	case r.Rule != nil:
		fmt.Fprintf(&b, "left behind: %s\n  to undo: pamsidecar unblock --rule %d\n", blockText(*r.Rule), r.Rule.ID)
	case req.Regrant:
		b.WriteString("not blocked: new tokens are granted\n")
	case blockedAny(r.Names):
		b.WriteString("blocked until: pamsidecar unblock NAME...\n")
	}
	if r.Upstream == admin.UpstreamPending {
		b.WriteString("at PubNub: started; up to a minute after it confirms, servers may still accept a token\n")
	}
	return b.String()
}

// revokedText is what a revoke did to one name.
func revokedText(n admin.RevokedName, dryRun bool) string {
	text := "no live token"
	switch len(n.Generations) {
	case 0:
	case 1:
		text = fmt.Sprintf("generation %d", n.Generations[0])
	default:
		text = "generations " + strings.Trim(strings.Join(strings.Fields(fmt.Sprint(n.Generations)), ", "), "[]")
	}
	if !dryRun && len(n.Generations) > 0 {
		text += " withdrawn"
	}
	if n.Blocked && !dryRun {
		text += ", blocked"
	}
	if !n.UnaccountedUntil.IsZero() {
		text += fmt.Sprintf(", a token that nobody holds may live until %s and cannot be revoked (unaccounted)", n.UnaccountedUntil.UTC().Format(time.RFC3339))
	}
	return text
}

func blockedAny(names []admin.RevokedName) bool {
	for _, n := range names {
		if n.Blocked {
			return true
		}
	}
	return false
}
