//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package cache

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// boltReplaces: an open and locked file can be renamed and replaced.
const boltReplaces = true

var errBoltBusy = errors.New("file is locked")

// lockBoltFile takes the lock that bbolt takes (flock on the file itself), without waiting: errBoltBusy if somebody
// else has it. It belongs to the open file, so bbolt taking it again on the same descriptor changes nothing.
func lockBoltFile(f *os.File, exclusive bool) error {
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return errBoltBusy
		default:
			return err
		}
	}
}

// releaseBoltFile closes a file that may still be mapped into memory: closing alone would leave the lock in place.
func releaseBoltFile(f *os.File) error {
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close())
}

// syncBoltDir makes what was created, renamed or removed in a directory durable.
func syncBoltDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		return nil // some file systems know no such thing
	}
	return err
}
