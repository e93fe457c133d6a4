package interop

import (
	"slices"
	"sync"
	"testing"
	"time"

	pubnub "github.com/pubnub/go/v7"
)

// inbox keeps what an SDK's listener was told. The SDK blocks a goroutine for each event that nobody takes.
type inbox struct {
	mu       sync.Mutex
	statuses []pubnub.StatusCategory
	messages []*pubnub.PNMessage
	signals  []*pubnub.PNMessage
	presence []*pubnub.PNPresence
}

// listenTo starts an inbox for the SDK client; it ends with the test.
func listenTo(t *testing.T, pn *pubnub.PubNub) *inbox {
	t.Helper()
	in, listener, done := &inbox{}, pubnub.NewListener(), make(chan struct{})
	pn.AddListener(listener)
	t.Cleanup(func() { close(done) })
	go in.pump(listener, done)
	return in
}

func (in *inbox) pump(from *pubnub.Listener, done chan struct{}) {
	for {
		select {
		case s := <-from.Status:
			in.locked(func() { in.statuses = append(in.statuses, s.Category) })
		case m := <-from.Message:
			in.locked(func() { in.messages = append(in.messages, m) })
		case m := <-from.Signal:
			in.locked(func() { in.signals = append(in.signals, m) })
		case p := <-from.Presence:
			in.locked(func() { in.presence = append(in.presence, p) })
		case <-done:
			return
		}
	}
}

func (in *inbox) locked(f func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	f()
}

// saw waits for a status.
func (in *inbox) saw(t *testing.T, want pubnub.StatusCategory) {
	t.Helper()
	eventually(t, 5*time.Second, "status "+want.String(), func() (ok bool) {
		in.locked(func() { ok = slices.Contains(in.statuses, want) })
		return ok
	})
}

// count tells how often a status came.
func (in *inbox) count(of pubnub.StatusCategory) (n int) {
	in.locked(func() {
		for _, s := range in.statuses {
			if s == of {
				n++
			}
		}
	})
	return n
}

// message waits for the message with this payload.
func (in *inbox) message(t *testing.T, payload any) *pubnub.PNMessage {
	t.Helper()
	var found *pubnub.PNMessage
	eventually(t, 5*time.Second, "message", func() bool {
		in.locked(func() {
			for _, m := range in.messages {
				if m.Message == payload {
					found = m
				}
			}
		})
		return found != nil
	})
	return found
}

// payloads are those of all messages so far, in the order the SDK announced them, which is not that of their publishing.
func (in *inbox) payloads() (all []any) {
	in.locked(func() {
		for _, m := range in.messages {
			all = append(all, m.Message)
		}
	})
	return all
}

// event waits for a presence event.
func (in *inbox) event(t *testing.T, action, uuid string) *pubnub.PNPresence {
	t.Helper()
	var found *pubnub.PNPresence
	eventually(t, 5*time.Second, action+" of "+uuid, func() bool {
		in.locked(func() {
			for _, p := range in.presence {
				if p.Event == action && p.UUID == uuid {
					found = p
				}
			}
		})
		return found != nil
	})
	return found
}
