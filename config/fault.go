package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing wrong with a file. It prints as "file:line:column: message";
// a fault of the environment or of the file as a whole has no line.
type Fault struct {
	File    string
	Line    int    // from 1; 0 when the fault has no place in the file
	Column  int    // from 1, in characters; 0 when unknown
	Path    string // of the key, like grants[0].resources.channels."orders"; may be empty
	Message string
}

// Error is the fault as one line.
func (f Fault) Error() string { return at(f.File, f.Line, f.Column) + f.Message }

// String is Error.
func (f Fault) String() string { return f.Error() }

// Faults is every fault of a file, in the order of their places.
type Faults []Fault

// Error is one line for each fault.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives errors.Is and errors.As every fault.
func (fs Faults) Unwrap() []error {
	errs := make([]error, len(fs))
	for i, f := range fs {
		errs[i] = f
	}
	return errs
}

// Finding is one warning of Lint: the file is valid, but probably not what its
// author wants.
type Finding struct {
	File    string
	Line    int
	Column  int
	Path    string
	Message string
}

// String is the finding as one line: "file:line:column: warning: message".
func (f Finding) String() string { return at(f.File, f.Line, f.Column) + "warning: " + f.Message }

func at(file string, line, column int) string {
	switch {
	case file == "" && line == 0:
		return ""
	case file == "":
		return fmt.Sprintf("line %d:%d: ", line, column)
	case line == 0:
		return file + ": "
	}
	return fmt.Sprintf("%s:%d:%d: ", file, line, column)
}

func sortFaults(faults Faults) {
	slices.SortStableFunc(faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

func sortFindings(findings []Finding) {
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
