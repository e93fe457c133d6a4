package refresher

import (
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam"
)

// noon is a moment of server time.
var noon = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// draws are the ends of what a random number may be, and points between.
var draws = []float64{0, 0.25, 0.5, 0.75, 0.999999999}

func TestFirstAttempt(t *testing.T) {
	for _, ttl := range []time.Duration{time.Minute, 15 * time.Minute, 30 * 24 * time.Hour} {
		last := time.Time{}
		for _, u := range draws {
			at := FirstAttempt(noon, ttl, u)
			if share := float64(at.Sub(noon)) / float64(ttl); share < 0.50 || share >= 0.65 {
				t.Errorf("ttl %s, u %v: at %.4f of the life", ttl, u, share)
			}
			if !at.After(last) {
				t.Errorf("ttl %s, u %v: %s does not come after what a smaller number gives", ttl, u, at)
			}
			last = at
		}
	}
}

func TestRetryDelay(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		attempts  int
		remaining time.Duration
		c         time.Duration // the delay lies in [c/2, c)
	}{
		{1, 0, s}, {2, 0, 2 * s}, {3, 0, 4 * s}, {6, 0, 32 * s}, {7, 0, 60 * s}, {8, 0, 60 * s}, {1 << 40, 0, 60 * s},
		{7, -time.Hour, 60 * s},
		{1, time.Hour, s}, {4, time.Hour, 8 * s}, {9, time.Hour, 60 * s},
		{9, 5 * time.Minute, 30 * s}, {9, 100 * s, 10 * s}, {9, 11 * s, 1100 * time.Millisecond},
		{9, 10 * s, s}, {9, 3 * s, s}, {1, 3 * s, s}, {9, time.Nanosecond, s},
		{9, 10 * time.Minute, 60 * s}, {9, 601 * s, 60 * s}, {9, 599 * s, 59900 * time.Millisecond},
	} {
		for _, u := range draws {
			if d := RetryDelay(c.attempts, c.remaining, u); d < c.c/2 || d >= c.c {
				t.Errorf("attempt %d with %s left, u %v: %s is not in [%s, %s)", c.attempts, c.remaining, u, d, c.c/2, c.c)
			}
		}
		if a, b := RetryDelay(c.attempts, c.remaining, 0), RetryDelay(c.attempts, c.remaining, 0.5); a == b {
			t.Errorf("attempt %d with %s left: the delay does not depend on chance", c.attempts, c.remaining)
		}
	}
}

func TestSlowDelay(t *testing.T) {
	if least, most := SlowDelay(0), SlowDelay(draws[len(draws)-1]); least != 5*time.Minute || most >= 15*time.Minute || most < 14*time.Minute {
		t.Errorf("between %s and %s", least, most)
	}
}

func TestAttemptTimeout(t *testing.T) {
	const s = time.Second
	for remaining, want := range map[time.Duration]time.Duration{
		-time.Hour: 10 * s, 0: 10 * s, time.Nanosecond: 2 * s, 4 * s: 2 * s, 8 * s: 2 * s, 12 * s: 3 * s,
		40 * s: 10 * s, time.Minute: 10 * s, 720 * time.Hour: 10 * s,
	} {
		if got := AttemptTimeout(remaining); got != want {
			t.Errorf("with %s left: %s, want %s", remaining, got, want)
		}
	}
}

func TestBootDelay(t *testing.T) {
	if d := BootDelay(0, 0.9); d != 0 {
		t.Errorf("after a clean stop: %s", d)
	}
	for n, most := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 7: time.Minute, 1000: time.Minute} {
		if d := BootDelay(n, 0.9); d >= most || d < most/2 {
			t.Errorf("unclean start %d: %s, want less than %s", n, d, most)
		}
	}
}

func TestAskTTL(t *testing.T) {
	const m = time.Minute
	for _, c := range []struct {
		name      string
		left, ttl time.Duration
	}{
		{"far", 24 * time.Hour, 15 * m}, {"exactly the ttl", 15 * m, 15 * m}, {"a second less", 15*m - time.Second, 15 * m},
		{"14 minutes", 14 * m, 14 * m}, {"13 and a bit", 13*m + time.Nanosecond, 14 * m},
		{"one minute", m, m}, {"a moment", time.Nanosecond, m}, {"come", 0, 0}, {"past", -time.Hour, 0},
	} {
		g := cache.Grant{Grant: pam.Grant{TTL: 15 * m}, Until: noon.Add(c.left)}
		if got := AskTTL(g, noon); got != c.ttl {
			t.Errorf("%s: %s, want %s", c.name, got, c.ttl)
		}
	}
	if got := AskTTL(cache.Grant{Grant: pam.Grant{TTL: 15 * m}}, noon); got != 15*m {
		t.Errorf("without until: %s", got)
	}
}

func TestNextAttempt(t *testing.T) {
	tok := cache.Token{Issued: noon, TTL: time.Hour}
	drawn := FirstAttempt(noon, time.Hour, 0.5)
	for _, c := range []struct {
		name            string
		calendar, until time.Duration // after noon, 0 for none
		want            time.Time
	}{
		{"alone", 0, 0, drawn},
		{"calendar first", 10 * time.Minute, 0, noon.Add(10 * time.Minute)},
		{"calendar later", 50 * time.Minute, 0, drawn},
		{"until far", 0, 24 * time.Hour, drawn},
		{"lasts until the end", 0, time.Hour, noon.Add(time.Hour)},
		{"lasts beyond the end", 0, 59*time.Minute + time.Second, noon.Add(59*time.Minute + time.Second)},
		{"ends a second too early", 0, time.Hour + time.Second, drawn},
		{"lasts until the end but for the calendar", 40 * time.Minute, time.Hour, noon.Add(40 * time.Minute)},
	} {
		var calendar, until time.Time
		if c.calendar != 0 {
			calendar = noon.Add(c.calendar)
		}
		if c.until != 0 {
			until = noon.Add(c.until)
		}
		if got := NextAttempt(tok, calendar, until, 0.5); !got.Equal(c.want) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestCalendar(t *testing.T) {
	for _, c := range []struct{ name, expr, now, want string }{
		{"none", "", "2027-03-01T12:00:00Z", "0001-01-01T00:00:00Z"},
		{"UTC by default", "0 3 * * *", "2027-03-01T12:00:00Z", "2027-03-02T03:00:00Z"},
		{"exactly now is past", "0 3 * * *", "2027-03-01T03:00:00Z", "2027-03-02T03:00:00Z"},
		{"zone, winter", "CRON_TZ=Europe/Berlin 0 3 * * *", "2027-03-01T12:00:00Z", "2027-03-02T02:00:00Z"},
		{"zone, summer", "CRON_TZ=Europe/Berlin 0 3 * * *", "2027-07-01T12:00:00Z", "2027-07-02T01:00:00Z"},
		// 2027-03-28: 02:00 CET becomes 03:00 CEST, so 02:30 does not exist.
		{"the hour that is left out", "CRON_TZ=Europe/Berlin 30 2 * * *", "2027-03-27T12:00:00Z", "2027-03-29T00:30:00Z"},
		{"after the clocks went forward", "CRON_TZ=Europe/Berlin 0 4 * * *", "2027-03-28T00:59:59Z", "2027-03-28T02:00:00Z"},
		// 2027-10-31: 03:00 CEST becomes 02:00 CET.
		{"after the clocks went back", "CRON_TZ=Europe/Berlin 0 4 * * *", "2027-10-30T12:00:00Z", "2027-10-31T03:00:00Z"},
		{"descriptor", "@daily", "2027-03-01T12:00:00Z", "2027-03-02T00:00:00Z"},
		{"never", "0 0 30 2 *", "2027-03-01T12:00:00Z", "0001-01-01T00:00:00Z"},
	} {
		now, err := time.Parse(time.RFC3339, c.now)
		if err != nil {
			t.Fatal(err)
		}
		got, err := nextCalendar(c.expr, now)
		if err != nil || got.Format(time.RFC3339) != c.want {
			t.Errorf("%s: %s, %v, want %s", c.name, got.Format(time.RFC3339), err, c.want)
		}
		if c.expr != "" && ParseSchedule(c.expr) != nil {
			t.Errorf("%s: %v", c.name, ParseSchedule(c.expr))
		}
	}
	for _, expr := range []string{"", "whenever", "0 3 * *", "61 * * * *", "CRON_TZ=Nowhere/Land 0 3 * * *", "@reboot"} {
		if ParseSchedule(expr) == nil {
			t.Errorf("%q is taken for a calendar", expr)
		}
	}
}

func TestUrgency(t *testing.T) {
	live := func(left time.Duration) *cache.Record {
		return &cache.Record{Current: &cache.Token{Raw: "t", Issued: noon.Add(left - time.Hour), TTL: time.Hour}}
	}
	for _, c := range []struct {
		name   string
		rec    *cache.Record
		waited bool
		want   urgency
	}{
		{"no token", &cache.Record{}, false, routine},
		{"no token, awaited", &cache.Record{}, true, awaited},
		{"half a life left", live(30 * time.Minute), false, routine},
		{"half a life left, awaited", live(30 * time.Minute), true, awaited},
		{"a fifth left", live(12 * time.Minute), false, routine},
		{"less than a fifth left", live(12*time.Minute - time.Second), false, dying},
		{"less than a fifth left, awaited", live(time.Minute), true, dying},
		{"ended", live(-time.Minute), false, routine},
		{"within the margin of its end", live(cache.EndMargin), true, awaited},
	} {
		if got := urgencyOf(c.rec, noon, c.waited); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
