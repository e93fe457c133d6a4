package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The test command of the README is the one that CI runs.
func TestReadmeTestCommand(t *testing.T) {
	_, section, _ := strings.Cut(readRoot(t, "README.md"), "\n## Test\n")
	match := regexp.MustCompile("```sh\n(.+)\n```").FindStringSubmatch(section)
	if match == nil {
		t.Fatal("README.md has no test command")
	}
	if !slices.Contains(strings.Split(readRoot(t, ".ci/run"), "\n"), match[1]) {
		t.Errorf(".ci/run does not run %q", match[1])
	}
	staticcheck := regexp.MustCompile(`staticcheck@v[\d.]+`)
	if in, want := staticcheck.FindString(section), staticcheck.FindString(readRoot(t, ".ci/run")); in != want || in == "" {
		t.Errorf("README.md has %q, .ci/run has %q", in, want)
	}
}

// The README's table of commands has all commands and no other.
func TestReadmeCommands(t *testing.T) {
	_, section, _ := strings.Cut(readRoot(t, "README.md"), "\n## Commands\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var listed, real []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z]+)` \\|").FindAllStringSubmatch(section, -1) {
		listed = append(listed, row[1])
	}
	for _, c := range newRootCommand(&app{}).Commands() {
		if !c.Hidden {
			real = append(real, c.Name())
		}
	}
	slices.Sort(listed)
	slices.Sort(real)
	if !slices.Equal(listed, real) {
		t.Errorf("README.md lists %v\nthere are       %v", listed, real)
	}
}

// Every relative link of the documents leads to a file.
func TestLinks(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(root, "*.md"))
	more, _ := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if files = append(files, more...); len(files) < 5 {
		t.Fatalf("documents: %v", files)
	}
	link := regexp.MustCompile(`\]\(([^)#\s]+)`)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(data), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}

// ARCHITECTURE.md gives a reason for each dependency, at the version in use.
func TestDependenciesExplained(t *testing.T) {
	versions := func(pattern, text string) map[string]string {
		found := map[string]string{}
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			found[m[1]] = m[2]
		}
		return found
	}
	explained := versions("(?m)^\\| `(\\S+)` (v\\S+) \\| \\S.* \\| .{20}", readRoot(t, "docs/ARCHITECTURE.md"))
	used := versions(`(?m)^\t(\S+) (v\S+)$`, readRoot(t, "go.mod"))
	if !maps.Equal(explained, used) {
		t.Errorf("ARCHITECTURE.md explains %v\ngo.mod requires          %v", explained, used)
	}
}
