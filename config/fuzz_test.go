package config

import (
	"errors"
	"strings"
	"testing"
)

// FuzzParse checks that no text ends the process, that every error is Faults
// with places inside the text, and that a text that is accepted can be linted.
func FuzzParse(f *testing.F) {
	for _, folder := range []string{"good", "bad", "lint"} {
		for _, path := range seedFiles(f, folder) {
			f.Add(readFile(f, path))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("c.yaml", data, testOptions())
		checkFaults(t, data, err)
		if err == nil {
			c.Lint()
		}
		_, err = ParseGrant(data, testOptions())
		checkFaults(t, data, err)
	})
}

func checkFaults(t *testing.T, data []byte, err error) {
	if err == nil {
		return
	}
	faults, ok := errors.AsType[Faults](err)
	if !ok || len(faults) == 0 {
		t.Fatalf("error is %T: %v", err, err)
	}
	lines := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") + 1
	for i, fault := range faults {
		if fault.Line < 1 || fault.Line > lines || fault.Column < 1 {
			t.Errorf("fault outside the text: %v", fault)
		}
		if i > 0 && fault.Line < faults[i-1].Line {
			t.Errorf("faults out of order: %v", err)
		}
		if strings.ContainsAny(fault.Message, "\n\r") {
			t.Errorf("a fault of several lines: %q", fault.Message)
		}
	}
}
