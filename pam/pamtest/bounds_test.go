package pamtest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestMessageLogBounds(t *testing.T) {
	const payload = 1000
	l := newMessageLog(10, 100*(payload+messageOverhead+4))
	for i := range 5000 {
		l.add(&message{token: int64(i + 1), channel: fmt.Sprintf("c%03d", i%200), payload: json.RawMessage(strings.Repeat("1", payload))})
	}
	kept, size := 0, 0
	last := int64(0)
	for _, m := range l.after(0) {
		if m.dropped {
			continue
		}
		if m.token <= last {
			t.Fatalf("token %d after %d", m.token, last)
		}
		last = m.token
		kept++
		size += m.size()
	}
	if kept != 100 || size != l.bytes || l.bytes > l.maxBytes || len(l.recent) != 100 || len(l.items)-l.dropped != kept {
		t.Errorf("%d messages, %d of %d bytes, %d channels, %d items", kept, size, l.bytes, len(l.recent), len(l.items))
	}
	if len(l.items) > 2*kept+130 {
		t.Errorf("%d items for %d messages", len(l.items), kept)
	}
	if got := l.after(last); len(got) != 0 {
		t.Errorf("%d messages after the last", len(got))
	}
}

// What is bigger than everything else together still gets through.
func TestMessageLogKeepsTheLatest(t *testing.T) {
	l := newMessageLog(10, 10)
	for i := range 3 {
		l.add(&message{token: int64(i + 1), channel: "a", payload: json.RawMessage(strings.Repeat("1", 100))})
	}
	if got := l.recent["a"]; len(got) != 1 || got[0].token != 3 {
		t.Errorf("kept %v", got)
	}
}

func TestHubBounds(t *testing.T) {
	h := newHub(DefaultChannelMessages)
	now := time.Unix(1_700_000_000, 0)
	for i := range maxOccupants + 100 {
		h.arrive(fmt.Sprint("c", i%7), visit{uuid: fmt.Sprint("u", i), timeout: time.Minute}, now)
	}
	if h.presence.count != maxOccupants {
		t.Errorf("%d occupants", h.presence.count)
	}
	h.sweep(now.Add(time.Minute))
	h.sweep(now.Add(2 * time.Minute))
	if h.presence.count != 0 || h.presence.bytes != 0 || len(h.presence.rooms) != 0 || h.presence.present() != 0 {
		t.Errorf("left behind: %d occupants, %d bytes, %d rooms", h.presence.count, h.presence.bytes, len(h.presence.rooms))
	}

	big := []string{strings.Repeat("x", 30<<10)}
	refused := 0
	for i := range 1000 {
		if !h.groups.add(fmt.Sprint("g", i), big) {
			refused++
		}
	}
	if refused == 0 || h.groups.bytes > maxGroups {
		t.Errorf("%d refused, %d bytes", refused, h.groups.bytes)
	}
	for i := range 1000 {
		h.groups.remove(fmt.Sprint("g", i), big)
	}
	if h.groups.bytes != 0 || len(h.groups.channels) != 0 {
		t.Errorf("left behind: %d bytes, %d groups", h.groups.bytes, len(h.groups.channels))
	}

	st := &h.objects
	fields := map[string]json.RawMessage{"name": json.RawMessage(`"` + strings.Repeat("x", 1<<20) + `"`)}
	refused = 0
	for i := range 100 {
		var none *record
		if !put(st, st.users, fmt.Sprint(i), none.changed(fmt.Sprint(i), fields, userKind.fields, now)) {
			refused++
		}
	}
	if refused == 0 || st.bytes > maxObjects {
		t.Errorf("%d refused, %d bytes", refused, st.bytes)
	}
	for i := range 100 {
		remove(st, st.users, fmt.Sprint(i))
	}
	if st.bytes != 0 {
		t.Errorf("%d bytes left behind", st.bytes)
	}
}

func TestMemoryForgets(t *testing.T) {
	s := New(Config{Access: Access{RevokeDelay: time.Minute, DenyCache: time.Minute}})
	now := time.Unix(1_700_000_000, 0)
	s.now = func() time.Time { return now }
	for i := range 20_000 {
		now = now.Add(time.Second)
		var sum [sealLen]byte
		copy(sum[:], fmt.Sprint(i))
		s.memory.setValid(sum, now, time.Minute)
		s.rememberDenial(sum, &denial{message: messageForbidden}, []need{channelNeed(1, "a")})
	}
	if n := len(s.memory.valid) + len(s.memory.denied); n > 2*minPrune {
		t.Errorf("%d entries", n)
	}
}

// Too many long polls are turned away.
func TestWaitersAreBounded(t *testing.T) {
	s := New(Config{Access: Access{Off: true}})
	for range maxWaiters {
		s.hub.waiters[&waiter{wake: make(chan struct{}, 1)}] = struct{}{}
	}
	d, _ := parseDataPath("GET", "/v2/subscribe/s/a/0")
	rep := s.subscribe(t.Context(), &call{op: OpSubscribe, data: d, values: map[string][]string{"tt": {"17000000000000000"}}})
	if rep.status != 429 {
		t.Errorf("status %d", rep.status)
	}
}

func TestSpaced(t *testing.T) {
	got := spaced(map[string]any{"a": []any{1, `x:,"\`, "<&>"}, "b\"": map[string]any{}})
	if want := `{"a": [1, "x:,\"\\", "<&>"], "b\"": {}}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
