package pamtest

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/pamsidecar/pamsidecar/pam"
)

func TestParseDataPath(t *testing.T) {
	for _, c := range []struct {
		method, path string
		op           pam.Op // "": no route
		channels     []string
		rest         string // group, id, callback and payload, joined by |
	}{
		{"GET", "/publish/p/s/0/my%20room/0/%22a%2Fb%22", OpPublish, []string{"my room"}, `||0|"a/b"`},
		{"POST", "/publish/p/s/0/a/0", OpPublish, []string{"a"}, "||0|"},
		{"GET", "/signal/p/s/0/a/0/1", OpPublish, []string{"a"}, "||0|1"},
		{"GET", "/v2/subscribe/s/a,b%2Cc,,a/0", OpSubscribe, []string{"a", "b", "c"}, "|||"},
		{"GET", "/v2/subscribe/s/,/0", OpSubscribe, nil, "|||"},
		{"GET", "/v2/presence/sub-key/s", OpPresence, nil, "|||"},
		{"GET", "/v2/presence/sub_key/s/channel/a", OpPresence, []string{"a"}, "|||"},
		{"GET", "/v2/presence/sub-key/s/channel/a/heartbeat", OpPresence, []string{"a"}, "|||"},
		{"GET", "/v2/presence/sub-key/s/channel/a/uuid/zo%C3%AB/data", OpPresence, []string{"a"}, "|zoë||"},
		{"GET", "/v1/channel-registration/sub-key/s/channel-group/g/remove", OpGroups, nil, "g|||"},
		{"PATCH", "/v2/objects/s/channels/a/uuids", OpObjects, nil, "|a||"},
		{"GET", "/v3/history/sub-key/s/channel/a", OpHistory, []string{"a"}, "|||"},

		{"POST", "/v2/subscribe/s/a/0", "", nil, ""},
		{"GET", "/v2/subscribe/s/a/1", "", nil, ""},
		{"GET", "/v2/subscribe/s/a/0/", "", nil, ""},
		{"GET", "/v2/subscribe/s//0", "", nil, ""},
		{"GET", "/v2/subscribe/s/%zz/0", "", nil, ""},
		{"GET", "/publish/p/s/0/a/0", "", nil, ""},
		{"GET", "publish/p/s/0/a/0/1", "", nil, ""},
		{"DELETE", "/v3/history/sub-key/s/channel/a", "", nil, ""},
		{"GET", "", "", nil, ""},
		{"GET", "/", "", nil, ""},
	} {
		d, ok := parseDataPath(c.method, c.path)
		if ok != (c.op != "") {
			t.Errorf("%s %s: %v", c.method, c.path, ok)
			continue
		}
		if !ok {
			continue
		}
		rest := strings.Join([]string{d.group, d.id, d.callback, d.payload}, "|")
		if d.route.op != c.op || d.sub != "s" || !slices.Equal(d.channels, c.channels) || rest != c.rest {
			t.Errorf("%s %s: %+v", c.method, c.path, d)
		}
	}
}

func TestEveryRouteIsKnown(t *testing.T) {
	for _, r := range dataRoutes {
		path := "/" + strings.NewReplacer("{", "", "}", "").Replace(r.pattern)
		d, ok := parseDataPath(r.method, path)
		if !ok || d.route.pattern != r.pattern || !isData(d.route.op) || !knownPath(path) {
			t.Errorf("%s %s: %v", r.method, path, ok)
		}
	}
}

func FuzzParseDataPath(f *testing.F) {
	for _, r := range dataRoutes {
		f.Add("/"+r.pattern, "a,b", `"x/y"`)
	}
	f.Add("/publish/%zz//", "", "\x00")
	f.Fuzz(func(t *testing.T, path, channel, payload string) {
		for _, method := range []string{"", http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete} {
			if d, ok := parseDataPath(method, path); ok && (d.sub == "" || slices.Contains(d.channels, "")) {
				t.Fatalf("%s %q: %+v", method, path, d)
			}
		}
		knownPath(path)
		d, ok := parseDataPath(http.MethodGet, "/publish/p/s/0/"+strictEncode(channel)+"/0/"+strictEncode(payload))
		if ok != (channel != "" && payload != "") {
			t.Fatalf("publish of %q to %q: %v", payload, channel, ok)
		}
		if ok && (d.channels[0] != channel || d.payload != payload) {
			t.Fatalf("publish of %q to %q: %+v", payload, channel, d)
		}
	})
}
