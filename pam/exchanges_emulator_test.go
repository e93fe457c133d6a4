package pam_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

func TestExchangesToEmulator(t *testing.T) {
	for _, x := range exchanges(t) {
		if x.NoEmulator != "" {
			continue
		}
		t.Run(x.name, func(t *testing.T) { replayToEmulator(t, x) })
	}
}

func replayToEmulator(t *testing.T, x exchange) {
	emulator := pamtest.New(pamtest.Config{RevokeDisabled: x.Given.RevokeDisabled})
	token := ""
	if g := x.Given.Token; g != nil {
		token = prepareToken(t, emulator, g.Grant, g.Then)
	}
	if x.Given.Fault != nil {
		emulator.SetFault(*x.Given.Fault)
	}
	resp := send(t, emulator, x.Request, token)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != x.Response.Status {
		t.Errorf("status %d, want %d", resp.StatusCode, x.Response.Status)
	}
	for key, value := range x.Response.Headers {
		if got := resp.Header.Get(key); got != value {
			t.Errorf("header %s: %q, want %q", key, got, value)
		}
	}
	got, want := inKeyOrder(string(body)), inKeyOrder(x.Response.Body)
	if !pattern(want).MatchString(got) {
		t.Errorf("body, key order aside:\n%q, want\n%q", got, want)
	}
	if x.Token != "" {
		x.checkToken(t, body)
	}
}

// prepareToken has the emulator grant a token and lets happen to it what the exchange says.
func prepareToken(t *testing.T, emulator *pamtest.Server, body, then string) string {
	t.Helper()
	grant := recorded{
		Method: http.MethodPost, Path: "/v3/pam/{subscribe_key}/grant", Headers: map[string]string{"Content-Type": "application/json"},
		Body: body, SignedWith: "secret key",
	}
	token := tokenOf(t, read(t, send(t, emulator, grant, "")))
	switch then {
	case "revoked":
		revoke := recorded{Method: http.MethodDelete, Path: "/v3/pam/{subscribe_key}/grant/{token}", SignedWith: "secret key"}
		if answer := read(t, send(t, emulator, revoke, token)); !strings.Contains(string(answer), "Success") {
			t.Fatalf("revoke: %s", answer)
		}
	case "ended":
		parsed, err := pam.Parse(token)
		if err != nil {
			t.Fatal(err)
		}
		emulator.SetClockOffset(parsed.TTL + time.Second)
	case "":
	default:
		t.Fatalf("a token cannot be %q", then)
	}
	return token
}

func read(t *testing.T, resp *http.Response) []byte {
	t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func tokenOf(t *testing.T, body []byte) string {
	t.Helper()
	var answer struct{ Data struct{ Token string } }
	if err := json.Unmarshal(body, &answer); err != nil || answer.Data.Token == "" {
		t.Fatalf("no token in %s", body)
	}
	return answer.Data.Token
}

// send makes the recorded request, signed anew, and hands it to the emulator.
func send(t *testing.T, emulator *pamtest.Server, r recorded, token string) *http.Response {
	t.Helper()
	path, body := fill(r.Path, pam.EncodeValue(token)), fill(r.Body, token)
	var pairs []string
	query := maps.Clone(r.Query)
	if query == nil {
		query = map[string]string{}
	}
	if r.SignedWith != "" {
		query["timestamp"] = strconv.FormatInt(emulator.Now().Unix(), 10)
	}
	for _, key := range slices.Sorted(maps.Keys(query)) {
		pairs = append(pairs, key+"="+pam.EncodeValue(fill(query[key], token)))
		if key == r.Repeat {
			pairs = append(pairs, pairs[len(pairs)-1])
		}
	}
	raw := strings.Join(pairs, "&")
	if r.SignedWith != "" {
		raw += "&signature=" + pam.Sign(secretOf(t, r.SignedWith), r.Method, exchangeKeys.PublishKey, path, raw, signedBody(r.Method, body))
	}
	u, err := url.Parse("http://pam.test" + path + "?" + raw)
	if err != nil {
		t.Fatal(err)
	}
	if u.EscapedPath() != path {
		t.Fatalf("path %s would be sent as %s", path, u.EscapedPath())
	}
	req, err := http.NewRequestWithContext(t.Context(), r.Method, u.String(), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range r.Headers {
		req.Header.Set(key, value)
	}
	resp, err := emulator.Transport().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func secretOf(t *testing.T, signedWith string) pam.Secret {
	t.Helper()
	switch signedWith {
	case "secret key":
		return exchangeKeys.SecretKey
	case "another secret key":
		return "sec-c-another"
	}
	t.Fatalf("a request cannot be signed with %q", signedWith)
	return ""
}

func signedBody(method, body string) []byte {
	if method != http.MethodPost && method != http.MethodPatch {
		return nil
	}
	return []byte(body)
}

// checkToken compares the emulator's token with the recorded one.
func (x exchange) checkToken(t *testing.T, body []byte) {
	t.Helper()
	theirs, err := pam.Parse(x.Token)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := pam.Parse(tokenOf(t, body))
	if err != nil {
		t.Fatal(err)
	}
	if len(ours.Raw) != len(theirs.Raw) && x.TokenLayout != "" {
		t.Errorf("%d characters, want %d", len(ours.Raw), len(theirs.Raw))
	}
	a, b := ours, theirs
	a.Raw, a.Issued, a.Signature = b.Raw, b.Issued, b.Signature
	if !reflect.DeepEqual(withoutEmpty(a), withoutEmpty(b)) {
		t.Errorf("means\n%s, want\n%s", jsonOf(t, a), jsonOf(t, b))
	}
	if x.TokenLayout == "" {
		return
	}
	if got, want := tokenBytes(t, ours), tokenBytes(t, theirs); !bytes.Equal(got, want) {
		t.Errorf("bytes but for time and signature:\n%x, want\n%x", got, want)
	}
}

// withoutEmpty makes a section that is empty and one that is absent the same, as they are to all readers.
func withoutEmpty(t pam.Token) pam.Token {
	for _, side := range []*pam.Permissions{&t.Resources, &t.Patterns} {
		for _, section := range []*map[string]pam.Permission{&side.Channels, &side.Groups, &side.UUIDs, &side.Users, &side.Spaces} {
			if len(*section) == 0 {
				*section = nil
			}
		}
	}
	if len(t.Meta) == 0 {
		t.Meta = nil
	}
	return t
}

func jsonOf(t *testing.T, token pam.Token) []byte {
	t.Helper()
	out, err := json.Marshal(token)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// tokenBytes are those of a token, with time and signature wiped out.
func tokenBytes(t *testing.T, token pam.Token) []byte {
	t.Helper()
	data, err := base64.URLEncoding.DecodeString(token.Raw.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	issued := binary.BigEndian.AppendUint32([]byte("At\x1a"), uint32(token.Issued.Unix()))
	if !bytes.Contains(data, issued) || !bytes.HasSuffix(data, token.Signature) {
		t.Fatalf("time or signature are not where they always are: %x", data)
	}
	data = bytes.Replace(data, issued, []byte("At time"), 1)
	return append(bytes.TrimSuffix(data, token.Signature), "signature"...)
}
