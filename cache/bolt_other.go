//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package cache

import (
	"errors"
	"os"
)

// boltReplaces: an open file can not be renamed or replaced here, so it is closed (and its lock given up) shortly
// before. Only bbolt's own lock keeps other processes away.
const boltReplaces = false

var errBoltBusy = errors.New("file is locked")

func lockBoltFile(*os.File, bool) error { return nil }

func releaseBoltFile(f *os.File) error { return f.Close() }

func syncBoltDir(string) error { return nil }
