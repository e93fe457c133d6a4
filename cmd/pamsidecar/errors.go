package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// usageError is a call that cannot be carried out as it was written: exit 2.
type usageError struct {
	command string // "pamsidecar token"
	message string
}

func (e *usageError) Error() string { return e.message }

func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{cmd.CommandPath(), fmt.Sprintf(format, args...)}
}

// failure is an error together with what the reader can do about it.
type failure struct {
	err  error
	next string
}

func (e *failure) Error() string { return e.err.Error() }
func (e *failure) Unwrap() error { return e.err }

func failf(next, format string, args ...any) error {
	return &failure{fmt.Errorf(format, args...), next}
}

// exitStatus ends the program with a code when everything has been said.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// report prints what is left to say of err, and returns the exit code.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	if status, ok := errors.AsType[exitStatus](err); ok {
		return int(status)
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(stderr, "pamsidecar: interrupted")
		return 1
	}
	complain(stderr, err.Error())
	if usage, ok := errors.AsType[*usageError](err); ok {
		complain(stderr, fmt.Sprintf("see %s --help", usage.command))
		return 2
	}
	if f, ok := errors.AsType[*failure](err); ok && f.next != "" {
		complain(stderr, f.next)
	}
	return 1
}

// complain prints each line of a message to w behind the program's name.
func complain(w io.Writer, message string) {
	for line := range strings.SplitSeq(strings.TrimRight(message, "\n"), "\n") {
		fmt.Fprintf(w, "pamsidecar: %s\n", printable(line))
	}
}

// flagError turns what the flag parser says into a usage error. The parser
// repeats the whole argument for an unknown shorthand, which may hold a secret
// (-secret-key=...), so that one gets its own words.
func flagError(cmd *cobra.Command, err error) error {
	text := err.Error()
	if strings.HasPrefix(text, "unknown shorthand flag") {
		text, _, _ = strings.Cut(text, " in ")
		text += " (long flags begin with two dashes)"
	}
	if rest, ok := strings.CutPrefix(text, "bad flag syntax: "); ok {
		text = "bad flag syntax: " + abbreviate(rest)
	}
	if strings.HasPrefix(text, "invalid argument ") {
		text = valueError(cmd, text)
	}
	return &usageError{cmd.CommandPath(), text}
}

// valueError words a value that its flag does not take: invalid argument "x" for
// "--flag" flag: reason. The value is left out.
func valueError(cmd *cobra.Command, text string) string {
	const general = "a flag has a value it does not take"
	wanted := map[string]string{"duration": "a duration such as 30s or 5m", "bool": "true or false", "uint64": "a number"}
	_, rest, ok := cutLast(text, `" for "`)
	names, _, _ := strings.Cut(rest, `" flag: `)
	_, name, dashed := cutLast(names, "--")
	if flag := cmd.Flags().Lookup(name); ok && dashed && flag != nil && wanted[flag.Value.Type()] != "" {
		return fmt.Sprintf("--%s takes %s", name, wanted[flag.Value.Type()])
	}
	return general
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// unknownCommand accepts no argument of the root command: what is left there is
// a command that does not exist.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	message := fmt.Sprintf("unknown command %q", abbreviate(args[0]))
	cmd.SuggestionsMinimumDistance = 2
	if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
		message += fmt.Sprintf(" (did you mean %s?)", strings.Join(s, " or "))
	}
	return &usageError{cmd.CommandPath(), message}
}

// noArgs accepts no argument. Its errors, as those of all functions of its kind
// here, exit with 2 and never repeat a long argument: it may be a token.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef(cmd, "unexpected argument %q", abbreviate(args[0]))
	}
	return nil
}

// abbreviate shows enough of an argument to recognise it, and of a long one,
// which may be a secret, no more than what all secrets of its kind begin with.
func abbreviate(s string) string {
	const most, shown = 24, 6
	if r := []rune(s); len(r) > most {
		return string(r[:shown]) + "..."
	}
	return s
}
