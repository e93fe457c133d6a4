package pamtest

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/pamsidecar/pamsidecar/pam"
)

// dataRoute is one kind of request to the data plane.
type dataRoute struct {
	method  string
	pattern string // elements in braces are variables, see dataCall.set
	op      pam.Op
	serve   func(*Server, context.Context, *call) reply
	parts   []string // of pattern
}

// dataRoutes are the paths that the data plane serves, as the official SDKs send them.
var dataRoutes = splitPatterns([]dataRoute{
	{method: http.MethodGet, pattern: "publish/{pub}/{sub}/0/{channel}/{callback}/{payload}", op: OpPublish, serve: (*Server).publish},
	{method: http.MethodPost, pattern: "publish/{pub}/{sub}/0/{channel}/{callback}", op: OpPublish, serve: (*Server).publish},
	{method: http.MethodGet, pattern: "signal/{pub}/{sub}/0/{channel}/{callback}/{payload}", op: OpPublish, serve: (*Server).signal},
	{method: http.MethodPost, pattern: "signal/{pub}/{sub}/0/{channel}/{callback}", op: OpPublish, serve: (*Server).signal},
	{method: http.MethodGet, pattern: "v2/subscribe/{sub}/{channels}/0", op: OpSubscribe, serve: (*Server).subscribe},

	{method: http.MethodGet, pattern: "v2/presence/sub-key/{sub}", op: OpPresence, serve: (*Server).hereNowEverywhere},
	{method: http.MethodGet, pattern: "v2/presence/sub-key/{sub}/channel/{channels}", op: OpPresence, serve: (*Server).hereNow},
	{method: http.MethodGet, pattern: "v2/presence/sub-key/{sub}/channel/{channels}/heartbeat", op: OpPresence, serve: (*Server).heartbeat},
	{method: http.MethodGet, pattern: "v2/presence/sub-key/{sub}/channel/{channels}/leave", op: OpPresence, serve: (*Server).leave},
	{method: http.MethodGet, pattern: "v2/presence/sub-key/{sub}/channel/{channels}/uuid/{id}", op: OpPresence, serve: (*Server).getState},
	{method: http.MethodGet, pattern: "v2/presence/sub-key/{sub}/channel/{channels}/uuid/{id}/data", op: OpPresence, serve: (*Server).setState},
	{method: http.MethodGet, pattern: "v2/presence/sub-key/{sub}/uuid/{id}", op: OpPresence, serve: (*Server).whereNow},

	{method: http.MethodGet, pattern: "v1/channel-registration/sub-key/{sub}/channel-group", op: OpGroups, serve: (*Server).listGroups},
	{method: http.MethodGet, pattern: "v1/channel-registration/sub-key/{sub}/channel-group/{group}", op: OpGroups, serve: (*Server).changeGroup},
	{method: http.MethodGet, pattern: "v1/channel-registration/sub-key/{sub}/channel-group/{group}/remove", op: OpGroups, serve: (*Server).deleteGroup},

	{method: http.MethodGet, pattern: "v2/history/sub-key/{sub}/channel/{channel}", op: OpHistory, serve: (*Server).historyV2},
	{method: http.MethodGet, pattern: "v3/history/sub-key/{sub}/channel/{channels}", op: OpHistory, serve: (*Server).historyV3},

	{method: http.MethodGet, pattern: "v2/objects/{sub}/uuids", op: OpObjects, serve: (*Server).listUsers},
	{method: http.MethodGet, pattern: "v2/objects/{sub}/uuids/{id}", op: OpObjects, serve: (*Server).getUser},
	{method: http.MethodPatch, pattern: "v2/objects/{sub}/uuids/{id}", op: OpObjects, serve: (*Server).setUser},
	{method: http.MethodDelete, pattern: "v2/objects/{sub}/uuids/{id}", op: OpObjects, serve: (*Server).removeUser},
	{method: http.MethodGet, pattern: "v2/objects/{sub}/uuids/{id}/channels", op: OpObjects, serve: (*Server).getMemberships},
	{method: http.MethodPatch, pattern: "v2/objects/{sub}/uuids/{id}/channels", op: OpObjects, serve: (*Server).setMemberships},
	{method: http.MethodGet, pattern: "v2/objects/{sub}/channels", op: OpObjects, serve: (*Server).listSpaces},
	{method: http.MethodGet, pattern: "v2/objects/{sub}/channels/{id}", op: OpObjects, serve: (*Server).getSpace},
	{method: http.MethodPatch, pattern: "v2/objects/{sub}/channels/{id}", op: OpObjects, serve: (*Server).setSpace},
	{method: http.MethodDelete, pattern: "v2/objects/{sub}/channels/{id}", op: OpObjects, serve: (*Server).removeSpace},
	{method: http.MethodGet, pattern: "v2/objects/{sub}/channels/{id}/uuids", op: OpObjects, serve: (*Server).getMembers},
	{method: http.MethodPatch, pattern: "v2/objects/{sub}/channels/{id}/uuids", op: OpObjects, serve: (*Server).setMembers},
})

func splitPatterns(routes []dataRoute) []dataRoute {
	for i := range routes {
		routes[i].parts = strings.Split(routes[i].pattern, "/")
	}
	return routes
}

// dataCall is what the path of a request to the data plane says.
type dataCall struct {
	route    *dataRoute
	pub, sub string
	channels []string // without empty and repeated ones
	group    string
	id       string // a UUID, or the channel of App Context
	callback string
	payload  string
}

// parseDataPath finds the route of a percent-encoded path; false if there is none. Method "" stands for any.
func parseDataPath(method, path string) (dataCall, bool) {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return dataCall{}, false
	}
	raw := strings.Split(rest, "/")
	for i := range dataRoutes {
		route := &dataRoutes[i]
		if method != "" && method != route.method || len(raw) != len(route.parts) {
			continue
		}
		if d, ok := route.match(raw); ok {
			return d, true
		}
	}
	return dataCall{}, false
}

func (r *dataRoute) match(raw []string) (dataCall, bool) {
	d := dataCall{route: r}
	for i, part := range r.parts {
		if !strings.HasPrefix(part, "{") {
			if raw[i] != part && (part != "sub-key" || raw[i] != "sub_key") { // the Go SDK asks for here now with sub_key
				return dataCall{}, false
			}
			continue
		}
		value, err := url.PathUnescape(raw[i])
		if err != nil || value == "" {
			return dataCall{}, false
		}
		d.set(part, value)
	}
	return d, true
}

func (d *dataCall) set(variable, value string) {
	switch variable {
	case "{pub}":
		d.pub = value
	case "{sub}":
		d.sub = value
	case "{channel}":
		d.channels = []string{value}
	case "{channels}":
		d.channels = splitNames(value)
	case "{group}":
		d.group = value
	case "{id}":
		d.id = value
	case "{callback}":
		d.callback = value
	case "{payload}":
		d.payload = value
	}
}

// splitNames takes a list apart at its commas. A name cannot hold a comma at PubNub, so it does not matter whether they came encoded.
func splitNames(list string) []string {
	var names []string
	for name := range strings.SplitSeq(list, ",") {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
