package pamtest_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// rig sends hand-made requests to a Server through its Transport.
type rig struct {
	*pamtest.Server
	t      *testing.T
	rt     http.RoundTripper
	origin string
}

func newRig(t *testing.T, c pamtest.Config) rig {
	t.Helper()
	s := pamtest.New(c)
	return rig{s, t, s.Transport(), "http://pam.test"}
}

// request is a signed request, before a test spoils it.
type request struct {
	method, path, body string
	timestamp          time.Time  // zero: the emulator's now
	contentType        string     // empty: application/json
	rawQuery           string     // replaces everything
	secret             pam.Secret // empty: the right one
}

const simpleGrant = `{"ttl":15,"permissions":{"resources":{"channels":{"a":3}},"uuid":"alice"}}`

func (g rig) grantPath() string { return "/v3/pam/" + g.Keyset().SubscribeKey + "/grant" }

func (g rig) grantRequest(body string) request {
	return request{method: http.MethodPost, path: g.grantPath(), body: body}
}

func (g rig) revokeRequest(token string) request {
	return request{method: http.MethodDelete, path: g.grantPath() + "/" + pam.EncodeValue(token)}
}

func (g rig) build(ctx context.Context, r request) *http.Request {
	g.t.Helper()
	keyset := g.Keyset()
	if r.timestamp.IsZero() {
		r.timestamp = g.Now()
	}
	if r.secret == "" {
		r.secret = keyset.SecretKey
	}
	query := r.rawQuery
	if query == "" {
		query = "timestamp=" + strconv.FormatInt(r.timestamp.Unix(), 10) + "&uuid=me"
		body := []byte(r.body)
		if r.method == http.MethodDelete {
			body = nil
		}
		query += "&signature=" + pam.EncodeValue(pam.Sign(r.secret, r.method, keyset.PublishKey, r.path, query, body))
	}
	req, err := http.NewRequestWithContext(ctx, r.method, g.origin+r.path+"?"+query, strings.NewReader(r.body))
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	return req
}

// answer is a response that was read to its end.
type answer struct {
	*http.Response
	body string
	err  error // of the body
}

func (g rig) try(r request) (answer, error) {
	g.t.Helper()
	resp, err := g.rt.RoundTrip(g.build(g.t.Context(), r))
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp, string(body), err}, nil
}

func (g rig) do(r request) answer {
	g.t.Helper()
	a, err := g.try(r)
	if err != nil {
		g.t.Fatal(err)
	}
	if a.err != nil {
		g.t.Fatal(a.err)
	}
	return a
}

func (g rig) token(a answer) string {
	g.t.Helper()
	var body struct{ Data struct{ Token string } }
	if err := json.Unmarshal([]byte(a.body), &body); err != nil || body.Data.Token == "" {
		g.t.Fatalf("no token in %d %s", a.StatusCode, a.body)
	}
	return body.Data.Token
}

// client is a pam.Client of the emulator.
func (g rig) client() *pam.Client {
	g.t.Helper()
	c, err := pam.NewClient(pam.ClientConfig{Keyset: g.Keyset(), Transport: g.rt, Now: g.Now})
	if err != nil {
		g.t.Fatal(err)
	}
	return c
}
