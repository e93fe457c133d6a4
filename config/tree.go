package config

import (
	"strconv"
	"strings"
)

// kind is what a value in the file is.
type kind int

const (
	nullKind kind = iota
	textKind
	numberKind
	boolKind
	mappingKind
	listKind
	redactedKind // a value already reported that must not be looked at again
)

// String is the kind as messages name it.
func (k kind) String() string {
	return [...]string{"nothing", "text", "a number", "true or false", "a mapping", "a list", "a value"}[k]
}

// node is one value of a file, whether it came from YAML or from JSON.
type node struct {
	kind         kind
	text         string // of a scalar: the text, or what the file shows of a number
	line, column int
	parent       *node
	key          *node   // the key in parent, when that is a mapping
	index        int     // the place in parent, when that is a list
	children     []*node // values of a mapping, items of a list, in order
}

// add makes child the last value of n; key is nil in a list.
func (n *node) add(key, child *node) {
	child.parent, child.key, child.index = n, key, len(n.children)
	n.children = append(n.children, child)
}

// child is the value of a key of a mapping, nil if there is none.
func (n *node) child(key string) *node {
	if n.kind != mappingKind {
		return nil
	}
	for _, c := range n.children {
		if c.key.text == key {
			return c
		}
	}
	return nil
}

// descend is the value at keys, nil if there is none.
func (n *node) descend(keys ...string) *node {
	for _, key := range keys {
		if n = n.child(key); n == nil {
			return nil
		}
	}
	return n
}

// label is the nearest key, by which messages name a value; "" at the root.
func (n *node) label() string {
	for ; n != nil; n = n.parent {
		if n.key != nil {
			return n.key.text
		}
	}
	return ""
}

// named reports whether the label of n is a name that the file's author chose,
// not a word of the configuration.
func (n *node) named() bool {
	for ; n != nil; n = n.parent {
		if n.key == nil {
			continue
		}
		switch n.parent.label() {
		case "channels", "groups", "uuids", "users", "spaces", "meta":
			return true
		}
		return false
	}
	return false
}

// path is where a value stands, like grants[0].resources.channels."a b"[1].
func (n *node) path() string {
	switch {
	case n == nil || n.parent == nil:
		return ""
	case n.key == nil:
		return n.parent.path() + "[" + strconv.Itoa(n.index) + "]"
	}
	return joinPath(n.parent.path(), n.key.text)
}

// joinPath adds a key to a path, in quotes unless it is a plain word.
func joinPath(path, key string) string {
	if key == "" || strings.ContainsFunc(key, notWord) {
		key = strconv.Quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func notWord(r rune) bool {
	return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
}

// under reports whether path is prefix itself or lies below it.
func under(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || prefix == "" || rest[0] == '.' || rest[0] == '[')
}
