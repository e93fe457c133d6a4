package refresher

import (
	"sync"
	"time"
)

const (
	// jump is the difference between two samples that one sample alone does not
	// prove.
	jump = 30 * time.Second
	// step is the difference between wall and monotonic clock that shows that the
	// wall clock was set, or the machine was suspended.
	step = 2 * time.Second
)

// Clock estimates server time: the local wall clock and a measured offset. It is
// safe for concurrent use.
//
// A sample within 30 s of the estimate corrects it at once. A larger difference
// needs a second sample that agrees before it changes what counts as live; signed
// requests use it at once. When the wall clock moves against the monotonic one,
// the later of the two estimates counts until the server was asked.
type Clock struct {
	wall func() time.Time

	mu      sync.Mutex
	offset  time.Duration
	known   bool
	pending *time.Duration // an offset that needs a second sample
	suspect bool           // the wall clock was set or the machine slept

	anchor     time.Time // monotonic reading at which wall and offset were good
	anchorWall time.Time // wall clock at the anchor
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

// Now is server time for all that ends: never earlier than either estimate.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.laterLocked().Add(c.offset).UTC()
}

// laterLocked is the local time by wall clock, or by the monotonic clock since
// the anchor when that is later by more than the clocks drift apart.
func (c *Clock) laterLocked() time.Time {
	wall := c.local()
	steady := c.anchorWall.Add(time.Since(c.anchor))
	if steady.Sub(wall) > step {
		return steady
	}
	return wall
}

// Signing is server time for the timestamp of a request: it follows a difference
// that is not confirmed yet.
func (c *Clock) Signing() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending != nil {
		return c.local().Add(*c.pending).UTC()
	}
	return c.local().Add(c.offset).UTC()
}

// Local is the local wall clock at a moment of server time, for comparing with
// samples.
func (c *Clock) Local() time.Time { return c.local() }

// Sample takes a reading of the server's clock: it was server time when the local
// wall clock read local, give or take err. confirms tells whether the reading
// comes from a source that may confirm a jump (a token or the time request, not a
// Date header, which anybody on the way can make). It reports whether the estimate
// still needs confirmation.
func (c *Clock) Sample(server, local time.Time, err time.Duration, confirms bool) (needsMore bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := server.Sub(local.Round(0))
	if (seen - c.offset).Abs() <= jump {
		c.acceptLocked(seen, err)
		return false
	}
	if c.pending != nil && confirms && (seen-*c.pending).Abs() <= max(step, err+time.Second) {
		c.acceptLocked(seen, 0)
		return false
	}
	c.pending = &seen
	return true
}

// acceptLocked corrects the offset, unless the sample agrees with it within its
// own error. It ends the suspicion, for the sample was compared with now's clock.
func (c *Clock) acceptLocked(seen, err time.Duration) {
	if !c.known || (seen-c.offset).Abs() > err {
		c.offset = seen
	}
	c.known, c.pending, c.suspect = true, nil, false
	c.anchorLocked()
}

// Check compares the wall clock with the monotonic one and reports whether the
// server should be asked: the wall clock moved, or a difference waits for its
// confirmation. It is to be called every few seconds.
func (c *Clock) Check() (ask bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	drift := c.local().Sub(c.anchorWall) - time.Since(c.anchor)
	switch {
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
