package pamtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp/syntax"
	"slices"
	"strconv"
	"unicode/utf8"
)

// maxTTL is the longest life of a token, in minutes (30 days).
const maxTTL = 43200

// sections are the kinds of resources: the names in a grant's body and in a token, in the token's order.
var sections = [...]struct{ wire, token string }{
	{"channels", "chan"},
	{"groups", "grp"},
	{"spaces", "spc"},
	{"users", "usr"},
	{"uuids", "uuid"},
}

// side is one of resources and patterns: for each section the mask of each name.
type side [len(sections)]map[string]uint64

// grantAsk is what the body of a grant asks for.
type grantAsk struct {
	ttl       uint64 // minutes
	uuid      string // empty: a token for any UUID
	resources side
	patterns  side
	meta      map[string]any
}

// parseGrant checks a grant's body as the service does and returns the first fault found.
func parseGrant(body []byte) (grantAsk, *refusal) {
	root, bad := parseObject(body)
	if bad != nil {
		return grantAsk{}, bad
	}
	var ask grantAsk
	var ok bool
	if ask.ttl, ok = parseTTL(root["ttl"]); !ok {
		return grantAsk{}, &refusal{http.StatusBadRequest, "Invalid ttl", "Range should be 1 to 43200 minute(s).", "ttl", "body"}
	}
	permissions, bad := object(root, "permissions", "permissions")
	if bad != nil {
		return grantAsk{}, bad
	}
	if ask.uuid, bad = parseUUID(permissions); bad != nil {
		return grantAsk{}, bad
	}
	if ask.meta, bad = object(permissions, "meta", "permissions.meta"); bad != nil {
		return grantAsk{}, bad
	}
	if ask.resources, bad = parseSide(permissions, "resources"); bad != nil {
		return grantAsk{}, bad
	}
	if ask.patterns, bad = parseSide(permissions, "patterns"); bad != nil {
		return grantAsk{}, bad
	}
	if bad := checkPatterns(ask.patterns); bad != nil {
		return grantAsk{}, bad
	}
	if ask.resources.empty() && ask.patterns.empty() {
		return grantAsk{}, &refusal{http.StatusBadRequest, "This grant contains no permissions", "What are you granting?", "permissions", "body"}
	}
	return ask, nil
}

// parseObject decodes exactly one JSON object; numbers keep their text. The detail texts are this emulator's.
func parseObject(body []byte) (map[string]any, *refusal) {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var root map[string]any
	if err := dec.Decode(&root); err != nil || root == nil || !utf8.Valid(body) {
		return nil, badJSON("Body must be one JSON object.")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, badJSON("Body must be one JSON object.")
	}
	return root, nil
}

// parseTTL accepts a whole number in range, also as text, which the service was recorded to accept.
func parseTTL(v any) (uint64, bool) {
	var text string
	switch v := v.(type) {
	case json.Number:
		text = v.String()
	case string:
		text = v
	}
	ttl, err := strconv.ParseUint(text, 10, 32)
	return ttl, err == nil && 1 <= ttl && ttl <= maxTTL
}

// object returns the object at a key; an absent one and null are empty.
func object(parent map[string]any, key, path string) (map[string]any, *refusal) {
	switch v := parent[key].(type) {
	case nil:
		return nil, nil
	case map[string]any:
		return v, nil
	}
	return nil, invalidPermissions(fmt.Sprintf("Unexpected value: `%s` must be an object.", path), path)
}

func invalidPermissions(detail, location string) *refusal {
	return &refusal{http.StatusBadRequest, "Invalid permissions", detail, location, "body"}
}

// parseUUID refuses an empty UUID: no SDK sends one, and what the service says to it is not known.
func parseUUID(permissions map[string]any) (string, *refusal) {
	v, present := permissions["uuid"]
	if !present {
		return "", nil
	}
	uuid, ok := v.(string)
	if !ok || uuid == "" {
		const path = "permissions.uuid"
		return "", invalidPermissions(fmt.Sprintf("Unexpected value: `%s` must be a non-empty string.", path), path)
	}
	return uuid, nil
}

// parseSide reads permissions.resources or permissions.patterns.
func parseSide(permissions map[string]any, name string) (side, *refusal) {
	var out side
	path := "permissions." + name
	all, bad := object(permissions, name, path)
	if bad != nil {
		return out, bad
	}
	for _, wire := range slices.Sorted(maps.Keys(all)) {
		index := slices.IndexFunc(sections[:], func(s struct{ wire, token string }) bool { return s.wire == wire })
		if index < 0 {
			return out, invalidPermissions("Invalid resource type", path)
		}
		names, bad := object(all, wire, path+"."+wire)
		if bad != nil {
			return out, bad
		}
		if out[index], bad = parseMasks(names, path+"."+wire); bad != nil {
			return out, bad
		}
	}
	return out, nil
}

func parseMasks(names map[string]any, path string) (map[string]uint64, *refusal) {
	masks := make(map[string]uint64, len(names))
	for _, name := range slices.Sorted(maps.Keys(names)) {
		number, _ := names[name].(json.Number)
		mask, err := strconv.ParseUint(number.String(), 10, 64)
		if err != nil || mask == 0 {
			at := path + "." + name
			return nil, invalidPermissions(fmt.Sprintf("Unexpected value: `%s` must be positive and non-zero.", at), at)
		}
		masks[name] = mask
	}
	return masks, nil
}

// checkPatterns refuses what RE2 does not accept, and capturing groups.
func checkPatterns(patterns side) *refusal {
	for i, masks := range patterns {
		for _, pattern := range slices.Sorted(maps.Keys(masks)) {
			detail := patternFault(pattern)
			if detail == "" {
				continue
			}
			return &refusal{http.StatusBadRequest, "Invalid RegExp", detail, "permissions.patterns." + sections[i].wire + "." + pattern, "body"}
		}
	}
	return nil
}

// patternFault says what is wrong with a pattern, "" for nothing. Of the service's syntax errors only "multiple repeat" is known; the others
// are worded as Go's regexp does.
func patternFault(pattern string) string {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if fault, ok := errors.AsType[*syntax.Error](err); ok {
		if fault.Code == syntax.ErrInvalidRepeatOp {
			return "Syntax error: multiple repeat."
		}
		return fmt.Sprintf("Syntax error: %s.", fault.Code)
	}
	if err != nil {
		return "Syntax error: invalid pattern."
	}
	if re.MaxCap() > 0 {
		return "Only non-capturing groups are allowed. Try replacing `(` with `(?:`."
	}
	return ""
}

func (s side) empty() bool {
	for _, masks := range s {
		if len(masks) > 0 {
			return false
		}
	}
	return true
}
