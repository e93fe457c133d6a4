package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// TestMain makes this test binary the program itself when a script runs it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"pamsidecar": main})
}

// Each script of testdata/script shows one behaviour of the real program.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"freeport":   freePort,
			"grepsecret": grepSecret,
			"http":       httpRequest,
			"until":      until,
			"waitfor":    waitFor,
		},
		Condition: func(cond string) (bool, error) {
			if path, ok := strings.CutPrefix(cond, "exists:"); ok {
				_, err := os.Lstat(path)
				return err == nil, nil
			}
			return false, errors.New("unknown condition " + cond)
		},
	})
}

// patience bounds every wait of a script.
const patience = 20 * time.Second

// freePort sets a variable to a loopback address that nobody uses:
//
//	freeport ADDR
func freePort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: freeport VARIABLE")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Check(l.Close())
	ts.Setenv(args[0], l.Addr().String())
}

// waitFor waits until a socket accepts, a file exists or a URL answers:
//
//	waitfor token.sock
//	waitfor http://$ADDR/time/0
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitfor PATH|URL")
	}
	target := args[0]
	if !strings.Contains(target, "://") {
		target = ts.MkAbs(target)
	}
	for end := time.Now().Add(patience); !there(target); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("waited %v for %s", patience, target)
		}
	}
}

func there(target string) bool {
	if strings.Contains(target, "://") {
		resp, err := http.Get(target)
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	}
	info, err := os.Stat(target)
	if err != nil || info.Mode()&fs.ModeSocket == 0 {
		return err == nil
	}
	conn, err := net.Dial("unix", target)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// until runs a program again and again until its output matches an expression.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP PROGRAM [ARGUMENT...]")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		_ = ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout") + ts.ReadFile("stderr")
		if want.MatchString(out) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("waited %v for %s in the output of %v:\n%s", patience, args[0], args[1:], out)
		}
	}
}

// httpRequest sends a request and prints status and body; negated, it wants a
// status of 400 or more:
//
//	http GET http://$ADDR/time/0
//	http --socket token.sock GET http://pamsidecar/v1/tokens/alice
//	http PUT http://$ADDR/path '{"body":true}'
func httpRequest(ts *testscript.TestScript, neg bool, args []string) {
	client := &http.Client{Timeout: patience}
	if len(args) > 1 && args[0] == "--socket" {
		path := ts.MkAbs(args[1])
		client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}
		args = args[2:]
	}
	if len(args) != 2 && len(args) != 3 {
		ts.Fatalf("usage: http [--socket PATH] METHOD URL [BODY]")
	}
	req, err := http.NewRequest(args[0], args[1], nil)
	ts.Check(err)
	if len(args) == 3 {
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader(args[2])), int64(len(args[2]))
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	_, err = io.WriteString(ts.Stdout(), resp.Status+"\n"+string(body)+"\n")
	ts.Check(err)
	if bad := resp.StatusCode >= 400; bad != neg {
		ts.Fatalf("%s %s: %s: %s", args[0], args[1], resp.Status, body)
	}
}

// tokenText is what every token begins with, and enough more to be one.
var tokenText = regexp.MustCompile(`[pq][0E]F2AkF0G[A-Za-z0-9_=-]{40,}`)

// grepSecret looks into files, below directories, or at "stdout" and "stderr",
// for a token or the emulator's secret key, so that scripts can say that there
// is none:
//
//	! grepsecret stdout stderr state
func grepSecret(ts *testscript.TestScript, neg bool, args []string) {
	found := ""
	for _, arg := range args {
		if arg == "stdout" || arg == "stderr" {
			if hasSecret([]byte(ts.ReadFile(arg))) {
				found = arg
			}
			continue
		}
		err := filepath.WalkDir(ts.MkAbs(arg), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			content, err := os.ReadFile(path)
			if hasSecret(content) {
				found = path
			}
			return err
		})
		ts.Check(err)
	}
	switch {
	case len(args) == 0:
		ts.Fatalf("usage: grepsecret FILE|DIRECTORY|stdout|stderr...")
	case neg && found != "":
		ts.Fatalf("there is a secret in %s", found)
	case !neg && found == "":
		ts.Fatalf("there is no secret in %s", strings.Join(args, ", "))
	}
}

func hasSecret(content []byte) bool {
	return tokenText.Match(content) || bytes.Contains(content, []byte(pamtest.DemoSecretKey))
}
