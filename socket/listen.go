package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// DefaultMode is the mode of a socket when none is given.
const DefaultMode fs.FileMode = 0o600

// ListenOptions say who may open a Unix socket.
type ListenOptions struct {
	// Mode is the permission bits of the socket; 0 means DefaultMode.
	Mode fs.FileMode
	// Group is the name or number of the group that owns it. Empty: whatever group
	// the system gives a new file there.
	Group string
}

// Listen listens on a Unix socket at path. The socket has its final mode and group
// from the first instant at which it can be seen there.
//
// The directory must exist and not be writable by everybody. A socket that another
// process listens on is never touched, one that nobody listens on is replaced, and
// anything else at path is an error. Closing the listener removes path if it is
// still the one made here. On systems other than Linux and macOS mode and group
// cannot be set: a group is an error there, a mode is ignored.
func Listen(path string, o ListenOptions) (net.Listener, error) {
	l, err := listen(path, o)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

func listen(path string, o ListenOptions) (net.Listener, error) {
	if o.Mode == 0 {
		o.Mode = DefaultMode
	}
	if o.Mode&^fs.ModePerm != 0 {
		return nil, fmt.Errorf("mode %#o has bits beyond 0777", uint32(o.Mode))
	}
	path = filepath.Clean(path)
	if longest := max(len(path), len(privatePath(path))); longest > maxPath {
		return nil, fmt.Errorf("the path needs %d bytes and a socket's path has at most %d: choose a shorter directory", longest, maxPath)
	}
	if err := checkDirectory(filepath.Dir(path)); err != nil {
		return nil, err
	}
	gid, err := groupID(o.Group)
	if err != nil {
		return nil, err
	}
	unlock, err := lockDirectory(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := checkFree(path); err != nil {
		return nil, err
	}
	return bind(path, o.Mode, gid)
}

// checkDirectory reports why a socket cannot be in dir.
func checkDirectory(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the directory %s does not exist: create it, owned by the user this process runs as, with mode 0750", dir)
	}
	if err != nil {
		return fmt.Errorf("look at the directory: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	if writableByAll(info) {
		return fmt.Errorf("the directory %s is writable by everybody (mode %#o), so anybody could replace the socket: use a directory of its own with mode 0750",
			dir, uint32(info.Mode().Perm()))
	}
	return nil
}

// checkFree reports why path cannot be taken: nil if there is nothing or a socket
// that nobody listens on.
func checkFree(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the path: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("the path exists and is not a socket: remove it or choose another path")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		_ = c.Close()
		return fmt.Errorf("another process is listening on %s", path)
	case isRefused(err), errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.EAGAIN), os.IsTimeout(err):
		return fmt.Errorf("another process is listening on %s and does not answer", path)
	}
	return fmt.Errorf("cannot tell whether another process is listening there: remove the socket if not: %w", err)
}

// groupID is the number of a group given by name or number, -1 for none.
func groupID(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	if !canSetGroup {
		return 0, fmt.Errorf("a socket's group cannot be set on this system: leave the group out")
	}
	if gid, err := strconv.ParseUint(group, 10, 31); err == nil {
		return int(gid), nil
	}
	return lookupGroup(group)
}

// unixListener is a listener that removes its own path, and only that.
type unixListener struct {
	*net.UnixListener
	path  string
	made  fs.FileInfo
	close func() error
}

func newUnixListener(l *net.UnixListener, path string, made fs.FileInfo) *unixListener {
	u := &unixListener{UnixListener: l, path: path, made: made}
	u.close = sync.OnceValue(u.closeOnce)
	return u
}

// Addr is the address at the path given to Listen.
func (u *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: u.path, Net: "unix"} }

// Close stops listening and removes the path if it is still ours.
func (u *unixListener) Close() error { return u.close() }

// closeOnce removes the path before it closes the socket: as long as the socket is
// open its inode is not given to another file. If the directory cannot be locked
// the path stays, which does no harm: a dead socket is replaced.
func (u *unixListener) closeOnce() error {
	if unlock, err := lockDirectory(filepath.Dir(u.path)); err == nil {
		if now, err := os.Lstat(u.path); err == nil && os.SameFile(u.made, now) {
			_ = os.Remove(u.path)
		}
		unlock()
	}
	return u.UnixListener.Close()
}
