package pamtest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// ask is one request to the data plane; {pub} and {sub} in the path stand for the keys.
type ask struct {
	method string // default GET
	path   string
	query  string // as on the wire
	uuid   string
	auth   string // token
	body   string
	header http.Header
}

func (g rig) dataRequest(ctx context.Context, a ask) *http.Request {
	g.t.Helper()
	keyset := g.Keyset()
	path := strings.NewReplacer("{pub}", keyset.PublishKey, "{sub}", keyset.SubscribeKey).Replace(a.path)
	query := "pnsdk=test%2F1"
	for key, value := range map[string]string{"uuid": a.uuid, "auth": a.auth} {
		if value != "" {
			query += "&" + key + "=" + pam.EncodeValue(value)
		}
	}
	if a.query != "" {
		query += "&" + a.query
	}
	if a.method == "" {
		a.method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, a.method, g.origin+path+"?"+query, strings.NewReader(a.body))
	if err != nil {
		g.t.Fatal(err)
	}
	for key, values := range a.header {
		req.Header[key] = values
	}
	return req
}

// send sends a request to the data plane and reads the answer.
func (g rig) send(a ask) answer {
	g.t.Helper()
	got, err := g.sendCtx(g.t.Context(), a)
	if err != nil {
		g.t.Error(err)
	}
	return got
}

func (g rig) sendCtx(ctx context.Context, a ask) (answer, error) {
	g.t.Helper()
	resp, err := g.rt.RoundTrip(g.dataRequest(ctx, a))
	if err != nil {
		return answer{Response: &http.Response{}}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp, string(body), err}, err
}

// expect sends a request and compares status and body, key order aside.
func (g rig) expect(a ask, status int, body string) answer {
	g.t.Helper()
	got := g.send(a)
	if got.StatusCode != status {
		g.t.Errorf("%s %s: status %d, want %d: %s", a.method, a.path, got.StatusCode, status, got.body)
		return got
	}
	var have, want any
	if err := json.Unmarshal([]byte(got.body), &have); err != nil {
		g.t.Errorf("%s %s: %q: %v", a.method, a.path, got.body, err)
	}
	if err := json.Unmarshal([]byte(body), &want); err != nil {
		g.t.Fatal(err)
	}
	if h, w := fmt.Sprint(have), fmt.Sprint(want); h != w {
		g.t.Errorf("%s %s: %s, want %s", a.method, a.path, got.body, body)
	}
	return got
}

// grantAny issues a token from the JSON of permissions, for uuid or, if that is empty, for anybody. It lives 15 minutes.
func (g rig) grantAny(uuid, permissions string) string {
	g.t.Helper()
	if uuid != "" {
		permissions += `,"uuid":` + quote(uuid)
	}
	return g.token(g.do(g.grantRequest(`{"ttl":15,"permissions":{` + permissions + `}}`)))
}

func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// envelope is a message as a subscriber gets it.
type envelope struct {
	A string          `json:"a"`
	F int             `json:"f"`
	E int             `json:"e"`
	I string          `json:"i"`
	S int             `json:"s"`
	K string          `json:"k"`
	C string          `json:"c"`
	B string          `json:"b"`
	D json.RawMessage `json:"d"`
	U json.RawMessage `json:"u"`
	M string          `json:"cmt"`
	P struct {
		T string `json:"t"`
		R int    `json:"r"`
	} `json:"p"`
}

// subscriber is one long-polling client.
type subscriber struct {
	g        rig
	uuid     string
	auth     string
	channels string
	query    string
	token    string // timetoken; empty before the first answer
}

// poll makes one subscribe request and returns its messages.
func (s *subscriber) poll() []envelope {
	s.g.t.Helper()
	messages, err := s.pollCtx(s.g.t.Context())
	if err != nil {
		s.g.t.Error(err)
	}
	return messages
}

func (s *subscriber) pollCtx(ctx context.Context) ([]envelope, error) {
	a := ask{path: "/v2/subscribe/{sub}/" + s.channels + "/0", uuid: s.uuid, auth: s.auth, query: "tt=" + s.token + "&" + s.query}
	if s.token == "" {
		a.query = s.query
	}
	got, err := s.g.sendCtx(ctx, a)
	if err != nil {
		return nil, err
	}
	if got.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("subscribe: %d %s", got.StatusCode, got.body)
	}
	var body struct {
		T struct {
			T string `json:"t"`
			R int    `json:"r"`
		} `json:"t"`
		M []envelope `json:"m"`
	}
	if err := json.Unmarshal([]byte(got.body), &body); err != nil {
		return nil, fmt.Errorf("subscribe: %w: %s", err, got.body)
	}
	if body.T.R == 0 || body.M == nil || len(body.T.T) < 16 {
		return nil, fmt.Errorf("subscribe: %s", got.body)
	}
	s.token = body.T.T
	return body.M, nil
}

// open is a Server without Access Manager, for tests of what tokens have no part in.
func openRig(t *testing.T, c pamtest.Config) rig {
	t.Helper()
	c.Access.Off = true
	return newRig(t, c)
}

// publish publishes a JSON payload and returns its timetoken.
func (g rig) publish(uuid, channel, payload, query string) string {
	g.t.Helper()
	got := g.send(ask{path: "/publish/{pub}/{sub}/0/" + url.PathEscape(channel) + "/0/" + pam.EncodeValue(payload), uuid: uuid, query: query})
	var sent []any
	if err := json.Unmarshal([]byte(got.body), &sent); err != nil || got.StatusCode != http.StatusOK || len(sent) != 3 || sent[1] != "Sent" {
		g.t.Errorf("publish to %s: %d %s", channel, got.StatusCode, got.body)
		return ""
	}
	return sent[2].(string)
}

// texts are the payloads of messages.
func texts(messages []envelope) []string {
	var all []string
	for _, m := range messages {
		all = append(all, string(m.D))
	}
	return all
}

func wantTexts(t *testing.T, what string, messages []envelope, want ...string) {
	t.Helper()
	if got := texts(messages); !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}
