package cache

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Rows of the cache's own begin with a control character, which no name can.
const (
	metaRow = "\x00meta"
	fileRow = "\x00file"
	// lastOwnRow is after the cache's own rows and before every name.
	lastOwnRow = "\x00\xff"
)

const metaFormat = 1

// Identity is what a state directory belongs to.
type Identity struct {
	SubscribeKey string `cbor:"1,keyasint"`
	Origin       string `cbor:"2,keyasint"`
}

// meta is what is kept once for the whole store.
type meta struct {
	Format       int          `cbor:"1,keyasint"`
	Identity     Identity     `cbor:"2,keyasint"`
	Running      bool         `cbor:"3,keyasint,omitempty"` // not stopped cleanly since
	Unclean      int          `cbor:"4,keyasint,omitempty"` // starts after an unclean stop in a row
	Doubtful     instant      `cbor:"5,keyasint,omitempty"` // grants due until then may have been in flight at a crash
	Offset       int64        `cbor:"6,keyasint,omitempty"` // server clock minus local clock, nanoseconds
	OffsetKnown  bool         `cbor:"7,keyasint,omitempty"`
	Applied      uint64       `cbor:"8,keyasint,omitempty"` // journal lines up to here are in the records
	Rules        []storedRule `cbor:"9,keyasint,omitempty"`
	LostBlocks   bool         `cbor:"10,keyasint,omitempty"` // blocks may be missing: nothing is granted
	LostSince    uint64       `cbor:"11,keyasint,omitempty"` // only a decision after this one accepts that
	LostDatabase bool         `cbor:"12,keyasint,omitempty"` // and the file's grants have not been set since
	SecretID     string       `cbor:"13,keyasint,omitempty"` // short hash of the secret key last used
}

type storedRule struct {
	ID     uint64  `cbor:"1,keyasint"`
	Match  string  `cbor:"2,keyasint"`
	Reason string  `cbor:"3,keyasint,omitempty"`
	Since  instant `cbor:"4,keyasint"`
}

func storeRules(rules []Rule) []storedRule {
	stored := make([]storedRule, len(rules))
	for i, r := range rules {
		stored[i] = storedRule{r.ID, r.Match, r.Reason, instantOf(r.Since)}
	}
	return stored
}

func (m meta) rules() []Rule {
	rules := make([]Rule, len(m.Rules))
	for i, r := range m.Rules {
		rules[i] = Rule{ID: r.ID, Match: r.Match, Reason: r.Reason, Since: r.Since.time()}
	}
	return rules
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

// readMeta returns the stored meta and whether there was one that could be read.
func readMeta(s Store) (meta, uint64, bool, error) {
	row, err := s.Get(metaRow)
	if errors.Is(err, ErrNotFound) {
		return meta{}, 0, false, nil
	}
	if err != nil {
		return meta{}, 0, false, fmt.Errorf("read the store: %w", err)
	}
	var m meta
	err = unseal(metaRow, row.Data, &m)
	if errors.Is(err, ErrNewerFormat) || m.Format > metaFormat {
		return meta{}, row.Revision, true, fmt.Errorf("%w: run that version, or use another state_dir", ErrNewerFormat)
	}
	if err != nil {
		return meta{}, row.Revision, false, err
	}
	return m, row.Revision, true, nil
}

// updateMeta changes the meta in memory and on disk. The change in memory stays
// when the disk refuses; the next update carries it.
func (c *Cache) updateMeta(change func(*meta)) error {
	c.metaWrite.Lock()
	defer c.metaWrite.Unlock()
	m, changes := c.changeMeta(change)
	data, err := seal(metaRow, m)
	if err != nil {
		return err
	}
	err = c.store.Commit(context.Background(), []Row{{Name: metaRow, Revision: c.metaRevision, Data: data}})[0]
	c.storeRefuses.note(c, err)
	if err != nil {
		return fmt.Errorf("write the store: %w", err)
	}
	c.metaRevision++
	c.metaMu.Lock()
	defer c.metaMu.Unlock()
	c.metaSaved = changes
	return nil
}

// changeMeta changes the meta in memory, for the next updateMeta or Flush to
// write, and returns it with the number of the change.
func (c *Cache) changeMeta(change func(*meta)) (meta, uint64) {
	c.metaMu.Lock()
	defer c.metaMu.Unlock()
	change(&c.meta)
	c.metaChanges++
	return c.meta, c.metaChanges
}

func (c *Cache) isMetaStale() bool {
	c.metaMu.Lock()
	defer c.metaMu.Unlock()
	return c.metaSaved != c.metaChanges
}

func (c *Cache) readMetaCopy() meta {
	c.metaMu.Lock()
	defer c.metaMu.Unlock()
	return c.meta
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

// SecretID is the short hash of the secret key that was last used with this
// state, empty before the first.
func (c *Cache) SecretID() string { return c.readMetaCopy().SecretID }

// SetSecretID stores the short hash of the secret key in use.
func (c *Cache) SetSecretID(id string) error {
	return c.updateMeta(func(m *meta) { m.SecretID = id })
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
// here before, or after one that did and had not got as far as SetFileNames:
// tokens may live that nobody holds.
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

// SetFileNames stores the names that the configuration file has now, whose grants
// have been set.
func (c *Cache) SetFileNames(names []string) error {
	data, err := seal(fileRow, names)
	if err != nil {
		return err
	}
	row, err := c.store.Get(fileRow)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("read the store: %w", err)
	}
	if err := c.store.Commit(context.Background(), []Row{{Name: fileRow, Revision: row.Revision, Data: data}})[0]; err != nil {
		return fmt.Errorf("write the store: %w", err)
	}
	if !c.readMetaCopy().LostDatabase {
		return nil
	}
	return c.updateMeta(func(m *meta) { m.LostDatabase = false })
}
