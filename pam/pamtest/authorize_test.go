package pamtest_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// operations is one request for each permission that the data plane asks for, on channel a, group g or UUID u.
var operations = map[string]struct {
	ask        ask
	needs      string // permissions, as JSON of a grant
	withoutAny bool   // works without a token
	anyToken   bool   // works with any token
	payload    string // of the 403
}{
	"publish":         {ask{path: "/publish/{pub}/{sub}/0/a/0/1"}, `"channels":{"a":2}`, false, false, `{"channels":["a"]}`},
	"publish posted":  {ask{method: "POST", path: "/publish/{pub}/{sub}/0/a/0", body: "1"}, `"channels":{"a":2}`, false, false, `{"channels":["a"]}`},
	"signal":          {ask{path: "/signal/{pub}/{sub}/0/a/0/1"}, `"channels":{"a":2}`, false, false, `{"channels":["a"]}`},
	"subscribe":       {ask{path: "/v2/subscribe/{sub}/a/0"}, `"channels":{"a":1}`, false, false, `{"channels":["a"]}`},
	"wildcard":        {ask{path: "/v2/subscribe/{sub}/a.*/0"}, `"channels":{"a.*":1}`, false, false, `{"channels":["a.*"]}`},
	"presence":        {ask{path: "/v2/subscribe/{sub}/a-pnpres/0"}, `"channels":{"a-pnpres":1}`, false, false, `{"channels":["a-pnpres"]}`},
	"group":           {ask{path: "/v2/subscribe/{sub}/,/0", query: "channel-group=g"}, `"groups":{"g":1}`, false, false, `{"channel-groups":["g"]}`},
	"both":            {ask{path: "/v2/subscribe/{sub}/a/0", query: "channel-group=g"}, `"channels":{"a":1},"groups":{"g":1}`, false, false, `{"channels":["a"],"channel-groups":["g"]}`},
	"heartbeat":       {ask{path: "/v2/presence/sub-key/{sub}/channel/a/heartbeat"}, `"channels":{"a":1}`, false, false, `{"channels":["a"]}`},
	"leave":           {ask{path: "/v2/presence/sub-key/{sub}/channel/a/leave"}, "", true, false, ""},
	"here now":        {ask{path: "/v2/presence/sub-key/{sub}/channel/a"}, `"channels":{"a":1}`, false, false, `{"channels":["a"]}`},
	"here now all":    {ask{path: "/v2/presence/sub-key/{sub}"}, "", false, true, ""},
	"where now":       {ask{path: "/v2/presence/sub-key/{sub}/uuid/u"}, "", true, false, ""},
	"get state":       {ask{path: "/v2/presence/sub-key/{sub}/channel/a/uuid/u"}, `"channels":{"a":1}`, false, false, `{"channels":["a"]}`},
	"set state":       {ask{path: "/v2/presence/sub-key/{sub}/channel/a/uuid/u/data", query: "state={}"}, `"channels":{"a":1}`, false, false, `{"channels":["a"]}`},
	"groups":          {ask{path: "/v1/channel-registration/sub-key/{sub}/channel-group"}, "", false, true, ""},
	"list group":      {ask{path: "/v1/channel-registration/sub-key/{sub}/channel-group/g"}, `"groups":{"g":1}`, false, false, `{"channel-groups":["g"]}`},
	"add":             {ask{path: "/v1/channel-registration/sub-key/{sub}/channel-group/g", query: "add=x"}, `"groups":{"g":4}`, false, false, `{"channel-groups":["g"]}`},
	"remove":          {ask{path: "/v1/channel-registration/sub-key/{sub}/channel-group/g", query: "remove=x"}, `"groups":{"g":4}`, false, false, `{"channel-groups":["g"]}`},
	"delete group":    {ask{path: "/v1/channel-registration/sub-key/{sub}/channel-group/g/remove"}, `"groups":{"g":4}`, false, false, `{"channel-groups":["g"]}`},
	"history":         {ask{path: "/v3/history/sub-key/{sub}/channel/a"}, `"channels":{"a":1}`, false, false, `{"channels":["a"]}`},
	"history 2":       {ask{path: "/v2/history/sub-key/{sub}/channel/a"}, `"channels":{"a":1}`, false, false, `{"channels":["a"]}`},
	"users":           {ask{path: "/v2/objects/{sub}/uuids"}, "", false, true, ""},
	"get user":        {ask{path: "/v2/objects/{sub}/uuids/u"}, `"uuids":{"u":32}`, false, false, `{"uuids":["u"]}`},
	"update user":     {ask{method: "PATCH", path: "/v2/objects/{sub}/uuids/u", body: "{}"}, `"uuids":{"u":64}`, false, false, `{"uuids":["u"]}`},
	"delete user":     {ask{method: "DELETE", path: "/v2/objects/{sub}/uuids/u"}, `"uuids":{"u":8}`, false, false, `{"uuids":["u"]}`},
	"channels":        {ask{path: "/v2/objects/{sub}/channels"}, "", false, true, ""},
	"get channel":     {ask{path: "/v2/objects/{sub}/channels/a"}, `"channels":{"a":32}`, false, false, `{"channels":["a"]}`},
	"update channel":  {ask{method: "PATCH", path: "/v2/objects/{sub}/channels/a", body: "{}"}, `"channels":{"a":64}`, false, false, `{"channels":["a"]}`},
	"delete channel":  {ask{method: "DELETE", path: "/v2/objects/{sub}/channels/a"}, `"channels":{"a":8}`, false, false, `{"channels":["a"]}`},
	"memberships":     {ask{path: "/v2/objects/{sub}/uuids/u/channels"}, `"uuids":{"u":32}`, false, false, `{"uuids":["u"]}`},
	"set memberships": {ask{method: "PATCH", path: "/v2/objects/{sub}/uuids/u/channels", body: `{"set":[{"channel":{"id":"a"}}]}`}, `"channels":{"a":128},"uuids":{"u":64}`, false, false, `{"channels":["a"],"uuids":["u"]}`},
	"members":         {ask{path: "/v2/objects/{sub}/channels/a/uuids"}, `"channels":{"a":32}`, false, false, `{"channels":["a"]}`},
	"set members":     {ask{method: "PATCH", path: "/v2/objects/{sub}/channels/a/uuids", body: `{"delete":[{"uuid":{"id":"u"}}]}`}, `"channels":{"a":4}`, false, false, `{"channels":["a"]}`},
}

// Each operation works with the one permission it needs, by name and by pattern, and is refused with all others.
func TestPermissions(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	other := g.grantAny("", `"resources":{"channels":{"elsewhere":255}}`)
	all := map[string]string{
		"names":    `"channels":{"a":%[1]d,"a.*":%[1]d,"a-pnpres":%[1]d},"groups":{"g":%[1]d},"uuids":{"u":%[1]d}`,
		"patterns": `"channels":{"^a":%[1]d},"groups":{"^g$":%[1]d},"uuids":{"u":%[1]d}`,
	}
	for name, op := range operations {
		t.Run(name, func(t *testing.T) {
			g := g
			g.t = t
			op.ask.uuid = "me"
			passes := func(auth string) bool {
				op.ask.auth = auth
				got := g.send(op.ask)
				if got.StatusCode == http.StatusForbidden {
					payload := ""
					if op.payload != "" {
						payload = `"payload":` + op.payload + `,`
					}
					g.expect(op.ask, 403, `{"message":"Forbidden",`+payload+`"error":true,"service":"Access Manager","status":403}`)
				}
				return got.StatusCode != http.StatusForbidden
			}
			if got := passes(""); got != op.withoutAny {
				t.Errorf("without a token: %v", got)
			}
			if got := passes(other); got != (op.withoutAny || op.anyToken) {
				t.Errorf("with a token for something else: %v", got)
			}
			if op.needs == "" {
				return
			}
			if !passes(g.grantAny("", `"resources":{`+op.needs+`}`)) {
				t.Errorf("with %s: refused", op.needs)
			}
			needed := 0
			for bit := 1; bit <= 128; bit *= 2 {
				if strings.Contains(op.needs, fmt.Sprintf(`:%d}`, bit)) {
					needed |= bit
				}
			}
			if name == "list group" {
				needed |= int(pam.Manage)
			}
			for side, format := range map[string]string{"resources": all["names"], "patterns": all["patterns"]} {
				if passes(g.grantAny("", `"`+side+`":{`+fmt.Sprintf(format, 255&^needed)+`}`)) {
					t.Errorf("%s with everything but %d: passed", side, needed)
				}
				if !passes(g.grantAny("", `"`+side+`":{`+fmt.Sprintf(format, needed)+`}`)) {
					t.Errorf("%s with %d: refused", side, needed)
				}
			}
		})
	}
}

// Only what is refused is named.
func TestPayloadNamesTheRefused(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	token := g.grantAny("", `"resources":{"channels":{"a":1,"b":2},"groups":{"g":1}}`)
	g.expect(ask{path: "/v2/subscribe/{sub}/a,b,c%20d/0", query: "channel-group=g,h", auth: token}, 403,
		`{"message":"Forbidden","payload":{"channels":["b","c d"],"channel-groups":["h"]},"error":true,"service":"Access Manager","status":403}`)
	d := g.Denials()[0]
	if !slices.Equal(d.Channels, []string{"b", "c d"}) || !slices.Equal(d.Groups, []string{"h"}) || d.Permission != pam.Read || d.Op != pamtest.OpSubscribe {
		t.Errorf("record %+v", d)
	}
}

func TestTokenForms(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	publish := func(auth, uuid, query string) answer {
		return g.send(ask{path: "/publish/{pub}/{sub}/0/a.b/0/1", auth: auth, uuid: uuid, query: query})
	}
	for name, c := range map[string]struct {
		uuid, permissions string
		want              int
	}{
		"name":           {"", `"resources":{"channels":{"a.b":2}}`, 200},
		"space":          {"", `"resources":{"spaces":{"a.b":2}}`, 200},
		"pattern":        {"", `"patterns":{"channels":{"^a\\.[a-z]$":2}}`, 200},
		"unanchored":     {"", `"patterns":{"channels":{"b":2}}`, 200},
		"space pattern":  {"", `"patterns":{"spaces":{"^a":2}}`, 200},
		"second pattern": {"", `"patterns":{"channels":{"^a":1,"^a\\.":2}}`, 200},
		"no match":       {"", `"patterns":{"channels":{"^b":2}}`, 403},
		"not added up":   {"", `"resources":{"channels":{"a.b":1}},"patterns":{"channels":{"^b":2}}`, 403},
		"name as regexp": {"", `"resources":{"channels":{"a..":2}}`, 403},
		"group section":  {"", `"resources":{"groups":{"a.b":2}}`, 403},
		"own uuid":       {"zoë", `"resources":{"channels":{"a.b":2}}`, 200},
		"other uuid":     {"alice", `"resources":{"channels":{"a.b":2}}`, 403},
	} {
		token := g.grantAny(c.uuid, c.permissions)
		if got := publish(token, "zoë", ""); got.StatusCode != c.want {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
	}
	users := g.grantAny("", `"resources":{"users":{"u":32}}`)
	if got := g.send(ask{path: "/v2/objects/{sub}/uuids/u", auth: users}); got.StatusCode != http.StatusNotFound {
		t.Errorf("users section: %d", got.StatusCode)
	}
	token := g.grantAny("", `"resources":{"channels":{"a.b":2}}`)
	if got := publish("", "", "auth="+token); got.StatusCode != http.StatusOK {
		t.Errorf("raw token: %d %s", got.StatusCode, got.body)
	}
	invalid := `{"error":true,"status":403,"service":"Access Manager","message":"Invalid token"}`
	foreign := pamtest.New(pamtest.Config{SubscribeKey: "sub-c-other"})
	rig := rig{foreign, t, foreign.Transport(), "http://pam.test"}
	for name, auth := range map[string]string{
		"garbage": "my-auth-key", "cut": token[:len(token)-4], "changed": "A" + token[1:], "unpadded": strings.TrimRight(token, "=") + "x",
		"another keyset's": rig.grantAny("", `"resources":{"channels":{"a.b":2}}`),
	} {
		if got := publish(auth, "", ""); got.StatusCode != http.StatusForbidden || got.body != invalid || got.Header.Get("X-Pn-Cause") != "" {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
	}
}

// A requester who signs needs no token.
func TestSignedRequests(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	keyset := g.Keyset()
	path := "/publish/" + keyset.PublishKey + "/" + keyset.SubscribeKey + "/0/a/0"
	query := fmt.Sprintf("pnsdk=test%%2F1&timestamp=%d&uuid=me", g.Now().Unix())
	mac := hmac.New(sha256.New, []byte(keyset.SecretKey.Reveal()))
	fmt.Fprintf(mac, "%s\n%s\n%s\n%s", keyset.SubscribeKey, keyset.PublishKey, path, query)
	old := fmt.Sprintf("pnsdk=test%%2F1&timestamp=%d&uuid=me", g.Now().Unix()-61)
	for name, c := range map[string]struct {
		query, signature string
		want             int
	}{
		"v2":            {query, pam.Sign(keyset.SecretKey, "POST", keyset.PublishKey, path, query, []byte(`"x"`)), 200},
		"as JavaScript": {query, pam.Sign(keyset.SecretKey, "GET", keyset.PublishKey, path, query, nil), 200},
		"v1":            {query, base64.URLEncoding.EncodeToString(mac.Sum(nil)), 200},
		"other body":    {query, pam.Sign(keyset.SecretKey, "POST", keyset.PublishKey, path, query, []byte(`"y"`)), 403},
		"wrong secret":  {query, pam.Sign("sec-c-wrong", "POST", keyset.PublishKey, path, query, []byte(`"x"`)), 403},
		"empty":         {query, "", 403},
		"old":           {old, pam.Sign(keyset.SecretKey, "POST", keyset.PublishKey, path, old, []byte(`"x"`)), 403},
	} {
		req, err := http.NewRequest("POST", g.origin+path+"?"+c.query+"&signature="+pam.EncodeValue(c.signature), strings.NewReader(`"x"`))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := g.rt.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != c.want {
			t.Errorf("%s: %d", name, resp.StatusCode)
		}
	}
	if got := g.Stats(); got.Published != 3 || got.Denied != 4 {
		t.Errorf("stats %+v", got)
	}
}

func TestRevokeDelay(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	g := newRig(t, pamtest.Config{Now: func() time.Time { return now }, Access: pamtest.Access{RevokeDelay: time.Minute}})
	works := func(token string) bool {
		return g.send(ask{path: "/publish/{pub}/{sub}/0/a/0/1", auth: token}).StatusCode == http.StatusOK
	}
	used := g.grantAny("", `"resources":{"channels":{"a":2}}`)
	unused := g.grantAny("", `"resources":{"channels":{"a":2}}`)
	if !works(used) {
		t.Fatal("a good token was refused")
	}
	g.do(g.revokeRequest(used))
	g.do(g.revokeRequest(unused))
	if works(unused) {
		t.Error("a token that was not used before its revoke works")
	}
	if g.Live(pam.Secret(used)) {
		t.Error("live after the revoke")
	}
	now = now.Add(59 * time.Second)
	if !works(used) {
		t.Error("refused before the delay")
	}
	now = now.Add(time.Second)
	if works(used) {
		t.Error("works after the delay: a use within it must not prolong it")
	}
	g.SetAccess(pamtest.Access{})
	again := g.grantAny("", `"resources":{"channels":{"a":2}}`)
	works(again)
	g.do(g.revokeRequest(again))
	if works(again) {
		t.Error("works after its revoke without a delay")
	}
}

// A token that is used on and on is found valid anew when the delay is over, and its end counts at once.
func TestRevokeDelayIsCountedFromTheCheck(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	g := newRig(t, pamtest.Config{Now: func() time.Time { return now }, Access: pamtest.Access{RevokeDelay: time.Hour}})
	token := g.grantAny("", `"resources":{"channels":{"a":2}}`)
	for range 30 {
		if got := g.send(ask{path: "/publish/{pub}/{sub}/0/a/0/1", auth: token}); got.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", got.StatusCode, got.body)
		}
		now = now.Add(30 * time.Second)
	}
	if got := g.send(ask{path: "/publish/{pub}/{sub}/0/a/0/1", auth: token}); !strings.Contains(got.body, "Token is expired.") {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}

func TestDenyCache(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	g := newRig(t, pamtest.Config{Now: func() time.Time { return now }, Access: pamtest.Access{DenyCache: 30 * time.Second}})
	token := g.grantAny("alice", `"resources":{"channels":{"a":3,"b":2}}`)
	status := func(path, uuid string) int { return g.send(ask{path: path, auth: token, uuid: uuid}).StatusCode }
	const toA, toB, fromA = "/publish/{pub}/{sub}/0/a/0/1", "/publish/{pub}/{sub}/0/b/0/1", "/v2/subscribe/{sub}/a/0"
	if got := status(toA, "bob"); got != 403 {
		t.Fatalf("other uuid: %d", got)
	}
	if got := status(toA, "alice"); got != 403 {
		t.Errorf("right uuid, refused a moment ago: %d", got)
	}
	if got := status(toB, "alice"); got != 200 {
		t.Errorf("other channel: %d", got)
	}
	if got := status(fromA, "alice"); got != 200 {
		t.Errorf("other permission: %d", got)
	}
	now = now.Add(29 * time.Second)
	if got := status(toA, "alice"); got != 403 {
		t.Errorf("after 29 s: %d", got)
	}
	now = now.Add(time.Second)
	if got := status(toA, "alice"); got != 200 {
		t.Errorf("after 30 s: %d", got)
	}
	reasons := []string{}
	for _, d := range g.Denials() {
		reasons = append(reasons, d.Reason)
	}
	if want := []string{"the token is for another uuid", "refused a moment ago: the token is for another uuid", "refused a moment ago: the token is for another uuid"}; !slices.Equal(reasons, want) {
		t.Errorf("reasons %q", reasons)
	}
}

func TestDenialRecords(t *testing.T) {
	g := newRig(t, pamtest.Config{RecordLimit: 3})
	token := g.grantAny("", `"resources":{"channels":{"a":1}}`)
	for i := range 5 {
		g.send(ask{path: fmt.Sprintf("/publish/{pub}/{sub}/0/c%d/0/1", i), uuid: "bob", auth: token})
	}
	all := g.Denials()
	if len(all) != 3 || g.Stats().Denied != 5 {
		t.Fatalf("%d kept, %d counted", len(all), g.Stats().Denied)
	}
	want := pamtest.DenialRecord{
		Time: all[2].Time, UUID: "bob", Op: pamtest.OpPublish, Message: "Forbidden", Cause: "9999", Reason: "not granted",
		TokenID: pam.Secret(token).ID(), Permission: pam.Write, Channels: []string{"c4"},
	}
	if got := all[2]; fmt.Sprint(got) != fmt.Sprint(want) || got.Time.IsZero() {
		t.Errorf("record %+v, want %+v", got, want)
	}
	_, list := control(t, g, "GET", "/emulator/denials?limit=1", "")
	item := list["items"].([]any)[0].(map[string]any)
	if list["total"] != 5.0 || item["uuid"] != "bob" || item["permission"] != "write" || item["cause"] != "9999" || item["token_id"] != pam.Secret(token).ID() {
		t.Errorf("control: %v", list)
	}
}

func TestControlAccess(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	access := func(body string) map[string]any {
		_, st := control(t, g, "PUT", "/emulator/access", body)
		got, _ := st["access"].(map[string]any)
		return got
	}
	if got := access(`{"revoke_delay":"60s"}`); got["revoke_delay"] != "1m0s" || got["required"] != true || got["deny_cache"] != "0s" {
		t.Errorf("access %v", got)
	}
	if got := access(`{"required":false,"deny_cache":"30s"}`); got["revoke_delay"] != "1m0s" || got["required"] != false || got["deny_cache"] != "30s" {
		t.Errorf("access %v", got)
	}
	if got := g.send(ask{path: publishPath}); got.StatusCode != http.StatusOK {
		t.Errorf("publish without Access Manager: %d", got.StatusCode)
	}
	for _, bad := range []string{`{}`, `{"required":1}`, `{"revoke_delay":"soon"}`, `{"deny_cache":"-1s"}`, `{"of":true}`} {
		if code, got := control(t, g, "PUT", "/emulator/access", bad); code != http.StatusBadRequest || got["error"] == "" {
			t.Errorf("%s: %d %v", bad, code, got)
		}
	}
}
