package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// looksLikeJSON reports whether data begins as a JSON object does and is valid
// JSON as a whole. YAML in braces is not.
func looksLikeJSON(data []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) && json.Valid(data)
}

// parseJSON reads a valid JSON document into the same tree as YAML, and keeps
// duplicate keys for the decoder to report.
func parseJSON(data []byte) (*node, Faults) {
	if f, bad := badText(data); bad {
		return nil, Faults{f}
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	r := jsonReader{data: data, dec: d}
	root, err := r.value(0)
	if err != nil {
		line, column := lineColumn(data, r.offset())
		return nil, Faults{{Line: line, Column: column, Message: "syntax error: " + err.Error()}}
	}
	return root, nil
}

type jsonReader struct {
	data []byte
	dec  *json.Decoder
	// line, column and at are the place counted last: reading only goes forward,
	// so every byte is counted once.
	line, column, at int
}

// offset is where the next token begins.
func (r *jsonReader) offset() int {
	i := int(r.dec.InputOffset())
	for i < len(r.data) && bytes.IndexByte([]byte(" \t\r\n,:"), r.data[i]) >= 0 {
		i++
	}
	return i
}

// next returns the next token and a node that stands at its place.
func (r *jsonReader) next() (json.Token, *node, error) {
	to := r.offset()
	line, column := lineColumn(r.data[r.at:], to-r.at)
	if line == 1 {
		column += r.column
	}
	r.line, r.column, r.at = r.line+line-1, column-1, to
	t, err := r.dec.Token()
	return t, &node{line: r.line + 1, column: column}, err
}

func (r *jsonReader) value(depth int) (*node, error) {
	t, n, err := r.next()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Delim:
		if depth >= maxDepth {
			return nil, errors.New(tooDeep)
		}
		if t == '{' {
			n.kind = mappingKind
			return n, r.object(n, depth)
		}
		n.kind = listKind
		return n, r.array(n, depth)
	case string:
		n.kind, n.text = textKind, t
	case json.Number:
		n.kind, n.text = numberKind, t.String()
	case bool:
		n.kind, n.text = boolKind, fmt.Sprint(t)
	}
	return n, nil
}

func (r *jsonReader) object(n *node, depth int) error {
	for r.dec.More() {
		t, key, err := r.next()
		if err != nil {
			return err
		}
		key.kind, key.text = textKind, t.(string)
		v, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		n.add(key, v)
	}
	_, _, err := r.next()
	return err
}

func (r *jsonReader) array(n *node, depth int) error {
	for r.dec.More() {
		v, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		n.add(nil, v)
	}
	_, _, err := r.next()
	return err
}
