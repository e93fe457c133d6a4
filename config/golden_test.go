package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the expected outputs anew")

const seeds = "../testdata/configs"

// emptyEnv is an environment without any variable.
func emptyEnv(string) string { return "" }

// testOptions are options that depend on nothing outside the test.
func testOptions() Options {
	return Options{
		Getenv: emptyEnv,
		Now:    func() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) },
		ParseSchedule: func(expr string) error {
			if strings.Count(expr, " ") < 4 {
				return errors.New("expected 5 fields")
			}
			return nil
		},
	}
}

func seedFiles(t testing.TB, folder string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(seeds, folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no configurations in %s/%s: %v", seeds, folder, err)
	}
	return files
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// compareGolden compares with the file beside a configuration.
func compareGolden(t *testing.T, path, got string) {
	t.Helper()
	golden := strings.TrimSuffix(path, ".yaml") + ".golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := string(readFile(t, golden)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestGoodFiles(t *testing.T) {
	for _, path := range seedFiles(t, "good") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			c, err := Parse(filepath.Base(path), readFile(t, path), testOptions())
			if err != nil {
				t.Fatal(err)
			}
			if c.Grants == nil && len(c.places) != 0 || len(c.Grants) != len(c.places) {
				t.Errorf("%d grants, %d places", len(c.Grants), len(c.places))
			}
		})
	}
}

func TestBadFiles(t *testing.T) {
	for _, path := range seedFiles(t, "bad") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			_, err := Parse(filepath.Base(path), readFile(t, path), testOptions())
			if _, ok := errors.AsType[Faults](err); !ok {
				t.Fatalf("error is %T, not Faults: %v", err, err)
			}
			if strings.Contains(err.Error(), "NEVERSHOWN") {
				t.Errorf("a secret is shown: %v", err)
			}
			compareGolden(t, path, err.Error()+"\n")
		})
	}
}

func TestLintFiles(t *testing.T) {
	for _, path := range seedFiles(t, "lint") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			c, err := Parse(filepath.Base(path), readFile(t, path), testOptions())
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			for _, f := range c.Lint() {
				b.WriteString(f.String() + "\n")
			}
			compareGolden(t, path, b.String())
		})
	}
}

// The documented example must be accepted as it stands, without a warning.
func TestExampleFile(t *testing.T) {
	const path = "../docs/pamsidecar.example.yaml"
	c, err := Load(path, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Grants) < 2 {
		t.Errorf("the example shows %d grants", len(c.Grants))
	}
	if findings := c.Lint(); len(findings) > 0 {
		t.Errorf("the example is not clean: %v", findings)
	}
}
