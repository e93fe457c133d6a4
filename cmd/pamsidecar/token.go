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

// maxWait is the longest wait the token socket accepts.
const maxWait = 5 * time.Minute

func newTokenCommand(a *app) *cobra.Command {
	var (
		socket       string
		asJSON       bool
		wait, minTTL time.Duration
	)
	cmd := &cobra.Command{
		Use:   "token NAME",
		Short: "Print the token of a name",
		Long: `Print the current token of a name on standard output, nothing else. A name that
never had a token is waited for 5 s unless --wait says otherwise.`,
		Example: examples("pamsidecar token checkout", "pamsidecar token --json --wait 30s checkout"),
		Args:    oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			query, err := tokenQuery(cmd, wait, minTTL)
			if err != nil {
				return err
			}
			body, doc, err := a.fetchToken(cmd.Context(), socket, args[0], query, wait)
			if err != nil {
				return err
			}
			if asJSON {
				return printRawJSON(a.stdout, body)
			}
			_, err = fmt.Fprintln(a.stdout, doc.Token)
			return err
		},
	}
	tokenSocket.addFlag(cmd, &socket)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the token document: token, generation, times")
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait up to `DURATION` for a token, at most 5m")
	cmd.Flags().DurationVar(&minTTL, "min-ttl", 0, "a token with less than `DURATION` left counts as none; at most a third of its ttl")
	return cmd
}

func tokenQuery(cmd *cobra.Command, wait, minTTL time.Duration) (url.Values, error) {
	query := url.Values{}
	if cmd.Flags().Changed("wait") {
		if wait < 0 || wait > maxWait {
			return nil, usagef(cmd, "--wait is 0 to 5m, not %v", wait)
		}
		query.Set("wait", wait.String())
	}
	if cmd.Flags().Changed("min-ttl") {
		if minTTL < 0 {
			return nil, usagef(cmd, "--min-ttl is not negative")
		}
		query.Set("min_ttl", minTTL.String())
	}
	return query, nil
}

// fetchToken asks the token socket for the token document of a name.
func (a *app) fetchToken(ctx context.Context, socket, name string, query url.Values, wait time.Duration) ([]byte, client.TokenDocument, error) {
	var doc client.TokenDocument
	s := a.connect(tokenSocket, socket)
	answer, err := s.get(ctx, "/v1/tokens/"+segment(name), query, wait)
	if err != nil {
		return nil, doc, err
	}
	if answer.status != http.StatusOK {
		p := problemOf(answer)
		return nil, doc, &failure{fmt.Errorf("%s: %s", showName(name), problemText(p)), tokenAdvice(p)}
	}
	if err := answer.decode(&doc); err != nil {
		return nil, doc, err
	}
	if doc.Token == "" || !clean(doc.Token) {
		return nil, doc, errors.New("the sidecar answered without a token")
	}
	return answer.body, doc, nil
}

// tokenAdvice says what to do about a problem of the token socket.
func tokenAdvice(p client.Problem) string {
	switch p.Code {
	case client.CodeNotReady, client.CodeExpired:
		if !p.RetryAt.IsZero() {
			return fmt.Sprintf("the sidecar tries again at %s; `pamsidecar status` shows more", clock(p.RetryAt))
		}
		return "`pamsidecar status` shows when the sidecar tries again"
	case client.CodeRevoked:
		return "an operator allows it again with `pamsidecar unblock NAME`"
	case client.CodeEnded:
		return "its grant was removed or is past its until: give it a new one in the configuration"
	case client.CodeUnknownName:
		return "add a grant of this name to the configuration, then `pamsidecar reload`"
	case client.CodeNotAllowed:
		return "ask the operator to allow this user in the grant"
	case client.CodeTooMany:
		return "try again in a moment"
	case client.CodeBadRequest:
		return "see pamsidecar token --help"
	default:
		return "`pamsidecar status` and the sidecar's log say more"
	}
}
