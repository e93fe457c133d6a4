package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Rows of the cache's own begin with a control character, which no name can.
const (
	metaRow = "\x00meta"
	fileRow = "\x00file"
)

const metaFormat = 1

// Identity is what a state directory belongs to.
type Identity struct {
	SubscribeKey string `cbor:"1,keyasint"`
	Origin       string `cbor:"2,keyasint"`
}

// meta is what is kept once for the whole store.
type meta struct {
	Format      int      `cbor:"1,keyasint"`
	Identity    Identity `cbor:"2,keyasint"`
	Running     bool     `cbor:"3,keyasint,omitempty"` // not stopped cleanly since
	Unclean     int      `cbor:"4,keyasint,omitempty"` // starts after an unclean stop in a row
	Doubtful    instant  `cbor:"5,keyasint,omitempty"` // grants due until then may have been in flight at a crash
	Offset      int64    `cbor:"6,keyasint,omitempty"` // server clock minus local clock, nanoseconds
	OffsetKnown bool     `cbor:"7,keyasint,omitempty"`
	Applied     uint64   `cbor:"8,keyasint,omitempty"` // journal lines up to here are in the records
	Rules       []Rule   `cbor:"9,keyasint,omitempty"`
	LostBlocks  bool     `cbor:"10,keyasint,omitempty"` // blocks may be missing: nothing is granted
}

// OtherIdentityError says that a state directory belongs to another keyset or
// origin.
type OtherIdentityError struct{ Have, Want Identity }

func (e *OtherIdentityError) Error() string {
	if e.Have.SubscribeKey != e.Want.SubscribeKey {
		return fmt.Sprintf("the state belongs to the keyset with subscribe key %s, not %s: one state directory serves one keyset; set another state_dir", e.Have.SubscribeKey, e.Want.SubscribeKey)
	}
	return fmt.Sprintf("the state belongs to origin %s, not %s: set another state_dir", e.Have.Origin, e.Want.Origin)
}

// readMeta returns the stored meta and whether there was one.
func readMeta(s Store) (meta, uint64, bool, error) {
	row, err := s.Get(metaRow)
	if errors.Is(err, ErrNotFound) {
		return meta{}, 0, false, nil
	}
	if err != nil {
		return meta{}, 0, false, fmt.Errorf("read the store: %w", err)
	}
	var m meta
	if err := unseal(metaRow, row.Data, &m); err != nil {
		return meta{}, row.Revision, false, err
	}
	if m.Format > metaFormat {
		return m, row.Revision, true, fmt.Errorf("the state was written by a newer version (format %d, this one knows %d): run that version, or use another state_dir", m.Format, metaFormat)
	}
	return m, row.Revision, true, nil
}

// updateMeta changes the meta in memory and on disk. The change in memory stays
// when the disk refuses; the next update carries it.
func (c *Cache) updateMeta(change func(*meta)) error {
	c.metaMu.Lock()
	defer c.metaMu.Unlock()
	change(&c.meta)
	data, err := seal(metaRow, c.meta)
	if err != nil {
		return err
	}
	err = c.store.Commit(context.Background(), []Row{{Name: metaRow, Revision: c.metaRevision, Data: data}})[0]
	if err != nil {
		c.metaStale = true
		return fmt.Errorf("write the store: %w", err)
	}
	c.metaStale = false
	c.metaRevision++
	return nil
}

func (c *Cache) readMetaCopy() meta {
	c.metaMu.Lock()
	defer c.metaMu.Unlock()
	m := c.meta
	m.Rules = slices.Clone(m.Rules)
	return m
}

// ClockOffset is the last stored difference of the server's clock to the local
// one, and whether one was ever measured.
func (c *Cache) ClockOffset() (time.Duration, bool) {
	m := c.readMetaCopy()
	return time.Duration(m.Offset), m.OffsetKnown
}

// SetClockOffset stores the measured difference of the clocks.
func (c *Cache) SetClockOffset(d time.Duration) error {
	return c.updateMeta(func(m *meta) { m.Offset, m.OffsetKnown = int64(d), true })
}

// UncleanStarts counts the starts in a row that followed an unclean stop, the
// present one included.
func (c *Cache) UncleanStarts() int { return c.readMetaCopy().Unclean }

// ForgetUncleanStarts ends that count, after the process has run well for long.
func (c *Cache) ForgetUncleanStarts() error {
	if c.UncleanStarts() == 0 {
		return nil
	}
	return c.updateMeta(func(m *meta) { m.Unclean = 0 })
}

// LostBlocks reports whether blocks may have been lost with the database and the
// journal. While it is true nothing may be granted.
func (c *Cache) LostBlocks() bool { return c.readMetaCopy().LostBlocks }

// LostDatabase reports whether this process began without the database that was
// here before: tokens may live that nobody holds.
func (c *Cache) LostDatabase() bool { return c.lostDatabase }

// FileNames are the names that the configuration file had when it was last
// applied.
func (c *Cache) FileNames() ([]string, error) {
	row, err := c.store.Get(fileRow)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	var names []string
	if err := unseal(fileRow, row.Data, &names); err != nil {
		return nil, err
	}
	return names, nil
}

// SetFileNames stores the names that the configuration file has now.
func (c *Cache) SetFileNames(names []string) error {
	data, err := seal(fileRow, names)
	if err != nil {
		return err
	}
	row, err := c.store.Get(fileRow)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("read the store: %w", err)
	}
	return c.store.Commit(context.Background(), []Row{{Name: fileRow, Revision: row.Revision, Data: data}})[0]
}
