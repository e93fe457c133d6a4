package config

import (
	"bytes"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxDepth bounds how deep values may be nested; the deepest that means
// anything is a permission of a channel of a grant, 6.
const maxDepth = 32

// maxKeys bounds the keys of one mapping: a token with a tenth of them is already
// too long to use.
const maxKeys = 5000

const tooDeep = "nested too deep"

// plainNumber is what YAML 1.2 takes for a number when it stands without quotes.
var plainNumber = regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)

// parseYAML reads one document. The faults are those of the syntax: either there
// are some, or there is a tree. An empty file is an empty mapping.
func parseYAML(data []byte) (root *node, faults Faults) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if f, bad := badText(data); bad {
		return nil, Faults{f}
	}
	defer func() {
		// Text comes from outside, and the parser is not ours: what it cannot
		// take must not end a process that serves tokens.
		if r := recover(); r != nil {
			root, faults = nil, Faults{{Line: 1, Column: 1, Message: "syntax error: the text cannot be parsed as YAML"}}
		}
	}()
	tokens := lexer.Tokenize(string(data))
	if bad := tokens.InvalidToken(); bad != nil {
		return nil, Faults{syntaxFault(bad.Error, bad)}
	}
	if faults := refusedTokens(tokens); len(faults) > 0 {
		return nil, faults
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, Faults{parserFault(err)}
	}
	return convertFile(file)
}

// badText finds the first byte that no text file has.
func badText(data []byte) (Fault, bool) {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return textFault(data, i, "not valid UTF-8: save the file as UTF-8"), true
		}
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0x7f {
			return textFault(data, i, fmt.Sprintf("control character %U: remove it, or write it as an escape in double quotes", r)), true
		}
		i += size
	}
	return Fault{}, false
}

func textFault(data []byte, offset int, message string) Fault {
	line, column := lineColumn(data, offset)
	return Fault{Line: line, Column: column, Message: message}
}

// lineColumn is the line and the column, in characters, of a byte of data.
func lineColumn(data []byte, offset int) (line, column int) {
	before := data[:min(offset, len(data))]
	start := bytes.LastIndexByte(before, '\n') + 1
	return bytes.Count(before, []byte("\n")) + 1, utf8.RuneCount(before[start:]) + 1
}

// refusedTokens finds what YAML has and these files do not need: whatever can
// grow without bound or makes a text mean something else than it shows.
func refusedTokens(tokens token.Tokens) Faults {
	var faults Faults
	refuse := func(t *token.Token, message string) { faults = append(faults, syntaxFault(message, t)) }
	depth, dashes, line := 0, 0, 0
	var blocks blockKeys
	for i, t := range tokens {
		if t.Position.Line != line {
			dashes, line = 0, t.Position.Line
		}
		switch t.Type {
		case token.AnchorType:
			refuse(t, "anchors (&name) are not accepted: write the value out, or put quotes around a text that begins with &")
		case token.AliasType:
			refuse(t, "aliases (*name) are not accepted: write the value out, or put quotes around a text that begins with *")
		case token.TagType:
			refuse(t, "tags (!name) are not accepted: remove it, or put quotes around a text that begins with !")
		case token.MergeKeyType:
			refuse(t, "merge keys (<<) are not accepted: write the keys out")
		case token.MappingKeyType:
			refuse(t, "explicit keys (?) are not accepted: write key: value")
		case token.DirectiveType:
			refuse(t, "directives (%) are not accepted: remove the line")
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		case token.SequenceEntryType:
			dashes++
			blocks.item(t.Position.Column)
		case token.MappingValueType:
			if depth == 0 && i > 0 && blocks.key(tokens[i-1].Position.Column) > maxKeys {
				return append(faults, syntaxFault(fmt.Sprintf("a mapping cannot have more than %s keys", thousands(maxKeys)), t))
			}
		}
		if depth > maxDepth || dashes > maxDepth {
			return append(faults, syntaxFault(tooDeep, t))
		}
	}
	return faults
}

// blockKeys counts the keys of the mappings that are open at a place in a text,
// outermost first: the parser goes one call deeper for every key of a mapping
// that is told by its indentation, so their number is bounded before it runs.
type blockKeys []struct{ column, count int }

// key counts one more key and returns how many its mapping has.
func (b *blockKeys) key(column int) int {
	b.item(column)
	if n := len(*b); n > 0 && (*b)[n-1].column == column {
		(*b)[n-1].count++
		return (*b)[n-1].count
	}
	*b = append(*b, struct{ column, count int }{column, 1})
	return 1
}

// item closes the mappings that are indented further than column.
func (b *blockKeys) item(column int) {
	for len(*b) > 0 && (*b)[len(*b)-1].column > column {
		*b = (*b)[:len(*b)-1]
	}
}

// syntaxFault puts a message of the parser in the words of this package.
func syntaxFault(message string, t *token.Token) Fault {
	f := Fault{Line: 1, Column: 1, Message: message}
	if t != nil && t.Position != nil {
		f.Line, f.Column = t.Position.Line, max(t.Position.Column, 1)
	}
	message = strings.Join(strings.Fields(message), " ")
	switch {
	case strings.Contains(message, "are not accepted"), strings.HasPrefix(message, "a mapping cannot"), message == tooDeep:
		return f
	case strings.Contains(message, "tab character"), strings.Contains(message, "cannot start any token"):
		f.Message = "syntax error: a tab cannot indent YAML: use spaces"
	case strings.Contains(message, "reserved character"):
		f.Message = "syntax error: " + message + ": put quotes around the text"
	case strings.Contains(message, "mapping value is not allowed in this context"):
		f.Message = "syntax error: " + message + ": put quotes around a text with a colon, and indent the keys of one mapping alike"
	case strings.Contains(message, "unknown escape character"):
		f.Message = "syntax error: " + message + `: write \\ for a backslash in double quotes, or use single quotes`
	default:
		f.Message = "syntax error: " + message
	}
	return f
}

func parserFault(err error) Fault {
	if located, ok := err.(yaml.Error); ok {
		return syntaxFault(located.GetMessage(), located.GetToken())
	}
	return syntaxFault(err.Error(), nil)
}

// convertFile turns the library's tree into ours.
func convertFile(file *ast.File) (*node, Faults) {
	empty := &node{kind: mappingKind, line: 1, column: 1}
	c := converter{}
	var root *node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		n := c.convert(doc.Body, empty, 0)
		if root != nil {
			c.faults = append(c.faults, Fault{Line: n.line, Column: n.column,
				Message: "a second document begins here: put everything into one, and remove the line ---"})
			break
		}
		root = n
	}
	switch {
	case len(c.faults) > 0:
		return nil, c.faults
	case root == nil:
		return empty, nil
	}
	return root, nil
}

type converter struct{ faults Faults }

func (c *converter) refuse(n *node, message string) *node {
	c.faults = append(c.faults, Fault{Line: n.line, Column: n.column, Message: message})
	return n
}

// convert turns one value. where is a place to name for values that have none of
// their own.
func (c *converter) convert(v ast.Node, where *node, depth int) *node {
	n := &node{line: where.line, column: where.column}
	if v == nil {
		return n
	}
	if t := v.GetToken(); t != nil && t.Position != nil && !implicitNull(v) {
		n.line, n.column = t.Position.Line, max(t.Position.Column, 1)
	}
	if depth > maxDepth {
		return c.refuse(n, tooDeep)
	}
	switch v := v.(type) {
	case *ast.MappingNode:
		n.kind = mappingKind
		for _, entry := range v.Values {
			c.convertEntry(n, entry, depth)
		}
		if !v.IsFlowStyle && len(n.children) > 0 {
			n.line, n.column = n.children[0].key.line, n.children[0].key.column
		}
	case *ast.MappingValueNode:
		n.kind = mappingKind
		c.convertEntry(n, v, depth)
	case *ast.SequenceNode:
		n.kind = listKind
		for _, item := range v.Values {
			n.add(nil, c.convert(item, n, depth+1))
		}
	default:
		c.scalar(n, v)
	}
	return n
}

// implicitNull reports whether v is a value that was left out.
func implicitNull(v ast.Node) bool {
	null, ok := v.(*ast.NullNode)
	return ok && null.Token.Type == token.ImplicitNullType
}

func (c *converter) convertEntry(n *node, entry *ast.MappingValueNode, depth int) {
	key := c.convert(entry.Key, n, depth+1)
	switch key.kind {
	case textKind:
	case mappingKind, listKind:
		c.refuse(key, "a key must be text")
	default:
		c.refuse(key, "a key must be text: write "+strconv.Quote(key.text))
	}
	n.add(key, c.convert(entry.Value, key, depth+1))
}

// scalar fills in a value without children.
func (c *converter) scalar(n *node, v ast.Node) {
	switch v := v.(type) {
	case *ast.NullNode:
		n.kind, n.text = nullKind, v.Token.Value
	case *ast.BoolNode:
		n.kind, n.text = boolKind, strconv.FormatBool(v.Value)
	case *ast.IntegerNode:
		n.kind, n.text = numberKind, v.Token.Value
	case *ast.FloatNode:
		n.kind, n.text = numberKind, v.Token.Value
	case *ast.InfinityNode, *ast.NanNode:
		n.kind, n.text = numberKind, v.GetToken().Value
	case *ast.LiteralNode:
		n.kind, n.text = textKind, v.Value.Value
	case *ast.StringNode:
		n.kind, n.text = textKind, v.Value
		if v.Token.Type == token.StringType && plainNumber.MatchString(v.Value) {
			n.kind = numberKind
		}
	default:
		c.refuse(n, "syntax error: no value can stand here")
	}
}

// decimal reads a number in decimal notation, as JSON writes it: an int64 if it
// has neither fraction nor exponent, otherwise a finite float64.
func decimal(text string) (any, bool) {
	if !jsonNumber.MatchString(text) {
		return nil, false
	}
	if !strings.ContainsAny(text, ".eE") {
		i, err := strconv.ParseInt(text, 10, 64)
		return i, err == nil
	}
	f, err := strconv.ParseFloat(text, 64)
	return f, err == nil && !math.IsInf(f, 0)
}

var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)
