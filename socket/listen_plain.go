//go:build !linux && !darwin

package socket

import (
	"errors"
	"io/fs"
	"net"
	"os"
)

const canSetGroup = false

// maxPath is the longest path of a socket in bytes that every system takes.
const maxPath = 103

func writableByAll(fs.FileInfo) bool { return false }

func lookupGroup(string) (int, error) { return 0, errors.New("groups are not known here") }

func lockDirectory(string) (unlock func(), err error) { return func() {}, nil }

func privatePath(path string) string { return path }

// bind makes the socket at path in place of a dead one.
func bind(path string, _ fs.FileMode, _ int) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	made, err := os.Lstat(path)
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return newUnixListener(l, path, made), nil
}
