package refresher

import (
	"testing"
	"testing/synctest"
	"time"
)

// clockRig is a clock whose wall clock can be set and the true time beside it.
type clockRig struct {
	*Clock
	t    *testing.T
	wall time.Duration // error of the wall clock
}

func newClockRig(t *testing.T, wall time.Duration) *clockRig {
	c := &clockRig{t: t, wall: wall}
	c.Clock = NewClock(func() time.Time { return time.Now().Add(c.wall) })
	return c
}

// sample gives the clock a reading that is wrong by off.
func (c *clockRig) sample(off time.Duration, from Source) (ask bool) {
	return c.Sample(time.Now().Add(off), 0, 100*time.Millisecond, from)
}

// want checks how wrong the three times are.
func (c *clockRig) want(what string, now, sure, signing time.Duration) {
	c.t.Helper()
	near := func(got time.Time, want time.Duration) bool {
		return (time.Until(got) - want).Abs() <= 150*time.Millisecond
	}
	if got := c.Now(); !near(got, now) {
		c.t.Errorf("%s: Now is wrong by %s, want %s", what, time.Until(got), now)
	}
	if got := c.Sure(); !near(got, sure) {
		c.t.Errorf("%s: Sure is wrong by %s, want %s", what, time.Until(got), sure)
	}
	if got := c.Signing(); !near(got, signing) {
		c.t.Errorf("%s: Signing is wrong by %s, want %s", what, time.Until(got), signing)
	}
}

func TestClockNothingIsSureBeforeASample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClockRig(t, 0)
		c.Restore(time.Hour)
		if !c.Sure().IsZero() {
			t.Errorf("sure of %s", c.Sure())
		}
		if off := time.Until(c.Now()); off != time.Hour {
			t.Errorf("the restored offset gives %s", off)
		}
		c.sample(time.Hour, FromDate)
		if c.Sure().IsZero() {
			t.Error("not sure after a sample that agrees")
		}
	})
}

func TestClockCorrection(t *testing.T) {
	const s = time.Second
	for _, wall := range []time.Duration{-time.Hour, -61 * s, -40 * s, -20 * s, -s, s, 20 * s, 40 * s, 61 * s, 300 * s, time.Hour} {
		t.Run(wall.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClockRig(t, wall)
				if ask := c.sample(0, FromDate); ask != (wall.Abs() > near) {
					t.Fatalf("after the first Date the server is to be asked: %v", ask)
				}
				switch {
				case wall.Abs() > jump: // the Date alone changes nothing but signatures
					if got := time.Until(c.Now()); got != wall {
						t.Errorf("one Date changed Now to %s", got)
					}
				case wall.Abs() > near: // it counts on the safe side
					if got := time.Until(c.Now()); got != max(wall, 0) {
						t.Errorf("after one Date Now is wrong by %s", got)
					}
				}
				if got := time.Until(c.Signing()); got.Abs() > s {
					t.Errorf("after one Date Signing is wrong by %s", got)
				}
				if c.sample(0, FromTime) {
					t.Error("the time request has not confirmed it")
				}
				c.want("confirmed", 0, 0, 0)
				if st := c.Status(); st.Suspect || !st.Known {
					t.Errorf("status %+v", st)
				}
			})
		})
	}
}

// TestClockPoison: one wrong Date, however wrong, never makes what has ended live,
// and the next good answer clears it.
func TestClockPoison(t *testing.T) {
	const s = time.Second
	for _, off := range []time.Duration{-100 * 24 * time.Hour, -time.Hour, -31 * s, -25 * s, -5 * s, 5 * s, 25 * s, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			c := newClockRig(t, 0)
			c.sample(0, FromTime)
			if !c.sample(off, FromDate) {
				t.Errorf("%s: the server is not asked", off)
			}
			if got := time.Until(c.Now()); got < 0 || got > jump {
				t.Errorf("%s: Now is wrong by %s", off, got)
			}
			if got := time.Until(c.Sure()); got > 0 {
				t.Errorf("%s: Sure is ahead by %s", off, got)
			}
			if !c.Check() {
				t.Errorf("%s: no doubt", off)
			}
			c.sample(0, FromDate)
			c.want(off.String(), 0, 0, 0)
			if c.Check() {
				t.Errorf("%s: still in doubt", off)
			}
		})
	}
}

// TestClockTwoAnswersConfirm: where the time request does not get through, a second
// answer confirms what the first one said, if either granted a token.
func TestClockTwoAnswersConfirm(t *testing.T) {
	for name, answers := range map[string][2]bool{ // whether each has a token
		"two grants": {true, true}, "a refusal and a grant": {false, true}, "a grant and a refusal": {true, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newClockRig(t, -time.Hour)
			for i, token := range answers {
				if got := time.Until(c.Now()); got != -time.Hour {
					t.Fatalf("%s: after %d of them Now is wrong by %s", name, i, got)
				}
				c.sample(0, FromDate)
				if token {
					c.sample(0, FromToken)
				}
			}
			c.want(name, 0, 0, 0)
		})
	}
}

// TestClockRefusalsProveNothing: any number of answers without a token may come
// from one broken proxy.
func TestClockRefusalsProveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClockRig(t, 0)
		c.sample(0, FromTime)
		for range 20 {
			c.sample(time.Hour, FromDate)
		}
		if got := time.Until(c.Now()); got != 0 {
			t.Errorf("Now is wrong by %s", got)
		}
	})
}

// TestClockTokenAloneProvesNothing: a token whose timestamp is far off while the
// answer's Date is right changes nothing.
func TestClockTokenAloneProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClockRig(t, 0)
		for range 5 {
			c.sample(0, FromDate)
			if !c.sample(-16*time.Minute, FromToken) {
				t.Error("the server is not asked")
			}
		}
		c.want("after wrong tokens", 0, 0, 0)
	})
}

func TestClockTimeAloneProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClockRig(t, 0)
		c.sample(0, FromTime)
		if !c.sample(time.Hour, FromTime) {
			t.Error("one answer is enough")
		}
		if got := time.Until(c.Now()); got != 0 {
			t.Errorf("one answer moves Now by %s", got)
		}
		if c.sample(time.Hour, FromTime) {
			t.Error("two answers are not enough")
		}
	})
}

func TestClockWallStep(t *testing.T) {
	for _, by := range []time.Duration{-5 * time.Hour, -40 * time.Second, -time.Second, time.Second, 40 * time.Second, 5 * time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClockRig(t, 0)
				c.sample(0, FromTime)
				c.wall += by
				c.want("before anybody noticed", max(by, 0), min(by, 0), max(by, 0))
				for range 10 {
					time.Sleep(5 * time.Second)
					if !c.Check() {
						t.Fatal("not noticed")
					}
				}
				c.want("noticed", max(by, 0), min(by, 0), max(by, 0))
				c.sample(0, FromTime)
				c.sample(0, FromTime)
				c.want("asked", 0, 0, 0)
				if c.Check() {
					t.Error("still in doubt")
				}
			})
		})
	}
}

// TestClockSlew: a wall clock that is corrected bit by bit is no cause for doubt.
func TestClockSlew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClockRig(t, 0)
		for range 1000 {
			time.Sleep(5 * time.Second)
			c.wall += 2500 * time.Microsecond // 500 ppm
			if c.Check() {
				t.Fatal("in doubt")
			}
		}
	})
}

// TestClockVagueSample: a sample of an answer that took long moves the estimate no
// further than it has to.
func TestClockVagueSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClockRig(t, 0)
		c.sample(0, FromTime)
		c.Sample(time.Now().Add(4*time.Second), 0, 5*time.Second, FromDate)
		c.want("a vague sample that agrees", 0, 0, 0)
		c.Sample(time.Now().Add(6*time.Second), 0, 5*time.Second, FromDate)
		c.want("a vague sample that does not", time.Second, time.Second, time.Second)
	})
}

// TestClockStepDuringRequest: a wall clock that is set while a request is under way
// does not spoil the sample.
func TestClockStepDuringRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClockRig(t, 0)
		server := time.Now()
		time.Sleep(5 * time.Second)
		c.wall -= 10 * time.Second
		c.Sample(server, 5*time.Second, 100*time.Millisecond, FromTime)
		c.want("after the sample", 0, 0, 0)
	})
}
