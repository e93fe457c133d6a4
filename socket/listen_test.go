//go:build linux || darwin

package socket

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// socketDir is a directory with a short path, as sockets need it.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func mustListen(t *testing.T, path string, o ListenOptions) net.Listener {
	t.Helper()
	l, err := Listen(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// wantRefusal checks that Listen fails with a message and leaves path as it was.
func wantRefusal(t *testing.T, path string, o ListenOptions, message string) {
	t.Helper()
	before, _ := os.Lstat(path)
	l, err := Listen(path, o)
	if err == nil {
		l.Close()
		t.Fatalf("listens on %s", path)
	}
	if !strings.Contains(err.Error(), message) {
		t.Errorf("error %q, want %q", err, message)
	}
	after, _ := os.Lstat(path)
	if (before == nil) != (after == nil) || before != nil && !os.SameFile(before, after) {
		t.Errorf("%s was touched", path)
	}
	if _, err := os.Lstat(filepath.Join(filepath.Dir(path), ".new")); err == nil {
		t.Error("the private directory was left behind")
	}
}

// deadSocket makes a socket at path that nobody listens on.
func deadSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestListenModeAndGroup(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	for _, mode := range []fs.FileMode{0, 0o600, 0o660, 0o666} {
		path := filepath.Join(socketDir(t), "token.sock")
		l := mustListen(t, path, ListenOptions{Mode: mode, Group: strconv.Itoa(os.Getgid())})
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		want := mode
		if mode == 0 {
			want = DefaultMode
		}
		if info.Mode() != want|fs.ModeSocket || int(info.Sys().(*syscall.Stat_t).Gid) != os.Getgid() {
			t.Errorf("mode %v, want %v", info.Mode(), want)
		}
		if l.Addr().String() != path {
			t.Errorf("address %s", l.Addr())
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		entries, err := os.ReadDir(filepath.Dir(path))
		if err != nil || len(entries) != 1 {
			t.Errorf("the directory has %v", entries)
		}
	}
}

// TestListenFromTheFirstInstant watches the path while sockets come and go.
func TestListenFromTheFirstInstant(t *testing.T) {
	path := filepath.Join(socketDir(t), "token.sock")
	group := os.Getgid()
	if os.Geteuid() == 0 {
		group = 4242
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			info, err := os.Lstat(path)
			if err == nil && (info.Mode() != fs.ModeSocket|0o640 || int(info.Sys().(*syscall.Stat_t).Gid) != group) {
				t.Errorf("seen with mode %v and group %d", info.Mode(), info.Sys().(*syscall.Stat_t).Gid)
				return
			}
		}
	})
	for i := range 100 {
		if i%3 == 0 {
			// A dead socket of ours is replaced without a moment of another mode.
			l := mustListen(t, path, ListenOptions{Mode: 0o640, Group: strconv.Itoa(group)}).(*unixListener)
			l.UnixListener.Close()
		}
		mustListen(t, path, ListenOptions{Mode: 0o640, Group: strconv.Itoa(group)}).Close()
	}
	close(stop)
	wg.Wait()
}

func TestListenNeverSteals(t *testing.T) {
	path := filepath.Join(socketDir(t), "token.sock")
	first := mustListen(t, path, ListenOptions{})
	wantRefusal(t, path, ListenOptions{}, "another process is listening on "+path)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("Close leaves the path")
	}
	if err := first.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// TestListenTogether: of several that start at once, exactly one gets the path.
func TestListenTogether(t *testing.T) {
	path := filepath.Join(socketDir(t), "token.sock")
	deadSocket(t, path)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var got []net.Listener
	for range 8 {
		wg.Go(func() {
			if l, err := Listen(path, ListenOptions{}); err == nil {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, l)
			}
		})
	}
	wg.Wait()
	if len(got) != 1 {
		t.Errorf("%d listen", len(got))
	}
	for _, l := range got {
		l.Close()
	}
}

func TestListenReplacesDeadSocket(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, "token.sock")
	deadSocket(t, path)
	// What a process leaves that was killed in the middle of Listen.
	if err := os.Mkdir(filepath.Join(dir, ".new"), 0o700); err != nil {
		t.Fatal(err)
	}
	deadSocket(t, filepath.Join(dir, ".new", "s"))
	mustListen(t, path, ListenOptions{})
	if c, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
}

func TestListenTouchesNothingElse(t *testing.T) {
	dir := socketDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, file, ListenOptions{}, "not a socket")
	deadSocket(t, filepath.Join(dir, "dead"))
	for _, target := range []string{"dead", "file", "nothing"} {
		link := filepath.Join(dir, "link-to-"+target)
		if err := os.Symlink(filepath.Join(dir, target), link); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, link, ListenOptions{}, "not a socket")
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, filepath.Join(dir, "sub"), ListenOptions{}, "not a socket")
	packets, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "packets"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	wantRefusal(t, filepath.Join(dir, "packets"), ListenOptions{}, "cannot tell")
}

func TestCloseLeavesAnothersSocket(t *testing.T) {
	path := filepath.Join(socketDir(t), "token.sock")
	first := mustListen(t, path, ListenOptions{})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	mustListen(t, path, ListenOptions{})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("unix", path); err != nil {
		t.Errorf("the second socket is gone: %v", err)
	}
}

func TestListenDirectory(t *testing.T) {
	dir := socketDir(t)
	wantRefusal(t, filepath.Join(dir, "no", "token.sock"), ListenOptions{}, "does not exist: create it")
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, filepath.Join(dir, "file", "token.sock"), ListenOptions{}, "not a directory")
	for _, mode := range []fs.FileMode{0o777, 0o777 | fs.ModeSticky, 0o702} {
		open := filepath.Join(dir, "open")
		if err := os.MkdirAll(open, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(open, mode); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, filepath.Join(open, "token.sock"), ListenOptions{}, "writable by everybody")
	}
}

func TestListenOptionsAreChecked(t *testing.T) {
	path := filepath.Join(socketDir(t), "token.sock")
	wantRefusal(t, path, ListenOptions{Group: "no-such-group-here"}, `no group "no-such-group-here"`)
	wantRefusal(t, path, ListenOptions{Mode: 0o660 | fs.ModeSetuid}, "beyond 0777")
	wantRefusal(t, path, ListenOptions{Mode: 0o10660}, "beyond 0777")
	if os.Geteuid() != 0 {
		wantRefusal(t, path, ListenOptions{Group: "0"}, "cannot be set")
	}
}

func TestListenLongPath(t *testing.T) {
	dir := socketDir(t)
	longest := filepath.Join(dir, strings.Repeat("s", maxPath-len(dir)-1))
	mustListen(t, longest, ListenOptions{})
	wantRefusal(t, longest+"s", ListenOptions{}, "choose a shorter directory")
}
