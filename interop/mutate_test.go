package interop

import (
	"encoding/base64"
	"encoding/binary"
	"math/rand/v2"
	"slices"
)

// mutator makes new tokens out of recorded ones: changes of single bytes and of characters, and changes that know what an item of CBOR is and so
// get past the first check of a parser.
type mutator struct {
	rng    *rand.Rand
	tokens [][]byte // decoded
	items  [][]byte // every item of every token, as spare parts
}

func newMutator(seed uint64, tokens []string) *mutator {
	m := &mutator{rng: rand.New(rand.NewPCG(seed, 1))}
	for _, token := range tokens {
		data, err := sdkBase64(token)
		if err != nil {
			continue
		}
		m.tokens = append(m.tokens, data)
		if _, top := examine(data); top != nil {
			for _, n := range flatten(top) {
				m.items = append(m.items, data[n.start:n.end])
			}
		}
	}
	// Items that no token has.
	for _, spare := range []string{
		"\xf6", "\xf7", "\xf4", "\xf5", "\xf9\x3c\x00", "\xf9\x7e\x00", "\xfa\x40\x49\x0f\xdb", "\xfb\x40\x09\x21\xfb\x54\x44\x2d\x18", "\x20", "\x00",
		"\xc1\x1a\x00\x00\x00\x01", "\xc2\x42\x01\x00", "\x1b\xff\xff\xff\xff\xff\xff\xff\xff", "\x3b\xff\xff\xff\xff\xff\xff\xff\xff",
		"\x1b\x7f\xff\xff\xff\xff\xff\xff\xff", "\x1b\x80\x00\x00\x00\x00\x00\x00\x00", "\x9f\x01\xff", "\xbf\x61a\x01\xff", "\x5f\x41a\xff", "\x7f\x61a\xff",
		"\x80", "\xa0", "\xa1\x01\x02", "\xa1\x41k\x01", "\x81\xf6", "\xa1\x61k\xf6", "\xe0", "\xf8\x20", "\xf8\x10", "\x1c", "\x62\xff\xfe", "\x42\xff\xfe",
		"\x43TTL", "\x41T", "\x64Chan", "\x44chan", "\x44META", "\x61v", "\x41v", "\x02", "\x18\x02", "\x19\x00\x02", "\x58\x00", "\x40", "\x60",
	} {
		m.items = append(m.items, []byte(spare))
	}
	return m
}

func flatten(n *node) []*node {
	all := []*node{n}
	for _, kid := range n.kids {
		if kid != nil {
			all = append(all, flatten(kid)...)
		}
	}
	return all
}

// next returns one mutated token as text.
func (m *mutator) next() string {
	data := slices.Clone(m.tokens[m.rng.IntN(len(m.tokens))])
	for range 1 + m.rng.IntN(3) {
		data = m.change(data)
	}
	return m.spell(data)
}

func (m *mutator) change(data []byte) []byte {
	_, top := examine(data)
	if top == nil || len(data) == 0 {
		return append(data, m.part()...)
	}
	all := flatten(top)
	n := all[m.rng.IntN(len(all))]
	switch m.rng.IntN(8) {
	case 0: // any byte
		data[m.rng.IntN(len(data))] = byte(m.rng.Uint32())
	case 1: // a head
		data[n.start] ^= 1 << m.rng.IntN(8)
	case 2: // the end
		data = data[:m.rng.IntN(len(data)+1)]
	case 3: // another item in its place
		data = slices.Replace(data, n.start, n.end, m.part()...)
	case 4: // an item more, and mostly the count that fits it
		data = m.grow(data, n)
	case 5: // a longer form of the same number
		if n.info < 24 && n.major != majorSimple {
			long := []byte{n.major<<5 | 25, 0, n.info}
			data = slices.Replace(data, n.start, n.start+1, long...)
		}
	case 6: // another number
		if n.major == majorUint {
			data = slices.Replace(data, n.start, n.end, binary.BigEndian.AppendUint64([]byte{0x1b}, m.rng.Uint64()>>m.rng.IntN(64))...)
		}
	case 7: // bytes instead of text and the other way round
		if n.isString() {
			data[n.start] ^= 0x20
		}
	}
	return data
}

// grow adds one entry to a map or an array.
func (m *mutator) grow(data []byte, n *node) []byte {
	if n.major != majorMap && n.major != majorArray || n.info >= 23 {
		return slices.Insert(data, n.start, m.part()...)
	}
	entry := m.part()
	if n.major == majorMap {
		entry = append(slices.Clone(entry), m.part()...)
	}
	data = slices.Insert(data, n.end, entry...)
	if m.rng.IntN(8) > 0 {
		data[n.start]++
	}
	return data
}

func (m *mutator) part() []byte { return m.items[m.rng.IntN(len(m.items))] }

// spell writes the bytes in one of the ways a parser may take or not.
func (m *mutator) spell(data []byte) string {
	switch m.rng.IntN(12) {
	case 0:
		return base64.RawURLEncoding.EncodeToString(data)
	case 1:
		return base64.StdEncoding.EncodeToString(data)
	case 2:
		return base64.RawStdEncoding.EncodeToString(data)
	case 3: // any character
		text := []byte(base64.URLEncoding.EncodeToString(data))
		if len(text) > 0 {
			text[m.rng.IntN(len(text))] = "AZaz09-_+/= \n\r\t.%"[m.rng.IntN(17)]
		}
		return string(text)
	case 4: // a character more or less
		text := []byte(base64.URLEncoding.EncodeToString(data))
		at := m.rng.IntN(len(text) + 1)
		if m.rng.IntN(2) == 0 || at == len(text) {
			return string(slices.Insert(text, at, "A=-\n"[m.rng.IntN(4)]))
		}
		return string(slices.Delete(text, at, at+1))
	}
	return base64.URLEncoding.EncodeToString(data)
}
