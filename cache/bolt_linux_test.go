package cache_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pamsidecar/pamsidecar/cache"
)

// TestBoltDiskFails takes the file away below the store, so that every write fails, and gives it back.
func TestBoltDiskFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.db")
	b := openBolt(t, path, cache.BoltOptions{})
	rows := boltRows(50, 900)
	putBolt(t, b, rows...)
	want := allBolt(t, b)
	fd := int(cache.BoltFile(b).Fd())
	for round := range 3 {
		failWrites(t, path, fd, func() {
			for i := range 4 {
				row := cache.Row{Name: "another" + strconv.Itoa(i), Due: boltNoon, Data: make([]byte, 30_000*i)}
				err := b.Commit(t.Context(), []cache.Row{row})[0]
				if err == nil || errors.Is(err, cache.ErrDamaged) || i == 0 && !errors.Is(err, unix.EBADF) {
					t.Errorf("Commit: %v", err)
				}
				seesBolt(t, b, want)
			}
		})
		for i := range rows {
			rows[i].Revision = uint64(round + 1)
		}
		putBolt(t, b, rows...)
		want = allBolt(t, b)
	}
	mustBolt(t, b.Close())
	seesBolt(t, openBolt(t, path, cache.BoltOptions{}), want)
}

// failWrites runs f while the descriptor is one for reading only.
func failWrites(t *testing.T, path string, fd int, f func()) {
	t.Helper()
	readable, err := os.Open(path)
	mustBolt(t, err)
	defer readable.Close()
	saved, err := unix.Dup(fd)
	mustBolt(t, err)
	defer unix.Close(saved)
	mustBolt(t, unix.Dup3(int(readable.Fd()), fd, 0))
	defer func() { mustBolt(t, unix.Dup3(saved, fd, 0)) }()
	f()
}
