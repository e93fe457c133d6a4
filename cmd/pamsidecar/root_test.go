package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// Every command explains itself: with an example, no line over 80 characters in
// its own words, and without asking for a secret as a flag's value.
func TestCommandsExplainThemselves(t *testing.T) {
	root := newRootCommand(&app{getenv: func(string) string { return "" }})
	if len(root.Commands()) == 0 {
		t.Fatal("no commands")
	}
	for _, c := range root.Commands() {
		t.Run(c.Name(), func(t *testing.T) {
			if c.Short == "" || c.Long == "" || !strings.Contains(c.Example, "pamsidecar "+c.Name()) || c.GroupID == "" || c.Args == nil {
				t.Error("short, long, example, group and args are all needed")
			}
			for line := range strings.Lines(c.Long + "\n" + c.Example) {
				if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 82 {
					t.Errorf("line of %d characters: %s", n, line)
				}
			}
			var help bytes.Buffer
			c.SetOut(&help)
			if err := c.Help(); err != nil || !strings.Contains(help.String(), "Usage:\n  pamsidecar "+c.Name()) {
				t.Errorf("help: %v\n%s", err, help.String())
			}
		})
	}
}

// The errors of the flag parser repeat no argument that may be a secret.
func TestFlagErrorHidesArguments(t *testing.T) {
	const secret = "sec-c-ZGVtby1kZW1vLWRlbW8tZGVtby1kZW1v"
	for _, args := range [][]string{
		{"status", "-secret=" + secret}, {"status", "--=" + secret}, {"status", "--secret=" + secret}, {secret},
		{"token", "x", secret}, {"version", secret}, {"wait", "--timeout=" + secret}, {"status", "--json=" + secret},
		{"unblock", "--rule", secret}, {"completion", secret}, {"completion", "bash", secret}, {"help", secret},
	} {
		f := newFakeSidecar(t)
		r := f.command(t, "", args...)
		if strings.Contains(r.stdout+r.stderr, secret[6:16]) {
			t.Errorf("%q: %v", args, r)
		}
		if r.code != 2 {
			t.Errorf("%q: %v", args, r)
		}
	}
}

func TestInteractive(t *testing.T) {
	if a := (&app{stdin: strings.NewReader(""), stderr: &bytes.Buffer{}}); a.interactive() {
		t.Error("a reader and a buffer are nobody to ask")
	}
}

// Commands must not grow hidden relatives.
func TestNoHiddenCommands(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden {
			t.Errorf("%s is hidden", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRootCommand(&app{}))
}
