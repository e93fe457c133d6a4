package examples_test

import (
	"context"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// world is an emulator, and a sidecar with one name per example.
type world struct {
	emulator *pamtest.Server
	top      *testing.T // what runs longer than one subtest belongs to it
	binary   string
	dir      string
	sidecar  *exec.Cmd
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "examples") // short: the path of a Unix socket is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{top: t, emulator: pamtest.New(pamtest.Config{}), dir: dir, binary: filepath.Join(dir, "pamsidecar")}
	server := httptest.NewServer(w.emulator)
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections) // first: long polls keep Close waiting
	readSources(t)
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", w.binary, "../cmd/pamsidecar").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, name := range []string{"token", "admin", "state"} {
		w.subdir(t, name)
	}
	writeFile(t, filepath.Join(dir, "secret_key"), pamtest.DemoSecretKey)
	writeFile(t, filepath.Join(dir, "pamsidecar.yaml"), config(server.URL))
	return w
}

// readSources lists the directories that the programs are built from. That alone
// tells go test to run again, and not to answer from its cache, when one changes.
func readSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir("..", func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Name() == ".git" {
			return filepath.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func config(origin string) string {
	var text strings.Builder
	fmt.Fprintf(&text, `keyset: {publish_key: %s, subscribe_key: %s, secret_key_file: secret_key}
origin: %s
state_dir: state
listen:
  token: {path: token/token.sock, mode: "0600"}
  admin: {path: admin/admin.sock, mode: "0600"}
grants:
`, pamtest.DemoPublishKey, pamtest.DemoSubscribeKey, origin)
	for _, e := range all {
		fmt.Fprintf(&text, "  - {uuid: %s, ttl: 15m, resources: {channels: {%s: [read, write]}}}\n", e.name, channel)
	}
	return text.String()
}

func (w *world) subdir(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func (w *world) socket() string { return filepath.Join(w.dir, "token", "token.sock") }

func (w *world) startSidecar(t *testing.T) {
	t.Helper()
	w.sidecar = exec.Command(w.binary, "run", "--config", filepath.Join(w.dir, "pamsidecar.yaml"))
	var log output
	w.sidecar.Stderr = &log
	if err := w.sidecar.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the sidecar's log:\n%s", log.String())
		}
	})
	t.Cleanup(w.killSidecar)
	ready := exec.CommandContext(t.Context(), w.binary, "wait", "--timeout", patience.String(), "--socket", w.socket())
	if out, err := ready.CombinedOutput(); err != nil {
		t.Fatalf("the sidecar is not ready: %v\n%s", err, out)
	}
}

// killSidecar ends it without any warning, and does nothing the second time.
func (w *world) killSidecar() {
	_ = w.sidecar.Process.Kill()
	_ = w.sidecar.Wait()
}

// command runs an operator's command.
func (w *world) command(t *testing.T, args ...string) {
	t.Helper()
	args = append(args, "--admin", filepath.Join(w.dir, "admin", "admin.sock"))
	if out, err := exec.CommandContext(t.Context(), w.binary, args...).CombinedOutput(); err != nil {
		t.Fatalf("pamsidecar %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// generation is the line for the n-th token that was really granted for a name.
func (w *world) generation(t *testing.T, name string, n int) string {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var ids []string
		for _, g := range w.emulator.Grants() {
			if g.UUID == name {
				ids = append(ids, g.Token.ID())
			}
		}
		if len(ids) >= n {
			return fmt.Sprintf(`generation %d  token #%s\b`, n, ids[n-1])
		}
	}
	t.Fatalf("%s: token %d was never granted", name, n)
	return ""
}

// run is an example that is running.
type run struct {
	example
	out output
}

func (w *world) start(t *testing.T, e example, command []string) *run {
	t.Helper()
	r := &run{example: e}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, command[0], append(command[1:], e.name, channel)...)
	cmd.Env = append(cmd.Environ(), "PAMSIDECAR_SOCKET="+w.socket())
	cmd.Stdout, cmd.Stderr = &r.out, &r.out
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	w.top.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if w.top.Failed() {
			w.top.Logf("%s printed:\n%s", e.name, r.out.String())
		}
	})
	return r
}

// sees waits for a line that begins with pattern.
func (r *run) sees(t *testing.T, pattern string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if !r.out.await(ctx, regexp.MustCompile("(?m)^"+pattern)) {
		t.Fatalf("%s did not print %q", r.name, pattern)
	}
}

// checkMessages reports messages of the example to itself that came twice or not
// at all. Those before the first one that arrived were sent before it listened.
func (r *run) checkMessages(t *testing.T) {
	t.Helper()
	last := 0
	for _, m := range regexp.MustCompile("(?m)^received ([0-9]+) from "+r.name+" ").FindAllStringSubmatch(r.out.String(), -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil || last != 0 && n != last+1 {
			t.Errorf("%s received message %s after %d", r.name, m[1], last)
		}
		last = n
	}
}

// output is what a program prints.
type output struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{} // closed at the next Write; nil: nobody waits
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
	return o.text.Write(p)
}

func (o *output) String() string {
	text, _ := o.look()
	return text
}

// look returns the text so far, and a channel that is closed when there is more.
func (o *output) look() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed == nil {
		o.changed = make(chan struct{})
	}
	return o.text.String(), o.changed
}

// await reports whether the text matches before ctx ends.
func (o *output) await(ctx context.Context, re *regexp.Regexp) bool {
	for {
		text, changed := o.look()
		if re.MatchString(text) {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}
