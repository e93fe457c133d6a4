package admin

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/pamsidecar/pamsidecar/cache"
)

// operation is one thing a path and a method ask for.
type operation struct {
	name    string // in the log
	params  []string
	body    bodyRule
	changes bool // it is logged, and finished also when the caller hangs up
	run     func(h *handler, ctx context.Context, rq *request) (status int, body any, err error)
}

// bodyRule says whether an operation takes a body.
type bodyRule int

const (
	bodyNone bodyRule = iota
	bodyOptional
	bodyRequired
)

// request is one request while it is answered.
type request struct {
	*http.Request
	op    operation
	name  string // the variable segment of the path, unescaped
	query url.Values
	body  []byte
	by    cache.Actor
	allow string // the methods of the path, once the method was wrong
}

// operations lists what each path offers. The third segment of a path is the
// variable one, written as {}.
var operations = map[string]map[string]operation{
	"livez": {"GET": {name: "live", run: (*handler).live}},
	"v1/grants": {
		"GET": {name: "list", params: []string{"state", "prefix", "limit", "cursor"}, run: (*handler).listGrants},
	},
	"v1/grants/{}": {
		"GET":    {name: "show", run: (*handler).showGrant},
		"PUT":    {name: "put", body: bodyRequired, changes: true, run: (*handler).putGrant},
		"DELETE": {name: "delete", params: []string{"revoke"}, changes: true, run: (*handler).deleteGrant},
	},
	"v1/grants/{}/refresh": {"POST": {name: "refresh", changes: true, run: (*handler).refreshGrant}},
	"v1/grants/{}/unblock": {"POST": {name: "unblock", changes: true, run: (*handler).unblockGrant}},
	"v1/unblock":           {"POST": {name: "unblock", body: bodyRequired, changes: true, run: (*handler).unblock}},
	"v1/revoke":            {"POST": {name: "revoke", body: bodyRequired, changes: true, run: (*handler).revoke}},
	"v1/blocks":            {"GET": {name: "blocks", run: (*handler).listBlocks}},
	"v1/blocks/{}":         {"DELETE": {name: "lift", changes: true, run: (*handler).liftBlock}},
	"v1/revocations": {
		"GET": {name: "revocations", params: []string{"open", "limit", "cursor"}, run: (*handler).listRevocations},
	},
	"v1/audit":  {"GET": {name: "audit", params: []string{"after", "limit"}, run: (*handler).listAudit}},
	"v1/reload": {"POST": {name: "reload", body: bodyOptional, changes: true, run: (*handler).reload}},
	"v1/status": {"GET": {name: "status", run: (*handler).status}},
}

// prepare finds the operation of a request and reads its query and body. Paths
// are matched as they were sent, so that a name may contain anything: the name
// a/b is the segment a%2Fb.
func (h *handler) prepare(rq *request) error {
	if ofWebPage(rq.Header) {
		return problem(http.StatusForbidden, CodeCrossOrigin, "requests that a web page makes are refused")
	}
	path, query := target(rq.Request)
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if len(segments) > 2 {
		name, err := url.PathUnescape(segments[2])
		if err != nil {
			return badRequest("the path is not well escaped")
		}
		rq.name, segments[2] = name, "{}"
	}
	methods, ok := operations[strings.Join(segments, "/")]
	if !ok {
		return problem(http.StatusNotFound, CodeNotFound, "no such path; a slash in a name is written %2F")
	}
	if rq.op, ok = methods[strings.Replace(rq.Method, "HEAD", "GET", 1)]; !ok {
		rq.allow = allowed(methods)
		return problem(http.StatusMethodNotAllowed, CodeMethod, "this path takes "+rq.allow)
	}
	var err error
	if rq.query, err = readQuery(query, rq.op.params); err != nil {
		return err
	}
	rq.body, err = readBody(rq.Request, rq.op.body)
	return err
}

// ofWebPage reports whether a browser sent the request on behalf of a page.
func ofWebPage(header http.Header) bool {
	site := header.Get("Sec-Fetch-Site")
	return len(header["Origin"]) > 0 || site != "" && site != "none"
}

// target splits the request target as it came over the wire into path and query.
// http.Request.URL forgets which slashes were escaped when another character
// should have been escaped and was not.
func target(r *http.Request) (path, query string) {
	path, query, _ = strings.Cut(r.RequestURI, "?")
	if strings.HasPrefix(path, "/") {
		return path, query
	}
	return r.URL.EscapedPath(), r.URL.RawQuery
}

// allowed lists the methods of a path for the header Allow.
func allowed(methods map[string]operation) string {
	var all []string
	for m := range methods {
		all = append(all, m)
		if m == http.MethodGet {
			all = append(all, http.MethodHead)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
