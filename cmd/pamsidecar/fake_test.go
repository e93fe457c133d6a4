package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeSidecar answers on a socket with what a test put there, and keeps what
// was asked.
type fakeSidecar struct {
	socket string
	real   http.Handler // answers instead, when set before the first request

	mu      sync.Mutex
	answers map[string][]fakeAnswer // by method and escaped path with query; the last one stays
	asked   []string                // method, escaped path, body
}

type fakeAnswer struct {
	status int
	body   string
}

// newFakeSidecar starts one. The directory is short: a socket's path is limited.
func newFakeSidecar(t *testing.T) *fakeSidecar {
	t.Helper()
	dir, err := os.MkdirTemp("", "ps")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := &fakeSidecar{socket: filepath.Join(dir, "s"), answers: map[string][]fakeAnswer{}}
	listener, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(f)
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return f
}

// on adds an answer; v is a text or is written as JSON.
func (f *fakeSidecar) on(request string, status int, v any) {
	text, ok := v.(string)
	if !ok {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		text = string(b)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[request] = append(f.answers[request], fakeAnswer{status, text})
}

func (f *fakeSidecar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.real != nil {
		f.real.ServeHTTP(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	key := r.Method + " " + r.RequestURI
	f.mu.Lock()
	f.asked = append(f.asked, strings.TrimSpace(key+" "+string(body)))
	queue := f.answers[key]
	if len(queue) > 1 {
		f.answers[key] = queue[1:]
	}
	f.mu.Unlock()
	if len(queue) == 0 {
		http.Error(w, "no answer for "+key, http.StatusTeapot)
		return
	}
	w.WriteHeader(queue[0].status)
	io.WriteString(w, queue[0].body)
}

// requests is what was asked so far.
func (f *fakeSidecar) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.asked...)
}

// result is what one run of the program left behind.
type result struct {
	code           int
	stdout, stderr string
}

func (r result) String() string {
	return fmt.Sprintf("exit %d\n-- stdout --\n%s-- stderr --\n%s", r.code, r.stdout, r.stderr)
}

// command runs the program against the fake, which is both of its sockets.
func (f *fakeSidecar) command(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	env := map[string]string{"PAMSIDECAR_SOCKET": f.socket, "PAMSIDECAR_ADMIN": f.socket}
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), args, strings.NewReader(stdin), &stdout, &stderr, func(k string) string { return env[k] })
	return result{code, stdout.String(), stderr.String()}
}

// wants fails unless a result has a code and its streams hold the texts.
func (r result) wants(t *testing.T, code int, stdout, stderr []string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d\n%v", r.code, code, r)
	}
	for _, text := range stdout {
		if !strings.Contains(r.stdout, text) {
			t.Errorf("stdout has no %q\n%v", text, r)
		}
	}
	for _, text := range stderr {
		if !strings.Contains(r.stderr, text) {
			t.Errorf("stderr has no %q\n%v", text, r)
		}
	}
	for line := range strings.Lines(r.stderr) {
		if !strings.HasPrefix(line, "pamsidecar: ") && code == 2 {
			t.Errorf("stderr line %q does not begin with the program's name", line)
		}
	}
}

// testNow is the server time of the canned answers.
var testNow = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
