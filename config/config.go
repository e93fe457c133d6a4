// Package config turns the YAML file into a typed configuration and a list of
// grants. The commands call it at start, at reload and for `check`, and the
// admin endpoint for the body of a PUT. It reports every fault of a file at
// once, each with file, line and column. It never starts anything, never opens
// a socket, never talks to PubNub and never prints a secret.
package config

import (
	"io/fs"
	"log/slog"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// Defaults of what the file may leave out.
const (
	DefaultPath        = "/etc/pamsidecar/pamsidecar.yaml"
	DefaultOrigin      = "https://ps.pndsn.com"
	DefaultStateDir    = "/var/lib/pamsidecar"
	DefaultTokenSocket = "/run/pamsidecar/token.sock"
	DefaultAdminSocket = "/run/pamsidecar-admin/admin.sock"

	DefaultTokenMode fs.FileMode = 0o660
	DefaultAdminMode fs.FileMode = 0o600

	DefaultRate     = 10.0
	DefaultBurst    = 20
	DefaultInFlight = 4
)

// MaxFileSize is the largest configuration file that is read, in bytes.
const MaxFileSize = 64 << 20

// Config is a valid configuration file with its defaults filled in and the
// environment applied. It is not changed after Load; its methods are safe for
// concurrent use.
type Config struct {
	// Path is the file as it was named to Load or Parse.
	Path string
	// Keyset is the PubNub keyset; its secret key is read by SecretKey.
	Keyset Keyset
	// Origin is the URL of the service: scheme, host and optional port only.
	Origin string
	// OriginCAFile is a PEM file of certificate authorities to trust for the
	// origin, empty for the system's. Absolute, or relative to the working
	// directory if Path is.
	OriginCAFile string
	// InsecureOrigin allows plain http to an origin beyond loopback.
	InsecureOrigin bool
	// StateDir is the directory of the database and the journal.
	StateDir string
	// Log is how the process logs.
	Log Log
	// Listen is where the process listens.
	Listen Listen
	// Upstream bounds the requests to the service.
	Upstream Upstream
	// Grants are the grants of the file in its order: names filled in, spaces
	// and users folded into channels and UUIDs. It may be empty.
	Grants []cache.Grant

	getenv             func(string) string
	now                func() time.Time
	places             []grantPlace // of each of Grants
	secretAt, bearerAt place        // where the file names these files, if it does
	hints              []Finding    // lint findings that depend on the file alone

}

// Keyset is the keyset section. Exactly one of SecretKeyFile,
// SecretKeyCredential and SecretFromEnv says where the secret key is.
type Keyset struct {
	PublishKey   string
	SubscribeKey string
	// SecretKeyFile is a file that holds the secret key and nothing else.
	SecretKeyFile string
	// SecretKeyCredential is the name of a systemd credential, a file in
	// $CREDENTIALS_DIRECTORY.
	SecretKeyCredential string
	// SecretFromEnv says that PUBNUB_SECRET_KEY holds the secret key.
	SecretFromEnv bool
}

// Log is the log section. Format is "text" or "json".
type Log struct {
	Level  slog.Level
	Format string
}

// Listen is the listen section. Loopback is nil unless the file asks for it.
type Listen struct {
	Token    SocketConfig
	Admin    SocketConfig
	Loopback *LoopbackConfig
}

// SocketConfig is one Unix socket. Group is the name or number of the group
// that owns it, empty to leave it as it is.
type SocketConfig struct {
	Path  string
	Mode  fs.FileMode
	Group string
}

// LoopbackConfig is the loopback listener: either BearerFile is set, or
// TrustNamespace says that everybody in the network namespace may read.
type LoopbackConfig struct {
	Address        string // IP address of the loopback interface and port
	BearerFile     string
	TrustNamespace bool
}

// Upstream bounds requests to the service: Rate per second (above 0), Burst (at
// least 1) and InFlight at a time (1 to 256).
type Upstream struct {
	Rate     float64
	Burst    int
	InFlight int
}

// Options is what Parse needs from outside. The zero value reads the process's
// environment and accepts any text as a schedule.
type Options struct {
	// Getenv reads the environment; nil means os.Getenv.
	Getenv func(string) string
	// ParseSchedule says why an expression is no calendar of regrant_at; nil
	// accepts everything.
	ParseSchedule func(expr string) error
	// Now is the time Lint compares with; nil means time.Now.
	Now func() time.Time
	// Name is for ParseGrant: the name the grant is put under. The text may leave
	// it out, and must not give another. Empty for a grant that names itself.
	Name string
}
