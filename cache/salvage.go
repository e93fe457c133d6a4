package cache

import (
	"fmt"
	"slices"

	"github.com/pamsidecar/pamsidecar/pam"
)

// lostGenerations is added to the revision of a row that cannot be read to make
// a generation that was never used. Each generation takes a commit, but while the
// disk refuses several of them share one.
const lostGenerations = 1_000_000

// salvage makes the record that stands for a row that cannot be decoded: with the
// token that memory still has, and with the block that memory or the journal has.
// Other tokens of the name may live and cannot be withdrawn.
func (c *Cache) salvage(row Row, cause error) *Record {
	c.mu.RLock()
	known, b := c.salvaged[row.Name], c.views[row.Name]
	c.mu.RUnlock()
	if known != nil && known.version.disk == row.Revision {
		return known.Clone()
	}
	c.log.Error("record cannot be read and is made anew", "name", row.Name, "error", cause)
	r := &Record{
		Name: row.Name, Generation: row.Revision + lostGenerations, Lost: true,
		UnaccountedUntil: c.now().Add(pam.MaxTTL),
		version:          version{disk: row.Revision, deletes: c.deleted()},
	}
	r.Block = c.blockFromJournal(row.Name)
	if b != nil && b.version.disk == row.Revision {
		r.version = b.version
		r.Generation = max(r.Generation, b.generation)
		if b.token.Raw != "" {
			r.Current = &b.token
		}
		if b.blocked && r.Block == nil {
			r.Block = &Block{Reason: b.blockReason, Since: c.now()}
		}
	}
	r.Note(c.now(), "the record could not be read and was made anew")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.salvaged[row.Name] = r
	return r.Clone()
}

// blockFromJournal is what the journal says of a name's own block. Where lines of
// it cannot be read, they may have been about this name: then it is blocked.
func (c *Cache) blockFromJournal(name string) *Block {
	var block *Block
	unsure := false
	_, err := scanJournal(c.journal.written(), func(l journalLine) bool {
		d := l.decision
		switch {
		case !l.readable:
			unsure = true
		case d.Action == ActStanding:
			unsure = d.LostBlocks
			for _, b := range d.Blocks {
				if b.Name == name {
					block = &b.Block
				}
			}
		case d.Action == ActAcceptLost:
			unsure = false
		case !slices.Contains(d.Names, name):
		case d.Action == ActRevoke && !d.Regrant:
			block, unsure = &Block{d.Seq, d.Reason, d.Time}, false
		case d.Action == ActUnblock:
			block, unsure = nil, false
		}
		return true
	})
	if err != nil {
		c.log.Error("journal cannot be read", "error", err)
	}
	if block == nil && (unsure || err != nil) {
		return &Block{Reason: fmt.Sprintf("the record of %q cannot be read, nor the whole journal: it may have been blocked", name), Since: c.now()}
	}
	return block
}
