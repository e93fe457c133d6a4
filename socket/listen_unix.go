//go:build linux || darwin

package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const canSetGroup = true

// maxPath is the longest path of a socket in bytes: the kernel's field without its
// final zero byte.
const maxPath = len(unix.RawSockaddrUnix{}.Path) - 1

// lockPatience is how long another process may hold the lock on the directory: it
// needs it for some system calls only.
const lockPatience = 2 * time.Second

func writableByAll(info fs.FileInfo) bool { return info.Mode().Perm()&0o002 != 0 }

func isRefused(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }

func isAddressInUse(err error) bool { return errors.Is(err, unix.EADDRINUSE) }

func lookupGroup(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("there is no group %q on this system: create it or give its number", name)
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return 0, fmt.Errorf("the group %q has no number: %w", name, err)
	}
	return gid, nil
}

// lockDirectory keeps other processes that use Listen away from dir, so that two
// that start together do not both take the same path.
func lockDirectory(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open the directory: %w", err)
	}
	for end := time.Now().Add(lockPatience); ; time.Sleep(10 * time.Millisecond) {
		err = unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = d.Close() }, nil
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			_ = d.Close()
			return nil, fmt.Errorf("lock the directory %s: %w", dir, err)
		}
	}
}

// privatePath is where the socket for path is made: in a directory that only we can
// enter. The kernel goes on showing this path to those who ask for the address of
// the socket, so it resembles the other one if it can.
func privatePath(path string) string {
	dir := filepath.Join(filepath.Dir(path), ".new")
	if private := filepath.Join(dir, filepath.Base(path)); len(private) <= maxPath {
		return private
	}
	return filepath.Join(dir, "s")
}

// bind makes the socket in a private directory, gives it its group and mode and
// moves it to path, over a dead socket if there is one. The lock is held.
func bind(path string, mode fs.FileMode, gid int) (_ net.Listener, err error) {
	private := privatePath(path)
	if err := makePrivate(filepath.Dir(private)); err != nil {
		return nil, err
	}
	defer os.Remove(filepath.Dir(private))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: private, Net: "unix"})
	if err != nil {
		return nil, withoutPath(err)
	}
	l.SetUnlinkOnClose(false)
	made, err := finish(private, path, mode, gid)
	if err != nil {
		_ = os.Remove(private)
		_ = l.Close()
		return nil, err
	}
	return newUnixListener(l, path, made), nil
}

// makePrivate makes an empty directory that only we can enter, in place of one that
// we left there when we were killed.
func makePrivate(dir string) error {
	if info, err := os.Lstat(dir); err == nil {
		owner, ok := info.Sys().(*syscall.Stat_t)
		if !info.IsDir() || !ok || int(owner.Uid) != os.Geteuid() {
			return fmt.Errorf("%s is in the way and not ours: remove it", dir)
		}
		left, _ := os.ReadDir(dir)
		for _, entry := range left {
			_ = os.Remove(filepath.Join(dir, entry.Name()))
		}
		_ = os.Remove(dir)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("the directory must be writable by the user this process runs as: %w", err)
	}
	return nil
}

// finish gives the socket at private its group and mode and moves it to path.
func finish(private, path string, mode fs.FileMode, gid int) (fs.FileInfo, error) {
	if gid >= 0 {
		if err := os.Lchown(private, -1, gid); err != nil {
			return nil, fmt.Errorf("the group %d cannot be set: run as a member of the group or as root: %w", gid, withoutPath(err))
		}
	}
	if err := os.Chmod(private, mode); err != nil {
		return nil, fmt.Errorf("set the mode: %w", withoutPath(err))
	}
	made, err := os.Lstat(private)
	if err != nil {
		return nil, fmt.Errorf("look at the new socket: %w", withoutPath(err))
	}
	if made.Mode().Perm() != mode {
		return nil, fmt.Errorf("the file system of %s does not keep modes: use another directory", filepath.Dir(path))
	}
	if err := os.Rename(private, path); err != nil {
		return nil, fmt.Errorf("move the socket into place: %w", withoutPath(err))
	}
	return made, nil
}

// withoutPath is the cause of an error about the private path, which would only
// confuse.
func withoutPath(err error) error {
	if cause, ok := errors.AsType[syscall.Errno](err); ok {
		return cause
	}
	return err
}
