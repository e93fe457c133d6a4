package refresher

import (
	"fmt"
	"time"

	"github.com/robfig/cron/v3"
)

// ParseSchedule reports why expr is no calendar for regrant_at: five cron fields
// or a descriptor such as @daily, with an optional CRON_TZ=Zone in front. Without
// a zone it is in UTC.
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
	return schedule.Next(now.UTC()).UTC(), nil
}
