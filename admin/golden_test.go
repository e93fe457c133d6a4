package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// TestGolden compares whole answers with files: they are what clients decode.
func TestGolden(t *testing.T) {
	rows := []struct{ file, method, target, body string }{
		{"list", "GET", "/v1/grants", ""},
		{"detail", "GET", "/v1/grants/checkout", ""},
		{"detail-withdrawals", "GET", "/v1/grants/a%2Fb%20%C3%BC", ""},
		{"detail-blocked", "GET", "/v1/grants/mallory", ""},
		{"detail-rule", "GET", "/v1/grants/temp-1", ""},
		{"detail-removed", "GET", "/v1/grants/old", ""},
		{"revocations", "GET", "/v1/revocations", ""},
		{"audit", "GET", "/v1/audit", ""},
		{"status", "GET", "/v1/status", ""},
		{"revoke", "POST", "/v1/revoke", `{"match":"temp-.*","reason":"temporary accounts are over"}`},
		{"revoke-dry-run", "POST", "/v1/revoke", `{"match":"temp-.*","reason":"temporary accounts are over","dry_run":true}`},
		{"revoke-disk", "POST", "/v1/revoke", `{"all":true,"reason":"the key leaked"}`},
	}
	if files, err := filepath.Glob("testdata/*.json"); err != nil || len(files) != len(rows) && !*update {
		t.Errorf("%d golden files for %d answers", len(files), len(rows))
	}
	for _, row := range rows {
		t.Run(row.file, func(t *testing.T) {
			b := newBench(t)
			b.prepareGolden(row.file)
			w := b.serve(newRequest(row.method, row.target, row.body))
			var got bytes.Buffer
			if err := json.Indent(&got, w.Body.Bytes(), "", "  "); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", row.file+".json")
			if *update {
				if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%s differs:\n%s", path, got.Bytes())
			}
		})
	}
}

// prepareGolden gives the fakes what the answer of a golden file needs.
func (b *bench) prepareGolden(file string) {
	yes := true
	uid, pid := 1000, 4242
	b.config.Ready = func() []string { return []string{"temp-1"} }
	b.config.Info = func() Info {
		return Info{
			Version: "1.2.3", SubscribeKey: "sub-c-demo", Origin: "https://ps.pndsn.com", StartedAt: now.Add(-time.Hour),
			Clock:   Clock{OffsetSeconds: -1.25, Known: true},
			Storage: Storage{Degraded: "no space left on device", UncleanStarts: 2},
			Upstream: Upstream{Rate: 10, Burst: 20, MaxInFlight: 4, InFlight: 1, PausedUntil: now.Add(time.Minute),
				Backlog: 3, RevokeSupported: &yes},
		}
	}
	b.records.journal = []cache.Decision{
		{Seq: 1, Time: now, Action: cache.ActStanding, By: cache.Actor{Via: "start"},
			Blocks: []cache.StandingBlock{{Name: "mallory", Block: cache.Block{Decision: 12, Reason: "account closed", Since: now}}},
			Rules:  []cache.Rule{rule}},
		{Seq: 2, Time: now, Action: cache.ActPut, By: cache.Actor{UID: &uid, PID: &pid, Via: "admin"}, Names: []string{"x"}, Grant: []byte{0xa0}},
		{Seq: 3, Time: now, Action: cache.ActRevoke, By: cache.Actor{Via: "admin"}, All: true, Regrant: true, Reason: "the key leaked"},
	}
	b.lifecycle.result = cache.RevokeResult{
		Decision: 14, Count: 2, Rule: &rule, Durable: true,
		Names: []cache.RevokedName{
			{Name: "temp-1", Generations: []uint64{5, 4}, Blocked: true, Open: 2, UnaccountedUntil: now.Add(time.Minute)},
			{Name: "temp-2", Blocked: true},
		},
	}
	switch file {
	case "revoke-dry-run":
		b.lifecycle.result.Decision, b.lifecycle.result.Rule, b.lifecycle.result.Durable = 0, nil, false
	case "revoke-disk":
		b.lifecycle.result.DiskErr = errors.New("sync journal: no space left on device")
	}
}
