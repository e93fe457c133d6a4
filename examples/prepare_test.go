package examples_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// example is one directory here.
type example struct {
	name string
	// prepare makes it ready, in dir, and returns how to call it: a program and its
	// first arguments.
	prepare func(t *testing.T, dir string) []string
	// sdk: it uses PubNub's SDK, so it publishes and subscribes.
	sdk bool
}

var all = []example{
	{name: "node", prepare: prepareNode, sdk: true},
	{name: "go", prepare: prepareGo, sdk: true},
	{name: "python", prepare: func(t *testing.T, _ string) []string {
		return []string{lookPath(t, "python3"), "python/app.py"}
	}},
	{name: "php", prepare: func(t *testing.T, _ string) []string {
		return []string{lookPath(t, "php"), "php/app.php"}
	}},
	{name: "jvm", prepare: prepareJVM},
}

// prepareNode installs the locked packages in dir, not here.
func prepareNode(t *testing.T, dir string) []string {
	t.Helper()
	node, npm := lookPath(t, "node"), lookPath(t, "npm")
	for _, name := range []string{"app.mjs", "package.json", "package-lock.json", ".npmrc"} {
		data, err := os.ReadFile(filepath.Join("node", name))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), string(data))
	}
	install := exec.CommandContext(t.Context(), npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1")
	install.Dir = dir
	mustRun(t, install)
	return []string{node, filepath.Join(dir, "app.mjs")}
}

// prepareGo builds the example, which is a module of its own.
func prepareGo(t *testing.T, dir string) []string {
	t.Helper()
	program := filepath.Join(dir, "app")
	for _, args := range [][]string{{"mod", "download"}, {"vet", "."}, {"build", "-o", program, "."}} {
		cmd := exec.CommandContext(t.Context(), lookPath(t, "go"), args...)
		cmd.Dir = "go"
		mustRun(t, cmd)
	}
	return []string{program}
}

func prepareJVM(t *testing.T, dir string) []string {
	t.Helper()
	java, javac := lookPath(t, "java"), lookPath(t, "javac")
	mustRun(t, exec.CommandContext(t.Context(), javac, "--release", "16", "-d", dir, "jvm/pamsidecar/PamSidecar.java"))
	return []string{java, "-cp", dir, "pamsidecar.PamSidecar"}
}

// lookPath finds a program, or skips the test.
func lookPath(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		skip(t, program+" is not installed")
	}
	return path
}

// unreachable is what package managers say when they cannot download.
var unreachable = regexp.MustCompile(`(?i).*(?:ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EAI_AGAIN|ENETUNREACH|dial tcp|i/o timeout|module lookup disabled).*`)

// mustRun runs a step of the preparation. Without a network it skips the test.
func mustRun(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
	case unreachable.Match(out):
		skip(t, "packages cannot be downloaded: "+string(unreachable.Find(out)))
	default:
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
}

// skip says why an example does not run here.
func skip(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("PAMSIDECAR_REQUIRE_EXAMPLES") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
