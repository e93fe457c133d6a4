package config

import (
	"io/fs"
	"log/slog"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// document reads the whole tree into a configuration.
func (d *decoder) document(c *Config, root *node) *grantDecoder {
	g := &grantDecoder{decoder: d}
	d.mapping(root, fields{
		known: map[string]func(*node){
			"keyset":          func(n *node) { d.keyset(&c.Keyset, n) },
			"origin":          d.setText(&c.Origin),
			"origin_ca_file":  d.setPath(&c.OriginCAFile),
			"insecure_origin": d.setBool(&c.InsecureOrigin),
			"state_dir":       d.setPath(&c.StateDir),
			"log":             func(n *node) { d.log(&c.Log, n) },
			"listen":          func(n *node) { d.listen(&c.Listen, n) },
			"upstream":        func(n *node) { d.upstream(&c.Upstream, n) },
			"grants":          g.list,
		},
		refused: map[string]string{
			"encryption_key_files": "this version cannot encrypt the state yet: remove it, and put state_dir on an encrypted volume if you need that",
			"strict":               "this version has no such switch: remove it; the file is always read strictly",
			"secret_key":           secretKeyAdvice,
			"secret_key_file":      "put it under keyset",
			"publish_key":          "put it under keyset",
			"subscribe_key":        "put it under keyset",
		},
	})
	return g
}

const secretKeyAdvice = "the secret key does not belong in this file: put it alone into a file of mode 0600 and name that file as secret_key_file"

func (d *decoder) keyset(k *Keyset, n *node) {
	d.mapping(n, fields{
		known: map[string]func(*node){
			"publish_key":           d.setText(&k.PublishKey),
			"subscribe_key":         d.setText(&k.SubscribeKey),
			"secret_key_file":       d.setPath(&k.SecretKeyFile),
			"secret_key_credential": func(v *node) { d.credential(&k.SecretKeyCredential, v) },
		},
		refused: map[string]string{"secret_key": secretKeyAdvice},
	})
	for _, v := range n.children {
		if v.kind == textKind && looksLikeVariable(v.text) {
			d.hint(v, "%s looks like a variable, but nothing is replaced in this file: write the value, or set %s in the environment", v.key.text, variableOf(v.key.text))
		}
	}
}

// looksLikeVariable reports whether text holds ${NAME}, $NAME or {{ ... }}.
func looksLikeVariable(text string) bool { return variable.MatchString(text) }

var variable = regexp.MustCompile(`\$\{|\$[A-Za-z_]|\{\{`)

// variableOf is the variable of the environment that wins over a key of keyset.
func variableOf(key string) string {
	if strings.HasPrefix(key, "secret_key") {
		return EnvSecretKeyFile
	}
	return "PUBNUB_" + strings.ToUpper(key)
}

func (d *decoder) credential(dst *string, n *node) {
	s, ok := d.text(n)
	if !ok {
		return
	}
	if strings.ContainsAny(s, "/\x00") || s == "." || s == ".." {
		d.fault(n, "must be the name of a systemd credential, not a path: use secret_key_file for a path")
		return
	}
	*dst = s
}

func (d *decoder) log(l *Log, n *node) {
	d.mapping(n, fields{known: map[string]func(*node){
		"level": func(v *node) {
			levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
			if s, ok := d.text(v); ok {
				level, known := levels[s]
				if !known {
					d.fault(v, "unknown level %q: use debug, info, warn or error", s)
				}
				l.Level = level
			}
		},
		"format": func(v *node) {
			if s, ok := d.text(v); ok {
				if s != "text" && s != "json" {
					d.fault(v, "unknown format %q: use text or json", s)
				}
				l.Format = s
			}
		},
	}})
}

func (d *decoder) upstream(u *Upstream, n *node) {
	d.mapping(n, fields{known: map[string]func(*node){
		"rate": func(v *node) {
			if v.kind == numberKind && (v.text == "0" || strings.HasPrefix(v.text, "-")) {
				d.fault(v, "must be above 0: it is the number of requests a second")
				return
			}
			if f, ok := d.number(v, 0.001, 10000); ok {
				u.Rate = f
			}
		},
		"burst":     d.setInt(&u.Burst, 1, 100000),
		"in_flight": d.setInt(&u.InFlight, 1, 256),
	}})
}

func (d *decoder) listen(l *Listen, n *node) {
	d.mapping(n, fields{
		known: map[string]func(*node){
			"token":    func(v *node) { d.socket(&l.Token, v) },
			"admin":    func(v *node) { d.socket(&l.Admin, v) },
			"loopback": func(v *node) { l.Loopback = d.loopback(v) },
		},
		refused: map[string]string{
			"metrics":   "this version serves no metrics yet: remove it, and use pamsidecar status --json",
			"admin_tcp": "this version listens for operators on the Unix socket listen.admin only: remove it",
		},
	})
}

func (d *decoder) socket(s *SocketConfig, n *node) {
	d.mapping(n, fields{known: map[string]func(*node){
		"path":  d.setPath(&s.Path),
		"mode":  func(v *node) { d.mode(&s.Mode, v) },
		"group": func(v *node) { d.group(&s.Group, v) },
	}})
}

var octalMode = regexp.MustCompile(`^0?[0-7]{3}$`)

// mode reads permissions of a file as text in octal. A number is refused because
// readers of YAML do not agree on what 0660 is.
func (d *decoder) mode(dst *fs.FileMode, n *node) {
	if n.kind == numberKind {
		example := "0660"
		if octalMode.MatchString(n.text) {
			example = "0" + strings.TrimPrefix(n.text, "0")
		}
		d.fault(n, "must be text in octal: put it in quotes, like \"%s\"", example)
		return
	}
	s, ok := d.text(n)
	if !ok {
		return
	}
	if !octalMode.MatchString(s) {
		d.fault(n, "must be three octal digits with a leading zero, like \"0660\"")
		return
	}
	bits, _ := strconv.ParseUint(s, 8, 32)
	*dst = fs.FileMode(bits)
}

// group reads the name or the number of a group.
func (d *decoder) group(dst *string, n *node) {
	if n.kind != numberKind {
		d.setText(dst)(n)
		return
	}
	if _, err := strconv.ParseUint(n.text, 10, 31); err != nil {
		d.fault(n, "must be the name or the number of a group")
		return
	}
	*dst = n.text
}

func (d *decoder) loopback(n *node) *LoopbackConfig {
	var l LoopbackConfig
	start := len(d.faults)
	ok := d.mapping(n, fields{known: map[string]func(*node){
		"address":                        func(v *node) { d.loopbackAddress(&l.Address, v) },
		"bearer_file":                    d.setPath(&l.BearerFile),
		"i_trust_this_network_namespace": d.setBool(&l.TrustNamespace),
	}})
	switch {
	case !ok || len(d.faults) > start:
	case l.Address == "":
		d.missing(n, "address", "write for example address: 127.0.0.1:7070")
	case l.BearerFile == "" && !l.TrustNamespace:
		d.missing(n, "bearer_file", "name a file with a secret that readers must send, or write i_trust_this_network_namespace: true if every process that shares the network namespace may read")
	case l.BearerFile != "" && l.TrustNamespace:
		d.fault(n, "bearer_file and i_trust_this_network_namespace: true contradict each other: remove one")
	}
	return &l
}

func (d *decoder) loopbackAddress(dst *string, n *node) {
	s, ok := d.text(n)
	if !ok {
		return
	}
	address, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		d.fault(n, "must be an IP address and a port, like 127.0.0.1:7070 or \"[::1]:7070\"")
	case !address.Addr().IsLoopback():
		d.fault(n, "%s is not a loopback address: use 127.0.0.1 or ::1; tokens are never served to other hosts", address.Addr())
	default:
		*dst = s
	}
}
