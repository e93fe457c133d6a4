package pamtest_test

import (
	"errors"
	"maps"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

var richGrant = pam.Grant{
	TTL:  15 * time.Minute,
	UUID: "zoë & co",
	Resources: pam.Permissions{
		Channels: map[string]pam.Permission{"orders": pam.Read | pam.Write, "b<>&": pam.ChannelPermissions},
		Groups:   map[string]pam.Permission{"g": pam.GroupPermissions},
		UUIDs:    map[string]pam.Permission{"zoë & co": pam.Get | pam.Update},
	},
	Patterns: pam.Permissions{Channels: map[string]pam.Permission{`^receipts\.[a-z0-9]+$`: pam.Read}},
	Meta:     map[string]any{"service": "checkout", "n": int64(-3), "f": 1.5, "yes": true, "none": nil},
}

func TestClientRoundTrip(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	c := g.client()
	token, err := c.Grant(t.Context(), richGrant)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Satisfies(richGrant); err != nil {
		t.Error(err)
	}
	if !maps.Equal(token.Resources.Channels, richGrant.Resources.Channels) || !maps.Equal(token.Patterns.Channels, richGrant.Patterns.Channels) {
		t.Errorf("token %+v", token)
	}
	if token.Meta["n"] != int64(-3) || token.Meta["f"] != 1.5 || token.Meta["yes"] != true || token.Meta["service"] != "checkout" {
		t.Errorf("meta %v", token.Meta)
	}
	r := g.Grants()[0]
	if r.Token != token.Raw || !r.Issued.Equal(token.Issued) || !r.Expires.Equal(token.Expires()) || r.UUID != token.UUID || r.TTL != token.TTL {
		t.Errorf("record %+v of token %+v", r, token)
	}
	if err := c.Revoke(t.Context(), token.Raw); err != nil {
		t.Fatal(err)
	}
	if g.Live(token.Raw) {
		t.Error("a revoked token is live")
	}
}

func TestClientSeesRefusals(t *testing.T) {
	g := newRig(t, pamtest.Config{RevokeDisabled: true})
	c := g.client()
	token, err := c.Grant(t.Context(), richGrant)
	if err != nil {
		t.Fatal(err)
	}
	if e, ok := errors.AsType[*pam.Error](c.Revoke(t.Context(), token.Raw)); !ok || !e.FeatureDisabled() {
		t.Errorf("error %v", e)
	}
	c.SetSecretKey("sec-c-wrong")
	_, err = c.Grant(t.Context(), richGrant)
	if e, ok := errors.AsType[*pam.Error](err); !ok || !e.InvalidSignature() {
		t.Errorf("error %v", err)
	}
	fixed := g.Now() // the client's clock no longer follows the emulator's
	c, err = pam.NewClient(pam.ClientConfig{Keyset: g.Keyset(), Transport: g.rt, Now: func() time.Time { return fixed }})
	if err != nil {
		t.Fatal(err)
	}
	g.SetClockOffset(5 * time.Minute)
	_, err = c.Grant(t.Context(), richGrant)
	if e, ok := errors.AsType[*pam.Error](err); !ok || e.Class() != pam.Clock {
		t.Errorf("error %v", err)
	}
	server, err := c.Time(t.Context())
	if err != nil || server.Sub(fixed).Abs() < 4*time.Minute {
		t.Errorf("time %v, %v", server, err)
	}
}

func TestClientOverSocket(t *testing.T) {
	s := pamtest.New(pamtest.Config{})
	server := httptest.NewServer(s)
	defer server.Close()
	c, err := pam.NewClient(pam.ClientConfig{Keyset: s.Keyset(), Origin: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	token, err := c.Grant(t.Context(), richGrant)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Revoke(t.Context(), token.Raw); err != nil {
		t.Fatal(err)
	}
	if s.Live(token.Raw) {
		t.Error("a revoked token is live")
	}
}

func TestClientLostAnswer(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	c := g.client()
	for kind, mayHaveActed := range map[pamtest.FaultKind]bool{pamtest.KindCut: true, pamtest.KindTruncated: true, pamtest.KindRefused: false} {
		g.SetFault(pamtest.Fault{Kind: kind, AfterWork: true})
		_, err := c.Grant(t.Context(), richGrant)
		e, ok := errors.AsType[*pam.Error](err)
		if !ok || e.MayHaveActed != mayHaveActed {
			t.Errorf("%s: %+v", kind, err)
		}
	}
}
