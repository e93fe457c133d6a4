package pamtest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

func TestChannelGroups(t *testing.T) {
	g := openRig(t, pamtest.Config{})
	const groups = "/v1/channel-registration/sub-key/{sub}/channel-group"
	const done = `{"status":200,"message":"OK","service":"channel-registry","error":false}`
	for _, c := range []struct{ path, query, want string }{
		{"/g", "add=b,a,b", done},
		{"/g", "", `{"status":200,"payload":{"channels":["a","b"],"group":"g"},"service":"channel-registry","error":false}`},
		{"/g", "remove=a,nothing", done},
		{"/g", "", `{"status":200,"payload":{"channels":["b"],"group":"g"},"service":"channel-registry","error":false}`},
		{"/h%20i", "add=x%20y", done},
		{"", "", `{"status":200,"payload":{"groups":["g","h i"],"namespace":""},"service":"channel-registry","error":false}`},
		{"/g/remove", "", done},
		{"/g", "", `{"status":200,"payload":{"channels":[],"group":"g"},"service":"channel-registry","error":false}`},
		{"/h%20i", "remove=x%20y", done},
		{"", "", `{"status":200,"payload":{"groups":[],"namespace":""},"service":"channel-registry","error":false}`},
	} {
		g.expect(ask{path: groups + c.path, query: c.query}, 200, c.want)
	}
	if got := g.send(ask{path: groups + "/g", query: "add=a"}).body; got != `{"status": 200, "message": "OK", "service": "channel-registry", "error": false}` {
		t.Errorf("%s", got) // with blanks, as recorded
	}
	var names []string
	for i := range 500 {
		names = append(names, fmt.Sprint("channel-", i))
	}
	full := 0
	for i := range 5 {
		got := g.send(ask{path: groups + "/big", query: "add=" + strings.Join(names, fmt.Sprint(i, ","))})
		if got.StatusCode != http.StatusOK {
			full++
			if !strings.Contains(got.body, "Maximum channel count exceeded.") {
				t.Errorf("%s", got.body)
			}
		}
	}
	if full != 1 {
		t.Errorf("%d of 5 times 500 channels were refused, want 1", full)
	}
}

func TestObjects(t *testing.T) {
	g := openRig(t, pamtest.Config{Now: func() time.Time { return time.Unix(1_700_000_000, 123_456_000) }})
	const objects = "/v2/objects/{sub}/"
	etag := func(got answer) string {
		var body struct{ Data struct{ ETag string } }
		if err := json.Unmarshal([]byte(got.body), &body); err != nil {
			t.Fatal(err)
		}
		return body.Data.ETag
	}
	const updated = `"updated":"2023-11-14T22:13:20.123456Z"`
	set := func(path, query, body, want string) string {
		t.Helper()
		got := g.send(ask{method: "PATCH", path: objects + path, query: query, body: body})
		tag := etag(got)
		g.expect(ask{path: objects + path, query: query}, 200, `{"status":200,"data":{`+want+`,`+updated+`,"eTag":"`+tag+`"}}`)
		return tag
	}
	first := set("uuids/zo%C3%AB", "include=custom", `{"name":"Zoë","email":"z@x","custom":{"n":1},"id":"other","nonsense":1}`,
		`"id":"zoë","name":"Zoë","externalId":null,"profileUrl":null,"email":"z@x","custom":{"n":1}`)
	second := set("uuids/zo%C3%AB", "include=status,type", `{"email":null,"status":"busy"}`,
		`"id":"zoë","name":"Zoë","externalId":null,"profileUrl":null,"email":null,"type":null,"status":"busy"`)
	set("channels/a", "", `{"name":"A","description":"d"}`, `"id":"a","name":"A","description":"d"`)
	if first == second || first == "" {
		t.Errorf("tags %s and %s", first, second)
	}
	stale := ask{method: "PATCH", path: objects + "uuids/zo%C3%AB", body: `{"name":"B"}`, header: http.Header{"If-Match": {first}}}
	g.expect(stale, 412, `{"status":412,"error":{"message":"User to update has been modified after it was read.","source":"objects"}}`)
	stale.header.Set("If-Match", second)
	if got := g.send(stale); got.StatusCode != http.StatusOK || got.Header.Get("Content-Type") != "application/json" {
		t.Errorf("matching tag: %d %v", got.StatusCode, got.Header)
	}
	g.expect(ask{method: "DELETE", path: objects + "uuids/zo%C3%AB"}, 200, `{"status":200,"data":null}`)
	g.expect(ask{path: objects + "uuids/zo%C3%AB"}, 404, `{"status":404,"error":{"message":"Requested object was not found.","source":"objects"}}`)
}

// page reads a list of App Context: the ids, which path names, and the cursor of the next page.
func (g rig) page(path, query string, id func(map[string]any) string) (ids []string, total any, next string) {
	g.t.Helper()
	got := g.send(ask{path: path, query: query})
	var body map[string]any
	if err := json.Unmarshal([]byte(got.body), &body); err != nil || got.StatusCode != http.StatusOK {
		g.t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	for _, item := range body["data"].([]any) {
		ids = append(ids, id(item.(map[string]any)))
	}
	next, _ = body["next"].(string)
	return ids, body["totalCount"], next
}

func TestObjectPages(t *testing.T) {
	g := openRig(t, pamtest.Config{})
	var want []string
	for i := range 130 {
		id := fmt.Sprintf("u%03d", i)
		want = append(want, id)
		g.send(ask{method: "PATCH", path: "/v2/objects/{sub}/uuids/" + id, body: "{}"})
	}
	id := func(item map[string]any) string { return item["id"].(string) }
	var all []string
	for start, pages := "", 0; ; pages++ {
		ids, total, next := g.page("/v2/objects/{sub}/uuids", "count=true&start="+start, id)
		all = append(all, ids...)
		if total != 130.0 || len(ids) > 100 || pages > 3 {
			t.Fatalf("page of %d, total %v", len(ids), total)
		}
		if next == "" {
			break
		}
		start = next
	}
	if !slices.Equal(all, want) {
		t.Errorf("got %v", all)
	}
	if ids, total, _ := g.page("/v2/objects/{sub}/uuids", "limit=2&count=0", id); len(ids) != 2 || total != nil {
		t.Errorf("got %v, total %v", ids, total)
	}
	if ids, _, _ := g.page("/v2/objects/{sub}/channels", "", id); len(ids) != 0 {
		t.Errorf("channels %v", ids)
	}
}

func TestMemberships(t *testing.T) {
	g := openRig(t, pamtest.Config{})
	const ofBob, ofRoom = "/v2/objects/{sub}/uuids/bob/channels", "/v2/objects/{sub}/channels/room/uuids"
	g.send(ask{method: "PATCH", path: "/v2/objects/{sub}/channels/room", body: `{"name":"Room","custom":{"c":1}}`})
	if got := g.send(ask{method: "PATCH", path: ofBob, body: `{"set":[{"channel":{"id":"room"},"custom":{"k":true},"status":"on"},{"channel":{"id":"hall"}}],"delete":[]}`}); got.StatusCode != 200 {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	g.send(ask{method: "PATCH", path: ofRoom, body: `{"set":[{"uuid":{"id":"alice"}}]}`})
	other := func(name string) func(map[string]any) string {
		return func(item map[string]any) string { return item[name].(map[string]any)["id"].(string) }
	}
	if ids, total, _ := g.page(ofBob, "count=1", other("channel")); !slices.Equal(ids, []string{"hall", "room"}) || total != 2.0 {
		t.Errorf("memberships %v, %v", ids, total)
	}
	if ids, _, _ := g.page(ofRoom, "", other("uuid")); !slices.Equal(ids, []string{"alice", "bob"}) {
		t.Errorf("members %v", ids)
	}
	body := g.send(ask{path: ofBob, query: "include=custom,status,channel,channel.custom"}).body
	for _, part := range []string{`{"channel":{"id":"room","name":"Room","description":null,"custom":{"c":1},"updated":`, `"status":"on","custom":{"k":true},"updated":`, `{"channel":{"id":"hall"},"status":null,"custom":null,`} {
		if !strings.Contains(body, part) {
			t.Errorf("%s lacks %s", body, part)
		}
	}
	g.send(ask{method: "PATCH", path: ofRoom, body: `{"delete":[{"uuid":{"id":"bob"}}]}`})
	if ids, _, _ := g.page(ofBob, "", other("channel")); !slices.Equal(ids, []string{"hall"}) {
		t.Errorf("memberships %v", ids)
	}
}
