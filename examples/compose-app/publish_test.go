package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/client"
	"github.com/pamsidecar/pamsidecar/config"
	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// checkout is the grant that the app of docker-compose.yml works with.
func checkout(t *testing.T) cache.Grant {
	t.Helper()
	env := map[string]string{"PUBNUB_PUBLISH_KEY": pamtest.DemoPublishKey, "PUBNUB_SUBSCRIBE_KEY": pamtest.DemoSubscribeKey}
	cfg, err := config.Load("../../deploy/compose/pamsidecar.yaml", config.Options{Getenv: func(name string) string { return env[name] }})
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range cfg.Grants {
		if g.Name == "checkout" {
			return g
		}
	}
	t.Fatal("no grant of that name")
	return cache.Grant{}
}

// world is an emulator, and a token socket that tests give tokens to.
type world struct {
	t        *testing.T
	emulator *pamtest.Server
	pam      *pam.Client
	grant    pam.Grant
	out      lines

	mu      sync.Mutex
	doc     client.TokenDocument // without a token: 410
	changed chan struct{}
}

// lines is an output that is read while it is written to.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// take returns what was written since it was last called.
func (l *lines) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.text.Reset()
	return l.text.String()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	emulator := pamtest.New(pamtest.Config{})
	c, err := pam.NewClient(pam.ClientConfig{Keyset: emulator.Keyset(), Transport: emulator.Transport()})
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, emulator: emulator, pam: c, grant: checkout(t).Grant, changed: make(chan struct{})}
}

// RoundTrip is the token socket.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	if r.URL.Path == "/v1/keyset" {
		keys := w.emulator.Keyset()
		json.NewEncoder(rec).Encode(client.Keyset{PublishKey: keys.PublishKey, SubscribeKey: keys.SubscribeKey, Origin: "http://emulator:8099"})
		return rec.Result(), nil
	}
	doc, etag := w.held(r.Context(), r.Header.Get("If-None-Match"))
	switch {
	case r.Context().Err() != nil:
		return nil, r.Context().Err()
	case doc.Token == "":
		rec.WriteHeader(http.StatusGone)
		io.WriteString(rec, `{"code":"revoked","detail":"an operator has revoked this name","reason":"trying it"}`)
	case etag == r.Header.Get("If-None-Match"):
		rec.WriteHeader(http.StatusNotModified)
	default:
		rec.Header().Set("ETag", etag)
		json.NewEncoder(rec).Encode(doc)
	}
	return rec.Result(), nil
}

// held returns the document once it is another than that of etag, or after 30 s.
func (w *world) held(ctx context.Context, etag string) (client.TokenDocument, string) {
	timeout := time.After(30 * time.Second)
	for {
		w.mu.Lock()
		doc, changed := w.doc, w.changed
		w.mu.Unlock()
		now := fmt.Sprintf(`"%d"`, doc.Generation)
		if now != etag {
			return doc, now
		}
		select {
		case <-changed:
		case <-timeout:
			return doc, now
		case <-ctx.Done():
			return doc, now
		}
	}
}

func (w *world) set(doc client.TokenDocument) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.doc = doc
	close(w.changed)
	w.changed = make(chan struct{})
}

// rotate obtains a token and hands it out. It returns the line to be printed.
func (w *world) rotate(generation uint64) string {
	w.t.Helper()
	token, err := w.pam.Grant(w.t.Context(), w.grant)
	if err != nil {
		w.t.Fatal(err)
	}
	doc := client.TokenDocument{Token: token.Raw.Reveal(), AuthorizedUUID: &w.grant.UUID, Generation: generation, ExpiresAt: token.Expires()}
	w.set(doc)
	return fmt.Sprintf("generation %d  token #%s  expires_at %s\n", generation, token.Raw.ID(), token.Expires().Format(time.RFC3339))
}

func (w *world) revoke() {
	w.t.Helper()
	if err := w.pam.Revoke(w.t.Context(), pam.Secret(w.doc.Token)); err != nil {
		w.t.Fatal(err)
	}
}

// prints lets the time pass and compares what the app has printed meanwhile.
func (w *world) prints(d time.Duration, want ...string) {
	w.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	got := w.out.take()
	if got != strings.Join(want, "") {
		w.t.Errorf("printed\n%swant\n%s", got, strings.Join(want, ""))
	}
	for _, g := range w.emulator.Grants() {
		if strings.Contains(got, g.Token.Reveal()) || strings.Contains(got, "auth=") {
			w.t.Errorf("a token was printed:\n%s", got)
		}
	}
}

func published(n, generation int) string {
	return fmt.Sprintf("published %d  (generation %d)\n", n, generation)
}

// Every message goes out with the newest token, and a revoke stops them within a second.
func TestPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.rotate(1)
		ctx, stop := context.WithCancel(t.Context())
		a := newApp("checkout", &http.Client{Transport: w}, w.emulator.Transport(), &w.out)
		var running sync.WaitGroup
		running.Go(func() { a.run(ctx) })
		time.Sleep(time.Millisecond) // from here on never at the moment of a publish
		w.prints(2*time.Second, first, published(1, 1), published(2, 1))

		w.revoke() // of the first token, which nobody uses any more
		second := w.rotate(2)
		w.prints(2*time.Second, second, published(3, 2), published(4, 2))

		w.emulator.SetFault(pamtest.Fault{Kind: pamtest.KindRefused, Count: 1})
		w.prints(2*time.Second, "!!! publish: dial tcp: connection refused  (generation 2)\n", published(5, 2))
		w.emulator.SetFault(pamtest.Fault{Kind: pamtest.KindRedirect, Count: 1})
		w.prints(time.Second, "!!! 307 Temporary Redirect  (generation 2)\n")

		w.revoke()
		w.prints(time.Second, "!!! 403 Token is revoked  (generation 2)\n")
		w.set(client.TokenDocument{})
		w.prints(time.Second, "no token: 410 revoked: an operator has revoked this name (trying it)\n", "!!! 403 Token is revoked  (generation 2)\n")

		third := w.rotate(3) // seen when the app asks again, 5 s after the refusal
		w.prints(5*time.Second, strings.Repeat("!!! 403 Token is revoked  (generation 2)\n", 4), third, published(6, 3))

		stop()
		running.Wait()
		w.prints(0)
		if stats := w.emulator.Stats(); stats.Published != 6 || stats.Denied != 6 {
			t.Errorf("the emulator took %d messages and refused %d, want 6 and 6", stats.Published, stats.Denied)
		}
	})
}

func TestPublishURL(t *testing.T) {
	token := access{keyset{"pub/c", "sub-c", "https://ps.pndsn.com"}, token{Token: "qE+_-/="}}
	got := publishURL(&token, "a b&c", 7)
	want := "https://ps.pndsn.com/publish/pub%2Fc/sub-c/0/orders/0/%7B%22order%22:7%7D?auth=qE%2B_-%2F%3D&uuid=a%20b%26c"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
