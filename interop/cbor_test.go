package interop

import (
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// reason is something about a token's text that makes pam and the SDK judge it differently. The README explains each.
type reason string

const (
	lineBreak     reason = "line break in the base64"
	badPadding    reason = "wrong padding of the base64"
	tooLong       reason = "longer than 64 KiB"
	cutShort      reason = "cut short"
	hugeLength    reason = "declared length over 8 KiB"
	reservedHead  reason = "reserved or malformed head"
	trailingBytes reason = "bytes after the map"
	indefinite    reason = "indefinite length"
	tagged        reason = "tag"
	repeatedKey   reason = "repeated key"
	otherKey      reason = "key that is no string"
	foldedKey     reason = "known key in other case"
	notAMap       reason = "no map"
	missingField  reason = "required field missing or null"
	otherVersion  reason = "version other than 2"
	outOfRange    reason = "t or ttl out of range"
	negative      reason = "negative number"
	innerNull     reason = "null in a list or as the value of a name"
	fullMask      reason = "number of 64 ones"
	badText       reason = "text that is not UTF-8"
	notFinite     reason = "NaN or infinity"
	simpleValue   reason = "simple value without meaning"
	tooMuch       reason = "over 32 levels or 8,192 elements"
	unknownValue  reason = "unknown key with a value of a strange shape"
)

// maxDeclared is up to which declared length the SDK is asked at all: it allocates whatever a length claims.
const maxDeclared = 8 << 10

// CBOR's major types.
const (
	majorUint = iota
	majorNegative
	majorBytes
	majorText
	majorArray
	majorMap
	majorTag
	majorSimple
)

// node is one CBOR item as the SDK's decoder walks over it: far more leniently than the standard allows.
type node struct {
	major, info byte
	arg         uint64
	start, end  int     // where it is in the bytes
	text        string  // of a byte or text string
	kids        []*node // elements; keys and values in turn; the tagged item
}

// walker follows the SDK's decoder through the bytes and notes what a strict one would refuse.
type walker struct {
	data   []byte
	at     int
	found  map[reason]bool
	fields map[*node]bool // values of known keys, which may be null
}

// examine returns every reason that holds for the bytes of a token, and the item at the top, nil when there is none.
func examine(data []byte) (map[reason]bool, *node) {
	w := &walker{data: data, found: map[reason]bool{}, fields: map[*node]bool{}}
	top := w.item(1)
	if top == nil {
		return w.found, nil
	}
	if w.at < len(data) {
		w.found[trailingBytes] = true
	}
	w.judge(top)
	return w.found, top
}

func (w *walker) next() (byte, bool) {
	if w.at >= len(w.data) {
		w.found[cutShort] = true
		return 0, false
	}
	w.at++
	return w.data[w.at-1], true
}

// head reads the first byte of an item and its argument. Reserved lengths count as 0, as in the SDK.
func (w *walker) head() (*node, bool) {
	first, ok := w.next()
	if !ok {
		return nil, false
	}
	n := &node{major: first >> 5, info: first & 31}
	switch {
	case n.info < 24:
		n.arg = uint64(n.info)
	case n.info < 28:
		for range 1 << (n.info - 24) {
			b, ok := w.next()
			if !ok {
				return nil, false
			}
			n.arg = n.arg<<8 | uint64(b)
		}
	case n.info < 31 || n.major < majorBytes || n.major > majorMap:
		w.found[reservedHead] = true
	default:
		w.found[indefinite] = true
	}
	return n, true
}

func (w *walker) item(depth int) *node {
	start := w.at
	n, ok := w.head()
	if !ok {
		return nil
	}
	n.start = start
	defer func() { n.end = w.at }()
	if depth > 32 {
		w.found[tooMuch] = true
	}
	if n.major >= majorBytes && n.major <= majorMap {
		if n.arg > maxDeclared {
			w.found[hugeLength] = true
		}
		if n.arg > 8192 && n.major >= majorArray {
			w.found[tooMuch] = true
		}
	}
	switch n.major {
	case majorBytes, majorText:
		w.str(n, depth)
	case majorArray:
		w.items(n, depth, 1)
	case majorMap:
		w.items(n, depth, 2)
	case majorTag:
		w.found[tagged] = true
		n.kids = append(n.kids, w.item(depth))
	}
	return n
}

// str reads a string, or the parts of one of indefinite length.
func (w *walker) str(n *node, depth int) {
	if n.info == 31 {
		for w.at < len(w.data) && w.data[w.at] != 0xff {
			if part := w.item(depth + 1); part != nil {
				n.text += part.text
			}
		}
		w.next()
		return
	}
	rest := uint64(len(w.data) - w.at)
	if n.arg > rest {
		w.found[cutShort] = true
	}
	size := int(min(n.arg, rest))
	n.text = string(w.data[w.at : w.at+size])
	w.at += size
}

// items reads the elements of an array, or the keys and values of a map.
func (w *walker) items(n *node, depth, each int) {
	for i := uint64(0); ; i++ {
		if n.info == 31 && w.at < len(w.data) && w.data[w.at] == 0xff {
			w.at++
			return
		}
		if n.info != 31 && i >= n.arg {
			return
		}
		for range each {
			kid := w.item(depth + 1)
			if kid == nil {
				return
			}
			n.kids = append(n.kids, kid)
		}
	}
}

// pairs calls f for each key and value; the last value may be missing.
func (n *node) pairs(f func(key, value *node)) {
	for i := 0; i+1 < len(n.kids); i += 2 {
		f(n.kids[i], n.kids[i+1])
	}
}

func (n *node) isString() bool { return n.major == majorBytes || n.major == majorText }

// isNull also holds for undefined, which CBOR decoders read alike.
func (n *node) isNull() bool { return n.major == majorSimple && (n.info == 22 || n.info == 23) }

// judge finds what is wrong with a complete item.
func (w *walker) judge(top *node) {
	defer w.each(top)
	if top.major != majorMap {
		w.found[notAMap] = true
		return
	}
	fields := map[string]*node{}
	top.pairs(func(key, value *node) {
		name := key.text
		switch {
		case !key.isString():
		case isOneOf(name, "v", "t", "ttl", "res", "pat", "meta", "uuid", "sig"):
			fields[name] = value
			w.fields[value] = true
		case foldsTo(name, "v", "t", "ttl", "res", "pat", "meta", "uuid", "sig"):
			w.found[foldedKey] = true
		case value.major == majorMap || value.major == majorArray || value.major == majorTag || value.isNull():
			w.found[unknownValue] = true
		}
	})
	w.numbers(fields)
	for _, name := range []string{"res", "pat"} {
		if side := fields[name]; side != nil {
			w.side(side)
		}
	}
	if uuid := fields["uuid"]; uuid != nil && !utf8.ValidString(uuid.text) {
		w.found[badText] = true
	}
	if meta := fields["meta"]; meta != nil {
		w.meta(meta)
	}
}

// each looks at one item and all below it, wherever they are.
func (w *walker) each(n *node) {
	if n == nil {
		return
	}
	switch n.major {
	case majorText:
		if !utf8.ValidString(n.text) {
			w.found[badText] = true
		}
	case majorSimple:
		w.simple(n)
		if n.isNull() && !w.fields[n] {
			w.found[innerNull] = true
		}
	case majorMap:
		seen := map[string]bool{}
		n.pairs(func(key, _ *node) {
			id := strconv.Itoa(int(key.major)) + ":" + strconv.FormatUint(key.arg, 10)
			if key.isString() {
				id = "=" + key.text
			} else {
				w.found[otherKey] = true
			}
			if seen[id] {
				w.found[repeatedKey] = true
			}
			seen[id] = true
		})
	}
	if (n.major == majorUint || n.major == majorNegative) && n.arg == math.MaxUint64 {
		w.found[fullMask] = true
	}
	for _, kid := range n.kids {
		w.each(kid)
	}
}

func (w *walker) simple(n *node) {
	switch n.info {
	case 20, 21, 22, 23:
	case 25:
		if n.arg&0x7c00 == 0x7c00 {
			w.found[notFinite] = true
		}
	case 26:
		if f := float64(math.Float32frombits(uint32(n.arg))); math.IsNaN(f) || math.IsInf(f, 0) {
			w.found[notFinite] = true
		}
	case 27:
		if f := math.Float64frombits(n.arg); math.IsNaN(f) || math.IsInf(f, 0) {
			w.found[notFinite] = true
		}
	default:
		w.found[simpleValue] = true
	}
}

func (w *walker) numbers(fields map[string]*node) {
	for _, name := range []string{"v", "t", "ttl", "res", "pat"} {
		n := fields[name]
		switch {
		case n == nil || n.isNull():
			w.found[missingField] = true
		case n.major == majorNegative:
			w.found[negative] = true
		}
	}
	if v := fields["v"]; v != nil && v.arg != 2 {
		w.found[otherVersion] = true
	}
	t, ttl := fields["t"], fields["ttl"]
	const lastSecond = 253402300799 // of the year 9999
	const longest = math.MaxInt64 / uint64(time.Minute)
	if t == nil || ttl == nil {
		return
	}
	if t.arg > lastSecond || ttl.arg > longest || t.arg+ttl.arg*60 > lastSecond {
		w.found[outOfRange] = true
	}
}

// side looks at res or pat.
func (w *walker) side(n *node) {
	n.pairs(func(key, section *node) {
		switch {
		case !key.isString():
			return
		case isOneOf(key.text, "chan", "grp", "uuid", "usr", "spc"):
			w.fields[section] = true
		case foldsTo(key.text, "chan", "grp", "uuid", "usr", "spc"):
			w.found[foldedKey] = true
			return
		default:
			if section.major >= majorArray {
				w.found[unknownValue] = true
			}
			return
		}
		section.pairs(func(name, mask *node) {
			if !utf8.ValidString(name.text) {
				w.found[badText] = true
			}
			if mask.major == majorNegative {
				w.found[negative] = true
			}
		})
	})
}

func (w *walker) meta(n *node) {
	if n == nil {
		return
	}
	if n.major == majorMap {
		n.pairs(func(key, _ *node) {
			if !utf8.ValidString(key.text) {
				w.found[badText] = true
			}
		})
	}
	for _, kid := range n.kids {
		w.meta(kid)
	}
}

func isOneOf(s string, names ...string) bool {
	for _, name := range names {
		if s == name {
			return true
		}
	}
	return false
}

func foldsTo(s string, names ...string) bool {
	for _, name := range names {
		if strings.EqualFold(s, name) {
			return true
		}
	}
	return false
}
