package config

import (
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// maxSocketPath is the longest path of a Unix socket on Linux, in bytes.
const maxSocketPath = 107

var (
	publishKeyForm   = regexp.MustCompile(`^pub-c-[A-Za-z0-9-]+$`)
	subscribeKeyForm = regexp.MustCompile(`^sub-c-[A-Za-z0-9-]+$`)
)

// environment lets the variables win over the file.
func (d *decoder) environment(c *Config, root *node) {
	k := &c.Keyset
	overrule := func(dst *string, name string) bool {
		v := c.getenv(name)
		if v != "" {
			*dst = v
		}
		return v != ""
	}
	keyset := root.child("keyset")
	fromEnv := overrule(&k.PublishKey, EnvPublishKey)
	d.checkKey(keyset, root, "publish_key", k.PublishKey, EnvPublishKey, fromEnv, publishKeyForm)
	fromEnv = overrule(&k.SubscribeKey, EnvSubscribeKey)
	d.checkKey(keyset, root, "subscribe_key", k.SubscribeKey, EnvSubscribeKey, fromEnv, subscribeKeyForm)
	d.secretSource(c, keyset, root)
	fromEnv = overrule(&c.Origin, EnvOrigin)
	d.checkOrigin(c, root.child("origin"), fromEnv)
}

// section is where a key of keyset would have to stand.
func section(keyset, root *node) (at *node, path string) {
	if keyset != nil {
		return keyset, "keyset"
	}
	return root, "keyset"
}

// checkKey checks one of the two public keys. It never shows the value: it could
// be the secret key in the wrong place.
func (d *decoder) checkKey(keyset, root *node, key, value, env string, fromEnv bool, form *regexp.Regexp) {
	at, path := section(keyset, root)
	if value == "" {
		if keyset == nil || keyset.kind == mappingKind && keyset.child(key) == nil {
			d.report(at.line, at.column, joinPath(path, key), "keyset."+key+" is missing: write it here, or set "+env)
		}
		return
	}
	if form.MatchString(value) {
		return
	}
	prefix := form.String()[1:7]
	advice := "must look like " + prefix + "...: copy it from the keyset in the PubNub portal"
	switch {
	case looksLikeVariable(value):
		advice = "looks like a variable, but nothing is replaced here: write the key, or set " + env + " and remove this"
	case publishKeyForm.MatchString(value):
		advice = "is a publish key (pub-c-...): a subscribe key (sub-c-...) belongs here"
	case subscribeKeyForm.MatchString(value):
		advice = "is a subscribe key (sub-c-...): a publish key (pub-c-...) belongs here"
	}
	if fromEnv {
		d.faultEnv(env, "%s", advice)
		return
	}
	d.fault(keyset.child(key), "%s", advice)
}

// secretSource decides where the secret key comes from: exactly one place.
func (d *decoder) secretSource(c *Config, keyset, root *node) {
	k := &c.Keyset
	secret, file := c.getenv(EnvSecretKey) != "", c.getenv(EnvSecretKeyFile)
	switch {
	case secret && file != "":
		d.faultEnv(EnvSecretKey, "set together with %s: unset one of them", EnvSecretKeyFile)
	case secret:
		k.SecretFromEnv, k.SecretKeyFile, k.SecretKeyCredential = true, "", ""
	case file != "":
		k.SecretKeyFile, k.SecretKeyCredential = filepath.Clean(file), ""
	case k.SecretKeyFile != "" && k.SecretKeyCredential != "":
		d.fault(keyset, "secret_key_file and secret_key_credential are both set: remove one")
	case k.SecretKeyFile == "" && k.SecretKeyCredential == "":
		d.missingSecret(keyset, root)
	}
}

// missingSecret reports that there is no secret key, unless something was there
// that was already reported.
func (d *decoder) missingSecret(keyset, root *node) {
	if keyset != nil {
		if keyset.kind != mappingKind {
			return
		}
		for _, v := range keyset.children {
			if strings.HasPrefix(v.key.text, "secret_key") {
				return
			}
		}
	}
	at, path := section(keyset, root)
	d.report(at.line, at.column, joinPath(path, "secret_key_file"),
		"keyset.secret_key_file is missing: name a file of mode 0600 that holds the secret key alone (or secret_key_credential, or "+EnvSecretKeyFile+")")
}

// checkOrigin checks the URL of the service and takes a final slash off it.
func (d *decoder) checkOrigin(c *Config, n *node, fromEnv bool) {
	problem := originProblem(c.Origin, c.InsecureOrigin)
	switch {
	case problem == "":
		c.Origin = strings.TrimSuffix(c.Origin, "/")
	case fromEnv:
		d.faultEnv(EnvOrigin, "%s", problem)
	case n != nil && n.kind == textKind:
		d.fault(n, "%s", problem)
	}
}

// originProblem says what is wrong with an origin, "" if nothing is.
func originProblem(origin string, insecure bool) string {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || u.Hostname() == "" {
		return "must be a URL without a path, like " + DefaultOrigin
	}
	port := u.Port()
	if number, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || number == 0) {
		return "the port must be a number from 1 to 65535"
	}
	switch {
	case u.User != nil:
		return "must not hold a user or a password"
	case strings.Trim(u.Path, "/") != "" || len(u.Path) > 1:
		return "must not have a path: write scheme and host only, like " + DefaultOrigin
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(origin, "#"):
		return "must not have a query or a fragment: write scheme and host only, like " + DefaultOrigin
	case u.Scheme == "https", u.Scheme == "http" && (insecure || isLoopbackHost(u.Hostname())):
		return ""
	case u.Scheme == "http":
		return "plain http would show tokens to the network: use https, or write insecure_origin: true if that is acceptable"
	}
	return "must begin with https://"
}

func isLoopbackHost(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

// semantics checks what several values say together.
func (d *decoder) semantics(c *Config, root *node) {
	token, admin, state := c.Listen.Token.Path, c.Listen.Admin.Path, c.StateDir
	tokenAt := nearest(root, "listen", "token", "path")
	adminAt := nearest(root, "listen", "admin", "path")
	stateAt := nearest(root, "state_dir")
	for _, s := range []struct {
		path string
		at   *node
		key  string
	}{{token, tokenAt, "listen.token.path"}, {admin, adminAt, "listen.admin.path"}} {
		if len(s.path) > maxSocketPath {
			d.report(s.at.line, s.at.column, s.key, s.key+" has "+strconv.Itoa(len(s.path))+
				" bytes, and a Unix socket can have 107: choose a shorter directory")
		}
	}
	shared := realPath(filepath.Dir(token))
	switch {
	case realPath(admin) == realPath(token):
		d.report(adminAt.line, adminAt.column, "listen.admin.path",
			"listen.admin.path is the token socket: give the admin socket a directory of its own, like "+filepath.Dir(DefaultAdminSocket))
	case inside(realPath(filepath.Dir(admin)), shared):
		d.report(adminAt.line, adminAt.column, "listen.admin.path",
			"listen.admin.path lies in the directory of the token socket, which apps mount: give it a directory of its own, like "+filepath.Dir(DefaultAdminSocket))
	}
	if inside(realPath(state), shared) {
		d.report(stateAt.line, stateAt.column, "state_dir",
			"state_dir lies in the directory of the token socket, which apps mount: give the token socket a directory of its own, like "+filepath.Dir(DefaultTokenSocket))
	}
}

// nearest is the value at keys, or else the last one on the way there.
func nearest(root *node, keys ...string) *node {
	at, _ := find(root, keys)
	return at
}

// inside reports whether path is dir or lies below it.
func inside(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// realPath follows the symbolic links of that part of a path that exists, so that
// /var/run and /run are the same.
func realPath(path string) string {
	rest := ""
	for at := path; ; {
		if real, err := filepath.EvalSymlinks(at); err == nil {
			return filepath.Join(real, rest)
		}
		parent := filepath.Dir(at)
		if parent == at {
			return path
		}
		rest = filepath.Join(filepath.Base(at), rest)
		at = parent
	}
}
