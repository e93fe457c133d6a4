package interop

import (
	"fmt"
	"io"
	"log"
	"os"
	"sync"
	"sync/atomic"
	"testing"
)

var checks struct{ run, failed atomic.Int64 }

// TestMain counts what was checked: a suite that stopped checking would also pass.
func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // the SDK's CBOR decoder writes there whenever it refuses something
	code := m.Run()
	for _, line := range reports.lines {
		fmt.Println(line)
	}
	fmt.Printf("interop: %d checks, %d failed\n", checks.run.Load(), checks.failed.Load())
	os.Exit(code)
}

var reports struct {
	mu    sync.Mutex
	lines []string
}

// report prints a line at the end, after all tests.
func report(format string, args ...any) {
	reports.mu.Lock()
	defer reports.mu.Unlock()
	reports.lines = append(reports.lines, fmt.Sprintf(format, args...))
}

// check is one counted check.
func check(t *testing.T, name string, f func(t *testing.T)) bool {
	t.Helper()
	return t.Run(name, func(t *testing.T) {
		checks.run.Add(1)
		t.Cleanup(func() {
			if t.Failed() {
				checks.failed.Add(1)
			}
		})
		f(t)
	})
}
