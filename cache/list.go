package cache

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Due returns records whose work is due at now, earliest first, at most limit
// but for those that memory is ahead with, and the moment at which the next one
// is due (zero: none; now itself when limit cut the list).
func (c *Cache) Due(now time.Time, limit int) ([]*Record, time.Time, error) {
	ahead, deletes := c.dirtyRecords(), c.deleted()
	rows, err := c.store.Due(now, limit+len(ahead)+1)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read due names: %w", err)
	}
	var due []dueRecord
	var next time.Time
	for _, row := range rows {
		if ahead[row.Name] != nil {
			continue
		}
		if len(due) == limit {
			next = now
			break
		}
		due = append(due, dueRecord{row.Due, c.decode(row, deletes)})
	}
	if next.IsZero() {
		if next, err = c.nextDue(now, len(rows)); err != nil {
			return nil, time.Time{}, fmt.Errorf("read due names: %w", err)
		}
	}
	for _, r := range ahead {
		switch d := r.Due(); {
		case d.IsZero():
		case !d.After(now):
			due = append(due, dueRecord{d, r.Clone()})
		case next.IsZero() || d.Before(next):
			next = d
		}
	}
	return inOrder(due), next, nil
}

type dueRecord struct {
	at  time.Time
	rec *Record
}

func inOrder(due []dueRecord) []*Record {
	slices.SortFunc(due, func(a, b dueRecord) int {
		return cmp.Or(a.at.Compare(b.at), strings.Compare(a.rec.Name, b.rec.Name))
	})
	recs := make([]*Record, len(due))
	for i, d := range due {
		recs[i] = d.rec
	}
	return recs
}

// nextDue is the first due time in the store behind the n rows due at now; now
// itself when more are due by now.
func (c *Cache) nextDue(now time.Time, n int) (time.Time, error) {
	rows, err := c.store.Due(now.Add(100*365*24*time.Hour), n+1)
	if err != nil {
		return time.Time{}, err
	}
	for _, row := range rows {
		if row.Due.After(now) {
			return row.Due, nil
		}
	}
	if len(rows) > n {
		return now, nil
	}
	return time.Time{}, nil
}

// List returns up to limit views of names after the given one, in byte order.
func (c *Cache) List(after string, limit int) ([]View, error) {
	recs, err := c.page(after, limit)
	if err != nil {
		return nil, err
	}
	views := make([]View, len(recs))
	for i, r := range recs {
		views[i] = c.ruled(View{newBlock(r)})
	}
	return views, nil
}

// page returns up to limit records after a name, in byte order, with what memory
// is ahead with. Fewer than limit means that there are no more.
func (c *Cache) page(after string, limit int) ([]*Record, error) {
	// The cache's own rows come before all names.
	after = max(after, lastOwnRow)
	// Memory first: what it is ahead with now may be on disk a moment later.
	ahead, deletes := c.dirtyRecords(), c.deleted()
	rows, err := c.store.Scan(after, limit)
	if err != nil {
		return nil, fmt.Errorf("list names: %w", err)
	}
	recs := make([]*Record, 0, len(rows)+len(ahead))
	for _, row := range rows {
		if ahead[row.Name] == nil {
			recs = append(recs, c.decode(row, deletes))
		}
	}
	for name, r := range ahead {
		if name > after {
			recs = append(recs, r.Clone())
		}
	}
	// Up to the last row there are at least as many records as rows, so that the
	// limit cuts off names in memory that have rows before them not read yet.
	slices.SortFunc(recs, func(a, b *Record) int { return strings.Compare(a.Name, b.Name) })
	return recs[:min(max(limit, 0), len(recs))], nil
}

// each calls fn with every record in the order of names until it fails.
func (c *Cache) each(fn func(*Record) error) error {
	after := ""
	for {
		recs, err := c.page(after, pageSize)
		if err != nil {
			return err
		}
		for _, r := range recs {
			after = r.Name
			if err := fn(r); err != nil {
				return err
			}
		}
		if len(recs) < pageSize {
			return nil
		}
	}
}

// pageSize is how many records are read together.
const pageSize = 500

// Records returns the records a query selects and the cursor for the next page,
// empty at the end.
func (c *Cache) Records(q Query, now time.Time) ([]*Record, string, error) {
	limit := min(q.Limit, MaxListed)
	if limit <= 0 {
		limit = 100
	}
	after := q.After
	if q.Prefix != "" {
		after = max(after, before(q.Prefix))
	}
	var found []*Record
	for {
		recs, err := c.page(after, pageSize)
		if err != nil {
			return nil, "", err
		}
		for _, r := range recs {
			after = r.Name
			if !strings.HasPrefix(r.Name, q.Prefix) {
				if r.Name > q.Prefix {
					return found, "", nil
				}
				continue
			}
			if q.State != "" && c.StateOf(r, now) != q.State {
				continue
			}
			if len(found) == limit {
				return found, found[limit-1].Name, nil
			}
			found = append(found, r)
		}
		if len(recs) < pageSize {
			return found, "", nil
		}
	}
}

// before is a key between every name below the prefix and every name with it:
// names are UTF-8 without control characters, so no name has the byte 0xff.
func before(prefix string) string {
	b := []byte(prefix)
	b[len(b)-1]--
	return string(b) + "\xff"
}

// StateOf is what a reader of the record's name gets at now, rules included.
func (c *Cache) StateOf(r *Record, now time.Time) State {
	if c.RuleFor(r.Name) != nil {
		return Blocked
	}
	return r.State(now)
}
