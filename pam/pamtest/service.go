package pamtest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
)

// maxSkew is how far a request's timestamp may be from the service's clock, either side (documented).
const maxSkew = 60 * time.Second

// serve does what the service does: the balancer's limits first, then routes.
func (s *Server) serve(ctx context.Context, c *call) reply { return s.stamped(s.serveOp(ctx, c)) }

// stamped adds the headers that depend on the moment or that every answer has.
func (s *Server) stamped(rep reply) reply {
	if rep.how != deliverNothing {
		rep.header.Set("Date", httpDate(s.Now()))
		rep.header.Set("Access-Control-Allow-Origin", "*")
		rep.header.Set("Access-Control-Expose-Headers", "*")
	}
	return rep
}

func (s *Server) serveOp(ctx context.Context, c *call) reply {
	switch {
	case len(c.path)+len(c.query)+1 > maxURI:
		return flat(http.StatusRequestURITooLong, serviceBalancer, "Request URI Too Long")
	case c.tooLarge:
		return flat(http.StatusRequestEntityTooLarge, serviceBalancer, "Request Entity Too Large.")
	case c.op == pam.OpTime:
		return textReply(http.StatusOK, fmt.Sprintf("[%d]", s.Now().UnixNano()/100))
	case c.op == pam.OpGrant:
		return s.signed(c, s.grant)
	case c.op == pam.OpRevoke:
		return s.signed(c, s.revoke)
	case isData(c.op):
		return s.serveData(ctx, c)
	case c.preflight:
		return preflight()
	}
	return flat(http.StatusNotFound, serviceAccessManager, "Not Found")
}

// signed checks what grant and revoke have in common, in the service's order.
func (s *Server) signed(c *call, next func(*call) reply) reply {
	keyset := s.Keyset()
	if c.sub != keyset.SubscribeKey {
		return flat(http.StatusBadRequest, serviceAccessManager, "Invalid Subscribe Key")
	}
	params, ok := parseQuery(c.query)
	if !ok { // that duplicates are refused is documented, the answer is not
		return flat(http.StatusBadRequest, serviceAccessManager, "Could Not Parse Request")
	}
	if !fresh(params["timestamp"], c.arrived) { // however long a fault held the request; the 403 is known, its text is not
		return forbidden("Invalid timestamp", "Timestamp must be within 60 seconds of the server's time.", "timestamp").reply(c.op)
	}
	want := signature(keyset, c.method, c.path, params, c.body)
	if !hmac.Equal([]byte(want), []byte(params["signature"])) {
		return forbidden("Invalid signature", "Client and server produced different signatures for the same inputs.", "signature").reply(c.op)
	}
	return next(c)
}

// parseQuery decodes a query string; false for a malformed one and for a key that comes twice.
func parseQuery(query string) (map[string]string, bool) {
	params := make(map[string]string)
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(key)
		if err != nil {
			return nil, false
		}
		value, err = url.QueryUnescape(value)
		if err != nil {
			return nil, false
		}
		if _, twice := params[key]; twice {
			return nil, false
		}
		params[key] = value
	}
	return params, true
}

func fresh(timestamp string, now time.Time) bool {
	sec, err := strconv.ParseUint(timestamp, 10, 40)
	if err != nil {
		return false
	}
	skew := time.Unix(int64(sec), 0).Sub(now.Truncate(time.Second))
	return skew.Abs() <= maxSkew
}

// signature computes signature v2 of a request. The service decodes the query and encodes it again itself, while the path counts as sent. This is
// written apart from pam.Sign on purpose: one that is wrong does not agree with the other.
func signature(keyset pam.Keyset, method, path string, params map[string]string, body []byte) string {
	if method != http.MethodPost && method != http.MethodPatch {
		body = nil
	}
	mac := hmac.New(sha256.New, []byte(keyset.SecretKey.Reveal()))
	fmt.Fprintf(mac, "%s\n%s\n%s\n%s\n%s", method, keyset.PublishKey, path, canonicalQuery(params), body)
	return "v2." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// canonicalQuery is the part of a signed text that stands for the query.
func canonicalQuery(params map[string]string) string {
	keys := make([]string, 0, len(params))
	for key := range params {
		if key != "signature" {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	pairs := make([]string, len(keys))
	for i, key := range keys {
		pairs[i] = key + "=" + strictEncode(params[key])
	}
	return strings.Join(pairs, "&")
}

// strictEncode percent-encodes everything but letters, digits, '-', '_' and '.'.
func strictEncode(value string) string {
	var b strings.Builder
	for _, ch := range []byte(value) {
		switch {
		case 'a' <= ch && ch <= 'z', 'A' <= ch && ch <= 'Z', '0' <= ch && ch <= '9', ch == '-', ch == '_', ch == '.':
			b.WriteByte(ch)
		default:
			fmt.Fprintf(&b, "%%%02X", ch)
		}
	}
	return b.String()
}

// grant issues a token for what the body asks.
func (s *Server) grant(c *call) reply {
	media, _, err := mime.ParseMediaType(c.header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return badJSON("Content-Type must be `application/json`.").reply(c.op)
	}
	ask, bad := parseGrant(c.body)
	if bad != nil {
		return bad.reply(c.op)
	}
	token := s.issue(c, ask)
	return jsonReply(http.StatusOK, success{Data: successData{Message: "Success", Token: token}, Service: serviceAccessManager, Status: http.StatusOK})
}

// issue makes the token, altered as the fault says, and enters it into the books.
func (s *Server) issue(c *call, ask grantAsk) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.acted = true
	issued := s.clockLocked().Truncate(time.Second)
	ask, issued = c.fault.alter(ask, issued)
	token := s.mint(ask, issued, s.tokens.nextNonce())
	end := issued.Add(time.Duration(ask.ttl) * time.Minute)
	s.tokens.add(end, s.clockLocked())
	s.grants.put(GrantRecord{
		Time:    s.now(),
		UUID:    ask.uuid,
		TTL:     time.Duration(ask.ttl) * time.Minute,
		Issued:  issued.UTC(),
		Expires: end.UTC(),
		Token:   pam.Secret(token),
		Body:    slices.Clone(c.body),
	})
	return token
}

// revoke withdraws the token of the path. A second revoke of the same token is answered as the first; what the service does is not known.
func (s *Server) revoke(c *call) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.revokeDisabled {
		return refusal{http.StatusBadRequest, "Feature disabled", "Token revocation is disabled.", "subscribe-key", "path"}.reply(c.op)
	}
	seal, ok := s.unseal(c.token)
	if !ok {
		return invalidToken("Token is malformed.").reply(c.op)
	}
	now := s.clockLocked()
	if !seal.end.After(now) {
		return invalidToken("Token is expired.").reply(c.op)
	}
	c.acted = true
	s.tokens.revoke(seal, now)
	return jsonReply(http.StatusOK, success{Data: successData{Message: "Success"}, Service: serviceAccessManager, Status: http.StatusOK})
}

// Live reports whether a token is one of this keyset's, has not ended by the emulator's clock and was not revoked here.
func (s *Server) Live(raw pam.Secret) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	seal, ok := s.unseal(raw.Reveal())
	return ok && seal.end.After(s.clockLocked()) && !s.tokens.revoked(seal)
}
