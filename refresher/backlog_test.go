package refresher

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// order takes everything out of the backlog and joins the names.
func order(b *backlog) string {
	var names []string
	for b.Len() > 0 {
		names = append(names, b.pop().name)
	}
	return strings.Join(names, " ")
}

func itemAt(name string, u urgency, minute int) item {
	return item{name: name, kind: grant, urgency: u, at: noon.Add(time.Duration(minute) * time.Minute), live: true}
}

func TestBacklogOrder(t *testing.T) {
	var b backlog
	for _, it := range []item{
		itemAt("r3", routine, 3), itemAt("w9", awaited, 9), itemAt("d2", dying, 2), itemAt("r1", routine, 1),
		itemAt("w8", awaited, 8), itemAt("d1", dying, 1), itemAt("w7", awaited, 7),
		{name: "none", kind: grant, urgency: routine},
	} {
		b.push(it)
	}
	if !b.soonest.Equal(noon.Add(time.Minute)) {
		t.Errorf("soonest end %s", b.soonest)
	}
	// Dying first; then the awaited get every other turn; each by the nearest end.
	if got, want := order(&b), "d1 d2 w7 none w8 r1 w9 r3"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestBacklogRevokesTakeTurns(t *testing.T) {
	var b backlog
	for i := range 3 {
		b.push(item{name: fmt.Sprintf("v%d", 2-i), kind: withdraw, at: noon.Add(time.Duration(2-i) * time.Second)})
	}
	for i := range 5 {
		b.push(itemAt(fmt.Sprintf("g%d", i), dying, i))
	}
	if got, want := order(&b), "g0 v0 g1 v1 g2 v2 g3 g4"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestBacklogTurnsOutlastLooks fills the backlog anew before each turn, as a look
// at the due names does: still nobody starves.
func TestBacklogTurnsOutlastLooks(t *testing.T) {
	var b backlog
	count := map[string]int{}
	for range 80 {
		b.clear()
		b.push(item{name: "revoke", kind: withdraw})
		b.push(itemAt("awaited", awaited, 1))
		b.push(itemAt("routine", routine, 2))
		count[b.pop().name]++
	}
	if count["revoke"] != 40 || count["awaited"] != 20 || count["routine"] != 20 {
		t.Errorf("turns: %v", count)
	}
}

func TestBreaker(t *testing.T) {
	var b breaker
	now := noon
	for i := range breakerLimit {
		if b.open() || b.wait(now, time.Hour) > 0 {
			t.Fatalf("open after %d failures", i)
		}
		b.failed(now, 0.5)
	}
	if !b.open() {
		t.Fatalf("closed after %d failures", breakerLimit)
	}
	for range 20 {
		b.failed(now, 0.999)
	}
	for _, c := range []struct{ remaining, least, most time.Duration }{
		{0, 30 * time.Second, time.Minute},
		{time.Hour, 30 * time.Second, time.Minute},
		{100 * time.Second, 5 * time.Second, 10 * time.Second}, // less life left, sooner probes
		{time.Second, 500 * time.Millisecond, time.Second},
	} {
		if w := b.wait(now, c.remaining); w < c.least || w >= c.most {
			t.Errorf("with %s left the next probe is in %s, want %s to %s", c.remaining, w, c.least, c.most)
		}
	}
	if w := b.wait(now.Add(time.Minute), 0); w > 0 {
		t.Errorf("no probe after a minute: %s", w)
	}
	b.succeeded()
	if b.open() || b.wait(now, 0) > 0 {
		t.Error("open after an answer")
	}
}
