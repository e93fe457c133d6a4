package config

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam"
)

func TestSurvivedOutage(t *testing.T) {
	for ttl, want := range map[time.Duration]time.Duration{
		time.Minute: 21 * time.Second, 10 * time.Minute: 210 * time.Second, 43200 * time.Minute: 15120 * time.Minute,
	} {
		if got := SurvivedOutage(ttl); got != want {
			t.Errorf("%s: %s, want %s", ttl, got, want)
		}
	}
}

// manyGrants is a file with n grants.
func manyGrants(n int, ttl string) string {
	var b strings.Builder
	b.WriteString(keysetLine + "grants:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - uuid: user-%d\n    ttl: %s\n    resources: {channels: {x: [read]}}\n", i, ttl)
	}
	return b.String()
}

func TestLintRate(t *testing.T) {
	for _, c := range []struct {
		grants int
		want   string
	}{
		{2587, ""},
		{2588, "c.yaml:2:1: warning: 2,588 grants at ttl 15m need 5.0 of 10 requests/s: little is left for retries and revokes; raise ttl or upstream.rate\n"},
		{5000, "c.yaml:2:1: warning: 5,000 grants at ttl 15m need 9.7 of 10 requests/s: little is left for retries and revokes; raise ttl or upstream.rate\n"},
		{6000, "c.yaml:2:1: warning: 6,000 grants at ttl 15m need 11.6 of 10 requests/s: tokens will end before they are replaced; raise ttl or upstream.rate\n"},
	} {
		config := parse(t, manyGrants(c.grants, "15m"), testOptions())
		got := ""
		for _, f := range config.Lint() {
			got += f.String() + "\n"
		}
		if got != c.want {
			t.Errorf("%d grants: %q, want %q", c.grants, got, c.want)
		}
	}
	g := cache.Grant{Grant: pam.Grant{TTL: 15 * time.Minute}}
	if got := RateNeeded([]cache.Grant{g, g}); math.Abs(got-2/(0.575*900)) > 1e-12 {
		t.Errorf("rate %v", got)
	}
}

func TestTokenSize(t *testing.T) {
	grant := func(channels int) string {
		var b strings.Builder
		b.WriteString(keysetLine + "grants:\n  - uuid: big\n    ttl: 15m\n    resources:\n      channels:\n")
		for i := range channels {
			fmt.Fprintf(&b, "        channel-with-a-long-name-%04d: [read]\n", i)
		}
		return b.String()
	}
	if f := parse(t, grant(50), testOptions()).Lint(); len(f) != 0 {
		t.Errorf("small: %v", f)
	}
	if f := parse(t, grant(300), testOptions()).Lint(); len(f) != 1 || !strings.HasPrefix(f[0].String(), `c.yaml:3:5: warning: the token of "big" has about `) {
		t.Errorf("large: %v", f)
	}
	_, err := Parse("c.yaml", []byte(grant(1500)), testOptions())
	if err == nil || !strings.HasPrefix(err.Error(), "c.yaml:3:5: the token would have about ") {
		t.Errorf("too large: %v", err)
	}
}

func TestLintModes(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"k": 0o640, "b": 0o604} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	text := "keyset: {publish_key: pub-c-1, subscribe_key: sub-c-1, secret_key_file: k}\n" +
		"listen: {loopback: {address: 127.0.0.1:7070, bearer_file: b}}\n" + oneGrant
	path := filepath.Join(dir, "c.yaml")
	c, err := Parse(path, []byte(text), testOptions())
	if err != nil {
		t.Fatal(err)
	}
	f := c.Lint()
	if len(f) != 2 || f[0].Line != 1 || !strings.Contains(f[0].Message, "mode 0640") || f[1].Line != 2 || !strings.Contains(f[1].Message, "mode 0604") {
		t.Errorf("findings %v", f)
	}
	o := testOptions()
	o.Getenv = env(EnvSecretKeyFile, filepath.Join(dir, "k"))
	if c, err = Parse(path, []byte(text), o); err != nil {
		t.Fatal(err)
	}
	if f := c.Lint(); len(f) != 2 || f[0].Line != 0 {
		t.Errorf("a file named by the environment has no place here: %v", f)
	}
}

func TestSuggestions(t *testing.T) {
	known := map[string]func(*node){"channels": nil, "groups": nil, "uuids": nil}
	for key, want := range map[string]string{
		"chanels": `did you mean "channels"?`, "hcannels": `did you mean "channels"?`, "Groups": `did you mean "groups"?`,
		"uuid": `did you mean "uuids"?`, "x": "remove it, or use one of channels, groups, uuids",
	} {
		if got := suggest(key, known); got != want {
			t.Errorf("%s: %s", key, got)
		}
	}
}
