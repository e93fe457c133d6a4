package refresher

import (
	"sync"
	"time"
)

const (
	// near is the difference that any one sample may correct.
	near = 2 * time.Second
	// jump is the difference up to which a sample not confirmed yet counts for what
	// is live, on the safe side; beyond it, one sample alone says nothing.
	jump = 30 * time.Second
	// step is the difference between wall and monotonic clock that shows that the
	// wall clock was set, or the machine was suspended.
	step = 500 * time.Millisecond
)

// Source is where a reading of the server's clock comes from.
type Source int

// The sources.
const (
	FromDate  Source = iota // the header Date of an answer, which anything on the way can make
	FromToken               // the timestamp of a token just granted
	FromTime                // the time request
)

// Clock estimates server time: the local wall clock and a measured offset. It is
// safe for concurrent use.
//
// A sample close to the estimate corrects it at once. A larger difference has to
// be confirmed by the time request, or by a second answer if one of the two granted
// a token, before it changes the estimate; signed requests follow it at once. When the wall clock
// moves against the monotonic one, both count until the server was asked: the
// later for what is live, the earlier for what cannot be taken back.
type Clock struct {
	wall func() time.Time

	mu       sync.Mutex
	offset   time.Duration
	known    bool // offset was measured, by this process or an earlier one
	measured bool // by this process
	pending  *reading
	suspect  bool // the wall clock was set or the machine slept

	anchor     time.Time // monotonic reading at which wall and offset were good
	anchorWall time.Time // wall clock at the anchor
}

// reading is an offset that waits for confirmation.
type reading struct {
	offset, err time.Duration
	samples     int  // that agree; one answer makes at most two of them, Date and token
	granted     bool // one of them is of a token
}

// ClockStatus is what operators see of the clock.
type ClockStatus struct {
	Offset  time.Duration // server clock minus local clock
	Known   bool          // measured at least once
	Suspect bool          // a difference is not confirmed yet
}

// NewClock returns a clock over the local wall clock, time.Now if nil.
func NewClock(wall func() time.Time) *Clock {
	if wall == nil {
		wall = time.Now
	}
	c := &Clock{wall: wall}
	c.anchorLocked()
	return c
}

// Restore sets the offset that was measured before this process began.
func (c *Clock) Restore(offset time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset, c.known = offset, true
}

func (c *Clock) anchorLocked() {
	c.anchor, c.anchorWall = time.Now(), c.local()
}

// local is the wall clock without its monotonic reading.
func (c *Clock) local() time.Time { return c.wall().Round(0) }

// steadyLocked is what the wall clock would read had nobody set it.
func (c *Clock) steadyLocked() time.Time { return c.anchorWall.Add(time.Since(c.anchor)) }

// Now is server time for all that ends: never earlier than any estimate.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall := c.local()
	now := later(wall, c.steadyLocked()).Add(c.offset)
	if p := c.pending; p != nil && (p.offset-c.offset).Abs() <= jump {
		now = later(now, wall.Add(p.offset))
	}
	return now.UTC()
}

// Sure is server time for what cannot be taken back, as forgetting a token that
// has ended: never later than any estimate, and the zero time before the server
// was asked once.
func (c *Clock) Sure() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.measured {
		return time.Time{}
	}
	wall := c.local()
	now := earlier(wall, c.steadyLocked()).Add(c.offset)
	if c.pending != nil {
		now = earlier(now, wall.Add(c.pending.offset))
	}
	return now.UTC()
}

// Signing is server time for the timestamp of a request: it follows a difference
// that is not confirmed yet.
func (c *Clock) Signing() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending != nil {
		return c.local().Add(c.pending.offset).UTC()
	}
	return later(c.local(), c.steadyLocked()).Add(c.offset).UTC()
}

// Sample takes a reading of the server's clock: it was server time, give or take
// err, when age had still to pass until now. It reports whether the server should
// be asked for its time, for the reading differs too much to stand alone.
func (c *Clock) Sample(server time.Time, age, err time.Duration, from Source) (ask bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := server.Add(age).Sub(c.local())
	difference := (seen - c.offset).Abs()
	agrees := c.pending != nil && (seen-c.pending.offset).Abs() <= near+err+c.pending.err
	switch {
	case difference <= near+err, from == FromTime && (agrees || difference <= jump):
		c.acceptLocked(seen, err)
		return false
	case from == FromToken && !agrees:
		// It proves nothing: the answer that the token came with has a Date as well.
	case agrees:
		c.pending.samples++
		c.pending.granted = c.pending.granted || from == FromToken
		if c.pending.granted && c.pending.samples > 2 {
			c.acceptLocked(c.pending.offset, c.pending.err)
			return false
		}
	default:
		c.pending = &reading{offset: seen, err: err, samples: 1}
	}
	return true
}

// acceptLocked corrects the offset, unless the sample agrees with it within its
// own error, and ends all doubt. A sample that is vague moves it no further than
// it has to.
func (c *Clock) acceptLocked(seen, err time.Duration) {
	switch difference := seen - c.offset; {
	case !c.known, difference.Abs() > max(err, jump), difference.Abs() > err && err <= time.Second:
		c.offset = seen
	case difference > err:
		c.offset = seen - err
	case difference < -err:
		c.offset = seen + err
	}
	c.known, c.measured, c.pending, c.suspect = true, true, nil, false
	c.anchorLocked()
}

// Check compares the wall clock with the monotonic one and reports whether there
// is doubt that only the server can end: the wall clock moved, or a difference
// waits for its confirmation. It is to be called every few seconds.
func (c *Clock) Check() (doubt bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch drift := c.local().Sub(c.steadyLocked()); {
	case drift.Abs() > step:
		c.suspect = true
	case !c.suspect:
		c.anchorLocked()
	}
	return c.suspect || c.pending != nil
}

// Status is the present estimate.
func (c *Clock) Status() ClockStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ClockStatus{Offset: c.offset, Known: c.known, Suspect: c.suspect || c.pending != nil}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
