package interop

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pamsidecar/pamsidecar/pam"
	pubnub "github.com/pubnub/go/v7"
)

// vector is one token of the recorded ones.
type vector struct {
	Source, Token string
	Valid         bool
}

// vectors fails the test when there are none.
func vectors(t testing.TB) []vector {
	t.Helper()
	data, err := os.ReadFile("../testdata/tokens/token-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Vectors []vector }
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Vectors) == 0 {
		t.Fatal("there are no token vectors")
	}
	return file.Vectors
}

// sdkToken is what the SDK makes of a token: the public form, and the raw one with the masks.
type sdkToken struct {
	parsed *pubnub.PNToken
	raw    pubnub.PNGrantTokenDecoded
}

// sdkParse asks the SDK. It panics on many inputs, which counts as a refusal.
func sdkParse(token string) (out sdkToken, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	if out.parsed, err = pubnub.ParseToken(token); err != nil {
		return out, err
	}
	out.raw, err = pubnub.GetPermissions(token)
	return out, err
}

// reasons returns all that could make the two judge a token's text differently.
func reasons(token string) map[reason]bool {
	found := map[reason]bool{}
	if len(token) > 64<<10 {
		found[tooLong] = true
	}
	if strings.ContainsAny(token, "\r\n") {
		found[lineBreak] = true
	}
	body := strings.TrimRight(token, "=")
	if padding := len(token) - len(body); padding > 0 && len(token)%4 != 0 {
		found[badPadding] = true
	}
	data, err := sdkBase64(token)
	if err != nil {
		return found
	}
	more, _ := examine(data)
	maps.Copy(found, more)
	return found
}

// sdkBase64 undoes the base64 as the SDK does.
func sdkBase64(token string) ([]byte, error) {
	token = strings.NewReplacer("-", "+", "_", "/").Replace(token)
	if i := len(token) % 4; i != 0 {
		token += strings.Repeat("=", 4-i)
	}
	return base64.StdEncoding.DecodeString(token)
}

// Reasons for which pam refuses what the SDK takes.
var pamRefuses = []reason{
	lineBreak, badPadding, tooLong, cutShort, reservedHead, trailingBytes, indefinite, tagged, repeatedKey, otherKey, foldedKey, notAMap, missingField,
	otherVersion, outOfRange, negative, badText, notFinite, simpleValue, tooMuch,
}

// Reasons of these that leave pam no choice. The others do not matter in what pam skips, or not only.
var pamMustRefuse = slices.DeleteFunc(slices.Clone(pamRefuses), func(r reason) bool {
	return slices.Contains([]reason{otherKey, foldedKey, badText, notFinite, repeatedKey}, r)
})

// Reasons for which the SDK refuses, mostly by a panic, what pam takes.
var sdkRefuses = []reason{otherKey, foldedKey, innerNull, fullMask, unknownValue}

// Reasons for which both take a token and read it differently.
var readDifferently = []reason{foldedKey}

// verdict is the outcome of one comparison.
type verdict struct {
	class  string   // "both", "neither", "only pam", "only the SDK", "read differently"
	why    []reason // the explanations that hold
	detail string   // what differs, or the errors
}

// explained reports whether the verdict needs no further explanation.
func (v verdict) explained() bool { return v.class == "both" || v.class == "neither" || len(v.why) > 0 }

// compareParsers asks both parsers.
func compareParsers(token string) verdict {
	found := reasons(token)
	ours, ourErr := pam.Parse(token)
	var theirs sdkToken
	theirErr := fmt.Errorf("not asked: %s", hugeLength)
	if !found[hugeLength] {
		theirs, theirErr = sdkParse(token)
	}
	because := func(known []reason) []reason {
		return slices.DeleteFunc(slices.Clone(known), func(r reason) bool { return !found[r] })
	}
	switch {
	case ourErr == nil && len(because(pamMustRefuse)) > 0:
		return verdict{"pam takes what it should refuse", nil, fmt.Sprint(because(pamMustRefuse))}
	case ourErr != nil && theirErr != nil:
		return verdict{class: "neither"}
	case ourErr != nil:
		return verdict{"only the SDK", because(pamRefuses), ourErr.Error()}
	case theirErr != nil:
		return verdict{"only pam", because(sdkRefuses), theirErr.Error()}
	}
	if diff := difference(ours, theirs); diff != "" {
		return verdict{"read differently", because(readDifferently), diff}
	}
	return verdict{class: "both"}
}

// difference names the first thing in which the two readings of a token differ.
func difference(ours pam.Token, theirs sdkToken) string {
	raw := theirs.raw
	for _, field := range []struct {
		name      string
		pam, sdk  any
		different bool
	}{
		{"version", ours.Version, raw.Version, ours.Version != uint64(raw.Version)},
		{"timestamp", ours.Issued.Unix(), raw.Timestamp, ours.Issued.Unix() != raw.Timestamp},
		{"ttl", ours.TTL, raw.TTL, ours.TTL != time.Duration(raw.TTL)*time.Minute},
		{"uuid", ours.UUID, raw.AuthorizedUUID, ours.UUID != raw.AuthorizedUUID},
		{"signature", ours.Signature, raw.Signature, !bytes.Equal(ours.Signature, raw.Signature)},
	} {
		if field.different {
			return fmt.Sprintf("%s: pam %v, the SDK %v", field.name, field.pam, field.sdk)
		}
	}
	if diff := sideDifference("resources", ours.Resources, raw.Resources, theirs.parsed.Resources); diff != "" {
		return diff
	}
	if diff := sideDifference("patterns", ours.Patterns, raw.Patterns, theirs.parsed.Patterns); diff != "" {
		return diff
	}
	a, b := plain(ours.Meta), plain(raw.Meta)
	if !reflect.DeepEqual(a, b) {
		return fmt.Sprintf("meta: pam %#v, the SDK %#v", a, b)
	}
	return publicDifference(theirs)
}

// publicDifference compares the SDK's own two forms in the fields that have no masks.
func publicDifference(theirs sdkToken) string {
	p, raw := theirs.parsed, theirs.raw
	if p.Version != raw.Version || p.Timestamp != raw.Timestamp || p.TTL != raw.TTL || p.AuthorizedUUID != raw.AuthorizedUUID {
		return "the SDK's two forms differ"
	}
	return ""
}

func sideDifference(side string, ours pam.Permissions, raw pubnub.GrantResources, parsed pubnub.PNTokenResources) string {
	for _, section := range []struct {
		name string
		pam  map[string]pam.Permission
		sdk  map[string]int64
	}{
		{"channels", ours.Channels, raw.Channels}, {"groups", ours.Groups, raw.Groups}, {"uuids", ours.UUIDs, raw.UUIDs},
		{"users", ours.Users, raw.Users}, {"spaces", ours.Spaces, raw.Spaces},
	} {
		theirs := make(map[string]pam.Permission, len(section.sdk))
		for name, mask := range section.sdk {
			theirs[name] = pam.Permission(mask)
		}
		if !maps.Equal(section.pam, theirs) {
			return fmt.Sprintf("%s.%s: pam %v, the SDK %v", side, section.name, section.pam, theirs)
		}
	}
	return flagDifference(side, ours, parsed)
}

// flagDifference compares the SDK's public form. It drops users and spaces, and all bits but read and manage of groups, and get, update and
// delete of uuids.
func flagDifference(side string, ours pam.Permissions, parsed pubnub.PNTokenResources) string {
	if len(parsed.Channels) != len(ours.Channels) || len(parsed.ChannelGroups) != len(ours.Groups) || len(parsed.UUIDs) != len(ours.UUIDs) {
		return side + ": another number of names"
	}
	for name, p := range ours.Channels {
		want := pubnub.ChannelPermissions{
			Read: p&pam.Read != 0, Write: p&pam.Write != 0, Delete: p&pam.Delete != 0, Get: p&pam.Get != 0,
			Manage: p&pam.Manage != 0, Update: p&pam.Update != 0, Join: p&pam.Join != 0,
		}
		if parsed.Channels[name] != want {
			return fmt.Sprintf("%s.channels[%q]: pam %s, the SDK %+v", side, name, p, parsed.Channels[name])
		}
	}
	for name, p := range ours.Groups {
		if want := (pubnub.GroupPermissions{Read: p&pam.Read != 0, Manage: p&pam.Manage != 0}); parsed.ChannelGroups[name] != want {
			return fmt.Sprintf("%s.groups[%q]: pam %s, the SDK %+v", side, name, p, parsed.ChannelGroups[name])
		}
	}
	for name, p := range ours.UUIDs {
		want := pubnub.UUIDPermissions{Get: p&pam.Get != 0, Update: p&pam.Update != 0, Delete: p&pam.Delete != 0}
		if parsed.UUIDs[name] != want {
			return fmt.Sprintf("%s.uuids[%q]: pam %s, the SDK %+v", side, name, p, parsed.UUIDs[name])
		}
	}
	return ""
}

// plain brings a value of meta into one form for both: the SDK keeps CBOR's types of numbers, byte strings, and maps with keys of any type.
func plain(value any) any {
	switch v := value.(type) {
	case uint64:
		if v <= math.MaxInt64 {
			return int64(v)
		}
	case float32:
		return float64(v)
	case []byte:
		if utf8.Valid(v) {
			return string(v)
		}
	case map[any]any:
		out := make(map[string]any, len(v))
		for key, inner := range v {
			out[fmt.Sprint(key)] = plain(inner)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, inner := range v {
			out[key] = plain(inner)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = plain(inner)
		}
		return out
	}
	return value
}

// Every recorded token is read alike, and every broken one refused by pam.
func TestParseVectors(t *testing.T) {
	for i, v := range vectors(t) {
		check(t, fmt.Sprint(i), func(t *testing.T) {
			got := compareParsers(v.Token)
			if !got.explained() {
				t.Errorf("%s: %s", got.class, got.detail)
			}
			if taken := got.class == "both" || got.class == "only pam" || got.class == "read differently"; taken != v.Valid {
				t.Errorf("%s (%s), valid is %t: %s", v.Source, got.class, v.Valid, got.detail)
			}
			if got.class != "both" && got.class != "neither" {
				t.Logf("%s: %v: %s", got.class, got.why, got.detail)
			}
		})
	}
}
