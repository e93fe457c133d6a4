package refresher

import (
	"context"
	"fmt"
	"time"

	"github.com/robfig/cron/v3"
)

// ParseSchedule reports why expr is no calendar for regrant_at: five cron fields
// or a descriptor such as @daily, with an optional CRON_TZ=Zone in front.
func ParseSchedule(expr string) error {
	_, err := cron.ParseStandard(expr)
	if err != nil {
		return fmt.Errorf("not a cron expression: %w", err)
	}
	return nil
}

// nextCalendar is the next moment of a regrant_at expression after now, the zero
// time for none.
func nextCalendar(expr string, now time.Time) (time.Time, error) {
	if expr == "" {
		return time.Time{}, nil
	}
	schedule, err := cron.ParseStandard(expr)
	if err != nil {
		return time.Time{}, fmt.Errorf("parse %q: %w", expr, err)
	}
	return schedule.Next(now), nil
}

// Times of the housekeeping.
const (
	flushEvery     = 5 * time.Second
	checkEvery     = 5 * time.Second
	askMost        = 15 * time.Minute // between two readings of the server's clock
	askLeast       = 15 * time.Second
	stableAfter    = 10 * time.Minute // a run this long ends the count of unclean starts
	offsetWorthOne = time.Second      // change of the clock offset that is worth a write
)

// startHousekeeping starts the jobs that tokens do not depend on to the second,
// and returns the function that ends them and waits.
func (r *Refresher) startHousekeeping(ctx context.Context) (stop func()) {
	logger := cron.DiscardLogger
	jobs := cron.New(cron.WithChain(cron.Recover(cronLogger{r.log}), cron.SkipIfStillRunning(logger)))
	started := time.Now()
	jobs.Schedule(cron.Every(flushEvery), cron.FuncJob(func() { r.flushUnsaved() }))
	jobs.Schedule(cron.Every(checkEvery), cron.FuncJob(func() { r.watchClock(ctx) }))
	jobs.Schedule(cron.Every(stableAfter), cron.FuncJob(func() {
		if time.Since(started) < stableAfter {
			return
		}
		if err := r.cache.ForgetUncleanStarts(); err != nil {
			r.log.Warn("count of unclean starts cannot be kept", "error", err)
		}
	}))
	jobs.Start()
	return func() { <-jobs.Stop().Done() }
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

// cronLogger reports a panic of a job, the one thing cron logs here.
type cronLogger struct {
	log interface{ Error(string, ...any) }
}

func (cronLogger) Info(string, ...any) {}

func (l cronLogger) Error(err error, msg string, _ ...any) {
	l.log.Error("housekeeping failed", "error", err, "cause", msg)
}
