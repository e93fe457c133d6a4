package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pamsidecar/pamsidecar/client"
	pubnub "github.com/pubnub/go/v7"
	"github.com/pubnub/go/v7/pnerr"
)

func channelOf(uuid string) string { return "life." + uuid }

// follow keeps an app's token current: it reads it from the sidecar with long polls and calls use for each new one. While the sidecar is away it
// tries again and the app goes on with what it has.
func follow(ctx context.Context, s *sidecar, name string, use func(client.TokenDocument)) {
	app, etag := s.reader(), ""
	for ctx.Err() == nil {
		doc, tag, err := poll(ctx, app, name, etag)
		switch {
		case err != nil:
			sleep(ctx, 100*time.Millisecond)
		case doc != nil:
			etag = tag
			use(*doc)
		}
	}
}

// poll waits for a token other than the one of the etag; nil if there is none yet.
func poll(ctx context.Context, app *http.Client, name, etag string) (*client.TokenDocument, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://pamsidecar/v1/tokens/"+name+"?wait=30s", nil)
	if err != nil {
		return nil, "", err
	}
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	resp, err := app.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		var doc client.TokenDocument
		if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
			return nil, "", err
		}
		return &doc, resp.Header.Get("ETag"), nil
	case http.StatusNotModified:
		return nil, "", nil
	}
	return nil, "", errors.New(resp.Status)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// ledger is what everybody sent, received and was refused.
type ledger struct {
	mu          sync.Mutex
	sent        map[string]int             // accepted messages by publisher
	received    map[string]map[string]int  // deliveries by subscriber and message
	tokens      map[string]map[uint64]bool // generations by app
	errors      []string                   // of publishers, other than 403
	strays      []string                   // statuses of subscribers that should not come
	denied      atomic.Int64               // 403 that a publisher saw
	subDenied   atomic.Int64               // 403 that a subscriber saw
	renewals    atomic.Int64               // subscribers that changed to a new token
	shortestEnd atomic.Int64               // least seconds that a token had left when an app got it, as a positive number
}

func newLedger() *ledger {
	l := &ledger{sent: map[string]int{}, received: map[string]map[string]int{}, tokens: map[string]map[uint64]bool{}}
	l.shortestEnd.Store(1 << 30)
	return l
}

func (l *ledger) got(app string, doc client.TokenDocument) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tokens[app] == nil {
		l.tokens[app] = map[uint64]bool{}
	}
	l.tokens[app][doc.Generation] = true
	l.shortestEnd.Store(min(l.shortestEnd.Load(), doc.ExpiresIn))
}

func (l *ledger) failed(err error) {
	if refused, ok := errors.AsType[*pnerr.ServerError](err); ok && refused.StatusCode == http.StatusForbidden {
		l.denied.Add(1)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errors = append(l.errors, err.Error())
}

func (l *ledger) delivered(subscriber string, message any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.received[subscriber] == nil {
		l.received[subscriber] = map[string]int{}
	}
	l.received[subscriber][fmt.Sprint(message)]++
}

// figures are the sums of a ledger.
type figures struct{ sent, received, lost, duplicates, generations int }

// sum compares what each subscriber received with what all publishers sent.
func (l *ledger) sum(uuids []string) figures {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := figures{generations: 1 << 30}
	for _, n := range l.sent {
		f.sent += n
	}
	for _, subscriber := range uuids {
		for _, times := range l.received[subscriber] {
			f.received++
			f.duplicates += times - 1
		}
		f.lost += f.sent - len(l.received[subscriber])
	}
	for _, generations := range l.tokens {
		f.generations = min(f.generations, len(generations))
	}
	return f
}

// publishFrom publishes until ctx ends, numbered, so that nothing can be lost unnoticed.
func publishFrom(ctx context.Context, r *rig, s *sidecar, l *ledger, uuid string, every time.Duration) {
	pn := pubnub.NewPubNub(r.config(uuid))
	pn.GetClient()
	defer pn.Destroy()
	first := make(chan struct{})
	var once sync.Once
	go follow(ctx, s, uuid, func(doc client.TokenDocument) {
		pn.SetToken(doc.Token)
		l.got("publisher "+uuid, doc)
		once.Do(func() { close(first) })
	})
	select {
	case <-first:
	case <-ctx.Done():
		return
	}
	for n := 0; ctx.Err() == nil; n++ {
		if _, _, err := pn.Publish().Channel(channelOf(uuid)).Message(fmt.Sprintf("%s %d", uuid, n)).Execute(); err != nil {
			l.failed(err)
		} else {
			l.mu.Lock()
			l.sent[uuid]++
			l.mu.Unlock()
		}
		sleep(ctx, every)
	}
}

// subscribeTo receives from all channels until ctx ends. ready is called once it listens.
func subscribeTo(ctx context.Context, r *rig, s *sidecar, l *ledger, uuid string, channels []string, ready func()) {
	pn, transport := pubnub.NewPubNub(r.config(uuid)), newRenewable()
	pn.GetClient()
	defer pn.Destroy()
	pn.SetSubscribeClient(&http.Client{Transport: transport})
	listener := pubnub.NewListener()
	pn.AddListener(listener)
	var once sync.Once
	go follow(ctx, s, uuid, func(doc client.TokenDocument) {
		pn.SetToken(doc.Token)
		l.got("subscriber "+uuid, doc)
		renewed := true
		once.Do(func() {
			renewed = false
			pn.Subscribe().Channels(channels).Execute()
		})
		if renewed {
			l.renewals.Add(1)
			transport.renew()
		}
	})
	for {
		select {
		case m := <-listener.Message:
			l.delivered(uuid, m.Message)
		case status := <-listener.Status:
			switch status.Category {
			case pubnub.PNConnectedCategory:
				ready()
			case pubnub.PNTimeoutCategory: // what a renewal looks like
			case pubnub.PNAccessDeniedCategory:
				l.subDenied.Add(1)
			default:
				l.mu.Lock()
				l.strays = append(l.strays, uuid+": "+status.Category.String())
				l.mu.Unlock()
			}
		case <-listener.Presence:
		case <-ctx.Done():
			return
		}
	}
}

// untold names messages that a subscriber did not get once, at most ten.
func (l *ledger) untold(uuids []string) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, subscriber := range uuids {
		for _, publisher := range slices.Sorted(maps.Keys(l.sent)) {
			for n := range l.sent[publisher] {
				message := fmt.Sprintf("%s %d", publisher, n)
				if times := l.received[subscriber][message]; times != 1 && len(out) < 10 {
					out = append(out, fmt.Sprintf("%s got %q %d times", subscriber, message, times))
				}
			}
		}
	}
	return out
}
