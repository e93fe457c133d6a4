// Command go is an app whose PubNub client always has the sidecar's current token.
//
//	PAMSIDECAR_SOCKET=.pamsidecar-dev/token/token.sock go run . NAME CHANNEL
package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	pubnub "github.com/pubnub/go/v7"
)

// token is what this app needs of the token document, or of a problem.
type token struct {
	AuthorizedUUID       string `json:"authorized_uuid"`
	Token                string
	Generation           uint64
	Code, Detail, Reason string
}

var current atomic.Pointer[token] // nil: there is none, and the app leaves PubNub alone

func main() {
	args := append(os.Args[1:], "", "")
	name, channel := cmp.Or(args[0], "checkout"), cmp.Or(args[1], "orders")
	var pn *pubnub.PubNub
	for etag := ""; ; {
		var t token
		switch status, header := get("/v1/tokens/"+url.PathEscape(name)+"?wait=30s", etag, &t); status {
		case http.StatusOK:
			if pn == nil { // the user ID must be the token's UUID: any other gets 403
				pn = connect(cmp.Or(t.AuthorizedUUID, name))
				listener := pubnub.NewListener()
				pn.AddListener(listener)
				go receive(listener)
				go publish(pn, name, channel)
			}
			etag = header.Get("ETag")
			pn.SetToken(t.Token)
			pn.Subscribe().Channels([]string{channel}).Execute() // reconnects: ends the long poll with the old token, goes on where it was
			current.Store(&t)
			id := sha256.Sum256([]byte(t.Token)) // the token itself belongs in no log
			fmt.Printf("generation %d  token #%x\n", t.Generation, id[:4])
		case http.StatusNotModified: // nothing new within the wait
		default:
			etag = ""
			current.Store(nil)
			fmt.Printf("no token: %d %s: %s (%s)\n", status, t.Code, t.Detail, t.Reason)
			time.Sleep(5 * time.Second) // the wait holds a 503 as well; a 410 comes at once
		}
	}
}

var sidecar = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
	DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", cmp.Or(os.Getenv("PAMSIDECAR_SOCKET"), "/run/pamsidecar/token.sock"))
	},
}}

// get asks the sidecar until it answers. While it restarts, what is in use stays good.
func get(path, etag string, into any) (int, http.Header) {
	req, err := http.NewRequest(http.MethodGet, "http://sidecar"+path, nil)
	if err != nil {
		log.Fatal(err)
	}
	req.Header.Set("If-None-Match", etag)
	for ; ; time.Sleep(time.Second) {
		resp, err := sidecar.Do(req)
		if err == nil && resp.StatusCode != http.StatusNotModified {
			err = json.NewDecoder(resp.Body).Decode(into)
			resp.Body.Close()
		}
		if err == nil {
			return resp.StatusCode, resp.Header
		}
		fmt.Println("the sidecar does not answer:", err)
	}
}

func connect(userID string) *pubnub.PubNub {
	var keyset struct {
		PublishKey   string `json:"publish_key"`
		SubscribeKey string `json:"subscribe_key"`
		Origin       string
	}
	get("/v1/keyset", "", &keyset)
	config := pubnub.NewConfigWithUserId(pubnub.UserId(userID))
	config.PublishKey, config.SubscribeKey = keyset.PublishKey, keyset.SubscribeKey
	scheme, host, _ := strings.Cut(keyset.Origin, "://")
	config.Origin, config.Secure = host, scheme == "https"
	return pubnub.NewPubNub(config)
}

// receive prints messages. A listener has to take whatever comes, or the SDK stalls.
func receive(listener *pubnub.Listener) {
	for {
		select {
		case m := <-listener.Message:
			fmt.Println("received", m.Message)
		case <-listener.Status:
		case <-listener.Presence:
		}
	}
}

func publish(pn *pubnub.PubNub, name, channel string) {
	for n := 1; ; time.Sleep(time.Second) {
		t := current.Load()
		if t == nil {
			continue
		}
		text := fmt.Sprintf("%d from %s with generation %d", n, name, t.Generation)
		if _, status, err := pn.Publish().Channel(channel).Message(text).Execute(); err != nil {
			fmt.Println("publish failed:", status.StatusCode)
			continue
		}
		fmt.Println("published", text)
		n++
	}
}
