package cache

import (
	"os"

	"go.etcd.io/bbolt"
)

// SetBoltCommit replaces the end of b's transactions; nil restores it.
func SetBoltCommit(b *Bolt, commit func(*bbolt.Tx) error) {
	if commit == nil {
		commit = (*bbolt.Tx).Commit
	}
	b.commit = commit
}

// UpdateBolt changes the file below the store.
func UpdateBolt(b *Bolt, change func(*bbolt.Tx) error) error { return b.db.Update(change) }

// BoltFile is the open file inside b.
func BoltFile(b *Bolt) *os.File { return b.file }
