package pamtest_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

func (g rig) subscriber(uuid, channels, query string) *subscriber {
	return &subscriber{g: g, uuid: uuid, channels: channels, query: query}
}

// An envelope as the service builds it.
func TestEnvelope(t *testing.T) {
	g := openRig(t, pamtest.Config{})
	sub := g.subscriber("bob", "my%20room", "")
	if got := sub.poll(); len(got) != 0 || len(sub.token) != 17 {
		t.Fatalf("first answer: %v at %s", got, sub.token)
	}
	sent := g.publish("alice", "my room", `{"n":12345678901234567890,"s":"<é>"}`, "seqn=3&meta=%7B%22k%22%3A1%7D&custom_message_type=note")
	got := sub.poll()
	if len(got) != 1 {
		t.Fatalf("messages %v", got)
	}
	m := got[0]
	if m.C != "my room" || m.B != "my room" || m.I != "alice" || m.S != 3 || m.K != g.Keyset().SubscribeKey || m.P.T != sent || m.P.R != 4 || m.E != 0 || m.F != 0 || m.A == "" {
		t.Errorf("envelope %+v", m)
	}
	if string(m.D) != `{"n":12345678901234567890,"s":"<é>"}` || string(m.U) != `{"k":1}` || m.M != "note" {
		t.Errorf("payload %s, meta %s, type %s", m.D, m.U, m.M)
	}
	if sub.token != sent {
		t.Errorf("the cursor is %s, not the message's %s", sub.token, sent)
	}
}

func TestKindsOfMessages(t *testing.T) {
	g := openRig(t, pamtest.Config{})
	sub := g.subscriber("bob", "a", "")
	sub.poll()
	g.send(ask{path: "/publish/{pub}/{sub}/0/a/0/%22fire%22", query: "store=0&norep=true"})
	g.send(ask{path: "/publish/{pub}/{sub}/0/a/0/%22unstored%22", query: "store=0"})
	g.send(ask{path: "/signal/{pub}/{sub}/0/a/0/%22signal%22"})
	g.send(ask{method: "POST", path: "/signal/{pub}/{sub}/0/a/0", body: `"posted signal"`})
	g.send(ask{method: "POST", path: "/publish/{pub}/{sub}/0/a/0", body: ` {"a": 1} `})
	for name, compress := range map[string]func(io.Writer) io.WriteCloser{
		"deflate": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
		"Deflate": func(w io.Writer) io.WriteCloser { f, _ := flate.NewWriter(w, 1); return f },
		"gzip":    func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
	} {
		var b bytes.Buffer
		w := compress(&b)
		io.WriteString(w, `"compressed"`)
		w.Close()
		a := ask{method: "POST", path: "/publish/{pub}/{sub}/0/a/0", body: b.String(), header: http.Header{"Content-Encoding": {name}}}
		if got := g.send(a); got.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
	}
	got := sub.poll()
	wantTexts(t, "all", got, `"unstored"`, `"signal"`, `"posted signal"`, `{"a":1}`, `"compressed"`, `"compressed"`, `"compressed"`)
	if got[0].E != 0 || got[1].E != 1 || got[2].E != 1 || got[3].E != 0 {
		t.Errorf("types %v", got)
	}
	if st := g.Stats(); st.Published != 8 || st.Delivered != 7 {
		t.Errorf("stats %+v", st)
	}
	if got := g.send(ask{path: "/publish/{pub}/{sub}/0/a/myCallback/1"}); !strings.HasPrefix(got.body, `myCallback([1,"Sent","`) || !strings.HasSuffix(got.body, `"])`) {
		t.Errorf("callback: %s", got.body)
	}
}

// A subscriber who comes back gets what was published meanwhile, once, in order.
func TestCatchUp(t *testing.T) {
	g := openRig(t, pamtest.Config{ChannelMessages: 250})
	sub := g.subscriber("bob", "a,b", "")
	sub.poll()
	var want []string
	for i := range 230 {
		text := fmt.Sprint(i)
		g.publish("alice", []string{"a", "b", "c"}[i%3], text, "")
		if i%3 != 2 {
			want = append(want, text)
		}
	}
	var got []string
	for len(got) < len(want) {
		messages := sub.poll()
		if len(messages) == 0 || len(messages) > 100 {
			t.Fatalf("%d messages in one answer", len(messages))
		}
		got = append(got, texts(messages)...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// Of each channel the latest messages are kept.
func TestOldMessagesGo(t *testing.T) {
	g := openRig(t, pamtest.Config{ChannelMessages: 3})
	sub := g.subscriber("", "a,b", "")
	sub.poll()
	for i := range 200 {
		g.publish("alice", "a", fmt.Sprint(i), "")
		if i < 2 {
			g.publish("alice", "b", fmt.Sprintf(`"b%d"`, i), "")
		}
	}
	wantTexts(t, "kept", sub.poll(), `"b0"`, `"b1"`, "197", "198", "199")
	if n := g.Stats().Messages; n != 5 {
		t.Errorf("%d messages kept", n)
	}
}

func TestMatches(t *testing.T) {
	g := openRig(t, pamtest.Config{})
	add := func(group, channels string) {
		g.expect(ask{path: "/v1/channel-registration/sub-key/{sub}/channel-group/" + group, query: "add=" + channels}, 200,
			`{"status":200,"message":"OK","service":"channel-registry","error":false}`)
	}
	add("g", "x,sport.golf,a")
	add("h", "x")
	sub := g.subscriber("", "a,sport.*", "channel-group=g,h")
	sub.poll()
	for _, channel := range []string{"a", "x", "sport.golf", "sport.tennis.news", "sport.", "sport.*", "sports.x", "sport", "b", "g", "sport.golf-pnpres"} {
		g.publish("alice", channel, `"to `+channel+`"`, "")
	}
	got := sub.poll()
	var matches []string
	for _, m := range got {
		matches = append(matches, m.C+" by "+m.B)
	}
	want := []string{"a by a", "x by g", "sport.golf by sport.*", "sport.tennis.news by sport.*", "sport. by sport.*", "sport.* by sport.*"}
	if !slices.Equal(matches, want) {
		t.Errorf("got %q, want %q", matches, want)
	}

	pres := g.subscriber("", "a-pnpres,sport.*-pnpres", "channel-group=h-pnpres")
	pres.poll()
	for _, channel := range []string{"a", "x", "sport.golf", "y"} {
		g.subscriber("carol", channel, "").poll()
	}
	matches = nil
	for _, m := range pres.poll() {
		matches = append(matches, m.C+" by "+m.B)
	}
	want = []string{"a-pnpres by a-pnpres", "x-pnpres by h-pnpres", "sport.golf-pnpres by sport.*-pnpres"}
	if !slices.Equal(matches, want) {
		t.Errorf("presence: got %q, want %q", matches, want)
	}
}

// A group that changes while a subscriber waits counts as it is when the message comes.
func TestGroupChangesDuringPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := openRig(t, pamtest.Config{})
		sub := g.subscriber("bob", ",", "channel-group=g")
		sub.poll()
		done := make(chan []envelope)
		go func() { done <- sub.poll() }()
		synctest.Wait()
		g.publish("alice", "x", "1", "")
		g.send(ask{path: "/v1/channel-registration/sub-key/{sub}/channel-group/g", query: "add=x"})
		g.publish("alice", "x", "2", "")
		wantTexts(t, "after the group got the channel", <-done, "1", "2")
		g.send(ask{path: "/v1/channel-registration/sub-key/{sub}/channel-group/g/remove"})
		go func() { done <- sub.poll() }()
		synctest.Wait()
		g.publish("alice", "x", "3", "")
		wantTexts(t, "after the group went", <-done)
	})
}

func TestLongPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := openRig(t, pamtest.Config{LongPoll: 5 * time.Minute})
		sub := g.subscriber("bob", "a", "")
		sub.poll()
		start, token := time.Now(), sub.token
		wantTexts(t, "nothing", sub.poll())
		if waited := time.Since(start); waited != 5*time.Minute {
			t.Errorf("held for %v", waited)
		}
		if sub.token <= token {
			t.Errorf("timetoken went from %s to %s", token, sub.token)
		}
		start = time.Now()
		done := make(chan []envelope)
		go func() { done <- sub.poll() }()
		time.Sleep(time.Minute)
		if n := g.Stats().Waiting; n != 1 {
			t.Errorf("%d wait", n)
		}
		g.publish("alice", "b", "0", "")
		time.Sleep(time.Minute)
		g.publish("alice", "a", "1", "")
		wantTexts(t, "a message", <-done, "1")
		if waited := time.Since(start); waited != 2*time.Minute {
			t.Errorf("held for %v", waited)
		}
		if n := g.Stats().Waiting; n != 0 {
			t.Errorf("%d wait", n)
		}
	})
}

func TestLongPollEndsWithItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := openRig(t, pamtest.Config{})
		sub := g.subscriber("bob", "a", "")
		sub.poll()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := sub.pollCtx(ctx); err == nil {
			t.Error("an answer for nobody")
		}
		g.publish("alice", "a", "1", "")
		wantTexts(t, "next poll", sub.poll(), "1")
		if st := g.Stats(); st.Waiting != 0 || st.Answers[pamtest.OpSubscribe][0] != 1 {
			t.Errorf("stats %+v", st)
		}
	})
}

// The token is looked at when a request comes: a long poll outlives it, the next one is refused.
func TestTokenEndsDuringPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, pamtest.Config{})
		auth := g.token(g.do(g.grantRequest(`{"ttl":1,"permissions":{"resources":{"channels":{"a":3}}}}`)))
		publisher := g.grantAny("", `"resources":{"channels":{"a":3}}`)
		sub := g.subscriber("bob", "a", "")
		sub.auth = auth
		sub.poll()
		done := make(chan []envelope)
		go func() { done <- sub.poll() }()
		time.Sleep(2 * time.Minute)
		g.send(ask{path: "/publish/{pub}/{sub}/0/a/0/1", auth: publisher})
		wantTexts(t, "after the token's end", <-done, "1")
		if _, err := sub.pollCtx(t.Context()); err == nil || !strings.Contains(err.Error(), "403") || !strings.Contains(err.Error(), "Token is expired.") {
			t.Errorf("next poll: %v", err)
		}
	})
}

// Timetokens only grow, whatever the clock does.
func TestTimetokensGrow(t *testing.T) {
	g := openRig(t, pamtest.Config{Now: func() time.Time { return time.Unix(1_700_000_000, 0) }})
	sub := g.subscriber("bob", "a", "")
	sub.poll()
	last := sub.token
	for _, offset := range []time.Duration{0, time.Hour, 0, -time.Hour, 0} {
		g.SetClockOffset(offset)
		got := g.publish("alice", "a", "1", "")
		if got <= last || len(got) != 17 {
			t.Errorf("timetoken %s after %s", got, last)
		}
		last = got
	}
	if n := len(sub.poll()); n != 5 {
		t.Errorf("%d messages", n)
	}
}

// Many publishers and subscribers: every message reaches every subscriber once.
func TestNothingLostOrTwice(t *testing.T) {
	for name, over := range map[string]func(g rig) rig{
		"transport": func(g rig) rig { return g },
		"socket": func(g rig) rig {
			server := httptest.NewServer(g.Server)
			t.Cleanup(server.Close)
			g.rt, g.origin = server.Client().Transport, server.URL
			return g
		},
	} {
		t.Run(name, func(t *testing.T) {
			const publishers, each, subscribers = 4, 50, 4
			g := over(openRig(t, pamtest.Config{ChannelMessages: publishers * each}))
			g.t = t
			var publishing, receiving sync.WaitGroup
			for i := range subscribers {
				sub := g.subscriber(fmt.Sprint("s", i), "a", "")
				sub.poll()
				receiving.Go(func() {
					seen := make(map[string]int)
					for total := 0; total < publishers*each; {
						messages, err := sub.pollCtx(t.Context())
						if err != nil {
							t.Error(err)
							return
						}
						for _, text := range texts(messages) {
							seen[text]++
							total++
						}
					}
					if len(seen) != publishers*each {
						t.Errorf("%d different messages", len(seen))
					}
				})
			}
			for p := range publishers {
				publishing.Go(func() {
					for i := range each {
						g.publish("p", "a", fmt.Sprint(p*1000+i), "")
					}
				})
			}
			publishing.Wait()
			receiving.Wait()
			if st := g.Stats(); st.Published != publishers*each || st.Delivered != publishers*each*subscribers || st.Waiting != 0 {
				t.Errorf("stats %+v", st)
			}
		})
	}
}

func TestHistory(t *testing.T) {
	g := openRig(t, pamtest.Config{Now: func() time.Time { return time.Unix(1_700_000_000, 0) }})
	for i := range 3 {
		g.publish("alice", "a", fmt.Sprint(i), "meta=%22m%22&custom_message_type=note")
	}
	g.publish("alice", "a", "9", "store=0")
	g.send(ask{path: "/signal/{pub}/{sub}/0/a/0/8"})
	const t0, t1, t2 = "17000000000000000", "17000000000000001", "17000000000000002"
	g.expect(ask{path: "/v3/history/sub-key/{sub}/channel/a,b", query: "max=2"}, 200,
		`{"status":200,"error":false,"error_message":"","channels":{"a":[{"message":1,"timetoken":"`+t1+`"},{"message":2,"timetoken":"`+t2+`"}]}}`)
	g.expect(ask{path: "/v3/history/sub-key/{sub}/channel/a", query: "start=" + t1 + "&include_uuid=true&include_meta=true&include_message_type=true&include_custom_message_type=true"}, 200,
		`{"status":200,"error":false,"error_message":"","channels":{"a":[{"message":0,"timetoken":"`+t0+`","uuid":"alice","meta":"m","message_type":null,"custom_message_type":"note"}]}}`)
	for query, want := range map[string]string{
		"":                               `[[0,1,2],` + t0 + `,` + t2 + `]`,
		"count=1":                        `[[2],` + t2 + `,` + t2 + `]`,
		"count=1&reverse=true":           `[[0],` + t0 + `,` + t0 + `]`,
		"end=" + t1:                      `[[1,2],` + t1 + `,` + t2 + `]`,
		"start=1":                        `[[],0,0]`,
		"count=1&include_token=true":     `[[{"message":2,"timetoken":` + t2 + `}],` + t2 + `,` + t2 + `]`,
		"start=" + t2 + "&end=" + t1:     `[[1],` + t1 + `,` + t1 + `]`,
		"count=1&start=" + t2 + "&x=%20": `[[1],` + t1 + `,` + t1 + `]`,
	} {
		if got := g.send(ask{path: "/v2/history/sub-key/{sub}/channel/a", query: query}); got.body != want {
			t.Errorf("%s: %s, want %s", query, got.body, want)
		}
	}
}
