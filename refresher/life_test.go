package refresher_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// TestWeek is a token's life for a week: never a moment without a live
// token, each replaced at its drawn point, generations without a gap.
func TestWeek(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start(grantOf("alice", 15*time.Minute), grantOf("bob", time.Hour))
		r.wait(time.Second)
		last := map[string]cache.View{}
		for end := time.Now().Add(time.Duration(scaled(7*24)) * time.Hour); time.Now().Before(end); r.wait(30 * time.Second) {
			for _, name := range []string{"alice", "bob"} {
				r.wantState(name, cache.Fresh)
				v, was := r.view(name), last[name]
				last[name] = v
				if was == (cache.View{}) || v.Generation() == was.Generation() {
					continue
				}
				if v.Generation() != was.Generation()+1 {
					t.Fatalf("%s: generation %d after %d", name, v.Generation(), was.Generation())
				}
				share := float64(v.Issued().Sub(was.Issued())) / float64(was.TTL())
				// The token's timestamp is cut to the second, the attempt takes a moment.
				if share < 0.499 || share > 0.66 {
					t.Fatalf("%s: replaced at %.3f of its life", name, share)
				}
			}
		}
		if n := last["alice"].Generation(); int(n) < scaled(7*24)*4 {
			t.Errorf("alice reached generation %d only", n)
		}
		if n := len(r.record("alice").Superseded); n > 2 {
			t.Errorf("%d superseded tokens are kept", n)
		}
		r.end()
	})
}
