package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pamsidecar/pamsidecar/pam"
)

// maxSecretSize bounds the file of a secret key, in bytes.
const maxSecretSize = 4 << 10

// SecretKey reads the secret key from where the configuration says it is. It
// reads anew at every call, so a replaced file is seen. The file holds the key
// alone; newlines at its end are ignored. An error names the place and what to
// do, never the text; errors.Is finds fs.ErrNotExist and fs.ErrPermission.
func (c *Config) SecretKey() (pam.Secret, error) {
	k := c.Keyset
	switch {
	case k.SecretFromEnv:
		return checkSecret(EnvSecretKey, c.getenv(EnvSecretKey))
	case k.SecretKeyCredential != "":
		dir := c.getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return "", fmt.Errorf("read secret key: CREDENTIALS_DIRECTORY is not set: start the process by systemd with LoadCredential=%s:PATH, or use secret_key_file", k.SecretKeyCredential)
		}
		return readSecret(filepath.Join(dir, k.SecretKeyCredential))
	}
	return readSecret(k.SecretKeyFile)
}

func readSecret(path string) (pam.Secret, error) {
	data, err := readLimited(path, maxSecretSize)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("read secret key: %s: %w: put the secret key alone into this file, mode 0600", path, err)
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("read secret key: %s: %w: make the user of this process its owner", path, err)
	case err != nil:
		return "", fmt.Errorf("read secret key: %s: %w: it must be a file that holds the secret key alone", path, err)
	}
	return checkSecret(path, string(data))
}

func checkSecret(place, text string) (pam.Secret, error) {
	text = strings.TrimRight(text, "\r\n")
	bad := func(why string) (pam.Secret, error) {
		return "", fmt.Errorf("read secret key: %s %s", place, why)
	}
	switch {
	case text == "":
		return bad("is empty: it must hold the secret key of the keyset")
	case len(text) > maxSecretSize:
		return bad("is too long for a secret key")
	case strings.ContainsAny(text, "\r\n"):
		return bad("has more than one line: it must hold the secret key alone")
	case strings.ContainsFunc(text, unicode.IsSpace):
		return bad("contains a space or a tab: it must hold the secret key alone")
	case !utf8.ValidString(text), strings.ContainsFunc(text, unicode.IsControl):
		return bad("contains bytes that are no text: it must hold the secret key alone")
	}
	return pam.Secret(text), nil
}
