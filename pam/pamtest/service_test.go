package pamtest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// sameJSON compares two bodies, key order aside.
func sameJSON(t *testing.T, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("answer %q: %v", got, err)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("expectation %q: %v", want, err)
	}
	if !reflect.DeepEqual(g, w) {
		t.Errorf("answer\n %s\nwant\n %s", got, want)
	}
	if len(got) != len(strings.TrimSpace(want)) {
		t.Errorf("answer has %d bytes, want %d: %s", len(got), len(want), got)
	}
}

func structured(status int, message, source, detail, location, kind string) string {
	return fmt.Sprintf(`{"error":{"message":%q,"source":%q,"details":[{"message":%q,"location":%q,"locationType":%q}]},"service":"Access Manager","status":%d}`,
		message, source, detail, location, kind, status)
}

// Each body that the service was recorded or asserted to send for a grant comes from the emulator for the request that provokes it.
func TestKnownErrorBodies(t *testing.T) {
	text, err := os.ReadFile("../../testdata/errors/error-bodies.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Errors []struct {
			Status      int
			ContentType string `json:"content_type"`
			Body        string
			Note        string
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	g := newRig(t, pamtest.Config{})
	pattern := func(p string) request {
		return g.grantRequest(fmt.Sprintf(`{"ttl":15,"permissions":{"patterns":{"uuids":{%q:1}}}}`, p))
	}
	noType := g.grantRequest(simpleGrant)
	noType.contentType = "text/plain"
	long := request{method: http.MethodDelete, path: g.grantPath() + "/" + strings.Repeat("a", 33<<10)}
	provoke := map[string]request{ // by a part of the recorded body
		"This grant contains no permissions": g.grantRequest(`{"ttl":15,"permissions":{"resources":{"channels":{}},"meta":{}}}`),
		"Content-Type must be":               noType,
		"multiple repeat":                    pattern("!<[^>]+>++"),
		"Only non-capturing groups":          pattern("(!<[^>]+>)+"),
		"Request URI Too Long":               long,
		"Request Entity Too Large":           g.grantRequest(simpleGrant + strings.Repeat(" ", 33<<10)),
	}
	for part, r := range provoke {
		found := false
		for _, e := range file.Errors {
			if !strings.Contains(e.Body, part) {
				continue
			}
			found = true
			a := g.do(r)
			if a.StatusCode != e.Status || a.Header.Get("Content-Type") != e.ContentType {
				t.Errorf("%s: %d %s", part, a.StatusCode, a.Header.Get("Content-Type"))
			}
			sameJSON(t, a.body, e.Body)
		}
		if !found {
			t.Errorf("no recorded body with %q", part)
		}
	}
}

func TestRefusals(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	const badTTL = "Range should be 1 to 43200 minute(s)."
	const badMask = "Unexpected value: `permissions.resources.uuids.uuid-1` must be positive and non-zero."
	ttl := func(v string) request {
		return g.grantRequest(`{"ttl":` + v + `,"permissions":{"resources":{"channels":{"a":1}}}}`)
	}
	mask := func(v string) request {
		return g.grantRequest(`{"ttl":1,"permissions":{"resources":{"uuids":{"uuid-1":` + v + `}}}}`)
	}
	wrongSecret, other, twice, none := g.grantRequest(simpleGrant), g.grantRequest(simpleGrant), g.grantRequest(simpleGrant), g.grantRequest(simpleGrant)
	wrongSecret.secret = "sec-c-other"
	other.path = "/v3/pam/sub-c-other/grant"
	twice.rawQuery = "timestamp=1&timestamp=1"
	none.rawQuery = "uuid=a"
	invalidTTL := structured(400, "Invalid ttl", "grant", badTTL, "ttl", "body")
	invalidMask := structured(400, "Invalid permissions", "grant", badMask, "permissions.resources.uuids.uuid-1", "body")
	invalidJSON := structured(400, "Invalid JSON", "grant", "Body must be one JSON object.", "<root>", "body")
	badTime := structured(403, "Invalid timestamp", "grant", "Timestamp must be within 60 seconds of the server's time.", "timestamp", "query")
	cases := map[string]struct {
		r      request
		status int
		body   string
	}{
		"ttl 0":           {ttl("0"), 400, invalidTTL},
		"ttl 43201":       {ttl("43201"), 400, invalidTTL},
		"ttl -1":          {ttl("-1"), 400, invalidTTL},
		"ttl 1.5":         {ttl("1.5"), 400, invalidTTL},
		"ttl null":        {ttl("null"), 400, invalidTTL},
		"ttl true":        {ttl("true"), 400, invalidTTL},
		"ttl text":        {ttl(`"1h"`), 400, invalidTTL},
		"mask 0":          {mask("0"), 400, invalidMask},
		"mask negative":   {mask("-1"), 400, invalidMask},
		"mask fraction":   {mask("1.5"), 400, invalidMask},
		"mask text":       {mask(`"1"`), 400, invalidMask},
		"mask null":       {mask("null"), 400, invalidMask},
		"no permissions":  {g.grantRequest(`{"ttl":1}`), 400, structured(400, "This grant contains no permissions", "grant", "What are you granting?", "permissions", "body")},
		"unknown section": {g.grantRequest(`{"ttl":1,"permissions":{"resources":{"rooms":{"a":1}}}}`), 400, structured(400, "Invalid permissions", "grant", "Invalid resource type", "permissions.resources", "body")},
		"empty uuid":      {g.grantRequest(`{"ttl":1,"permissions":{"resources":{"channels":{"a":1}},"uuid":""}}`), 400, structured(400, "Invalid permissions", "grant", "Unexpected value: `permissions.uuid` must be a non-empty string.", "permissions.uuid", "body")},
		"names as list":   {g.grantRequest(`{"ttl":1,"permissions":{"resources":{"channels":["a"]}}}`), 400, structured(400, "Invalid permissions", "grant", "Unexpected value: `permissions.resources.channels` must be an object.", "permissions.resources.channels", "body")},
		"no body":         {g.grantRequest(""), 400, invalidJSON},
		"null":            {g.grantRequest("null"), 400, invalidJSON},
		"list":            {g.grantRequest("[]"), 400, invalidJSON},
		"two values":      {g.grantRequest(simpleGrant + "{}"), 400, invalidJSON},
		"not UTF-8":       {g.grantRequest("{\"a\":\"\xff\"}"), 400, invalidJSON},
		"wrong secret":    {wrongSecret, 403, structured(403, "Invalid signature", "grant", "Client and server produced different signatures for the same inputs.", "signature", "query")},
		"other keyset":    {other, 400, `{"message":"Invalid Subscribe Key","error":true,"service":"Access Manager","status":400}`},
		"twice":           {twice, 400, `{"message":"Could Not Parse Request","error":true,"service":"Access Manager","status":400}`},
		"no timestamp":    {none, 403, badTime},
		"not ours":        {g.revokeRequest("p0F2AkF0Gg=="), 400, structured(400, "Invalid token", "revoke", "Token is malformed.", "token", "path")},
		"unknown path":    {request{method: "GET", path: "/v2/presence"}, 404, `{"message":"Not Found","error":true,"service":"Access Manager","status":404}`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			a := g.do(c.r)
			if a.StatusCode != c.status {
				t.Errorf("status %d, want %d", a.StatusCode, c.status)
			}
			sameJSON(t, a.body, c.body)
		})
	}
	if n := len(g.Grants()); n != 0 {
		t.Errorf("%d grants were issued", n)
	}
}

func TestAcceptedForms(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	charset := g.grantRequest(simpleGrant)
	charset.contentType = "application/json; charset=UTF-8"
	for name, r := range map[string]request{
		"plain":        g.grantRequest(simpleGrant),
		"charset":      charset,
		"ttl as text":  g.grantRequest(`{"ttl":"15","permissions":{"resources":{"channels":{"a":1}}}}`),
		"all sections": g.grantRequest(`{"ttl":43200,"permissions":{"resources":{"channels":{"a":239},"groups":{"g":5},"uuids":{"u":104},"users":{},"spaces":{}},"patterns":{"channels":{},"groups":{},"uuids":{},"users":{},"spaces":{}},"meta":{},"uuid":"u"}}`),
		"old names":    g.grantRequest(`{"ttl":1,"permissions":{"resources":{"spaces":{"a":1},"users":{"b":1}}}}`),
		"non-capture":  g.grantRequest(`{"ttl":1,"permissions":{"patterns":{"channels":{"^(?:a|b)$":1,"some_*":1}}}}`),
		"nested meta":  g.grantRequest(`{"ttl":1,"permissions":{"resources":{"channels":{"a":1}},"meta":{"a":{"b":[1,2.5,null]}}}}`),
		"mask 255":     g.grantRequest(`{"ttl":1,"permissions":{"resources":{"groups":{"a":255}}}}`),
	} {
		a := g.do(r)
		if a.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
			continue
		}
		token := g.token(a)
		sameJSON(t, a.body, `{"data":{"message":"Success","token":"`+token+`"},"service":"Access Manager","status":200}`)
		if _, err := pam.Parse(token); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !g.Live(pam.Secret(token)) {
			t.Errorf("%s: token is not live", name)
		}
	}
}

// A service that decodes and encodes the query again accepts raw characters that were signed encoded.
func TestSignatureOfRawQuery(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	keyset := g.Keyset()
	query := fmt.Sprintf("pnsdk=PubNub-Go%%2F9.0.0&timestamp=%d&uuid=a%%2Cb", g.Now().Unix())
	r := g.grantRequest(simpleGrant)
	r.rawQuery = strings.NewReplacer("%2F", "/", "%2C", ",").Replace(query) + "&signature=" +
		pam.Sign(keyset.SecretKey, "POST", keyset.PublishKey, r.path, query, []byte(simpleGrant))
	if a := g.do(r); a.StatusCode != http.StatusOK {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

func TestTimestampWindow(t *testing.T) {
	base := time.Unix(1700000000, 500_000_000)
	g := newRig(t, pamtest.Config{Now: func() time.Time { return base }})
	g.SetClockOffset(5 * time.Minute)
	for seconds, want := range map[int]int{-61: 403, -60: 200, 0: 200, 60: 200, 61: 403} {
		r := g.grantRequest(simpleGrant)
		r.timestamp = base.Add(5*time.Minute + time.Duration(seconds)*time.Second)
		a := g.do(r)
		if a.StatusCode != want {
			t.Errorf("%+d s: status %d, want %d", seconds, a.StatusCode, want)
		}
		if got := a.Header.Get("Date"); got != "Tue, 14 Nov 2023 22:18:20 GMT" {
			t.Errorf("Date = %s", got)
		}
	}
}

func TestTime(t *testing.T) {
	base := time.Unix(1700000000, 123_456_700)
	g := newRig(t, pamtest.Config{Now: func() time.Time { return base }})
	if a := g.do(request{method: "GET", path: "/time/0"}); a.body != "[17000000001234567]" {
		t.Errorf("time = %s", a.body)
	}
	g.SetClockOffset(-time.Hour)
	if a := g.do(request{method: "GET", path: "/time/0"}); a.body != "[16999964001234567]" {
		t.Errorf("time an hour behind = %s", a.body)
	}
}

func TestRevoke(t *testing.T) {
	now := time.Unix(1700000000, 0)
	g := newRig(t, pamtest.Config{Now: func() time.Time { return now }})
	token := g.token(g.do(g.grantRequest(simpleGrant)))
	other := g.token(g.do(g.grantRequest(simpleGrant)))
	const done = `{"data":{"message":"Success"},"service":"Access Manager","status":200}`
	expired := structured(400, "Invalid token", "revoke", "Token is expired.", "token", "path")

	g.SetRevokeDisabled(true)
	a := g.do(g.revokeRequest(token))
	sameJSON(t, a.body, structured(400, "Feature disabled", "revoke", "Token revocation is disabled.", "subscribe-key", "path"))
	if !g.Live(pam.Secret(token)) {
		t.Error("a refused revoke took effect")
	}
	g.SetRevokeDisabled(false)
	for range 2 {
		sameJSON(t, g.do(g.revokeRequest(token)).body, done)
	}
	if g.Live(pam.Secret(token)) || !g.Live(pam.Secret(other)) {
		t.Error("the wrong token was revoked")
	}
	if st := g.Stats(); st.Live != 1 || st.Grants != 2 {
		t.Errorf("stats %+v", st)
	}
	now = now.Add(15 * time.Minute)
	sameJSON(t, g.do(g.revokeRequest(other)).body, expired)
	sameJSON(t, g.do(g.revokeRequest(token)).body, expired)
	if g.Live(pam.Secret(other)) || g.Stats().Live != 0 {
		t.Error("an ended token is live")
	}
	unpadded := g.do(g.revokeRequest(strings.TrimRight(other, "=") + "x"))
	sameJSON(t, unpadded.body, structured(400, "Invalid token", "revoke", "Token is malformed.", "token", "path"))
	var statuses []int
	for _, r := range g.Revocations() {
		statuses = append(statuses, r.Status)
	}
	if want := []int{400, 200, 200, 400, 400, 400}; !reflect.DeepEqual(statuses, want) {
		t.Errorf("revocations %v, want %v", statuses, want)
	}
}

// A token with an encoded slash is one path element.
func TestRevokePathElement(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	const odd = "unescaped-_.ABCabc123 escaped;,/?:@&=+$#"
	a := g.do(g.revokeRequest(odd))
	sameJSON(t, a.body, structured(400, "Invalid token", "revoke", "Token is malformed.", "token", "path"))
	if got := g.Revocations(); len(got) != 1 || got[0].Token.Reveal() != odd {
		t.Errorf("revocations %+v", got)
	}
	r := g.revokeRequest("a")
	r.path += "/b"
	if a := g.do(r); a.StatusCode != http.StatusNotFound {
		t.Errorf("a raw slash: %d", a.StatusCode)
	}
	for _, c := range []request{{method: "GET", path: g.grantPath()}, {method: "PUT", path: g.grantPath()}, {method: "DELETE", path: g.grantPath()}, {method: "DELETE", path: g.grantPath() + "/"}, {method: "POST", path: "/time/0"}} {
		if a := g.do(c); a.StatusCode != http.StatusNotFound {
			t.Errorf("%s %s: %d", c.method, c.path, a.StatusCode)
		}
	}
}

func TestSecretRotation(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	old := g.Keyset().SecretKey
	token := g.token(g.do(g.grantRequest(simpleGrant)))
	g.SetSecretKey("sec-c-new")
	r := g.grantRequest(simpleGrant)
	r.secret = old
	if a := g.do(r); a.StatusCode != http.StatusForbidden {
		t.Errorf("old secret: %d", a.StatusCode)
	}
	if a := g.do(g.grantRequest(simpleGrant)); a.StatusCode != http.StatusOK {
		t.Errorf("new secret: %d %s", a.StatusCode, a.body)
	}
	if !g.Live(pam.Secret(token)) {
		t.Error("a token died with the secret key")
	}
}
