package socket

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/client"
)

func TestList(t *testing.T) {
	const want = `{"items":[` +
		`{"name":"a/watch","uuid":"a/watch","state":"fresh","generation":1,"expires_at":"2026-03-01T12:14:00Z"},` +
		`{"name":"blocked","uuid":"blocked","state":"blocked","generation":1,"expires_at":null},` +
		`{"name":"ended","uuid":"ended","state":"ended","generation":1,"expires_at":null},` +
		`{"name":"expired","uuid":"expired","state":"expired","generation":1,"expires_at":null},` +
		`{"name":"failing","uuid":"failing","state":"failing","generation":1,"expires_at":"2026-03-01T12:14:00Z"},` +
		`{"name":"fresh","uuid":"fresh","state":"fresh","generation":1,"expires_at":"2026-03-01T12:14:00Z"},` +
		`{"name":"pending","uuid":"pending","state":"pending","generation":0,"expires_at":null},` +
		`{"name":"unbound","uuid":null,"state":"fresh","generation":1,"expires_at":"2026-03-01T12:14:00Z"}]}` + "\n"
	w := newWorld(t, atNoon).fill()
	rec := w.ask("GET", "/v1/tokens")
	if rec.Body.String() != want {
		t.Errorf("list\n%s, want\n%s", rec.Body, want)
	}
	decode[client.NameList](t, rec.Body.Bytes())
	w.cfg.Loopback = true
	if list := decode[client.NameList](t, w.ask("GET", "/v1/tokens").Body.Bytes()); len(list.Items) != 1 || list.Items[0].Name != "unbound" {
		t.Errorf("on loopback: %+v", list)
	}
	if rec := newWorld(t, atNoon).ask("GET", "/v1/tokens"); rec.Body.String() != `{"items":[]}`+"\n" {
		t.Errorf("empty list: %s", rec.Body)
	}
}

// counting is a Reader that counts pages and fails after some.
type counting struct {
	cache.Reader
	pages, good int
}

func (c *counting) List(after string, limit int) ([]cache.View, error) {
	if c.pages++; c.pages > c.good {
		return nil, errors.New("read: I/O error")
	}
	return c.Reader.List(after, limit)
}

func TestLongList(t *testing.T) {
	w := newWorld(t, atNoon)
	const names = 2*pageSize + 3
	for i := range names {
		w.set(fmt.Sprintf("name-%04d", i), func(*cache.Record) {})
	}
	list := decode[client.NameList](t, w.ask("GET", "/v1/tokens").Body.Bytes())
	if len(list.Items) != names || list.Items[names-1].Name != fmt.Sprintf("name-%04d", names-1) {
		t.Errorf("%d names", len(list.Items))
	}

	// A fault behind the first page must not look like the end of the list.
	w.cfg.Reader = &counting{Reader: w.cache, good: 2}
	server := httptest.NewServer(NewHandler(w.cfg))
	defer server.Close()
	res, err := http.Get(server.URL + "/v1/tokens")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := readAll(res.Body); err == nil {
		t.Error("a list that was cut looks whole")
	}
}

func TestReady(t *testing.T) {
	w := newWorld(t, atNoon).fill()
	w.set("optional", func(r *cache.Record) { r.Grant.Required = new(false) })
	const want = `{"ready":false,"missing":[{"name":"expired","state":"expired","retry_at":"2026-03-01T12:01:30Z"},` +
		`{"name":"pending","state":"pending","reason":"Access Manager: 403 Invalid signature: check the secret key","retry_at":"2026-03-01T12:00:30Z"}]}` + "\n"
	rec := w.ask("GET", "/readyz")
	if rec.Code != http.StatusServiceUnavailable || rec.Body.String() != want {
		t.Errorf("%d\n%s, want\n%s", rec.Code, rec.Body, want)
	}
	decode[client.Readiness](t, rec.Body.Bytes())

	w.give("expired", noon)
	w.give("pending", noon)
	if rec := w.ask("GET", "/readyz"); rec.Code != http.StatusOK || rec.Body.String() != `{"ready":true}`+"\n" {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	w.cfg.Ready = func() ([]client.Missing, error) { return []client.Missing{{Name: "soon", State: "pending"}}, nil }
	if got := decode[client.Readiness](t, w.ask("GET", "/readyz").Body.Bytes()); got.Ready || len(got.Missing) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestReadyName(t *testing.T) {
	w := newWorld(t, atNoon).fill()
	tests := []struct {
		name   string
		status int
		state  string
	}{{"fresh", 200, ""}, {"failing", 200, ""}, {"pending", 503, "pending"}, {"blocked", 503, "blocked"}, {"ended", 503, "ended"}, {"a%2Fwatch", 200, ""}}
	for _, test := range tests {
		rec := w.ask("GET", "/readyz?name="+test.name)
		got := decode[client.Readiness](t, rec.Body.Bytes())
		if rec.Code != test.status || got.Ready != (test.status == 200) || test.state != "" && got.Missing[0].State != test.state {
			t.Errorf("%s: %d %s", test.name, rec.Code, rec.Body)
		}
	}
	if p := problemOf(t, w.ask("GET", "/readyz?name=nobody")); p.Code != client.CodeUnknownName {
		t.Errorf("%+v", p)
	}
}

func TestKeysetAndLive(t *testing.T) {
	w := newWorld(t, atNoon)
	rec := w.ask("GET", "/v1/keyset")
	if got := decode[client.Keyset](t, rec.Body.Bytes()); got != testKeyset {
		t.Errorf("%+v", got)
	}
	if rec := w.ask("GET", "/livez"); rec.Code != http.StatusOK || rec.Body.String() != "ok\n" {
		t.Errorf("%d %q", rec.Code, rec.Body)
	}
}

// TestLoopbackServesOnlyItsGrants: other names look as if they did not exist.
func TestLoopbackServesOnlyItsGrants(t *testing.T) {
	w := newWorld(t, atNoon).fill()
	w.cfg.Loopback = true
	if rec := w.ask("GET", "/v1/tokens/unbound"); rec.Code != http.StatusOK {
		t.Errorf("loopback grant: %d", rec.Code)
	}
	unknown := w.ask("GET", "/v1/tokens/nobody?wait=1m")
	for _, name := range []string{"fresh", "blocked", "pending", "ended"} {
		if rec := w.ask("GET", "/v1/tokens/"+name+"?wait=1m"); rec.Code != 404 || !reflect.DeepEqual(rec.Body, unknown.Body) {
			t.Errorf("%s: %d %s", name, rec.Code, rec.Body)
		}
		if rec := w.ask("GET", "/readyz?name="+name); rec.Code != 404 {
			t.Errorf("readyz of %s: %d %s", name, rec.Code, rec.Body)
		}
	}
	got := decode[client.Readiness](t, w.ask("GET", "/readyz").Body.Bytes())
	if want := (client.Readiness{Others: 2}); !reflect.DeepEqual(got, want) {
		t.Errorf("readyz names others: %+v", got)
	}
}
