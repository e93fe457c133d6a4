package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// channel is where the messages go.
const channel = "orders"

// publishAll publishes a message every second, each with the token that is current
// then, and prints a line for each. It goes on after a revoke, where another app
// would stop: it is here to show that a revoked token is worth nothing.
func (a *app) publishAll(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for published := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		t := a.current.Load()
		if t == nil {
			continue
		}
		switch err := a.publish(ctx, t, published+1); {
		case err == nil:
			published++
			a.out.Printf("published %d  (generation %d)", published, t.Generation)
		case ctx.Err() == nil:
			a.out.Printf("!!! %v  (generation %d)", err, t.Generation)
		}
	}
}

// publish sends one message the way every PubNub SDK does. Its error never has the
// token in it.
func (a *app) publish(ctx context.Context, t *access, order int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, publishURL(t, cmp.Or(t.UUID, a.name), order), nil)
	if err != nil {
		return errors.New("publish: the sidecar's origin is no URL")
	}
	resp, err := a.pubnub.Do(req)
	if urlErr, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("publish: %w", urlErr.Err) // without the URL
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	var p struct{ Message string }
	if json.Unmarshal(body, &p) != nil || p.Message == "" {
		return errors.New(resp.Status)
	}
	return fmt.Errorf("%d %s", resp.StatusCode, p.Message)
}

func publishURL(t *access, user string, order int) string {
	message := fmt.Sprintf(`{"order":%d}`, order)
	query := url.Values{"uuid": {user}, "auth": {t.Token}}.Encode()
	return fmt.Sprintf("%s/publish/%s/%s/0/%s/0/%s?%s", strings.TrimSuffix(t.Origin, "/"),
		url.PathEscape(t.PublishKey), url.PathEscape(t.SubscribeKey), channel, url.PathEscape(message),
		strings.ReplaceAll(query, "+", "%20"))
}
