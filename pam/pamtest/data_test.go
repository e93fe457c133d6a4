package pamtest_test

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// knownBody returns the recorded body that holds a text, with its status.
func knownBody(t *testing.T, part string) (int, string) {
	t.Helper()
	text, err := os.ReadFile("../../testdata/errors/error-bodies.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Errors []struct {
			Status int
			Body   string
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, e := range file.Errors {
		if strings.Contains(e.Body, part) {
			return e.Status, e.Body
		}
	}
	t.Fatalf("no recorded body holds %q", part)
	return 0, ""
}

const publishPath = "/publish/{pub}/{sub}/0/asyncio-int-publish/0/%22hey%22"

// The three recorded refusals come byte for byte, key order aside, with the recorded headers.
func TestRecordedDenials(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	g := newRig(t, pamtest.Config{Now: func() time.Time { return now }})
	token := g.grantAny("", `"resources":{"channels":{"asyncio-int-publish":3}}`)
	revoked := g.grantAny("", `"resources":{"channels":{"asyncio-int-publish":3}}`)
	g.do(g.revokeRequest(revoked))
	for _, c := range []struct {
		part, auth, cause string
		after             time.Duration
	}{
		{`"asyncio-int-publish"`, "", "9999", 0},
		{"Token is revoked", revoked, "4001", 0},
		{"Token is expired.", token, "", 15 * time.Minute},
	} {
		now = now.Add(c.after)
		status, body := knownBody(t, c.part)
		got := g.expect(ask{path: publishPath, uuid: "me", auth: c.auth}, status, body)
		if len(got.body) != len(body) || strings.HasSuffix(got.body, "\n") != strings.HasSuffix(body, "\n") {
			t.Errorf("%s: %q, recorded %q", c.part, got.body, body)
		}
		for key, want := range map[string]string{
			"X-Pn-Cause": c.cause, "Content-Type": "text/javascript; charset=UTF-8", "Cache-Control": "no-cache, no-store, must-revalidate",
			"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": "GET",
			"Access-Control-Allow-Headers": "Origin, X-Requested-With, Content-Type, Accept",
		} {
			if got := got.Header.Get(key); got != want {
				t.Errorf("%s: %s is %q, want %q", c.part, key, got, want)
			}
		}
	}
}

// What is not about tokens, each with its status and body.
func TestDataErrors(t *testing.T) {
	g := openRig(t, pamtest.Config{Now: func() time.Time { return time.Unix(1_700_000_000, 0) }})
	const badKey = `{"message":"Invalid Subscribe Key","error":true,"service":"Access Manager","status":400}`
	const badQuery = `{"message":"Could Not Parse Request","error":true,"service":"Access Manager","status":400}`
	for name, c := range map[string]struct {
		ask    ask
		status int
		body   string
	}{
		"subscribe key":  {ask{path: "/publish/{pub}/demo/0/a/0/1"}, 400, badKey},
		"subscribe key2": {ask{path: "/v2/subscribe/demo/a/0"}, 400, badKey},
		"subscribe key3": {ask{path: "/v2/objects/demo/uuids/a"}, 400, badKey},
		"query":          {ask{path: "/v2/subscribe/{sub}/a/0", query: "tt=%zz"}, 400, badQuery},
		"no channel":     {ask{path: "/v2/subscribe/{sub}/,/0"}, 400, `{"message":"Channel or Channel Group Required","error":true,"service":"Access Manager","status":400}`},
		"timetoken":      {ask{path: "/v2/subscribe/{sub}/a/0", query: "tt=now"}, 400, `{"message":"Invalid Timetoken","error":true,"service":"Access Manager","status":400}`},
		"no uuid":        {ask{path: "/v2/presence/sub-key/{sub}/channel/a/heartbeat"}, 400, `{"message":"No UUID specified","error":true,"service":"Presence","status":400}`},
		"leave no uuid":  {ask{path: "/v2/presence/sub-key/{sub}/channel/a/leave"}, 400, `{"message":"No UUID specified","error":true,"service":"Presence","status":400}`},
		"bad state":      {ask{path: "/v2/presence/sub-key/{sub}/channel/a/uuid/u/data", query: "state=3"}, 400, `{"message":"Invalid JSON specified.","error":true,"service":"Presence","status":400}`},
		"object":         {ask{path: "/v2/objects/{sub}/uuids/nobody"}, 404, `{"status":404,"error":{"message":"Requested object was not found.","source":"objects"}}`},
		"object body":    {ask{method: "PATCH", path: "/v2/objects/{sub}/uuids/a", body: "[]"}, 400, `{"status":400,"error":{"message":"Request payload contained invalid input.","source":"objects"}}`},
		"member":         {ask{method: "PATCH", path: "/v2/objects/{sub}/channels/a/uuids", body: `{"set":[{"channel":{"id":"x"}}]}`}, 400, `{"status":400,"error":{"message":"Request payload contained invalid input.","source":"objects"}}`},
		"if-match":       {ask{method: "PATCH", path: "/v2/objects/{sub}/uuids/a", body: "{}", header: http.Header{"If-Match": {"x"}}}, 412, `{"status":412,"error":{"message":"User to update has been modified after it was read.","source":"objects"}}`},
		"long URI":       {ask{path: "/publish/{pub}/{sub}/0/a/0/%22" + strings.Repeat("x", 33<<10) + "%22"}, 414, `{"message":"Request URI Too Long","error":true,"service":"Balancer","status":414}`},
		"long body":      {ask{method: "POST", path: "/publish/{pub}/{sub}/0/a/0", body: `"` + strings.Repeat("x", 33<<10) + `"`}, 413, `{"status":413,"error":true,"service":"Balancer","message":"Request Entity Too Large."}`},
	} {
		t.Run(name, func(t *testing.T) {
			g := g
			g.t = t
			g.expect(c.ask, c.status, c.body)
		})
	}
	if n := len(g.Denials()); n != 0 {
		t.Errorf("%d denials", n)
	}
}

// Publish has a form of its own for refusals.
func TestPublishErrors(t *testing.T) {
	g := openRig(t, pamtest.Config{Now: func() time.Time { return time.Unix(1_700_000_000, 0) }})
	for _, c := range []struct {
		ask  ask
		body string
	}{
		{ask{path: "/publish/fake/{sub}/0/a/0/%22hey%22"}, `[0,"Invalid Key","17000000000000000"]`},
		{ask{path: "/signal/fake/{sub}/0/a/0/1"}, `[0,"Invalid Key","17000000000000001"]`},
		{ask{path: "/publish/{pub}/{sub}/0/a/0/hey"}, `[0,"Invalid JSON","17000000000000002"]`},
		{ask{method: "POST", path: "/publish/{pub}/{sub}/0/a/0", body: "{"}, `[0,"Invalid JSON","17000000000000003"]`},
		{ask{path: "/signal/{pub}/{sub}/0/a/0/%22" + strings.Repeat("x", 64) + "%22"}, `[0,"Signal size too large","17000000000000004"]`},
	} {
		got := g.expect(c.ask, http.StatusBadRequest, c.body)
		if got.body != c.body || got.Header.Get("Content-Type") != `text/javascript; charset="UTF-8"` {
			t.Errorf("%s %v", got.body, got.Header)
		}
	}
	if n := g.Stats().Published; n != 0 {
		t.Errorf("%d messages taken", n)
	}
}

func TestUnknownPaths(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	const body = `{"message":"Not Found","error":true,"service":"Access Manager","status":404}`
	for _, c := range []ask{
		{path: "/"}, {path: "/v2/subscribe"}, {path: "/v2/subscribe/{sub}"}, {path: "/subscribe/{sub}/a/0/0"},
		{path: "/v3/history/sub-key/{sub}/message-counts/a"}, {method: "DELETE", path: "/v3/history/sub-key/{sub}/channel/a"},
		{path: "/v1/files/{sub}/channels/a/files"}, {path: "/v1/push/sub-key/{sub}/devices/d"}, {path: "/v1/message-actions/{sub}/channel/a"},
		{path: "/v2/auth/grant/sub-key/{sub}"}, {method: "POST", path: "/v2/objects/{sub}/uuids"}, {method: "PUT", path: publishPath},
		{path: "/publish/{pub}/{sub}/0/a/0/1/2"}, {method: "OPTIONS", path: "/nothing"},
	} {
		g.expect(c, http.StatusNotFound, body)
	}
}

func TestBrowsers(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	for _, path := range []string{"/time/0", publishPath, "/v2/objects/{sub}/uuids/a", "/v3/pam/{sub}/grant", "/v3/pam/{sub}/grant/token"} {
		got := g.send(ask{method: "OPTIONS", path: path})
		if got.StatusCode != http.StatusOK || !strings.Contains(got.Header.Get("Access-Control-Allow-Methods"), "PATCH") || got.body != "" {
			t.Errorf("%s: %d %v", path, got.StatusCode, got.Header)
		}
	}
	for _, got := range []answer{g.send(ask{path: "/time/0"}), g.do(g.grantRequest(simpleGrant)), g.send(ask{path: "/nothing"}), g.send(ask{path: publishPath})} {
		if got.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%d %v", got.StatusCode, got.Header)
		}
	}
}

// Faults select by kind of request, and those of the data plane look like the data plane's own.
func TestDataFaults(t *testing.T) {
	g := openRig(t, pamtest.Config{})
	publish := ask{path: publishPath}
	subscribe := ask{path: "/v2/subscribe/{sub}/a/0"}
	for op, hits := range map[pam.Op][3]bool{ // publish, subscribe, grant
		pamtest.OpPublish: {true, false, false}, pamtest.OpSubscribe: {false, true, false}, pamtest.OpData: {true, true, false},
		pamtest.OpPAM: {false, false, true}, pamtest.OpAll: {true, true, true}, "": {true, true, true}, pamtest.OpOther: {},
	} {
		g.SetFault(pamtest.Fault{Op: op, Status: 503})
		got := [3]bool{g.send(publish).StatusCode == 503, g.send(subscribe).StatusCode == 503, g.do(g.grantRequest(simpleGrant)).StatusCode == 503}
		if got != hits {
			t.Errorf("op %q: %v, want %v", op, got, hits)
		}
	}
	g.SetFault(pamtest.Fault{Op: pamtest.OpData, Status: 503})
	g.expect(publish, 503, `{"message":"Service Unavailable","error":true,"status":503}`)
	g.SetFault(pamtest.Fault{Op: pamtest.OpPublish, Status: 403})
	g.expect(publish, 403, `{"message":"Forbidden","error":true,"service":"Access Manager","status":403}`)
	if n := len(g.Denials()); n != 0 {
		t.Errorf("%d denials by a fault", n)
	}

	g.SetFault(pamtest.Fault{Op: pamtest.OpPublish, Kind: pamtest.KindCut, AfterWork: true})
	before := g.Stats().Published
	if _, err := g.sendCtx(t.Context(), publish); err == nil {
		t.Error("a lost answer arrived")
	}
	requests := g.Requests()
	if last := requests[len(requests)-1]; g.Stats().Published != before+1 || !last.Acted || last.Status != 0 || last.Op != pamtest.OpPublish {
		t.Errorf("record %+v", last)
	}
}

// The rate that is watched is that of Access Manager.
func TestRateLeavesTheDataPlaneOut(t *testing.T) {
	g := openRig(t, pamtest.Config{})
	for range 50 {
		g.publish("u", "a", "1", "")
	}
	g.do(g.grantRequest(simpleGrant))
	if n := g.Stats().MaxPerSecond; n != 1 {
		t.Errorf("%d per second", n)
	}
}
