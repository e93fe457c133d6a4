// Package examples_test runs the examples beside a real sidecar and shows that each
// of them takes the next token, survives a sidecar that is killed and started again,
// sees a revoke, and goes on when the name is unblocked. Those with PubNub's SDK
// publish and subscribe meanwhile.
//
// A runtime that is not installed, or packages that cannot be downloaded, skip an
// example; with PAMSIDECAR_REQUIRE_EXAMPLES=1 in the environment that is a failure.
package examples_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	patience = 20 * time.Second // for one line of output
	channel  = "lobby"
)

func TestExamples(t *testing.T) {
	if testing.Short() || runtime.GOOS == "windows" {
		t.Skip("runs programs in several languages over Unix sockets")
	}
	w := newWorld(t)
	w.startSidecar(t)
	runs := make([]*run, len(all))
	t.Run("first token", func(t *testing.T) {
		for i, e := range all {
			t.Run(e.name, func(t *testing.T) {
				t.Parallel()
				runs[i] = w.start(t, e, e.prepare(t, w.subdir(t, e.name)))
				runs[i].sees(t, w.generation(t, e.name, 1))
			})
		}
	})
	runs = slices.DeleteFunc(runs, func(r *run) bool { return r == nil })
	sdks := slices.DeleteFunc(slices.Clone(runs), func(r *run) bool { return !r.sdk })
	each := func(phase string, do func(t *testing.T, r *run)) {
		t.Run(phase, func(t *testing.T) {
			for _, r := range runs {
				t.Run(r.name, func(t *testing.T) { do(t, r) })
			}
		})
	}

	w.killSidecar()
	each("sidecar killed", func(t *testing.T, r *run) { r.sees(t, "the sidecar does not answer") })
	w.startSidecar(t)
	each("started again, next token", func(t *testing.T, r *run) {
		w.command(t, "refresh", r.name)
		r.sees(t, w.generation(t, r.name, 2))
	})
	t.Run("messages", func(t *testing.T) {
		for _, r := range sdks {
			r.sees(t, fmt.Sprintf("received [0-9]+ from %s with generation 2", r.name))
			r.checkMessages(t)
		}
	})
	if denied := w.emulator.Stats().Denied; denied != 0 {
		t.Errorf("the emulator refused %d requests although every token was replaced in time", denied)
	}
	each("revoke", func(t *testing.T, r *run) {
		w.command(t, "revoke", r.name, "--reason", "trying it", "--yes")
		r.sees(t, `no token: 410 revoked: .* \(trying it\)`)
	})
	for _, r := range runs {
		w.command(t, "unblock", r.name)
	}
	each("unblocked", func(t *testing.T, r *run) { r.sees(t, w.generation(t, r.name, 3)) })
	t.Run("messages again", func(t *testing.T) {
		for _, r := range sdks {
			r.sees(t, fmt.Sprintf("received [0-9]+ from %s with generation 3", r.name))
		}
	})
	each("no token in the output", func(t *testing.T, r *run) {
		for _, g := range w.emulator.Grants() {
			if strings.Contains(r.out.String(), g.Token.Reveal()) {
				t.Errorf("prints the token #%s", g.Token.ID())
			}
		}
	})
}
