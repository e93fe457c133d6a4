package pam

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretIsNeverShown(t *testing.T) {
	const text = "sec-c-very-secret-text"
	s := Secret(text)
	type holder struct {
		Key  Secret
		List []Secret
		Map  map[string]Secret
	}
	h := holder{s, []Secret{s}, map[string]Secret{"a": s}}
	var shown []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10s"} {
		shown = append(shown, fmt.Sprintf(verb, s), fmt.Sprintf(verb, h), fmt.Sprintf(verb, &h), fmt.Sprintf(verb, &s))
	}
	data, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	shown = append(shown, string(data), s.String(), s.GoString())
	var log bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(handler).Info("x", "key", s, "holder", h, "token", Token{Raw: s})
	}
	shown = append(shown, log.String())
	for _, out := range shown {
		if strings.Contains(out, text) || strings.Contains(out, fmt.Sprintf("%x", text)) {
			t.Errorf("shown: %s", out)
		}
		if !strings.Contains(out, "#"+s.ID()) {
			t.Errorf("no short hash in %q", out)
		}
	}
	if s.Reveal() != text || len(s.ID()) != 8 {
		t.Errorf("Reveal or ID is wrong: %s", s.ID())
	}
	if empty := Secret(""); empty.ID() != "" || empty.String() != "" {
		t.Error("the empty secret has an ID")
	}
}

func TestPermissionNames(t *testing.T) {
	for p, want := range map[Permission]string{
		0: "none", Read: "read", Read | Write: "read,write", ChannelPermissions: "read,write,manage,delete,get,update,join",
		GroupPermissions: "read,manage", UUIDPermissions: "delete,get,update", Create | 0x300: "create,0x300", 1 << 63: "0x8000000000000000",
	} {
		if got := p.String(); got != want {
			t.Errorf("%d is %q, want %q", uint64(p), got, want)
		}
	}
	var all Permission
	for _, name := range permissionNames {
		p, err := ParsePermission(name)
		if err != nil || p.String() != name {
			t.Errorf("%s: %v %v", name, p, err)
		}
		all |= p
	}
	if all != 255 {
		t.Errorf("the names cover %s", all)
	}
	for _, name := range []string{"", "Read", "read,write", "all"} {
		if _, err := ParsePermission(name); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}
