package interop

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
	pubnub "github.com/pubnub/go/v7"
	"github.com/pubnub/go/v7/pnerr"
)

// rig is an emulator behind a real listener.
type rig struct {
	*pamtest.Server
	t      *testing.T
	origin string // host and port, as the SDK wants it
}

func newRig(t *testing.T, c pamtest.Config) *rig {
	t.Helper()
	emulator := pamtest.New(c)
	web := httptest.NewServer(emulator)
	t.Cleanup(func() {
		web.CloseClientConnections() // long polls would keep Close waiting
		web.Close()
	})
	return &rig{emulator, t, strings.TrimPrefix(web.URL, "http://")}
}

// config is what every SDK client of the emulator has in common.
func (r *rig) config(userID string) *pubnub.Config {
	keyset := r.Keyset()
	c := pubnub.NewConfigWithUserId(pubnub.UserId(userID))
	c.PublishKey, c.SubscribeKey = keyset.PublishKey, keyset.SubscribeKey
	c.Origin, c.Secure = r.origin, false
	return c
}

// server is an SDK client with the secret key, as a backend has it: its requests are signed.
func (r *rig) server(userID string) *pubnub.PubNub {
	c := r.config(userID)
	c.SecretKey = r.Keyset().SecretKey.Reveal()
	return r.start(c)
}

// app is an SDK client without the secret key. An empty token is none.
func (r *rig) app(userID, token string) *pubnub.PubNub {
	pn := r.start(r.config(userID))
	pn.SetToken(token)
	return pn
}

func (r *rig) start(c *pubnub.Config) *pubnub.PubNub {
	pn := pubnub.NewPubNub(c)
	pn.GetClient() // Destroy of a client that was never used panics
	r.t.Cleanup(pn.Destroy)
	return pn
}

// token grants through the emulator's front door, with pam: the SDK cannot express every grant.
func (r *rig) token(t *testing.T, g pam.Grant) string {
	t.Helper()
	client, err := pam.NewClient(pam.ClientConfig{Keyset: r.Keyset(), Origin: "http://" + r.origin, Now: r.Now})
	if err != nil {
		t.Fatal(err)
	}
	token, err := client.Grant(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	return token.Raw.Reveal()
}

// serverError is what the SDK's caller finds in an error that came from the service.
func serverError(t *testing.T, err error) *pnerr.ServerError {
	t.Helper()
	var refused *pnerr.ServerError
	if !errors.As(err, &refused) {
		t.Fatalf("got %v, want an error of the service", err)
	}
	return refused
}

// wantRefused checks status and text of a refusal as the SDK's caller sees it.
func wantRefused(t *testing.T, err error, status pubnub.StatusResponse, code int, texts ...string) {
	t.Helper()
	refused := serverError(t, err)
	if refused.StatusCode != code || status.StatusCode != code {
		t.Errorf("got status %d (%d in the response), want %d: %s", refused.StatusCode, status.StatusCode, code, refused.Body)
	}
	for _, text := range texts {
		if !strings.Contains(string(refused.Body), text) {
			t.Errorf("the body lacks %q: %s", text, refused.Body)
		}
	}
}

// eventually polls until ok, at most for the given time.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// exchange is one request as it was on the wire.
type exchange struct {
	method, uri string // uri as sent, with the query
	body        string
	header      http.Header
}

// recorder keeps the requests that pass.
type recorder struct {
	mu   sync.Mutex
	seen []exchange
}

func (r *recorder) add(e exchange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, e)
}

func (r *recorder) all() []exchange {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen)
}

// allChannel are all permissions a channel can have.
var allChannel = pubnub.ChannelPermissions{Read: true, Write: true, Delete: true, Get: true, Manage: true, Update: true, Join: true}
