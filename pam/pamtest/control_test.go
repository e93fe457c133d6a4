package pamtest_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// control calls the control API and decodes its answer.
func control(t *testing.T, g rig, method, path, body string) (int, map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	g.Handler().ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	return w.Code, got
}

func TestControlLists(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	token := g.token(g.do(g.grantRequest(simpleGrant)))
	g.token(g.do(g.grantRequest(simpleGrant)))
	g.do(g.revokeRequest(token))
	for path, want := range map[string]int{"grants": 2, "revocations": 1, "requests": 3} {
		_, all := control(t, g, "GET", "/emulator/"+path, "")
		if all["total"] != float64(want) || len(all["items"].([]any)) != want {
			t.Errorf("%s: %v", path, all)
		}
		_, one := control(t, g, "GET", "/emulator/"+path+"?limit=1&raw=1", "")
		if one["total"] != float64(want) || len(one["items"].([]any)) != 1 {
			t.Errorf("%s limited: %v", path, one)
		}
	}
	for query, shown := range map[string]bool{"": false, "?raw=0": false, "?raw=1": true} {
		_, got := control(t, g, "GET", "/emulator/grants"+query, "")
		text, _ := json.Marshal(got)
		if strings.Contains(string(text), token) != shown {
			t.Errorf("grants%s: %s", query, text)
		}
		if !strings.Contains(string(text), `"token_id":"`+pam.Secret(token).ID()+`"`) {
			t.Errorf("grants%s has no token_id: %s", query, text)
		}
	}
	_, live := control(t, g, "GET", "/emulator/live?token="+url.QueryEscape(token), "")
	_, posted := control(t, g, "POST", "/emulator/live", g.Grants()[1].Token.Reveal()+"\n")
	if live["live"] != false || posted["live"] != true {
		t.Errorf("live: %v %v", live, posted)
	}
	_, st := control(t, g, "GET", "/emulator/stats", "")
	if st["live"] != 1.0 || st["grants"] != 2.0 || st["requests"] != 3.0 || st["answers"].(map[string]any)["grant"].(map[string]any)["200"] != 2.0 {
		t.Errorf("stats: %v", st)
	}
}

func TestControlChanges(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	if code, got := control(t, g, "PUT", "/emulator/faults", `{"op":"grant","status":503,"count":1}`); code != 200 || len(got["items"].([]any)) != 1 {
		t.Errorf("faults: %d %v", code, got)
	}
	if a := g.do(g.grantRequest(simpleGrant)); a.StatusCode != 503 {
		t.Errorf("status %d", a.StatusCode)
	}
	if _, got := control(t, g, "GET", "/emulator/faults", ""); got["items"].([]any)[0].(map[string]any)["hit"] != 1.0 {
		t.Errorf("faults: %v", got)
	}
	control(t, g, "PUT", "/emulator/faults", ` [{"status":500},{"kind":"hang"}]`)
	control(t, g, "DELETE", "/emulator/faults", "")
	if a := g.do(g.grantRequest(simpleGrant)); a.StatusCode != 200 {
		t.Errorf("status %d", a.StatusCode)
	}
	if _, st := control(t, g, "PUT", "/emulator/clock", `{"offset":"-300s"}`); st["clock_offset"] != "-5m0s" {
		t.Errorf("clock: %v", st)
	}
	if got := time.Until(g.Now()); got > -299*time.Second || got < -301*time.Second {
		t.Errorf("offset %v", got)
	}
	if _, st := control(t, g, "PUT", "/emulator/revoke", `{"disabled":true}`); st["revoke_disabled"] != true {
		t.Errorf("revoke: %v", st)
	}
	if a := g.do(g.revokeRequest("x")); !strings.Contains(a.body, "Feature disabled") {
		t.Errorf("revoke: %s", a.body)
	}
}

func TestControlIsStrict(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	for _, c := range []struct{ method, path, body, part string }{
		{"PUT", "faults", `{"kind":"hang","cont":1}`, `unknown field "cont"`},
		{"PUT", "faults", `[{"kind":"hang","cont":1}]`, `unknown field "cont"`},
		{"PUT", "faults", `{"kind":"sulk"}`, `unknown kind "sulk"`},
		{"PUT", "faults", `[{"kind":"hang"},{}]`, "nothing to do"},
		{"PUT", "faults", `{"kind":"hang"}{}`, "more than one value"},
		{"PUT", "faults", ``, "EOF"},
		{"PUT", "faults", `{"kind":"hang","delay":"soon"}`, "delay"},
		{"PUT", "clock", `{}`, `{"offset":"300s"}`},
		{"PUT", "clock", `{"offset":"300"}`, "offset"},
		{"PUT", "clock", `{"ofset":"300s"}`, "unknown field"},
		{"PUT", "revoke", `{}`, `{"disabled":true}`},
		{"PUT", "revoke", `{"disabled":"yes"}`, "disabled"},
		{"GET", "live", "", "want a token"},
		{"POST", "live", " ", "want a token"},
		{"GET", "live?tokn=a", "", `unknown parameter "tokn"`},
		{"GET", "grants?raw=yes", "", "want 0 or 1"},
		{"GET", "grants?limit=0", "", "positive"},
		{"GET", "grants?limit=1&limit=2", "", "more than once"},
	} {
		code, got := control(t, g, c.method, "/emulator/"+c.path, c.body)
		if message, _ := got["error"].(string); code != http.StatusBadRequest || !strings.Contains(message, c.part) {
			t.Errorf("%s %s %s: %d %v", c.method, c.path, c.body, code, got)
		}
	}
	if len(g.Requests()) != 0 {
		t.Error("the control API is counted as requests")
	}
}

// Without Handler there is no control API.
func TestServerAloneHasNoControl(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	w := httptest.NewRecorder()
	g.ServeHTTP(w, httptest.NewRequest("GET", "/emulator/stats", nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("status %d", w.Code)
	}
}
