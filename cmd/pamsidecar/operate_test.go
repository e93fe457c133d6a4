package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/pamsidecar/pamsidecar/admin"
	"github.com/pamsidecar/pamsidecar/cache"
)

func TestRefresh(t *testing.T) {
	f := newFakeSidecar(t)
	f.on("POST /v1/grants/a%2Fb/refresh", 200, "{}")
	f.on("POST /v1/grants/x/refresh", 404, admin.Problem{Code: admin.CodeUnknownName, Detail: "nothing is kept for this name"})
	f.command(t, "", "refresh", "a/b").wants(t, 0, []string{"a/b: due now\n"}, nil)
	f.command(t, "", "refresh", "x", "a/b").wants(t, 1, []string{"a/b: due now\n"}, []string{
		"pamsidecar: x: nothing is kept for this name\n", "`pamsidecar status` lists the names",
	})
}

func TestUnblock(t *testing.T) {
	f := newFakeSidecar(t)
	f.on("POST /v1/unblock", 200, admin.UnblockResult{})
	f.on("DELETE /v1/blocks/12", 200, admin.BlockList{Items: []admin.BlockItem{{ID: 12, Match: "kiosk-.*", Reason: "theft", Since: testNow}}})
	f.command(t, "", "unblock", "a", "b").wants(t, 0, []string{"a: allowed again, due now\n", "b: allowed again"}, nil)
	f.command(t, "", "unblock", "--rule", "12").wants(t, 0, []string{`removed: block rule 12: names that match kiosk-.*, "theft"`}, nil)
	f.command(t, "", "unblock", "--accept-lost-blocks").wants(t, 0, []string{"grants go on"}, nil)
	want := []string{`POST /v1/unblock {"names":["a","b"]}`, "DELETE /v1/blocks/12", `POST /v1/unblock {"accept_lost_blocks":true}`}
	if asked := f.requests(); !slices.Equal(asked, want) {
		t.Errorf("asked %q", asked)
	}
}

func TestUnblockUnderRule(t *testing.T) {
	f := newFakeSidecar(t)
	f.on("POST /v1/unblock", 409, admin.Problem{Code: admin.CodeRuleBlocked, Detail: "a rule blocks kiosk-1", BlockRule: &admin.BlockItem{ID: 12}})
	f.command(t, "", "unblock", "kiosk-1").wants(t, 1, nil, []string{"a rule blocks kiosk-1", "pamsidecar unblock --rule 12"})
}

func TestReload(t *testing.T) {
	f := newFakeSidecar(t)
	result := admin.ReloadResult{Added: []string{"a"}, Removed: []string{"b", "c d"}, Unchanged: 3}
	f.on("POST /v1/reload", 200, result)
	r := f.command(t, "", "reload")
	if want := "added     1: a\nremoved   2: b, \"c d\"\nunchanged 3\n"; r.code != 0 || r.stdout != want {
		t.Errorf("want %q\n%v", want, r)
	}
	f = newFakeSidecar(t)
	f.on("POST /v1/reload", 409, admin.ReloadProblem{
		Problem:      admin.Problem{Title: "Conflict", Status: 409, Code: admin.CodeTooManyChanges, Detail: "it would end or narrow 2 of 5 grants"},
		ReloadResult: result,
	})
	f.command(t, "", "reload").wants(t, 1, nil, []string{
		"nothing was changed; this reload would do:\n", "removed   2: b, \"c d\"\n",
		"pamsidecar: it would end or narrow 2 of 5 grants\n", "pamsidecar reload --force",
	})
	f = newFakeSidecar(t)
	f.on("POST /v1/reload", 422, admin.Problem{Code: admin.CodeReloadFailed, Detail: "the configuration is faulty", Faults: []string{"f.yaml:7:3: ttl: write 15m"}})
	f.command(t, "", "reload", "--force").wants(t, 1, nil, []string{"pamsidecar:   f.yaml:7:3: ttl: write 15m\n", "nothing was changed"})
	if asked := f.requests(); !slices.Equal(asked, []string{`POST /v1/reload {"force":true}`}) {
		t.Errorf("asked %q", asked)
	}
}

func TestRevokeTellsWhatHappened(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   []string
		status int
		answer any
		code   int
		stdout []string
		stderr []string
	}{
		{"a name", []string{"alice"}, 200, admin.RevokeResult{
			Decision: 4, Count: 1, Durable: true, Upstream: admin.UpstreamPending,
			Names: []admin.RevokedName{{Name: "alice", Generations: []uint64{7, 6}, Blocked: true, RevokesOpen: 2, UnaccountedUntil: testNow}},
		}, 0, []string{
			"alice: generations 7, 6 withdrawn, blocked, a token that nobody holds may live until 2026-11-22T12:00:00Z and cannot be revoked (unaccounted)\n",
			"revoked: 1 name (journal line 4)\n", "blocked until: pamsidecar unblock NAME...\n", "at PubNub: started",
		}, nil},
		{"regrant", []string{"alice", "--regrant"}, 200, admin.RevokeResult{
			Decision: 4, Count: 1, Durable: true, Upstream: admin.UpstreamPending,
			Names: []admin.RevokedName{{Name: "alice", Generations: []uint64{7}}},
		}, 0, []string{"alice: generation 7 withdrawn\n", "not blocked: new tokens are granted"}, nil},
		{"a rule", []string{"--match", "kiosk-.*", "--yes"}, 200, admin.RevokeResult{
			Decision: 12, Count: 2000, Durable: true, Upstream: admin.UpstreamNone,
			Names: []admin.RevokedName{{Name: "kiosk-1"}}, Rule: &admin.BlockItem{ID: 12, Match: "kiosk-.*", Reason: "r", Since: testNow},
		}, 0, []string{"kiosk-1: no live token\n", "and 1999 more names\n", "left behind: block rule 12", "to undo: pamsidecar unblock --rule 12\n"}, nil},
		{"dry run", []string{"--all", "--dry-run"}, 200, admin.RevokeResult{
			DryRun: true, Count: 1, Names: []admin.RevokedName{{Name: "alice", Generations: []uint64{7}}},
		}, 0, []string{"alice: generation 7\n", "would revoke: 1 name\n"}, nil},
		{"slow disk", []string{"alice"}, 202, admin.RevokeResult{Count: 1, Names: []admin.RevokedName{{Name: "alice"}}}, 1,
			[]string{"revoked: 1 name"}, []string{"NOT YET ON DISK"}},
		{"refusing disk", []string{"alice"}, 507, admin.RevokeProblem{
			Problem:      admin.Problem{Status: 507, Code: admin.CodeNotDurable, Detail: "no space left on device"},
			RevokeResult: admin.RevokeResult{Count: 1, Names: []admin.RevokedName{{Name: "alice", Generations: []uint64{7}}}},
		}, 1, []string{"alice: generation 7 withdrawn"}, []string{"NOT ON DISK: the disk refuses (no space left on device)", "then revoke again"}},
		{"unknown", []string{"alice", "bob"}, 404, admin.Problem{Code: admin.CodeUnknownName, Detail: "nothing is kept for these names", Unknown: []string{"alice", "bob"}},
			1, nil, []string{"nothing is kept for these names: alice, bob"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFakeSidecar(t)
			f.on("POST /v1/revoke", c.status, c.answer)
			f.command(t, "", append([]string{"revoke", "--reason", "r"}, c.args...)...).wants(t, c.code, c.stdout, c.stderr)
		})
	}
}

// A token is read from standard input, sent on, and never shown.
func TestRevokeTokenFromStdin(t *testing.T) {
	f := newFakeSidecar(t)
	f.on("POST /v1/revoke", 200, admin.RevokeResult{Decision: 1, Count: 1, Durable: true, Names: []admin.RevokedName{{Name: "alice"}}})
	r := f.command(t, sampleToken+"\n", "revoke", "--token-stdin", "--reason", "leaked")
	r.wants(t, 0, []string{"alice"}, nil)
	if asked := f.requests(); !slices.Equal(asked, []string{`POST /v1/revoke {"token":"` + sampleToken + `","reason":"leaked"}`}) {
		t.Errorf("asked %q", asked)
	}
	if strings.Contains(r.stdout+r.stderr, sampleToken) {
		t.Errorf("the token is shown\n%v", r)
	}
	f.command(t, "", "revoke", "--token-stdin", "--reason", "leaked").wants(t, 1, nil, []string{"token is empty"})
}

func TestRevokeByUUIDAndJSON(t *testing.T) {
	f := newFakeSidecar(t)
	f.on("POST /v1/revoke", 200, admin.RevokeResult{Decision: 1, Count: 1, Durable: true})
	f.command(t, "", "revoke", "--uuid", "u1", "--reason", "r", "--json").wants(t, 0, []string{"\"decision\": 1,\n"}, nil)
	if asked := f.requests(); !slices.Equal(asked, []string{`POST /v1/revoke {"uuids":["u1"],"reason":"r"}`}) {
		t.Errorf("asked %q", asked)
	}
}

func TestAskRevoke(t *testing.T) {
	for answer, goOn := range map[string]bool{"y\n": true, "YES\n": true, "y": true, "\n": false, "no\n": false, "": false} {
		var out strings.Builder
		a := &app{stdin: strings.NewReader(answer), stderr: &out}
		err := a.askRevoke(admin.RevokeRequest{Match: "k.*"}, admin.RevokeResult{Count: 2, Names: []admin.RevokedName{{Name: "k1"}, {Name: "k 2"}}})
		if (err == nil) != goOn {
			t.Errorf("%q: %v", answer, err)
		}
		if want := "This revokes the tokens of 2 names: k1, \"k 2\".\n"; !strings.HasPrefix(out.String(), want) {
			t.Errorf("asked %q", out.String())
		}
	}
}

func TestAudit(t *testing.T) {
	uid, pid := 0, 41
	f := newFakeSidecar(t)
	f.on("GET /v1/audit?after=0&limit=1000", 200, admin.AuditList{Next: 2, Items: []admin.AuditItem{
		{Seq: 1, Time: testNow, Action: cache.ActRevoke, By: cache.Actor{UID: &uid, PID: &pid, Via: "admin"}, Names: []string{"alice", "a b"}, Reason: "left\x1b[2J"},
		{Seq: 2, Time: testNow, Action: cache.ActRevoke, By: cache.Actor{Via: "reload"}, Match: "k.*", Regrant: true},
	}})
	f.on("GET /v1/audit?after=2&limit=1000", 200, admin.AuditList{Items: []admin.AuditItem{{Seq: 3, Time: testNow, Action: cache.ActRemoveRule, Rule: 2}}})
	r := f.command(t, "", "audit")
	want := `   1  2026-11-22T12:00:00Z  revoke    uid 0 pid 41  alice, "a b"  "left\x1b[2J"
   2  2026-11-22T12:00:00Z  revoke    reload  match k.*  regrant
   3  2026-11-22T12:00:00Z  remove_rule  -  rule 2
`
	if r.code != 0 || r.stdout != want {
		t.Errorf("want\n%s%v", want, r)
	}
	r = f.command(t, "", "audit", "--json", "--after", "2")
	if r.code != 0 || strings.Count(r.stdout, "\n") != 1 || !strings.HasPrefix(r.stdout, `{"seq":3,`) {
		t.Error(r)
	}
}
