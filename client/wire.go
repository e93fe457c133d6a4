package client

import (
	"fmt"
	"log/slog"
	"time"
)

// TokenDocument is the answer to GET /v1/tokens/{name}. It contains a bearer
// credential: String, GoString and LogValue leave the token out, only JSON has it.
type TokenDocument struct {
	// Name is the name that was asked for.
	Name string `json:"name"`
	// AuthorizedUUID is the User ID that must use the token, exactly as the SDK is
	// to be given it. Nil (JSON null): the token is not bound to a UUID.
	AuthorizedUUID *string `json:"authorized_uuid"`
	// Token is what SetToken and its like take.
	Token string `json:"token"`
	// Generation counts the tokens of the name, from 1.
	Generation uint64 `json:"generation"`
	// IssuedAt is the token's own timestamp, by server time.
	IssuedAt time.Time `json:"issued_at"`
	// ExpiresAt is when the service stops accepting the token, by server time.
	ExpiresAt time.Time `json:"expires_at"`
	// RefreshAt is when the sidecar means to replace the token. Nil (JSON null): no
	// successor is planned, because the grant ends before or with the token.
	RefreshAt *time.Time `json:"refresh_at"`
	// TTL is the lifetime the token was granted with, in minutes, 1 to 43200.
	TTL int `json:"ttl"`
	// ExpiresIn is the time to ExpiresAt at the moment of the answer, in whole
	// seconds, rounded down. It spares the reader a comparison of clocks.
	ExpiresIn int64 `json:"expires_in"`
}

// String describes the document without its token.
func (d TokenDocument) String() string {
	return fmt.Sprintf("token of %q, generation %d, expires %s", d.Name, d.Generation, d.ExpiresAt.Format(time.RFC3339))
}

// GoString describes the document without its token.
func (d TokenDocument) GoString() string { return "client.TokenDocument{" + d.String() + "}" }

// LogValue describes the document without its token.
func (d TokenDocument) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("name", d.Name),
		slog.Uint64("generation", d.Generation),
		slog.Time("expires_at", d.ExpiresAt),
	)
}

// Code is the machine-readable kind of a Problem.
type Code string

// The codes, each with its HTTP status.
const (
	CodeBadRequest       Code = "bad_request"        // 400: Detail says what is wrong
	CodeUnauthorized     Code = "unauthorized"       // 401: the loopback listener wants a bearer
	CodeNotAllowed       Code = "not_allowed"        // 403
	CodeUnknownName      Code = "unknown_name"       // 404: no grant has the name
	CodeNotFound         Code = "not_found"          // 404: no such path
	CodeMethodNotAllowed Code = "method_not_allowed" // 405: see the header Allow
	CodeRevoked          Code = "revoked"            // 410: an operator revoked it; nothing to wait for
	CodeEnded            Code = "ended"              // 410: the grant is over; nothing to wait for
	CodeTooMany          Code = "too_many"           // 429: too many connections or waiting requests
	CodeInternal         Code = "internal"           // 500: the sidecar could not look the name up
	CodeNotReady         Code = "not_ready"          // 503: no token yet; see Retry-After
	CodeExpired          Code = "expired"            // 503: the last token has ended; see Retry-After
)

// Problem is every answer that is not what was asked for: an RFC 9457 problem
// document, content type application/problem+json. Its type is "about:blank"
// (left out), so Code tells problems apart.
type Problem struct {
	Title  string `json:"title"`            // the phrase of the HTTP status
	Status int    `json:"status"`           // the HTTP status
	Detail string `json:"detail,omitempty"` // for people: what is wrong and what to do
	Code   Code   `json:"code"`
	// State is the state of the name: blocked, ended, fresh, failing, expired or
	// pending. Empty when no name was reached.
	State string `json:"state,omitempty"`
	// RetryAt is when the sidecar tries next, zero when nothing is planned.
	RetryAt time.Time `json:"retry_at,omitzero"`
	// Reason is what the sidecar met last, for people: "Access Manager: 403 Invalid
	// signature: check the secret key", or an operator's words for a block.
	Reason string `json:"reason,omitempty"`
}

// NameItem is one name in a NameList. It has no token.
type NameItem struct {
	Name       string     `json:"name"`
	UUID       *string    `json:"uuid"`       // nil (null): not bound to a UUID
	State      string     `json:"state"`      // see Problem.State
	Generation uint64     `json:"generation"` // of the newest token, 0 before the first
	ExpiresAt  *time.Time `json:"expires_at"` // nil (null): no live token
}

// NameList is the answer to GET /v1/tokens, in byte order of the names. It is read
// in pieces: names that come or go meanwhile may or may not be in it.
type NameList struct {
	Items []NameItem `json:"items"`
}

// Keyset is the answer to GET /v1/keyset: all that an SDK needs besides its User
// ID. The secret key is never in it.
type Keyset struct {
	PublishKey   string `json:"publish_key"`
	SubscribeKey string `json:"subscribe_key"`
	Origin       string `json:"origin"`
}

// Readiness is the answer to GET /readyz, with status 200 if Ready and 503 if not.
type Readiness struct {
	Ready bool `json:"ready"`
	// Missing lists the names that have no live token but should. It is absent when
	// Ready.
	Missing []Missing `json:"missing,omitempty"`
	// Others counts further missing names that are not listed because the caller may
	// not read them.
	Others int `json:"others,omitempty"`
}

// Missing is one name that readiness waits for.
type Missing struct {
	Name    string    `json:"name"`
	State   string    `json:"state"`
	Reason  string    `json:"reason,omitempty"`
	RetryAt time.Time `json:"retry_at,omitzero"`
}
