package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pamsidecar/pamsidecar/admin"
	"github.com/pamsidecar/pamsidecar/cache"
)

// statusReport is all that `status` shows; as JSON it is what --json prints.
type statusReport struct {
	admin.Status
	Grants []admin.GrantItem `json:"grants"`
	Blocks []admin.BlockItem `json:"blocks"`
}

func newStatusCommand(a *app) *cobra.Command {
	var (
		socket, state, prefix string
		asJSON                bool
	)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show every name: state, end, next attempt, last error",
		Long: `Show what the sidecar holds, a line for each name, and above it what is wrong with
the sidecar as a whole. Below stand counts and the block rules with their numbers.
Exit 1 if something required has no live token.`,
		Example: examples("pamsidecar status", "pamsidecar status --state failing"),
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if state != "" && !slices.Contains(cache.States, cache.State(state)) {
				return usagef(cmd, "--state is one of %s", stateNames())
			}
			filter := url.Values{}
			setIf(filter, "state", state)
			setIf(filter, "prefix", prefix)
			r, err := fetchStatus(cmd.Context(), a.connect(adminSocket, socket), filter)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(a.stdout, r)
			} else {
				_, err = fmt.Fprint(a.stdout, a.statusText(r, len(filter) > 0))
			}
			if err == nil && r.lacking() {
				return exitStatus(1)
			}
			return err
		},
	}
	adminSocket.addFlag(cmd, &socket)
	cmd.Flags().StringVar(&state, "state", "", "only names in `STATE`: "+stateNames())
	cmd.Flags().StringVar(&prefix, "prefix", "", "only names that begin with `TEXT`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

func stateNames() string {
	var names []string
	for _, s := range cache.States {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

func setIf(query url.Values, key, value string) {
	if value != "" {
		query.Set(key, value)
	}
}

// fetchStatus asks for everything the report holds.
func fetchStatus(ctx context.Context, s *sidecar, filter url.Values) (statusReport, error) {
	r := statusReport{Grants: []admin.GrantItem{}, Blocks: []admin.BlockItem{}}
	if err := s.read(ctx, admin.PathStatus, nil, &r.Status); err != nil {
		return r, err
	}
	query := url.Values{"limit": {strconv.Itoa(admin.MaxLimit)}}
	for key, values := range filter {
		query[key] = values
	}
	for {
		var page admin.GrantList
		if err := s.read(ctx, admin.PathGrants, query, &page); err != nil {
			return r, err
		}
		r.Grants = append(r.Grants, page.Items...)
		if page.Next == "" || page.Next == query.Get("cursor") {
			break
		}
		query.Set("cursor", page.Next)
	}
	var blocks admin.BlockList
	if err := s.read(ctx, admin.PathBlocks, nil, &blocks); err != nil {
		return r, err
	}
	r.Blocks = append(r.Blocks, blocks.Items...)
	return r, nil
}

// read gets one document of the admin endpoint.
func (s *sidecar) read(ctx context.Context, path string, query url.Values, out any) error {
	return s.order(ctx, http.MethodGet, path, query, nil, out)
}

// lacking reports whether something required has no live token.
func (r statusReport) lacking() bool {
	if len(r.Missing) > 0 || r.Ready != nil && !*r.Ready {
		return true
	}
	return slices.ContainsFunc(r.Grants, func(g admin.GrantItem) bool {
		return g.Required && (g.State == cache.Expired || g.State == cache.Pending)
	})
}

// statusText is the report for people.
func (a *app) statusText(r statusReport, filtered bool) string {
	var b strings.Builder
	width, colour := a.screen()
	for _, line := range r.troubles() {
		b.WriteString(wrap(printable(line), "", "  ", width))
	}
	if len(r.Grants) > 0 {
		writeTable(&b, r.Grants, r.Now, width, colour)
	}
	b.WriteString(r.counts(filtered))
	for _, block := range r.Blocks {
		if block.Match != "" {
			line := fmt.Sprintf("%s; to undo: pamsidecar unblock --rule %d", blockText(block), block.ID)
			b.WriteString(wrap(printable(line), "", "  ", width))
		}
	}
	return b.String()
}

// screen is the width to fit into, 0 for no limit, and whether to use colours:
// only a terminal has either.
func (a *app) screen() (width int, colour bool) {
	f, ok := terminal(a.stdout)
	if !ok {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 40 {
		width = 80
	}
	return width, a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
}

// troubles are the lines about the sidecar as a whole, the worst first.
func (r statusReport) troubles() []string {
	var lines []string
	add := func(when bool, format string, args ...any) {
		if when {
			lines = append(lines, fmt.Sprintf(format, args...))
		}
	}
	st, up, offset := r.Storage, r.Upstream, r.Clock.OffsetSeconds
	add(st.LostBlocks, "NOTHING IS GRANTED: blocks may have been lost with a damaged disk. Revoke again whoever must stay out, then: pamsidecar unblock --accept-lost-blocks")
	add(st.Degraded != "", "DEGRADED: the disk refuses: %s. New tokens are in memory only, a restart loses them", st.Degraded)
	add(len(r.Missing) > 0, "NOT READY: required and without a live token: %s", showNames(r.Missing))
	add(len(r.Missing) == 0 && r.Ready != nil && !*r.Ready, "NOT READY")
	add(st.Quarantined != "", "a damaged database was moved aside: %s", st.Quarantined)
	add(st.UncleanStarts > 0, "%s in a row after a stop that was not clean", count(st.UncleanStarts, "start"))
	add(r.Clock.Known && (offset > 1 || offset < -1), "server clock %+.0fs (measured and corrected for)", offset)
	add(r.Clock.Suspect, "the local clock was stepped, the server's is being asked")
	add(up.PausedUntil.After(r.Now), "Access Manager asked to wait until %s", clock(up.PausedUntil))
	add(up.BreakerOpen, "Access Manager does not answer: only single probes go out")
	add(up.RevokeSupported != nil && !*up.RevokeSupported, "revoke is not supported by this keyset: switch on \"Revoke v3 Token\" in the PubNub admin portal; until then revoked tokens live to their end")
	open := 0
	var unaccounted []string
	last := r.Now
	for _, g := range r.Grants {
		open += g.RevokesOpen
		if g.UnaccountedUntil.After(r.Now) {
			unaccounted = append(unaccounted, g.Name)
			if g.UnaccountedUntil.After(last) {
				last = g.UnaccountedUntil
			}
		}
	}
	add(open > 0, "%s not yet confirmed by Access Manager", count(open, "revoke"))
	add(len(unaccounted) > 0, "unaccounted until %s: a token that nobody holds may live, and cannot be revoked: %s", clock(last), showNames(unaccounted))
	return lines
}

// counts is the line below the table.
func (r statusReport) counts(filtered bool) string {
	states := map[cache.State]int{}
	for _, g := range r.Grants {
		states[g.State]++
	}
	line := count(len(r.Grants), "name")
	if filtered && r.Names != nil {
		total := 0
		for _, n := range r.Names {
			total += n
		}
		line = fmt.Sprintf("%d of %s", len(r.Grants), count(total, "name"))
	}
	var parts []string
	for _, s := range cache.States {
		if states[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", states[s], s))
		}
	}
	if len(parts) > 0 {
		line += ": " + strings.Join(parts, ", ")
	}
	if n := r.Upstream.Backlog; n > 0 {
		line += fmt.Sprintf("; %d due and waiting", n)
	}
	return line + "\n"
}
