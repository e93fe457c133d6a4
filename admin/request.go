package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// readQuery parses a query in which every parameter is known and occurs once.
func readQuery(raw string, params []string) (url.Values, error) {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, badRequest("the query is not well formed")
	}
	for key, values := range q {
		switch {
		case !slices.Contains(params, key) && len(params) == 0:
			return nil, badRequest(fmt.Sprintf("unknown parameter %q: this path takes none", key))
		case !slices.Contains(params, key):
			return nil, badRequest(fmt.Sprintf("unknown parameter %q: this path takes %s", key, strings.Join(params, ", ")))
		case len(values) > 1:
			return nil, badRequest(fmt.Sprintf("the parameter %q is given %d times", key, len(values)))
		case !utf8.ValidString(values[0]):
			return nil, badRequest(fmt.Sprintf("the parameter %q is not valid UTF-8", key))
		}
	}
	return q, nil
}

// limit is the parameter limit.
func (rq *request) limit() (int, error) {
	s := rq.query.Get("limit")
	if s == "" {
		return DefaultLimit, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > MaxLimit {
		return 0, badRequest(fmt.Sprintf("limit is a number from 1 to %d", MaxLimit))
	}
	return n, nil
}

// flag is a parameter that is true or false, false when it is not given.
func (rq *request) flag(name string) (bool, error) {
	switch rq.query.Get(name) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, badRequest(name + " is true or false")
}

// readBody reads the body as far as the operation takes one: JSON in valid UTF-8
// of at most MaxBody bytes. It returns nil if there is none.
func readBody(r *http.Request, rule bodyRule) ([]byte, error) {
	if r.ContentLength > MaxBody {
		return nil, tooLarge()
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxBody+1))
	switch {
	case err != nil:
		return nil, badRequest("the body could not be read to its end")
	case len(body) > MaxBody:
		return nil, tooLarge()
	case len(body) == 0 && rule == bodyRequired:
		return nil, badRequest("a body is required: a JSON object")
	case len(body) == 0:
		return nil, nil
	case rule == bodyNone:
		return nil, badRequest("this request takes no body")
	}
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset, named := params["charset"]
	if err != nil || media != MediaJSON || named && !strings.EqualFold(charset, "utf-8") {
		return nil, problem(http.StatusUnsupportedMediaType, CodeMediaType, "the body must be JSON: send it with Content-Type: application/json")
	}
	if !utf8.Valid(body) {
		return nil, badRequest("the body is not valid UTF-8")
	}
	return body, nil
}

func tooLarge() *Problem {
	return problem(http.StatusRequestEntityTooLarge, CodeTooLarge, fmt.Sprintf("the body is over %d bytes", MaxBody))
}

// decode decodes a JSON object strictly: known fields only, each at most once
// and spelled exactly, nothing after the object. It returns the fields given, in
// their order.
func decode(body []byte, into any, known ...string) ([]string, error) {
	fields, err := objectFields(body)
	if err != nil {
		return nil, err
	}
	var unknown []string
	for _, f := range fields {
		if !slices.Contains(known, f) {
			unknown = append(unknown, strconv.Quote(f))
		}
	}
	if len(unknown) > 0 {
		return nil, badRequest(fmt.Sprintf("unknown field %s: the fields are %s", strings.Join(unknown, ", "), strings.Join(known, ", ")))
	}
	err = json.Unmarshal(body, into)
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return nil, badRequest(fmt.Sprintf("%s: a JSON %s cannot stand here", e.Field, e.Value))
	}
	if err != nil {
		return nil, badRequest("the body cannot be decoded")
	}
	return fields, nil
}

// objectFields returns the names of the fields of the one JSON object that body
// is, in their order. None occurs twice.
func objectFields(body []byte) ([]string, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, badRequest("the body must be a JSON object")
	}
	var fields []string
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, syntaxError(dec)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, syntaxError(dec)
		}
		if slices.Contains(fields, key.(string)) {
			return nil, badRequest(fmt.Sprintf("the field %q is given twice", key))
		}
		fields = append(fields, key.(string))
	}
	if _, err := dec.Token(); err != nil {
		return nil, syntaxError(dec)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, badRequest("something follows the JSON object")
	}
	return fields, nil
}

// syntaxError says where the body stops being JSON, and nothing of what is there.
func syntaxError(dec *json.Decoder) *Problem {
	return badRequest(fmt.Sprintf("the body is not well-formed JSON near byte %d", dec.InputOffset()))
}
