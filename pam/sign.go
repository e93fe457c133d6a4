package pam

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
)

// Keyset is the three keys of one PubNub app.
type Keyset struct {
	PublishKey   string
	SubscribeKey string
	SecretKey    Secret
}

const upperHex = "0123456789ABCDEF"

// EncodeValue percent-encodes s as Access Manager does when it checks a
// signature: letters, digits, '-', '_' and '.' stay, every other byte becomes %XX
// in upper case. It is stricter than package net/url, which leaves '~' alone and
// writes a space as '+'. Query values, and the token in the path of a revoke, are
// encoded with it.
func EncodeValue(s string) string {
	escaped := 0
	for i := range len(s) {
		if !unreserved(s[i]) {
			escaped++
		}
	}
	if escaped == 0 {
		return s
	}
	b := make([]byte, 0, len(s)+2*escaped)
	for i := range len(s) {
		if c := s[i]; unreserved(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(b)
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.'
}

// Sign returns the version 2 signature of a request, "v2." and 43 characters.
// method is in upper case; path is the escaped path exactly as it is sent; query
// holds the parameters sorted by key, without the signature, values encoded with
// EncodeValue; body is the exact body, empty for GET and DELETE. The publish key,
// not the subscribe key, is part of the signed text.
func Sign(secret Secret, method, publishKey, path, query string, body []byte) string {
	text := make([]byte, 0, len(method)+len(publishKey)+len(path)+len(query)+len(body)+4+sha256.Size)
	text = append(append(text, method...), '\n')
	text = append(append(text, publishKey...), '\n')
	text = append(append(text, path...), '\n')
	text = append(append(text, query...), '\n')
	text = append(text, body...)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(text)
	sum := mac.Sum(text[:0])
	var signature [3 + 43]byte
	copy(signature[:], "v2.")
	base64.RawURLEncoding.Encode(signature[3:], sum)
	return string(signature[:])
}
