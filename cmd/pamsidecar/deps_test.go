package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const modulePath = "github.com/pamsidecar/pamsidecar"

// imports is what each package may import beyond the standard library: packages
// of this module, relative to its root, and modules of others. "*" stands for
// every package of this module. This is the table of the design; a package that
// needs more is a decision to take, not a line to add.
var imports = map[string]struct{ own, third []string }{
	"pam":             {nil, []string{"github.com/fxamacker/cbor/v2", "github.com/hashicorp/go-retryablehttp"}},
	"pam/pamtest":     {[]string{"pam"}, []string{"github.com/fxamacker/cbor/v2"}},
	"cache":           {[]string{"pam"}, []string{"go.etcd.io/bbolt", "github.com/fxamacker/cbor/v2", "golang.org/x/sys"}},
	"cache/storetest": {[]string{"cache"}, []string{"pgregory.net/rapid"}},
	"refresher":       {[]string{"cache", "pam"}, []string{"github.com/robfig/cron/v3", "golang.org/x/time"}},
	"socket":          {[]string{"cache", "client"}, []string{"golang.org/x/sys"}},
	"client":          {nil, nil},
	"admin":           {[]string{"cache", "socket"}, nil},
	"config":          {[]string{"cache", "pam"}, []string{"github.com/goccy/go-yaml"}},
	"cmd/pamsidecar":  {[]string{"*"}, []string{"github.com/spf13/cobra", "golang.org/x/term", "golang.org/x/sys"}},
}

// Every package imports what the table allows and nothing else, on every
// platform the product is built for. Test files are not looked at.
func TestImports(t *testing.T) {
	for _, platform := range []string{"linux", "darwin", "windows"} {
		t.Run(platform, func(t *testing.T) {
			found := listPackages(t, platform)
			for name := range imports {
				if _, ok := found[name]; !ok && platform == "linux" {
					t.Errorf("%s is in the table and not in the module", name)
				}
			}
			for _, name := range slices.Sorted(maps.Keys(found)) {
				checkImports(t, name, found[name])
			}
		})
	}
}

func checkImports(t *testing.T, name string, imported []string) {
	t.Helper()
	allowed, ok := imports[name]
	// Examples show what an app needs that has nothing of this module, nor of others.
	if example := name == "examples" || strings.HasPrefix(name, "examples/"); !ok && !example {
		t.Errorf("%s: package is not in the table", name)
		return
	}
	for _, path := range imported {
		switch own, isOwn := strings.CutPrefix(path, modulePath+"/"); {
		case isOwn:
			if !slices.Contains(allowed.own, own) && !slices.Contains(allowed.own, "*") {
				t.Errorf("%s imports %s: not in the table", name, own)
			}
		case !strings.Contains(strings.SplitN(path, "/", 2)[0], "."):
			// standard library
		case !slices.ContainsFunc(allowed.third, func(m string) bool { return path == m || strings.HasPrefix(path, m+"/") }):
			t.Errorf("%s imports %s: not in the table", name, path)
		}
	}
}

// listPackages maps each package of the module, relative to its root, to its
// imports on a platform.
func listPackages(t *testing.T, platform string) map[string][]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", modulePath+"/...")
	cmd.Env = append(cmd.Environ(), "GOOS="+platform, "CGO_ENABLED=0")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	found := map[string][]string{}
	for dec := json.NewDecoder(&stdout); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		found[strings.TrimPrefix(p.ImportPath, modulePath+"/")] = p.Imports
	}
	if len(found) == 0 {
		t.Fatal("go list found no package")
	}
	return found
}
