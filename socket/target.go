package socket

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/client"
)

// route is what a request is for.
type route int

const (
	routeToken route = iota + 1
	routeList
	routeKeyset
	routeLive
	routeReady
)

// routes are the paths without a name in them.
var routes = map[string]route{
	"/v1/tokens": routeList,
	"/v1/keyset": routeKeyset,
	"/livez":     routeLive,
	"/readyz":    routeReady,
}

// parameters are the query parameters each route knows.
var parameters = map[route][]string{
	routeToken: {"wait", "min_ttl"},
	routeReady: {"name"},
}

const tokenPrefix = "/v1/tokens/"

// maxMinTTL is a third of the longest lifetime there is.
const maxMinTTL = 43200 * time.Minute / 3

// target is what the request line asks for.
type target struct {
	route  route
	name   string        // routeToken; routeReady if given
	wait   time.Duration // routeToken
	waits  bool          // wait was given
	minTTL time.Duration // routeToken
}

// parseTarget reads the request line of r, or says what is wrong with it. It works
// on the escaped path, so that a name may contain an escaped slash, and it does not
// clean the path: names like ".." are names.
func parseTarget(r *http.Request) (target, *client.Problem) {
	path, query := requestTarget(r)
	t, fault := parsePath(path)
	if fault != nil {
		return target{}, fault
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return target{}, new(problem(http.StatusMethodNotAllowed, client.CodeMethodNotAllowed, "only GET and HEAD are possible here"))
	}
	if r.ContentLength != 0 {
		return target{}, new(badRequest("a request here has no body"))
	}
	if err := t.parseQuery(query); err != nil {
		return target{}, new(badRequest(err.Error()))
	}
	return t, nil
}

// requestTarget splits the request target as it came over the wire into path and
// query. r.URL is no help: it forgets which slashes were escaped as soon as another
// character of the path was not.
func requestTarget(r *http.Request) (path, query string) {
	uri := r.RequestURI
	if uri == "" {
		uri = r.URL.RequestURI()
	}
	path, query, _ = strings.Cut(uri, "?")
	if strings.HasPrefix(path, "/") {
		return path, query
	}
	_, rest, absolute := strings.Cut(path, "://")
	if slash := strings.IndexByte(rest, '/'); absolute && slash >= 0 {
		return rest[slash:], query
	}
	return "", query
}

func parsePath(path string) (target, *client.Problem) {
	if known, ok := routes[path]; ok {
		return target{route: known}, nil
	}
	escaped, ok := strings.CutPrefix(path, tokenPrefix)
	if !ok {
		return target{}, new(problem(http.StatusNotFound, client.CodeNotFound,
			"no such path; there are /v1/tokens/{name}, /v1/tokens, /v1/keyset, /livez and /readyz"))
	}
	if strings.Contains(escaped, "/") {
		return target{}, new(problem(http.StatusNotFound, client.CodeNotFound,
			"no such path below /v1/tokens/{name}; a slash in a name is written %2F"))
	}
	name, err := url.PathUnescape(escaped)
	if err != nil {
		return target{}, new(badRequest("the name in the path has a % that is not followed by two hexadecimal digits"))
	}
	if err := cache.ValidName(name); err != nil {
		return target{}, new(badRequest(err.Error()))
	}
	return target{route: routeToken, name: name}, nil
}

func (t *target) parseQuery(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("the query is malformed: parameters are key=value, joined by & and percent-encoded")
	}
	known := parameters[t.route]
	for key, given := range values {
		switch {
		case !slices.Contains(known, key):
			return fmt.Errorf("unknown parameter %.40q; %s", key, knownParameters(known))
		case len(given) > 1:
			return fmt.Errorf("parameter %s is given more than once", key)
		}
	}
	return t.setParameters(values)
}

func knownParameters(known []string) string {
	if len(known) == 0 {
		return "there are none here"
	}
	return "known here: " + strings.Join(known, ", ")
}

func (t *target) setParameters(values url.Values) (err error) {
	if values.Has("wait") {
		t.waits = true
		if t.wait, err = parseDuration("wait", values.Get("wait"), MaxWait); err != nil {
			return err
		}
	}
	if values.Has("min_ttl") {
		if t.minTTL, err = parseDuration("min_ttl", values.Get("min_ttl"), maxMinTTL); err != nil {
			return err
		}
	}
	if !values.Has("name") {
		return nil
	}
	t.name = values.Get("name")
	return cache.ValidName(t.name)
}

func parseDuration(key, value string, longest time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s is not a duration: write 30s or 2m, not %.40q", key, value)
	case d < 0 || d > longest:
		return 0, fmt.Errorf("%s is out of range: 0s to %s", key, longest)
	}
	return d, nil
}
