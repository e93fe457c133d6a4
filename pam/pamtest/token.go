package pamtest

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"maps"
	"slices"
	"time"
)

// The seal of a token is the value of "sig": a nonce, which makes every token unique, and an HMAC over nonce and token. As in PubNub's tokens it
// is 32 bytes that nobody else can check.
const (
	nonceLen = 8
	sealLen  = sha256.Size
)

// sigEntry is how the last entry of a token starts: the key "sig" and the head of a 32-byte string.
var sigEntry = append(appendBytes(nil, "sig"), 0x58, sealLen)

// tokenHead is how a token goes on after its map head: version 2 and the key of the issue time with the head of a 4-byte integer.
var tokenHead = append(appendUint(appendBytes(nil, "v"), 2), append(appendBytes(nil, "t"), 0x1a)...)

// mint builds a token in the layout of real ones: fixed keys are byte strings, names are text strings, sections in the order of 2022 and later.
func (s *Server) mint(ask grantAsk, issued time.Time, nonce uint64) string {
	entries := 7
	if ask.uuid != "" {
		entries = 8
	}
	b := appendHead(nil, majorMap, uint64(entries))
	b = append(b, tokenHead...)
	b = binary.BigEndian.AppendUint32(b, uint32(issued.Unix()))
	b = appendUint(appendBytes(b, "ttl"), ask.ttl)
	b = appendSide(appendBytes(b, "res"), ask.resources)
	b = appendSide(appendBytes(b, "pat"), ask.patterns)
	b = appendBytes(b, "meta")
	b = appendHead(b, majorMap, uint64(len(ask.meta)))
	for _, key := range slices.Sorted(maps.Keys(ask.meta)) {
		b = appendValue(appendText(b, key), ask.meta[key])
	}
	if ask.uuid != "" {
		b = appendText(appendBytes(b, "uuid"), ask.uuid)
	}
	sum := s.seal(binary.BigEndian.AppendUint64(nil, nonce), b)
	b = append(append(b, sigEntry...), sum[:]...)
	return base64.URLEncoding.EncodeToString(b)
}

func appendSide(b []byte, masks side) []byte {
	b = appendHead(b, majorMap, uint64(len(masks)))
	for i, names := range masks {
		b = appendBytes(b, sections[i].token)
		b = appendHead(b, majorMap, uint64(len(names)))
		for _, name := range slices.Sorted(maps.Keys(names)) {
			b = appendUint(appendText(b, name), names[name])
		}
	}
	return b
}

func (s *Server) seal(nonce, token []byte) (sum [sealLen]byte) {
	mac := hmac.New(sha256.New, s.tokenKey[:])
	mac.Write(nonce)
	mac.Write(token)
	copy(sum[copy(sum[:], nonce):], mac.Sum(nil))
	return sum
}

// sealed is a token that was recognised as the emulator's own.
type sealed struct {
	sum   [sealLen]byte
	nonce uint64
	end   time.Time
}

// unseal recognises a token of this keyset. The text must be exactly what was granted, padding included; whether the service takes an unpadded
// one is not known.
func (s *Server) unseal(raw string) (sealed, bool) {
	b, err := base64.URLEncoding.Strict().DecodeString(raw)
	if err != nil || len(b) < sealLen+len(sigEntry) || base64.URLEncoding.EncodeToString(b) != raw {
		return sealed{}, false
	}
	var t sealed
	copy(t.sum[:], b[len(b)-sealLen:])
	rest, ok := bytes.CutSuffix(b[:len(b)-sealLen], sigEntry)
	if !ok {
		return sealed{}, false
	}
	want := s.seal(t.sum[:nonceLen], rest)
	if !hmac.Equal(want[:], t.sum[:]) {
		return sealed{}, false
	}
	// From here on the token is known to come from mint, which fixes the places of t and ttl.
	t.nonce = binary.BigEndian.Uint64(t.sum[:nonceLen])
	at := 1 + len(tokenHead)
	issued := binary.BigEndian.Uint32(rest[at:])
	ttl := readUint(rest[at+4+len(appendBytes(nil, "ttl")):])
	t.end = time.Unix(int64(issued), 0).Add(time.Duration(ttl) * time.Minute)
	return t, true
}

// bookGrace is how long an ended token stays in the books, so that a clock that is set back finds them still right.
const bookGrace = 24 * time.Hour

// tokenBook knows how many tokens live and which are revoked. Its size follows the tokens that live or have ended within bookGrace.
type tokenBook struct {
	firstNonce uint64
	issued     uint64
	ends       map[int64]int           // unrevoked tokens issued by this Server, by the Unix second of their end
	withdrawn  map[[sealLen]byte]int64 // revoked tokens and the Unix second of their end
	pruneAt    int
}

const minPrune = 1024

func newTokenBook() tokenBook {
	var start [nonceLen]byte
	rand.Read(start[:])
	return tokenBook{
		firstNonce: binary.BigEndian.Uint64(start[:]),
		ends:       make(map[int64]int),
		withdrawn:  make(map[[sealLen]byte]int64),
		pruneAt:    minPrune,
	}
}

// nextNonce makes two tokens differ that are otherwise equal.
func (k *tokenBook) nextNonce() uint64 {
	k.issued++
	return k.firstNonce + k.issued - 1
}

func (k *tokenBook) add(end, now time.Time) {
	k.ends[end.Unix()]++
	k.prune(now)
}

func (k *tokenBook) revoked(t sealed) bool {
	_, ok := k.withdrawn[t.sum]
	return ok
}

func (k *tokenBook) revoke(t sealed, now time.Time) {
	if k.revoked(t) {
		return
	}
	k.withdrawn[t.sum] = t.end.Unix()
	if t.nonce-k.firstNonce < k.issued { // not one of an earlier Server's
		k.ends[t.end.Unix()]--
	}
	k.prune(now)
}

func (k *tokenBook) live(now time.Time) int {
	n := 0
	for end, count := range k.ends {
		if time.Unix(end, 0).After(now) {
			n += count
		}
	}
	return n
}

// prune forgets what ended long ago; its cost is spread over the calls between two runs.
func (k *tokenBook) prune(now time.Time) {
	if len(k.ends)+len(k.withdrawn) < k.pruneAt {
		return
	}
	oldest := now.Add(-bookGrace).Unix()
	maps.DeleteFunc(k.ends, func(end int64, _ int) bool { return end < oldest })
	maps.DeleteFunc(k.withdrawn, func(_ [sealLen]byte, end int64) bool { return end < oldest })
	k.pruneAt = max(minPrune, 2*(len(k.ends)+len(k.withdrawn)))
}
