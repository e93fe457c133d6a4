package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
)

// renewable is the transport of a subscriber that must change to a new token at once. The SDK has no call for that: SetToken acts on the next long
// poll only, and to subscribe again while messages arrive makes the SDK deliver some of them twice, because the former loop may survive. So the
// running poll is ended here, with a text that the SDK takes for a timeout: it polls again from the same timetoken, with the token it then has.
// A poll is ended either before its answer or after the whole of it was handed over, so no message is lost and none comes twice.
type renewable struct {
	next http.RoundTripper

	mu      sync.Mutex
	renewed chan struct{} // closed by renew
}

// errRenewed holds the words that the SDK looks for.
var errRenewed = errors.New("request canceled: new token")

func newRenewable() *renewable {
	return &renewable{next: &http.Transport{}, renewed: make(chan struct{})}
}

// renew ends the polls that are running.
func (r *renewable) renew() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.renewed)
	r.renewed = make(chan struct{})
}

func (r *renewable) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	renewed := r.renewed
	r.mu.Unlock()
	ctx, cancel := context.WithCancelCause(req.Context())
	defer cancel(nil)
	go func() {
		select {
		case <-renewed:
			cancel(errRenewed)
		case <-ctx.Done():
		}
	}()
	resp, body, err := r.whole(req.WithContext(ctx))
	if err == nil {
		resp.Body = io.NopCloser(bytes.NewReader(body))
		return resp, nil
	}
	if context.Cause(ctx) == errRenewed {
		return nil, errRenewed
	}
	return nil, err
}

// whole reads the answer to its end: a half read one would be lost to the SDK.
func (r *renewable) whole(req *http.Request) (*http.Response, []byte, error) {
	resp, err := r.next.RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

// pollRecorder is an emulator that remembers the token of each long poll it got.
type pollRecorder struct {
	*rig
	mu     sync.Mutex
	tokens []string
}

func newPollRecorder(t *testing.T) *pollRecorder {
	t.Helper()
	p := &pollRecorder{}
	emulator := pamtest.New(pamtest.Config{})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v2/subscribe/") {
			p.mu.Lock()
			p.tokens = append(p.tokens, r.URL.Query().Get("auth"))
			p.mu.Unlock()
		}
		emulator.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		web.CloseClientConnections()
		web.Close()
	})
	p.rig = &rig{emulator, t, strings.TrimPrefix(web.URL, "http://")}
	return p
}

func (p *pollRecorder) polls() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.tokens)
}

// lastPoll waits until a poll came with the token.
func (p *pollRecorder) lastPoll(t *testing.T, token string) {
	t.Helper()
	eventually(t, 5*time.Second, "poll with the token", func() bool {
		polls := p.polls()
		return len(polls) > 0 && polls[len(polls)-1] == token
	})
}

// How a subscriber comes to use a new token.
func TestRenew(t *testing.T) {
	grant := exactly([]permission{{pam.ResourceChannel, "c", pam.Read | pam.Write}})
	begin := func(t *testing.T, transport *renewable) (*pollRecorder, *pubnub.PubNub, *inbox, func(any)) {
		t.Helper()
		r := newPollRecorder(t)
		token := r.token(t, grant)
		pn := r.app("alice", token)
		if transport != nil {
			pn.SetSubscribeClient(&http.Client{Transport: transport})
		}
		in := listenTo(t, pn)
		pn.Subscribe().Channels([]string{"c"}).Execute()
		in.saw(t, pubnub.PNConnectedCategory)
		eventually(t, 5*time.Second, "second poll", func() bool { return len(r.polls()) == 2 })
		publisher := r.app("alice", token)
		return r, pn, in, func(message any) {
			t.Helper()
			if _, _, err := publisher.Publish().Channel("c").Message(message).Execute(); err != nil {
				t.Fatal(err)
			}
		}
	}
	check(t, "SetToken alone leaves the running poll alone", func(t *testing.T) {
		r, pn, in, publish := begin(t, nil)
		token := r.token(t, grant)
		pn.SetToken(token)
		time.Sleep(100 * time.Millisecond)
		if polls := r.polls(); len(polls) != 2 || slices.Contains(polls, token) {
			t.Errorf("%d polls, the new token among them: %t", len(polls), slices.Contains(polls, token))
		}
		publish("x") // ends the poll
		in.message(t, "x")
		r.lastPoll(t, token)
	})
	check(t, "subscribing again uses it at once", func(t *testing.T) {
		r, pn, in, publish := begin(t, nil)
		publish("before")
		in.message(t, "before")
		token := r.token(t, grant)
		pn.SetToken(token)
		pn.Subscribe().Channels([]string{"c"}).Execute()
		publish("meanwhile")
		in.message(t, "meanwhile")
		r.lastPoll(t, token)
		if got := in.payloads(); len(got) != 2 {
			t.Errorf("got %v", got)
		}
	})
	check(t, "a renewable transport uses it at once", func(t *testing.T) {
		transport := newRenewable()
		r, pn, in, publish := begin(t, transport)
		token := r.token(t, grant)
		pn.SetToken(token)
		transport.renew()
		r.lastPoll(t, token)
		publish("x")
		in.message(t, "x")
		if n := in.count(pubnub.PNTimeoutCategory); n != 1 {
			t.Errorf("%d timeouts, want 1", n)
		}
	})
	check(t, "a renewable transport loses nothing and repeats nothing", func(t *testing.T) {
		transport := newRenewable()
		_, _, in, publish := begin(t, transport)
		stop, stopped := make(chan struct{}), make(chan int)
		go func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					stopped <- n
					return
				case <-time.After(3 * time.Millisecond):
					transport.renew()
				}
			}
		}()
		const n = 1000
		for i := range n {
			publish(fmt.Sprint(i))
		}
		close(stop) // before the wait: polls that are ended faster than they are answered never bring anything
		t.Logf("%d messages over %d renewals", n, <-stopped)
		eventually(t, 10*time.Second, "all messages", func() bool { return len(in.payloads()) >= n })
		seen := map[any]int{}
		for _, p := range in.payloads() {
			seen[p]++
		}
		for i := range n {
			if times := seen[fmt.Sprint(i)]; times != 1 {
				t.Errorf("message %d came %d times", i, times)
			}
		}
	})
}
