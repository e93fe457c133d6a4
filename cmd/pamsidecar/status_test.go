package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pamsidecar/pamsidecar/admin"
	"github.com/pamsidecar/pamsidecar/cache"
)

func yes(b bool) *bool { return &b }

func onStatus(f *fakeSidecar, st admin.Status, blocks []admin.BlockItem, items ...admin.GrantItem) {
	st.Now = testNow
	f.on("GET /v1/status", 200, st)
	f.on("GET /v1/grants?limit=1000", 200, admin.GrantList{Items: items})
	f.on("GET /v1/blocks", 200, admin.BlockList{Items: blocks})
}

var sampleItems = []admin.GrantItem{
	{Name: "checkout", State: cache.Fresh, Required: true, ExpiresAt: testNow.Add(12*time.Minute + 10*time.Second), NextAttempt: testNow.Add(5 * time.Minute)},
	{
		Name: "evil\u202ename", State: cache.Failing, ExpiresAt: testNow.Add(70 * time.Second), NextAttempt: testNow.Add(-time.Second), Attempts: 3,
		LastError: &admin.LastError{At: testNow, Reason: "Access Manager: 403 Invalid signature: check the secret key"},
	},
	{Name: "kiosk-1", State: cache.Blocked, Blocked: &admin.BlockedBy{Reason: "theft", Rule: 12}, RevokesOpen: 2, UnaccountedUntil: testNow.Add(time.Hour)},
}

func TestStatusTable(t *testing.T) {
	f := newFakeSidecar(t)
	onStatus(f, admin.Status{Ready: yes(true)},
		[]admin.BlockItem{{ID: 12, Match: "kiosk-.*", Reason: "theft", Since: testNow}, {ID: 9, Name: "x", Reason: "y"}}, sampleItems...)
	r := f.command(t, "", "status")
	want := `2 revokes not yet confirmed by Access Manager
unaccounted until 2026-11-22T13:00:00Z: a token that nobody holds may live, and cannot be revoked: kiosk-1
NAME              STATE    ENDS IN  NEXT  LAST ERROR
checkout          fresh    12m      5m
"evil\u202ename"  failing  1m10s    now   Access Manager: 403 Invalid signature: check the secret key (3 times)
kiosk-1           blocked  -        -     rule 12: theft
3 names: 1 blocked, 1 fresh, 1 failing
block rule 12: names that match kiosk-.*, "theft", since 2026-11-22T12:00:00Z; to undo: pamsidecar unblock --rule 12
`
	if r.code != 0 || r.stdout != want {
		t.Errorf("want\n%s%v", want, r)
	}
}

func TestStatusTroubles(t *testing.T) {
	f := newFakeSidecar(t)
	onStatus(f, admin.Status{
		Ready: yes(false), Missing: []string{"alice"},
		Info: admin.Info{
			Clock:    admin.Clock{OffsetSeconds: 300.2, Known: true, Suspect: true},
			Storage:  admin.Storage{Degraded: "no space left on device", LostBlocks: true, Quarantined: "tokens.db.corrupt-1", UncleanStarts: 2},
			Upstream: admin.Upstream{PausedUntil: testNow.Add(time.Minute), BreakerOpen: true, RevokeSupported: yes(false), Backlog: 4},
		},
	}, nil)
	f.command(t, "", "status").wants(t, 1, []string{
		"NOTHING IS GRANTED: blocks may have been lost", "unblock --accept-lost-blocks\n",
		"DEGRADED: the disk refuses: no space left on device",
		"NOT READY: required and without a live token: alice\n",
		"moved aside: tokens.db.corrupt-1\n",
		"2 starts in a row after a stop that was not clean\n",
		"server clock +300s",
		"the local clock was stepped",
		"asked to wait until 2026-11-22T12:01:00Z\n",
		"only single probes go out",
		"revoke is not supported by this keyset",
		"0 names; 4 due and waiting\n",
	}, nil)
}

func TestStatusExitCode(t *testing.T) {
	for _, c := range []struct {
		name string
		item admin.GrantItem
		code int
	}{
		{"fresh", admin.GrantItem{Name: "a", State: cache.Fresh, Required: true}, 0},
		{"pending", admin.GrantItem{Name: "a", State: cache.Pending, Required: true}, 1},
		{"expired", admin.GrantItem{Name: "a", State: cache.Expired, Required: true}, 1},
		{"not required", admin.GrantItem{Name: "a", State: cache.Expired}, 0},
		{"blocked", admin.GrantItem{Name: "a", State: cache.Blocked, Required: true}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFakeSidecar(t)
			onStatus(f, admin.Status{}, nil, c.item)
			f.command(t, "", "status").wants(t, c.code, []string{"1 name: 1 " + string(c.item.State)}, nil)
			f.command(t, "", "status", "--json").wants(t, c.code, []string{"\"grants\": [\n", "\"now\": \"2026-11-22T12:00:00Z\""}, nil)
		})
	}
}

func TestStatusPagesAndFilters(t *testing.T) {
	f := newFakeSidecar(t)
	f.on("GET /v1/status", 200, admin.Status{Now: testNow, Info: admin.Info{Names: map[cache.State]int{cache.Fresh: 5}}})
	f.on("GET /v1/grants?limit=1000&prefix=a&state=fresh", 200, admin.GrantList{Items: []admin.GrantItem{{Name: "a1", State: cache.Fresh}}, Next: "a1"})
	f.on("GET /v1/grants?cursor=a1&limit=1000&prefix=a&state=fresh", 200, admin.GrantList{Items: []admin.GrantItem{{Name: "a2", State: cache.Fresh}}})
	f.on("GET /v1/blocks", 200, admin.BlockList{})
	f.command(t, "", "status", "--state", "fresh", "--prefix", "a").wants(t, 0, []string{"a1  ", "a2  ", "2 of 5 names: 2 fresh\n"}, nil)
}

// On a terminal the table fits into its width, and nothing is lost.
func TestTableWraps(t *testing.T) {
	for _, width := range []int{80, 60} {
		var b strings.Builder
		writeTable(&b, sampleItems, testNow, width, false)
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > width {
				t.Errorf("width %d: line of %d: %q", width, n, line)
			}
		}
		if words := strings.Join(strings.Fields(b.String()), " "); !strings.Contains(words, "check the secret key (3 times)") {
			t.Errorf("width %d: lost text:\n%s", width, b.String())
		}
	}
}

func TestTableColours(t *testing.T) {
	var b strings.Builder
	writeTable(&b, sampleItems, testNow, 80, true)
	if !strings.Contains(b.String(), "checkout          \x1b[32mfresh\x1b[0m    12m") {
		t.Errorf("%q", b.String())
	}
}

func TestShortSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 59 * time.Second: "59s", time.Minute: "1m", 61 * time.Second: "1m01s", 12*time.Minute + 40*time.Second: "12m",
		time.Hour: "1h00m", 25*time.Hour + time.Minute: "1d01h", -5 * time.Second: "-5s", 900 * time.Millisecond: "1s",
	} {
		if got := shortSpan(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"größe ok":   "größe ok",
		"a\x1b[31mb": `a\x1b[31mb`,
		"a\u202eb":   `a\u202eb`,
		"a\nb":       `a\nb`,
		"\xffb":      `\xffb`,
		"\ufffd":     "\ufffd",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{"a": "a", "a/b": "a/b", "a b": `"a b"`, "": `""`, "a\u200bb": `"a\u200bb"`} {
		if got := showName(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
