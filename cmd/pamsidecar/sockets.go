package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pamsidecar/pamsidecar/client"
	"github.com/pamsidecar/pamsidecar/config"
	"github.com/pamsidecar/pamsidecar/pam"
)

// maxAnswer bounds what is read of one answer. A page of an admin list is the
// largest there is.
const maxAnswer = 64 << 20

// answerTime is how long a command waits for the sidecar beyond what it asked
// the sidecar itself to wait.
const answerTime = 20 * time.Second

// devDir is where `dev` keeps everything unless told otherwise.
const devDir = ".pamsidecar-dev"

// socketKind is one of the sidecar's two sockets and where it is looked for.
type socketKind struct {
	what   string // "token socket"
	flag   string // without the dashes
	env    string
	path   string // where `run` puts it
	dev    string // where `dev` puts it
	denied string // what to do without permission
}

var (
	tokenSocket = socketKind{
		what: "token socket", flag: "socket", env: "PAMSIDECAR_SOCKET",
		path: config.DefaultTokenSocket, dev: devDir + "/token/token.sock",
		denied: "run as a user of the socket's group (listen.token.group in the configuration)",
	}
	adminSocket = socketKind{
		what: "admin socket", flag: "admin", env: "PAMSIDECAR_ADMIN",
		path: config.DefaultAdminSocket, dev: devDir + "/admin/admin.sock",
		denied: "run as the sidecar's own user or as root",
	}
)

// addFlag adds the flag that names the socket.
func (k socketKind) addFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, k.flag, "", fmt.Sprintf("`PATH` of the %s (default $%s, then %s)", k.what, k.env, k.path))
}

// sidecar speaks HTTP to a running sidecar over one of its sockets.
type sidecar struct {
	kind socketKind
	path string
	http *http.Client
}

// connect finds a socket: by flag, environment, the default path, then the
// directory of `dev`. It does not dial yet.
func (a *app) connect(kind socketKind, flagged string) *sidecar {
	path := flagged
	if path == "" {
		path = a.getenv(kind.env)
	}
	if path == "" {
		path = kind.path
		if missing(kind.path) && !missing(kind.dev) {
			path = kind.dev
			fmt.Fprintf(a.stderr, "pamsidecar: using %s\n", path)
		}
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return &sidecar{kind, path, &http.Client{
		Transport:     &http.Transport{DialContext: dial, MaxIdleConns: 4, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// answer is what the sidecar said.
type answer struct {
	status int
	body   []byte
}

// decode reads the answer's JSON into v.
func (a answer) decode(v any) error {
	if err := json.Unmarshal(a.body, v); err != nil {
		return failf("compare `pamsidecar version` with the running sidecar's", "read the sidecar's answer: %w", err)
	}
	return nil
}

// get asks for one document; path is escaped already.
func (s *sidecar) get(ctx context.Context, path string, query url.Values, wait time.Duration) (answer, error) {
	return s.do(ctx, http.MethodGet, path, query, nil, wait)
}

// do sends one request and returns the answer whatever its status. The time
// limit is wait and a margin. Errors say which socket, and what to do.
func (s *sidecar) do(ctx context.Context, method, path string, query url.Values, body any, wait time.Duration) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+answerTime)
	defer cancel()
	target := "http://pamsidecar" + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return answer{}, fmt.Errorf("write the request: %w", err)
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, content)
	if err != nil {
		return answer{}, fmt.Errorf("write the request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return answer{}, s.explain(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return answer{}, s.explain(err)
	}
	if len(text) > maxAnswer {
		return answer{}, fmt.Errorf("the answer from %s is longer than %d MiB", s.path, maxAnswer>>20)
	}
	return answer{resp.StatusCode, text}, nil
}

// explain turns a transport error into one that names the socket and the way out.
func (s *sidecar) explain(err error) error {
	if cause, ok := errors.AsType[*url.Error](err); ok {
		err = cause.Err
	}
	elsewhere := fmt.Sprintf("name the socket with --%s PATH or %s", s.kind.flag, s.kind.env)
	if s.path != s.kind.dev && !missing(s.kind.dev) {
		elsewhere += fmt.Sprintf(" (there is one at %s)", s.kind.dev)
	}
	info, statErr := os.Stat(s.path)
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return failf("the sidecar runs but does not answer: look at its log", "no answer from %s in time", s.path)
	case errors.Is(err, fs.ErrPermission):
		return failf(s.kind.denied+", or "+elsewhere, "permission denied for the %s %s", s.kind.what, s.path)
	case errors.Is(err, fs.ErrNotExist):
		return failf("is the sidecar running? Start it, or "+elsewhere, "there is no %s at %s", s.kind.what, s.path)
	case statErr == nil && info.Mode()&fs.ModeSocket == 0:
		return failf(elsewhere, "%s is not a socket", s.path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return failf("the sidecar has stopped: start it, or "+elsewhere, "nothing listens at the %s %s", s.kind.what, s.path)
	case errors.Is(err, syscall.EINVAL):
		return failf("use a shorter path, a relative one for example", "the path %s is too long for a socket", s.path)
	default:
		return failf("look at the sidecar's log", "ask the sidecar at %s: %w", s.path, err)
	}
}

// problemOf reads the problem document of an answer that is none of the good
// ones. An answer that is no such document becomes one.
func problemOf(a answer) client.Problem {
	var p client.Problem
	if decodeProblem(a, &p) != nil || p.Code == "" && p.Title == "" && p.Detail == "" {
		p = client.Problem{Detail: fmt.Sprintf("the sidecar answered %d %s", a.status, http.StatusText(a.status))}
	}
	if p.Status == 0 {
		p.Status = a.status
	}
	return p
}

// decodeProblem reads an answer as a problem document of one of the sockets.
func decodeProblem(a answer, p any) error { return json.Unmarshal(a.body, p) }

// problemText is one line of a problem for people: what, and why.
func problemText(p client.Problem) string {
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	if text == "" {
		text = string(p.Code)
	}
	if p.Reason != "" && !strings.Contains(text, p.Reason) {
		text += ": " + p.Reason
	}
	return text
}

// segment escapes a name so that it is one segment of a path whatever is in
// it: a/b, spaces, percent signs, even the names . and .. of directories.
func segment(name string) string {
	escaped := pam.EncodeValue(name)
	if strings.Trim(name, ".") == "" {
		escaped = strings.ReplaceAll(escaped, ".", "%2E")
	}
	return escaped
}
