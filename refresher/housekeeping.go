package refresher

import (
	"context"
	"sync"
	"time"
)

// Times of the housekeeping.
const (
	flushEvery     = 5 * time.Second
	stableAfter    = 10 * time.Minute // a run this long ends the count of unclean starts
	offsetWorthOne = time.Second      // change of the clock offset that is worth a write
)

// startHousekeeping starts what goes on beside the loop until ctx ends and
// returns the function that waits for its end. It runs on tickers, and not on
// calendars as the scheduler of package cron does: a wall clock that is set back
// by an hour would stop that one for an hour.
func (r *Refresher) startHousekeeping(ctx context.Context) (wait func()) {
	var jobs sync.WaitGroup
	jobs.Go(func() { (&clockWatch{Refresher: r}).run(ctx) })
	jobs.Go(func() { r.keepDisk(ctx) })
	return jobs.Wait
}

// keepDisk brings to disk what is not there yet, every few seconds and at the end.
func (r *Refresher) keepDisk(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			r.saveOffset()
			return
		case <-tick.C:
		}
		r.flushUnsaved()
		r.saveOffset()
		r.forgetCrashes()
	}
}

// flushUnsaved writes what the disk refused earlier.
func (r *Refresher) flushUnsaved() {
	if r.cache.Unsaved() == 0 && r.cache.Degraded() == nil {
		return
	}
	if err := r.cache.Flush(); err != nil {
		r.log.Warn("changes still hold in memory only", "unsaved", r.cache.Unsaved(), "error", err)
	}
}

// saveOffset keeps the measured offset for the next start.
func (r *Refresher) saveOffset() {
	is := r.clock.Status()
	saved, known := r.cache.ClockOffset()
	if !is.Known || known && (is.Offset-saved).Abs() < offsetWorthOne {
		return
	}
	if err := r.cache.SetClockOffset(is.Offset); err != nil {
		r.log.Warn("clock offset cannot be kept", "error", err)
	}
}

// forgetCrashes ends the count of unclean starts once the process has run long.
func (r *Refresher) forgetCrashes() {
	if time.Since(r.began) < stableAfter || r.cache.UncleanStarts() == 0 {
		return
	}
	if err := r.cache.ForgetUncleanStarts(); err != nil {
		r.log.Warn("count of unclean starts cannot be kept", "error", err)
	}
}
