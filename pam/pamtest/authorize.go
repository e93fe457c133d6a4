package pamtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"

	"github.com/pamsidecar/pamsidecar/pam"
)

// need is a permission that a request must have on all names of one type.
type need struct {
	kind  pam.ResourceType
	perm  pam.Permission
	alt   pam.Permission // will do as well; 0: none
	names []string
}

func channelNeed(perm pam.Permission, names ...string) need {
	return need{kind: pam.ResourceChannel, perm: perm, names: names}
}

func groupNeed(perm pam.Permission, names ...string) need {
	return need{kind: pam.ResourceGroup, perm: perm, names: names}
}

func uuidNeed(perm pam.Permission, names ...string) need {
	return need{kind: pam.ResourceUUID, perm: perm, names: names}
}

// The values of the header X-Pn-Cause that were recorded. Those for the other refusals are not known, so these come without the header.
const (
	causeRevoked   = "4001"
	causeForbidden = "9999"
)

// denial is why a request was refused.
type denial struct {
	message string
	cause   string // X-Pn-Cause
	reason  string // the emulator's own words
	refused []need // names that lack their permission; shown only with the message "Forbidden"
}

const messageForbidden = "Forbidden"

func lacking(reason string, refused []need) *denial {
	return &denial{messageForbidden, causeForbidden, reason, refused}
}

// authorize lets a request pass (true), or returns its refusal and records it. A request with a valid signature may do everything, as the SDKs do
// that hold the secret key.
func (s *Server) authorize(c *call, needs ...need) (reply, bool) {
	d := s.judge(c, needs)
	if d == nil {
		return reply{}, true
	}
	s.recordDenial(c, needs, d)
	return d.reply(), false
}

func (s *Server) judge(c *call, needs []need) *denial {
	if s.accessOff() {
		return nil
	}
	if _, signed := c.values["signature"]; signed {
		return s.judgeSignature(c)
	}
	raw := c.values.Get("auth")
	if raw == "" {
		return lacking("no token", needs)
	}
	key := sha256.Sum256([]byte(raw))
	if d := s.rememberedDenial(key, needs); d != nil {
		return d
	}
	d := s.judgeToken(c, raw, needs)
	if d != nil {
		s.rememberDenial(key, d, needs)
	}
	return d
}

// judgeToken tells in the service's order (as far as it is known) what is wrong with a token.
func (s *Server) judgeToken(c *call, raw string, needs []need) *denial {
	seal, ok := s.unseal(raw)
	if !ok { // the text for a token that is not the service's own is not known
		return &denial{message: "Invalid token", reason: "not a token of this keyset"}
	}
	if d := s.judgeLife(seal); d != nil {
		return d
	}
	r, err := s.rightsOf(seal, raw)
	if err != nil {
		return &denial{message: "Invalid token", reason: err.Error()}
	}
	if r.uuid != "" && r.uuid != c.uuid() { // that it is refused is documented, the body is not
		return lacking("the token is for another uuid", needs)
	}
	if refused := r.missing(needs); len(refused) > 0 {
		return lacking("not granted", refused)
	}
	return nil
}

// judgeLife refuses a token that has ended or is revoked. A token that was used lately goes on for the delay of Access, because PubNub's servers
// remember that it was valid.
func (s *Server) judgeLife(seal sealed) *denial {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clockLocked()
	switch {
	case !seal.end.After(now):
		return &denial{message: "Token is expired.", reason: "ended"}
	case s.memory.knownValid(seal.sum, now):
		return nil
	case s.tokens.revoked(seal):
		return &denial{message: "Token is revoked", cause: causeRevoked, reason: "revoked"}
	}
	s.memory.setValid(seal.sum, now, s.access.RevokeDelay)
	return nil
}

// judgeSignature accepts signature v2, also as some SDKs make it for a publish by POST (as GET and without the body), and signature v1.
func (s *Server) judgeSignature(c *call) *denial {
	bad := &denial{message: "Invalid signature", reason: "wrong signature"} // its form on the data plane is not known
	params := make(map[string]string, len(c.values))
	for key, values := range c.values {
		params[key] = values[0]
	}
	if !fresh(params["timestamp"], c.arrived) {
		return &denial{message: "Invalid timestamp", reason: "timestamp is out of range"}
	}
	keyset := s.Keyset()
	valid := []string{signature(keyset, c.method, c.path, params, c.body), signatureV1(keyset, c.path, params)}
	if c.op == OpPublish {
		valid = append(valid, signature(keyset, http.MethodGet, c.path, params, nil))
	}
	for _, want := range valid {
		if hmac.Equal([]byte(want), []byte(params["signature"])) {
			return nil
		}
	}
	return bad
}

// signatureV1 is the signature that some SDKs still use for a publish by POST. Its hash is SHA-256 as that of v2.
func signatureV1(keyset pam.Keyset, path string, params map[string]string) string {
	mac := hmac.New(sha256.New, []byte(keyset.SecretKey.Reveal()))
	fmt.Fprintf(mac, "%s\n%s\n%s\n%s", keyset.SubscribeKey, keyset.PublishKey, path, canonicalQuery(params))
	return base64.URLEncoding.EncodeToString(mac.Sum(nil))
}

// reply is the flat body of the refusal, byte for byte as recorded where there is a record.
func (d *denial) reply() reply {
	var rep reply
	if d.message == messageForbidden {
		rep = textReply(http.StatusForbidden, spaced(forbiddenBody{d.message, newForbiddenPayload(d.refused), true, serviceAccessManager, http.StatusForbidden})+"\n")
	} else {
		body := encode(tokenBody{true, http.StatusForbidden, serviceAccessManager, d.message})
		if d.cause != "" { // the recorded one ends with a newline, the other known one does not
			body += "\n"
		}
		rep = textReply(http.StatusForbidden, body)
	}
	if d.cause != "" {
		rep.header.Set("X-Pn-Cause", d.cause)
	}
	rep.header.Set("Access-Control-Allow-Methods", "GET")
	rep.header.Set("Access-Control-Allow-Headers", "Origin, X-Requested-With, Content-Type, Accept")
	return rep
}

type forbiddenBody struct {
	Message string            `json:"message"`
	Payload *forbiddenPayload `json:"payload,omitempty"`
	Error   bool              `json:"error"`
	Service string            `json:"service"`
	Status  int               `json:"status"`
}

// forbiddenPayload names what was refused; that UUIDs are named like this is a guess.
type forbiddenPayload struct {
	Channels []string `json:"channels,omitempty"`
	Groups   []string `json:"channel-groups,omitempty"`
	UUIDs    []string `json:"uuids,omitempty"`
}

type tokenBody struct {
	Error   bool   `json:"error"`
	Status  int    `json:"status"`
	Service string `json:"service"`
	Message string `json:"message"`
}

func newForbiddenPayload(refused []need) *forbiddenPayload {
	if len(refused) == 0 {
		return nil
	}
	var p forbiddenPayload
	for _, n := range refused {
		switch n.kind {
		case pam.ResourceChannel:
			p.Channels = append(p.Channels, n.names...)
		case pam.ResourceGroup:
			p.Groups = append(p.Groups, n.names...)
		case pam.ResourceUUID:
			p.UUIDs = append(p.UUIDs, n.names...)
		}
	}
	return &p
}
