package config

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml/lexer"

	"github.com/pamsidecar/pamsidecar/pam"
)

// env makes an environment of pairs.
func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

const (
	keysetLine = "keyset: {publish_key: pub-c-1, subscribe_key: sub-c-1, secret_key_file: /run/secrets/k}\n"
	oneGrant   = "grants:\n  - uuid: a\n    ttl: 15m\n    resources: {channels: {x: [read]}}\n"
)

func parse(t *testing.T, text string, o Options) *Config {
	t.Helper()
	c, err := Parse("c.yaml", []byte(text), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFullContent(t *testing.T) {
	c, err := Parse("/etc/pamsidecar/full.yaml", readFile(t, filepath.Join(seeds, "good", "full.yaml")), testOptions())
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %#v, want %#v", what, got, want)
		}
	}
	check("keyset", c.Keyset, Keyset{
		PublishKey:          "pub-c-00000000-0000-0000-0000-000000000000",
		SubscribeKey:        "sub-c-00000000-0000-0000-0000-000000000000",
		SecretKeyCredential: "pubnub_secret_key",
	})
	check("origin", c.Origin, "http://192.0.2.10:8080")
	check("origin_ca_file", c.OriginCAFile, "/etc/pamsidecar/certs/origin.pem")
	check("insecure_origin", c.InsecureOrigin, true)
	check("log", c.Log, Log{Level: slog.LevelWarn, Format: "json"})
	check("token", c.Listen.Token, SocketConfig{Path: "/run/pamsidecar/token.sock", Mode: 0o666, Group: "2000"})
	check("admin", c.Listen.Admin, SocketConfig{Path: "/run/pamsidecar-admin/admin.sock", Mode: 0o600, Group: "operators"})
	check("loopback", *c.Listen.Loopback, LoopbackConfig{Address: "[::1]:7070", BearerFile: "/run/secrets/loopback_bearer"})
	check("upstream", c.Upstream, Upstream{Rate: 2.5, Burst: 5, InFlight: 2})
	if len(c.Grants) != 3 {
		t.Fatalf("%d grants", len(c.Grants))
	}
	g := c.Grants[0]
	check("name", g.Name, "checkout")
	check("ttl", g.TTL, 15*time.Minute)
	check("note", g.Note, "order service,\nsecond line\n")
	check("channels", g.Resources.Channels, map[string]pam.Permission{"orders": 3, "orders-pnpres": 1})
	check("groups", g.Resources.Groups, map[string]pam.Permission{"order-feeds": 5})
	check("uuids", g.Resources.UUIDs, map[string]pam.Permission{"checkout": 104})
	check("patterns", g.Patterns.Channels, map[string]pam.Permission{`^receipts\.[a-z0-9]+$`: 1})
	check("meta", g.Meta, map[string]any{"service": "checkout", "level": int64(3), "share": 0.5, "big": 1000.0, "beta": true, "none": nil})
	check("loopback", g.Loopback, true)
	check("required", *g.Required, false)
	check("regrant_at", g.RegrantAt, "CRON_TZ=UTC 0 3 * * *")
	check("until", g.Until, time.Date(2027, 6, 30, 0, 0, 0, 0, time.UTC))
	folded := c.Grants[1]
	check("second name", folded.Name, "checkout admin")
	check("spaces", folded.Resources.Channels, map[string]pam.Permission{"orders": pam.ChannelPermissions})
	check("users", folded.Resources.UUIDs, map[string]pam.Permission{"café ☕": pam.Get})
	check("no older words", folded.Resources.Spaces == nil && folded.Resources.Users == nil, true)
	check("any uuid", c.Grants[2].AnyUUID, true)
	line, column := c.GrantPosition(1)
	check("position", [2]int{line, column}, [2]int{35, 5})
}

func TestDefaults(t *testing.T) {
	c := parse(t, "", Options{Getenv: env(EnvPublishKey, "pub-c-1", EnvSubscribeKey, "sub-c-1", EnvSecretKeyFile, "k")})
	want := Config{
		Path: "c.yaml", Origin: "https://ps.pndsn.com", StateDir: "/var/lib/pamsidecar",
		Keyset: Keyset{PublishKey: "pub-c-1", SubscribeKey: "sub-c-1", SecretKeyFile: "k"},
		Log:    Log{Level: slog.LevelInfo, Format: "text"},
		Listen: Listen{
			Token: SocketConfig{Path: "/run/pamsidecar/token.sock", Mode: 0o660},
			Admin: SocketConfig{Path: "/run/pamsidecar-admin/admin.sock", Mode: 0o600},
		},
		Upstream: Upstream{Rate: 10, Burst: 20, InFlight: 4},
	}
	got := Config{Path: c.Path, Keyset: c.Keyset, Origin: c.Origin, StateDir: c.StateDir, Log: c.Log, Listen: c.Listen, Upstream: c.Upstream}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestEnvironmentWins(t *testing.T) {
	c := parse(t, keysetLine+"origin: https://a.example\n", Options{Getenv: env(
		EnvPublishKey, "pub-c-2", EnvSubscribeKey, "sub-c-2", EnvSecretKey, "s", EnvOrigin, "https://b.example:444")})
	want := Keyset{PublishKey: "pub-c-2", SubscribeKey: "sub-c-2", SecretFromEnv: true}
	if c.Keyset != want || c.Origin != "https://b.example:444" {
		t.Errorf("keyset %+v, origin %s", c.Keyset, c.Origin)
	}
	if f := c.Lint(); len(f) == 0 || !strings.HasPrefix(f[0].String(), "warning: PUBNUB_SECRET_KEY is for development") {
		t.Errorf("findings %v", f)
	}
	if s, err := c.SecretKey(); err != nil || s.Reveal() != "s" {
		t.Errorf("secret %v, %v", s, err)
	}
}

func TestEnvironmentFaults(t *testing.T) {
	for _, c := range []struct {
		env  []string
		want string
	}{
		{[]string{EnvSecretKey, "s", EnvSecretKeyFile, "f"}, "PUBNUB_SECRET_KEY: set together with PUBNUB_SECRET_KEY_FILE: unset one of them"},
		{[]string{EnvPublishKey, "sec-c-NEVERSHOWN"}, "PUBNUB_PUBLISH_KEY: must look like pub-c-...: copy it from the keyset in the PubNub portal"},
		{[]string{EnvSubscribeKey, "pub-c-1"}, "PUBNUB_SUBSCRIBE_KEY: is a publish key (pub-c-...): a subscribe key (sub-c-...) belongs here"},
		{[]string{EnvOrigin, "http://ps.pndsn.com"}, "PUBNUB_ORIGIN: plain http would show tokens to the network: use https, or write insecure_origin: true if that is acceptable"},
	} {
		_, err := Parse("c.yaml", []byte(keysetLine), Options{Getenv: env(c.env...)})
		if err == nil || err.Error() != c.want {
			t.Errorf("%v: %v, want %s", c.env, err, c.want)
		}
	}
}

func TestOrigins(t *testing.T) {
	for origin, ok := range map[string]bool{
		"https://ps.pndsn.com": true, "https://ps.pndsn.com/": true, "https://h:8443": true, "https://[::1]:8443": true,
		"http://localhost:8080": true, "http://127.0.0.2": true, "http://[::1]:80": true,
		"http://h": false, "https://h/v3": false, "https://h?x": false, "https://h#": false, "https://h//": false,
		"https://u:p@h": false, "h": false, "https://": false, "https://h:0": false, "https://h:70000": false, "https://:1": false,
		"ftp://h": false, "https://h:x": false,
	} {
		if problem := originProblem(origin, false); (problem == "") != ok {
			t.Errorf("%s: %q", origin, problem)
		}
	}
	if problem := originProblem("http://h", true); problem != "" {
		t.Errorf("insecure: %q", problem)
	}
}

// A path may go through symbolic links, as /var/run does.
func TestAdminSocketBehindLink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("run", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	text := keysetLine + "listen:\n  token: {path: run/apps/t.sock}\n  admin: {path: link/apps/a.sock}\n"
	_, err := Parse(filepath.Join(dir, "c.yaml"), []byte(text), testOptions())
	if err == nil || !strings.Contains(err.Error(), ":4:17: listen.admin.path lies in the directory of the token socket") {
		t.Errorf("error %v", err)
	}
}

// A token socket below the state directory is fine: apps mount only its own.
func TestDirectoriesThatAreFine(t *testing.T) {
	c, err := Parse("/srv/x/c.yaml", []byte(keysetLine+
		"state_dir: .\nlisten:\n  token: {path: token/token.sock}\n  admin: {path: token-admin/admin.sock}\n"), testOptions())
	if err != nil {
		t.Fatal(err)
	}
	if c.StateDir != "/srv/x" || c.Listen.Token.Path != "/srv/x/token/token.sock" {
		t.Errorf("state %s, token %s", c.StateDir, c.Listen.Token.Path)
	}
}

func TestLoadFaults(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file",
		dir:                        "it is a directory",
	} {
		_, err := Load(path, testOptions())
		if _, ok := errors.AsType[Faults](err); !ok || !strings.HasPrefix(err.Error(), path+": read configuration: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := readLimited(filepath.Join(seeds, "good", "full.yaml"), 10); err == nil || !strings.Contains(err.Error(), "larger than 10 bytes") {
		t.Errorf("large file: %v", err)
	}
}

func TestNestingIsBounded(t *testing.T) {
	for name, text := range map[string]string{
		"lists":    strings.Repeat("[", 1<<18),
		"mappings": strings.Repeat("{a: ", 1<<17),
		"dashes":   strings.Repeat("- ", 1<<18),
		"JSON":     strings.Repeat("[", 5000) + strings.Repeat("]", 5000),
		"object":   strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000),
	} {
		if _, err := ParseGrant([]byte(text), testOptions()); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if len(text) > maxGrantSize {
			t.Errorf("%s: the text is too large to test anything", name)
		}
		if _, err := Parse("c.yaml", []byte(text), testOptions()); err == nil || !strings.Contains(err.Error(), "nested too deep") {
			t.Errorf("%s: %.200v", name, err)
		}
	}
}

// The keys of the mappings in a list are not those of one mapping.
func TestKeysAreBounded(t *testing.T) {
	keys := "meta:\n" + strings.Repeat("  k: v\n", maxKeys+1)
	_, err := ParseGrant([]byte(keys), testOptions())
	if want := "line 5002:4: a mapping cannot have more than 5,000 keys"; err == nil || err.Error() != want {
		t.Errorf("error %.200v", err)
	}
	items := "- a: 1\n  b: {c: 1, d: 2}\n"
	tokens := lexer.Tokenize("x:\n" + strings.Repeat(items, maxKeys) + "y:\n  z:\n" + strings.Repeat("   "+items[:7], maxKeys))
	if faults := refusedTokens(tokens); len(faults) > 0 {
		t.Errorf("faults %v", faults)
	}
}

func TestParseGrant(t *testing.T) {
	want := parse(t, keysetLine+oneGrant, testOptions()).Grants[0]
	o := testOptions()
	for name, text := range map[string]string{
		"YAML":      "uuid: a\nttl: 15m\nresources: {channels: {x: [read]}}\n",
		"braces":    "{uuid: a, ttl: 15m, resources: {channels: {x: [read]}}}",
		"JSON":      "\n{\"uuid\":\"a\",\t\"ttl\":\"15m\",\"resources\":{\"channels\":{\"x\":[\"read\"]}}}\n",
		"JSON tabs": "{\n\t\"uuid\": \"\\u0061\",\n\t\"ttl\": \"15m\",\n\t\"resources\": {\"channels\": {\"x\": [\"read\"]}}\n}",
	} {
		g, err := ParseGrant([]byte(text), o)
		if err != nil || !reflect.DeepEqual(g, want) {
			t.Errorf("%s: %+v, %v", name, g, err)
		}
	}
}

func TestParseGrantFaults(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"", "", "line 1:1: ttl is missing: write for example ttl: 15m (10m to 1h is advised)\nline 1:1: uuid is missing: name the user id the token is for, or set any_uuid\nline 1:1: resources grants nothing: name at least one resource or pattern"},
		{"", "{\"uuid\":\"a\",\n \"ttl\":15,\n \"é\": 1, \"ttl\": \"1m\", \"resources\":{\"channels\":{\"x\":[\"read\",\"reed\"]}}}",
			"line 2:8: ttl: write \"15m\": a duration needs a unit\nline 3:2: unknown key \"é\": remove it, or use one of any_uuid, loopback, meta, name, note, patterns, regrant_at, required, resources, ttl, until, uuid\n" +
				"line 3:10: duplicate key \"ttl\": it already stands at line 2:2: remove one of them\n" +
				"line 3:60: \"x\": unknown permission \"reed\": a channel takes read, write, manage, delete, get, update, join"},
		{"b", `{"name":"a","uuid":"a","ttl":"15m","resources":{"channels":{"x":["read"]}}}`,
			`line 1:9: name is "a", but the grant is put under "b": remove it, or make both the same`},
		{"", "[1]", "line 1:1: must be a mapping, not a list"},
		{"", "sec-c-NEVERSHOWN", "line 1:1: a secret key (sec-c-...) does not belong in this file: put it alone into a file of mode 0600 and name that file as secret_key_file; if others could read this file, replace the key in the PubNub portal"},
	} {
		o := testOptions()
		o.Name = c.name
		if _, err := ParseGrant([]byte(c.text), o); err == nil || err.Error() != c.want {
			t.Errorf("%s\ngot  %v\nwant %s", c.text, err, c.want)
		}
	}
	if _, err := ParseGrant(make([]byte, maxGrantSize+1), testOptions()); err == nil {
		t.Error("a grant without bounds is accepted")
	}
}

func TestParseGrantNameFromOutside(t *testing.T) {
	o := testOptions()
	o.Name = "any"
	g, err := ParseGrant([]byte("any_uuid: true\nttl: 15m\nresources: {channels: {x: [read]}}\n"), o)
	if err != nil || g.Name != "any" {
		t.Errorf("%+v, %v", g, err)
	}
}

// What an operator reads as JSON can be put back as it is.
func TestGrantRoundTrip(t *testing.T) {
	for _, path := range seedFiles(t, "good") {
		c, err := Parse(path, readFile(t, path), testOptions())
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range c.Grants {
			data, err := json.Marshal(g)
			if err != nil {
				t.Fatal(err)
			}
			back, err := ParseGrant(data, testOptions())
			if err != nil || back.Fingerprint() != g.Fingerprint() {
				t.Errorf("%s: %s: %v", path, data, err)
			}
		}
	}
}

func TestSecretKey(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ name, text, secret, fault string }{
		{"good", "sec-c-abc\n", "sec-c-abc", ""},
		{"crlf", "sec-c-abc\r\n", "sec-c-abc", ""},
		{"bare", "sec-c-abc", "sec-c-abc", ""},
		{"empty", "\n", "", "is empty"},
		{"lines", "NEVERSHOWN\nb\n", "", "more than one line"},
		{"space", "NEVERSHOWN b", "", "a space or a tab"},
		{"before", " NEVERSHOWN", "", "a space or a tab"},
		{"binary", "NEVERSHOWN\xff", "", "no text"},
		{"nul", "NEVERSHOWN\x00", "", "no text"},
		{"large", strings.Repeat("x", 4097), "", "larger than 4,096 bytes"},
	} {
		config := &Config{Keyset: Keyset{SecretKeyFile: write(c.name, c.text)}, getenv: emptyEnv}
		s, err := config.SecretKey()
		if s.Reveal() != c.secret || (err == nil) != (c.fault == "") {
			t.Errorf("%s: %v, %v", c.name, s, err)
		}
		if err != nil && (!strings.Contains(err.Error(), c.fault) || strings.Contains(err.Error(), "NEVERSHOWN")) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	_, err := (&Config{Keyset: Keyset{SecretKeyFile: filepath.Join(dir, "none")}}).SecretKey()
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	_, err = (&Config{Keyset: Keyset{SecretKeyFile: dir}}).SecretKey()
	if err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("directory: %v", err)
	}
	credential := &Config{Keyset: Keyset{SecretKeyCredential: "good"}, getenv: env("CREDENTIALS_DIRECTORY", dir)}
	if s, err := credential.SecretKey(); err != nil || s.Reveal() != "sec-c-abc" {
		t.Errorf("credential: %v, %v", s, err)
	}
	credential.getenv = emptyEnv
	if _, err := credential.SecretKey(); err == nil || !strings.Contains(err.Error(), "LoadCredential=good:") {
		t.Errorf("credential without systemd: %v", err)
	}
}
