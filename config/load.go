package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// The variables of the environment that win over the file.
const (
	EnvPublishKey    = "PUBNUB_PUBLISH_KEY"
	EnvSubscribeKey  = "PUBNUB_SUBSCRIBE_KEY"
	EnvSecretKey     = "PUBNUB_SECRET_KEY"
	EnvSecretKeyFile = "PUBNUB_SECRET_KEY_FILE"
	EnvOrigin        = "PUBNUB_ORIGIN"
)

// maxGrantSize bounds the text of one grant, in bytes: a grant whose token could
// be used is far smaller.
const maxGrantSize = 512 << 10

// Load reads and parses the file at path. The error is Faults, also when the file
// cannot be read.
func Load(path string, o Options) (*Config, error) {
	data, err := readLimited(path, MaxFileSize)
	if err != nil {
		return nil, Faults{{File: path, Message: "read configuration: " + err.Error()}}
	}
	return Parse(path, data, o)
}

// readLimited reads a file of at most limit bytes. The errors leave the path out.
func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, errors.New("it is a directory, not a file")
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, withoutPath(err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("it is larger than %s bytes", thousands(int(limit)))
	}
	return data, nil
}

func withoutPath(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// Parse is Load for a file already read; path names it in messages and is where
// relative paths begin. The error is Faults: the faults of the syntax alone, or
// else everything that is wrong with the content, in the order of the places.
func Parse(path string, data []byte, o Options) (*Config, error) {
	if len(data) > MaxFileSize {
		return nil, Faults{{File: path, Message: fmt.Sprintf("the file is larger than %s bytes", thousands(MaxFileSize))}}
	}
	root, faults := parseYAML(data)
	if len(faults) > 0 {
		return nil, located(faults, path)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, Faults{{File: path, Message: "find the directory of the file: " + err.Error()}}
	}
	c := defaults(path, o)
	d := &decoder{file: path, dir: dir, o: o}
	d.refuseSecrets(root)
	grants := d.document(c, root)
	if root.kind == mappingKind {
		d.environment(c, root)
		d.semantics(c, root)
	}
	if len(d.faults) > 0 {
		sortFaults(d.faults)
		return nil, d.faults
	}
	c.Grants, c.places = grants.grants, grants.places
	d.lintFile(c, root, grants)
	c.hints = d.hints
	c.bearerAt = placeAt(root.descend("listen", "loopback", "bearer_file"))
	if c.getenv(EnvSecretKeyFile) == "" {
		c.secretAt = placeAt(root.descend("keyset", "secret_key_file"))
	}
	return c, nil
}

func defaults(path string, o Options) *Config {
	c := &Config{
		Path: path, Origin: DefaultOrigin, StateDir: DefaultStateDir,
		Log: Log{Format: "text"},
		Listen: Listen{
			Token: SocketConfig{Path: DefaultTokenSocket, Mode: DefaultTokenMode},
			Admin: SocketConfig{Path: DefaultAdminSocket, Mode: DefaultAdminMode},
		},
		Upstream: Upstream{Rate: DefaultRate, Burst: DefaultBurst, InFlight: DefaultInFlight},
		getenv:   o.Getenv, now: o.Now,
	}
	if c.getenv == nil {
		c.getenv = os.Getenv
	}
	if c.now == nil {
		c.now = time.Now
	}
	return c
}

func located(faults Faults, file string) Faults {
	for i := range faults {
		faults[i].File, faults[i].Message = file, redact(faults[i].Message)
	}
	sortFaults(faults)
	return faults
}

// ParseGrant reads one grant as JSON or YAML, as strictly as the same grant in
// the file: the body of an operator's PUT. The error is Faults without a file.
func ParseGrant(data []byte, o Options) (cache.Grant, error) {
	if len(data) > maxGrantSize {
		return cache.Grant{}, Faults{{Message: fmt.Sprintf("the grant is larger than %s bytes", thousands(maxGrantSize))}}
	}
	parse := parseYAML
	if looksLikeJSON(data) {
		parse = parseJSON
	}
	root, faults := parse(data)
	if len(faults) > 0 {
		return cache.Grant{}, located(faults, "")
	}
	d := &decoder{o: o}
	d.refuseSecrets(root)
	grant, _, _ := d.grant(root)
	if len(d.faults) > 0 {
		sortFaults(d.faults)
		return cache.Grant{}, d.faults
	}
	return grant, nil
}
