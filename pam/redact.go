package pam

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"unicode"
)

// maxText bounds every text that comes from the service, in characters.
const maxText = 300

const redacted = "[redacted]"

// clean makes a text from outside fit for errors, logs and readers: control and
// invisible characters are dropped, the secrets and whatever looks like a part of
// them, of a token or of a request are replaced, and at most 300 characters stay.
func clean(text string, secrets ...Secret) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == unicode.ReplacementChar, unicode.Is(unicode.Cf, r), unicode.Is(unicode.Zl, r), unicode.Is(unicode.Zp, r):
			return -1
		case unicode.IsControl(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	for _, secret := range secrets {
		text = withoutSecret(text, secret)
	}
	text = withoutRequests(text)
	return strings.TrimSpace(truncate(text))
}

// withoutSecret replaces the secret, its percent-encoded form, and words of 12 or
// more characters that are a part of it: services cut long texts.
func withoutSecret(text string, secret Secret) string {
	raw := secret.Reveal()
	if raw == "" {
		return text
	}
	const telling = 12
	if len(raw) < telling { // a demo key may be an ordinary word
		return mapWords(text, unreserved, func(word string) string {
			if word == raw {
				return redacted
			}
			return word
		})
	}
	text = strings.ReplaceAll(text, EncodeValue(raw), redacted)
	text = strings.ReplaceAll(text, raw, redacted)
	return mapWords(text, isTokenByte, func(word string) string {
		part := strings.TrimRight(word, "=.")
		if len(part) >= telling && strings.Contains(raw, part) {
			return redacted
		}
		return word
	})
}

// withoutRequests replaces words that hold a path of Access Manager, a signed
// query or the beginning that all tokens share.
func withoutRequests(text string) string {
	text = mapWords(text, isTokenByte, func(word string) string {
		for _, start := range [...]string{"p0F2Ak", "qEF2Ak"} {
			if i := strings.Index(word, start); i >= 0 {
				return word[:i] + redacted
			}
		}
		return word
	})
	notSpace := func(c byte) bool { return c > ' ' }
	return mapWords(text, notSpace, func(word string) string {
		for _, part := range [...]string{"/v3/pam", "signature=", "timestamp="} {
			if strings.Contains(word, part) {
				return redacted
			}
		}
		return word
	})
}

func isTokenByte(c byte) bool { return unreserved(c) || c == '=' || c == '%' || c == '+' || c == '/' }

// mapWords replaces each longest run of the bytes that in accepts.
func mapWords(text string, in func(byte) bool, replace func(string) string) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		j := i
		for j < len(text) && in(text[j]) {
			j++
		}
		if j > i {
			b.WriteString(replace(text[i:j]))
			i = j
			continue
		}
		b.WriteByte(text[i])
		i++
	}
	return b.String()
}

func truncate(text string) string {
	count := 0
	for i := range text {
		if count == maxText {
			return text[:i]
		}
		count++
	}
	return text
}

// cleanError returns err without the URL that net/http wraps around it. Should a
// secret or a request be in its text all the same, only the cleaned text is kept.
func cleanError(err error, secrets ...Secret) error {
	for {
		wrapper, ok := errors.AsType[*url.Error](err)
		if !ok {
			break
		}
		err = wrapper.Err
	}
	if err == nil {
		return nil
	}
	text := clean(err.Error(), secrets...)
	if text == err.Error() {
		return err
	}
	cleaned := &cleanedError{text: text}
	switch {
	case errors.Is(err, context.Canceled):
		cleaned.kind = context.Canceled
	case timedOut(err):
		cleaned.kind = context.DeadlineExceeded
	}
	return cleaned
}

// cleanedError is an error of which only the harmless text is left.
type cleanedError struct {
	text string
	kind error
}

func (e *cleanedError) Error() string { return e.text }
func (e *cleanedError) Unwrap() error { return e.kind }
