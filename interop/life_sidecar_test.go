package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/client"
	"github.com/pamsidecar/pamsidecar/pam"
)

// sidecar is the real program in a directory of its own. Its processes come and go, the directory stays.
type sidecar struct {
	t      *testing.T
	binary string
	dir    string
	log    *os.File

	process *exec.Cmd
	exited  chan error
	starts  int
}

// buildSidecar compiles the program; PAMSIDECAR_BINARY names one to be used instead.
func buildSidecar(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("PAMSIDECAR_BINARY"); path != "" {
		return path
	}
	path := filepath.Join(t.TempDir(), "pamsidecar")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./cmd/pamsidecar")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the sidecar: %v\n%s", err, out)
	}
	return path
}

// newSidecar writes the configuration: one grant per UUID at the shortest ttl there is, to publish on the UUID's own channel and to read them all.
func newSidecar(t *testing.T, keyset pam.Keyset, origin string, uuids []string) *sidecar {
	t.Helper()
	dir, err := os.MkdirTemp("", "life") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	var config strings.Builder
	fmt.Fprintf(&config, `keyset: {publish_key: %s, subscribe_key: %s, secret_key_file: %s/secret}
origin: %s
state_dir: %s/state
log: {level: debug, format: text}
listen:
  token: {path: %s/token/token.sock, mode: "0600"}
  admin: {path: %s/admin/admin.sock, mode: "0600"}
grants:
`, keyset.PublishKey, keyset.SubscribeKey, dir, origin, dir, dir, dir)
	for _, uuid := range uuids {
		fmt.Fprintf(&config, "  - {uuid: %s, ttl: 1m, resources: {channels: {%s: [write]}}, patterns: {channels: {'^life\\.[a-z]+$': [read]}}}\n", uuid, channelOf(uuid))
	}
	for _, sub := range []string{"token", "admin", "state"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s := &sidecar{t: t, binary: buildSidecar(t), dir: dir}
	s.write("secret", keyset.SecretKey.Reveal()+"\n")
	s.write("pamsidecar.yaml", config.String())
	if s.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.cleanUp)
	return s
}

func (s *sidecar) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sidecar) socket() string { return filepath.Join(s.dir, "token", "token.sock") }

func (s *sidecar) start() {
	s.t.Helper()
	s.process = exec.Command(s.binary, "run", "--config", filepath.Join(s.dir, "pamsidecar.yaml"))
	s.process.Stdout, s.process.Stderr = s.log, s.log
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.starts++
	s.exited = make(chan error, 1)
	go func(p *exec.Cmd, exited chan error) { exited <- p.Wait() }(s.process, s.exited)
}

// stop ends the process: by SIGTERM it must end by itself and well.
func (s *sidecar) stop(signal syscall.Signal) {
	s.t.Helper()
	if err := s.process.Process.Signal(signal); err != nil {
		s.t.Fatalf("signal the sidecar: %v", err)
	}
	select {
	case err := <-s.exited:
		if signal == syscall.SIGTERM && err != nil {
			s.t.Errorf("the sidecar ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		s.t.Error("the sidecar does not end")
		_ = s.process.Process.Kill()
		<-s.exited
	}
	s.process = nil
}

func (s *sidecar) restart(signal syscall.Signal) {
	s.t.Helper()
	s.stop(signal)
	s.start()
}

func (s *sidecar) cleanUp() {
	if s.process != nil {
		_ = s.process.Process.Kill()
		<-s.exited
	}
	s.log.Close()
	if !s.t.Failed() {
		return
	}
	text, _ := os.ReadFile(s.log.Name())
	const most = 20_000
	s.t.Logf("the sidecar's log, its end:\n%s", text[max(0, len(text)-most):])
}

// reader is an app's way to the token socket, with nothing but net/http.
func (s *sidecar) reader() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", s.socket())
	}}}
}

// states asks for the state of every name.
func (s *sidecar) states(ctx context.Context) (map[string]string, error) {
	var list client.NameList
	if err := s.get(ctx, "/v1/tokens", &list); err != nil {
		return nil, err
	}
	states := map[string]string{}
	for _, item := range list.Items {
		states[item.Name] = item.State
	}
	return states, nil
}

// document reads one token.
func (s *sidecar) document(ctx context.Context, name string) (doc client.TokenDocument, err error) {
	return doc, s.get(ctx, "/v1/tokens/"+name, &doc)
}

func (s *sidecar) get(ctx context.Context, path string, into any) error {
	app := s.reader()
	defer app.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://pamsidecar"+path, nil)
	if err != nil {
		return err
	}
	resp, err := app.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// gate stands in front of Access Manager, apart from the data plane, and can refuse connections as a dead server does.
type gate struct {
	t      *testing.T
	addr   string
	origin string // host and port behind it

	mu    sync.Mutex
	l     net.Listener
	conns map[net.Conn]bool
}

func newGate(t *testing.T, origin string) *gate {
	t.Helper()
	g := &gate{t: t, addr: "127.0.0.1:0", origin: origin, conns: map[net.Conn]bool{}}
	g.open()
	g.addr = g.l.Addr().String()
	t.Cleanup(g.shut)
	return g
}

func (g *gate) open() {
	g.t.Helper()
	l, err := net.Listen("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	g.mu.Lock()
	g.l = l
	g.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go g.pass(c)
		}
	}()
}

// shut closes the listener and every connection.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.l.Close()
	for c := range g.conns {
		c.Close()
	}
}

func (g *gate) pass(in net.Conn) {
	defer g.drop(in)
	out, err := net.Dial("tcp", g.origin)
	if err != nil {
		return
	}
	defer g.drop(out)
	g.mu.Lock()
	g.conns[in], g.conns[out] = true, true
	g.mu.Unlock()
	go func() {
		_, _ = io.Copy(out, in)
		out.Close()
	}()
	_, _ = io.Copy(in, out)
}

func (g *gate) drop(c net.Conn) {
	c.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
}
