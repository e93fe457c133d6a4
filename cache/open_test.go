package cache_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam"
)

// files are the contents of the state directory but for the lock of the database.
func (w *world) files() map[string]string {
	w.t.Helper()
	entries, err := os.ReadDir(w.dir)
	mustDo(w.t, err)
	contents := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(w.path(e.Name()))
		mustDo(w.t, err)
		contents[e.Name()] = string(data)
	}
	return contents
}

func (w *world) row(name string) cache.Row {
	w.t.Helper()
	row, err := w.bolt.Get(name)
	mustDo(w.t, err)
	return row
}

// overwrite puts data into a row behind the back of the cache.
func (w *world) overwrite(name string, data []byte) {
	w.t.Helper()
	row := w.row(name)
	row.Data = data
	mustDo(w.t, w.bolt.Commit(context.Background(), []cache.Row{row})[0])
}

// State of another keyset or origin, or of a newer version, is refused and left
// as it is.
func TestOpenRefuses(t *testing.T) {
	newer := func(w *world, name string) {
		data := w.row(name).Data
		data = bytes.Clone(data[:len(data)-4])
		data[0]++
		sum := crc32.Checksum(append([]byte(name), data...), crc32.MakeTable(crc32.Castagnoli))
		w.overwrite(name, binary.BigEndian.AppendUint32(data, sum))
	}
	tests := []struct {
		about  string
		change func(*world)
		id     cache.Identity
		want   string
	}{
		{"another keyset", func(*world) {}, cache.Identity{SubscribeKey: "sub-c-2", Origin: identity.Origin}, "the state belongs to the keyset with subscribe key sub-c-1, not sub-c-2: one state directory serves one keyset; set another state_dir"},
		{"another origin", func(*world) {}, cache.Identity{SubscribeKey: identity.SubscribeKey, Origin: "http://127.0.0.1:1"}, "the state belongs to origin https://ps.pndsn.com, not http://127.0.0.1:1: set another state_dir"},
		{"another of both", func(*world) {}, cache.Identity{SubscribeKey: "sub-c-2", Origin: "x"}, "the state belongs to the keyset with subscribe key sub-c-1, not sub-c-2: one state directory serves one keyset; set another state_dir"},
		{"newer format", func(w *world) { newer(w, "\x00meta") }, identity, "state was written by a newer pamsidecar: run that version, or use another state_dir"},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.put("a", 1)
				w.block("b")
				tt.change(w)
				w.crash()
				before := w.files()
				w.identity = tt.id
				err := w.tryOpen()
				if err == nil || err.Error() != tt.want {
					t.Fatalf("got %v\nwant %s", err, tt.want)
				}
				if _, ok := errors.AsType[*cache.OtherIdentityError](err); ok == errors.Is(err, cache.ErrNewerFormat) {
					t.Errorf("%T", err)
				}
				if after := w.files(); len(after) != len(before) || after["audit.log"] != before["audit.log"] || after["tokens.db"] != before["tokens.db"] {
					t.Error("the refused state was changed")
				}
				if _, err := w.bolt.Get("a"); !errors.Is(err, cache.ErrClosed) {
					t.Errorf("the store was left open: %v", err)
				}
			})
		})
	}
}

// Starts after a stop that was not clean are counted, and grants that may have
// been in flight are told.
func TestUncleanStarts(t *testing.T) {
	inWorld(t, func(w *world) {
		wantUnclean := func(want int) {
			t.Helper()
			if n := w.cache.UncleanStarts(); n != want {
				t.Errorf("%d unclean starts, want %d", n, want)
			}
		}
		unaccounted := func(name string) time.Time { return w.record(name).UnaccountedUntil }
		wantUnclean(0)
		w.plan("due", -1, false)
		w.plan("due now", 2, false)
		w.plan("later", 30, false)
		unplanned := cache.NewRecord("unplanned")
		unplanned.Grant = w.record("later").Grant
		mustDo(t, w.cache.Commit(context.Background(), unplanned)[0])
		w.put("ended", 0)
		r := w.record("ended")
		r.End(w.now)
		r.Block, r.NextAttempt = &cache.Block{Reason: "keep"}, noon
		mustDo(t, w.cache.Commit(context.Background(), r)[0])
		w.plan("known", -1, false)
		r = w.record("known")
		r.UnaccountedUntil = noon.Add(24 * time.Hour)
		mustDo(t, w.cache.Commit(context.Background(), r)[0])

		w.restart()
		wantUnclean(0)
		if !unaccounted("due").IsZero() {
			t.Error("nothing is in doubt after a clean stop")
		}
		w.now = noon.Add(2 * time.Minute)
		w.reopen()
		wantUnclean(1)
		want := w.now.Add(11 * time.Minute) // the time of the start, the ttl, and what a request may take
		check := func() {
			t.Helper()
			if got := unaccounted("due"); !got.Equal(want) {
				t.Errorf("due: unaccounted until %v, want %v", got, want)
			}
			if got := unaccounted("due now"); !got.Equal(want) {
				t.Errorf("due now: unaccounted until %v, want %v", got, want)
			}
			if !unaccounted("later").IsZero() || !unaccounted("unplanned").IsZero() || !unaccounted("ended").Equal(want) || !unaccounted("known").Equal(noon.Add(24*time.Hour)) {
				t.Errorf("later %v, ended %v, known %v", unaccounted("later"), unaccounted("ended"), unaccounted("known"))
			}
		}
		check()
		recs, _, err := w.cache.Due(w.now, 10)
		if err != nil || len(recs) != 4 || recs[0].UnaccountedUntil.IsZero() {
			t.Errorf("due: %v, %v", names(recs), err)
		}
		w.now = w.now.Add(time.Second)
		w.restart()
		wantUnclean(0)
		check() // still not attempted since
		w.put("due", 1)
		if got := unaccounted("due"); !got.Equal(want) {
			t.Errorf("the doubt is gone with the next grant: %v", got)
		}
		for want := range 3 {
			wantUnclean(want)
			w.reopen()
		}
		mustDo(t, w.cache.ForgetUncleanStarts())
		wantUnclean(0)
		w.reopen()
		wantUnclean(1)
	})
}

func TestClockOffset(t *testing.T) {
	inWorld(t, func(w *world) {
		if _, known := w.cache.ClockOffset(); known {
			t.Error("an offset that nobody measured")
		}
		mustDo(t, w.cache.SetClockOffset(-3*time.Second))
		w.reopen()
		w.crash()
		bolt, err := cache.OpenBolt(w.path("tokens.db"), cache.BoltOptions{NoSync: true})
		mustDo(t, err)
		var measured []time.Duration
		c, err := cache.Open(bolt, w.dir, cache.Options{
			Identity: identity, Measured: func(d time.Duration) { measured = append(measured, d) },
			Now: func() time.Time {
				if len(measured) == 0 {
					t.Error("the time was asked before the offset was given")
				}
				return noon
			},
		})
		mustDo(t, err)
		if offset, known := c.ClockOffset(); !known || offset != -3*time.Second || !slices.Equal(measured, []time.Duration{offset}) {
			t.Errorf("offset %v, %v, told %v", offset, known, measured)
		}
		mustDo(t, c.Close())
	})
}

func TestFileNames(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, want := range [][]string{nil, {"a", "b/é"}, {}, {"c"}} {
			if want != nil {
				mustDo(t, w.cache.SetFileNames(want))
				w.reopen()
			}
			if got, err := w.cache.FileNames(); err != nil || !slices.Equal(got, want) {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
		}
		w.overwrite("\x00file", []byte("x"))
		if _, err := w.cache.FileNames(); !errors.Is(err, cache.ErrRecord) {
			t.Errorf("damaged: %v", err)
		}
		mustDo(t, w.cache.SetFileNames([]string{"d"}))
		many := make([]string, 200_000)
		for i := range many {
			many[i] = "n"
		}
		mustDo(t, w.cache.SetFileNames(many))
		if got, err := w.cache.FileNames(); err != nil || len(got) != len(many) {
			t.Errorf("%d names, %v", len(got), err)
		}
	})
}

// Rules come back as they were, to the instant.
func TestRulesSurvive(t *testing.T) {
	inWorld(t, func(w *world) {
		w.now = noon.Add(123456789 * time.Nanosecond)
		w.decide(cache.Decision{Action: cache.ActRevoke, Match: "a.*", Reason: "first"})
		w.decide(cache.Decision{Action: cache.ActRevoke, All: true, Reason: "second"})
		want, err := w.cache.Blocks()
		mustDo(t, err)
		for _, again := range []func(){w.reopen, w.restart, func() { mustDo(t, os.Remove(w.path("audit.log"))); w.reopen() }} {
			again()
			got, err := w.cache.Blocks()
			if err != nil || !slices.Equal(got, want) || len(got) != 2 || !got[0].Since.Equal(w.now.Truncate(time.Millisecond)) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
			}
			w.wantRuled("abc", "first")
			w.wantRuled("xyz", "second")
		}
	})
}

func (w *world) wantRuled(name, reason string) {
	w.t.Helper()
	if rule := w.cache.RuleFor(name); rule == nil || rule.Reason != reason {
		w.t.Errorf("rule for %s: %+v", name, rule)
	}
}

// No token and no secret reaches the log or the journal, whatever goes wrong.
func TestSecretsStayInside(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("a", 1)
		raw := w.token("a", 1).Raw
		w.store.refuse(true)
		_, err := w.cache.Select(cache.Selector{Token: raw + "x"})
		texts := []string{err.Error()}
		err = w.cache.Commit(context.Background(), w.record("a"))[0]
		texts = append(texts, err.Error())
		w.store.refuse(false)
		w.block("a")
		w.crash()
		w.open()
		row := w.row("a")
		w.overwrite("a", row.Data[:len(row.Data)-1])
		w.reopen()
		w.record("a")
		texts = append(texts, w.logs.String(), w.files()["audit.log"])
		for _, text := range texts {
			if text == "" || strings.Contains(text, raw.Reveal()) {
				t.Errorf("%q", text)
			}
		}
		if !strings.Contains(texts[0], pam.Secret(raw+"x").ID()) {
			t.Errorf("which token: %s", texts[0])
		}
	})
}
