package main

import (
	"encoding/json"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/config"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// root is where the files of the module's first level are.
const root = "../.."

func readRoot(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// composeService is what the tests look at of one service.
type composeService struct {
	Command     []string          `yaml:"command"`
	Environment map[string]string `yaml:"environment"`
	GroupAdd    []string          `yaml:"group_add"`
	Ports       []string          `yaml:"ports"`
	Volumes     []any             `yaml:"volumes"`
}

// composeServices reads docker-compose.yml as it is without any variable set.
func composeServices(t *testing.T) map[string]composeService {
	t.Helper()
	text := regexp.MustCompile(`\$\{\w+:-([^}]*)\}`).ReplaceAllString(readRoot(t, "docker-compose.yml"), `"$1"`)
	var file struct {
		Services map[string]composeService `yaml:"services"`
	}
	if err := yaml.Unmarshal([]byte(text), &file); err != nil {
		t.Fatal(err)
	}
	return file.Services
}

// mounts maps the targets of a service's volumes to their sources, those of
// read-only ones with ":ro" behind.
func (s composeService) mounts(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, v := range s.Volumes {
		switch v := v.(type) {
		case string:
			source, rest, _ := strings.Cut(v, ":")
			target, options, _ := strings.Cut(rest, ":")
			if options == "ro" {
				source += ":ro"
			}
			found[target] = source
		case map[string]any:
			source := v["source"].(string)
			if v["read_only"] == true {
				source += ":ro"
			}
			found[v["target"].(string)] = source
		default:
			t.Fatalf("volume %v", v)
		}
	}
	return found
}

// The sidecar of docker-compose.yml has a configuration that is accepted, and
// its parts fit together.
func TestComposeFile(t *testing.T) {
	services := composeServices(t)
	emulator, sidecar, app := services["emulator"], services["sidecar"], services["app"]
	mounts, appMounts := sidecar.mounts(t), app.mounts(t)

	file, readOnly := strings.CutSuffix(mounts[config.DefaultPath], ":ro")
	if !readOnly {
		t.Fatalf("no read-only configuration at %s: %v", config.DefaultPath, mounts)
	}
	cfg, err := config.Load(filepath.Join(root, file), config.Options{Getenv: func(name string) string { return sidecar.Environment[name] }})
	if err != nil {
		t.Fatal(err)
	}

	if cfg.Keyset.PublishKey != pamtest.DemoPublishKey || cfg.Keyset.SubscribeKey != pamtest.DemoSubscribeKey {
		t.Errorf("keys %s and %s are not the emulator's", cfg.Keyset.PublishKey, cfg.Keyset.SubscribeKey)
	}
	secret := strings.TrimSuffix(mounts[cfg.Keyset.SecretKeyFile], ":ro")
	if got := strings.TrimSpace(readRoot(t, secret)); got != pamtest.DemoSecretKey {
		t.Errorf("%s does not hold the emulator's secret key", secret)
	}
	origin, err := url.Parse(cfg.Origin)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(emulator.Command[len(emulator.Command)-1])
	if origin.Hostname() != "emulator" || origin.Port() != port {
		t.Errorf("origin %s is not the emulator at port %s", cfg.Origin, port)
	}
	for _, p := range emulator.Ports {
		if !strings.HasPrefix(p, "127.0.0.1:") {
			t.Errorf("the emulator is published beyond loopback: %s", p)
		}
	}

	for _, dir := range []string{filepath.Dir(cfg.Listen.Token.Path), filepath.Dir(cfg.Listen.Admin.Path), cfg.StateDir} {
		if mounts[dir] == "" {
			t.Errorf("%s is not on a volume", dir)
		}
	}
	tokens := filepath.Dir(cfg.Listen.Token.Path)
	if len(appMounts) != 1 || appMounts[tokens] != mounts[tokens]+":ro" {
		t.Errorf("the app mounts %v, want the directory of the token socket alone, read-only", appMounts)
	}
	for name, s := range map[string]composeService{"sidecar": sidecar, "app": app} {
		if !slices.Contains(s.GroupAdd, cfg.Listen.Token.Group) {
			t.Errorf("%s is not in the token socket's group %s", name, cfg.Listen.Token.Group)
		}
	}
	if !slices.ContainsFunc(cfg.Grants, func(g cache.Grant) bool { return g.Name == app.Command[0] }) {
		t.Errorf("the app asks for %q, which no grant has", app.Command[0])
	}
}

// The image has the directories of the defaults, belongs to nobody special, and
// its health check is a command line that the program takes.
func TestDockerfile(t *testing.T) {
	text := strings.ReplaceAll(readRoot(t, "Dockerfile"), "\\\n", " ")
	_, last, ok := strings.Cut(text, "\nFROM scratch AS program\n")
	if !ok || !strings.Contains(last, "\nUSER 65532:65532\n") || !strings.Contains(last, "\nENTRYPOINT [\"/pamsidecar\"]\n") {
		t.Errorf("the program does not run as an unprivileged user:\n%s", last)
	}
	if strings.Count(last, "\nFROM ") != 1 || !strings.Contains(last, "\nFROM program AS sidecar\n") {
		t.Errorf("the last stage is not the sidecar:\n%s", last)
	}
	for _, dir := range []string{filepath.Dir(config.DefaultTokenSocket), filepath.Dir(config.DefaultAdminSocket), config.DefaultStateDir} {
		if !regexp.MustCompile(`install -d -m 07[01][01] [^&]*/own` + dir + `\s`).MatchString(text) {
			t.Errorf("%s is not made, or can be written by others", dir)
		}
	}
	for _, word := range []string{"HEALTHCHECK", "CMD"} {
		match := regexp.MustCompile(`(?m)^` + word + `[^\[\n]*(\[.*\])`).FindStringSubmatch(last)
		var args []string
		if match == nil || json.Unmarshal([]byte(match[1]), &args) != nil {
			t.Fatalf("no %s in exec form in\n%s", word, last)
		}
		if args[0] == "/pamsidecar" {
			args = args[1:]
		}
		command, rest, err := newRootCommand(&app{}).Find(args)
		if err == nil {
			err = command.ParseFlags(rest)
		}
		if err != nil || !command.HasParent() {
			t.Errorf("%s %q is no command line of the program: %v", word, args, err)
		}
	}
}
