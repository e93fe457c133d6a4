package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pamsidecar/pamsidecar/pam"
)

// maxTokenText is the longest token text that is read: twice what fits into a
// request to Access Manager.
const maxTokenText = 64 << 10

func newParseCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "parse [TOKEN]",
		Short: "Show what a token allows, offline",
		Long: `Decode a token, from the argument or from standard input, and print it as the
SDKs' parse_token does: JSON. The signature is not checked, only PubNub can. An
argument is visible to other users of the host while the command runs; standard
input is not.`,
		Example: examples("pamsidecar token checkout | pamsidecar parse"),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef(cmd, "more than one token")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := a.tokenText(args)
			if err != nil {
				return err
			}
			token, err := pam.Parse(text.Reveal())
			if err != nil {
				return err // one line: what is wrong says what to do
			}
			return printJSON(a.stdout, token)
		},
	}
}

// tokenText is the token of the argument, or of standard input without one.
func (a *app) tokenText(args []string) (pam.Secret, error) {
	if len(args) == 1 {
		return oneLine(args[0])
	}
	return a.readToken()
}

// readToken reads the one token on standard input.
func (a *app) readToken() (pam.Secret, error) {
	if _, ok := terminal(a.stdin); ok {
		fmt.Fprintln(a.stderr, "pamsidecar: reading the token from standard input, end with Enter and Ctrl-D")
	}
	text, err := io.ReadAll(io.LimitReader(a.stdin, maxTokenText+1))
	if err != nil {
		return "", fmt.Errorf("read token from standard input: %w", err)
	}
	return oneLine(string(text))
}

// oneLine removes the white space around a token and refuses what cannot be one.
func oneLine(text string) (pam.Secret, error) {
	const next = "give one token, on one line"
	if len(text) > maxTokenText {
		return "", failf(next, "token is longer than %d KiB", maxTokenText>>10)
	}
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return "", failf(next, "token is empty")
	case strings.ContainsAny(text, "\r\n"):
		return "", failf(next, "more than one line, a token has one")
	}
	return pam.Secret(text), nil
}

// printJSON writes v as indented JSON, as it is: without HTML escapes.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printJSONLine writes v as one line of JSON.
func printJSONLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// printRawJSON writes a JSON text indented, keeping the order of its fields.
func printRawJSON(w io.Writer, text []byte) error {
	var out bytes.Buffer
	if err := json.Indent(&out, bytes.TrimSpace(text), "", "  "); err != nil {
		return errors.New("the sidecar's answer is not JSON")
	}
	out.WriteByte('\n')
	_, err := out.WriteTo(w)
	return err
}
