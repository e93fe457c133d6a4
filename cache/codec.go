package cache

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"strconv"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/pamsidecar/pamsidecar/pam"
)

// recordFormat is the first byte of an encoded record. The layout is this byte,
// a CBOR map with small integer keys, and a CRC-32C over the name and all before
// it, so that a row that was damaged or moved to another name shows. Byte and
// checksum stay where they are in every format, so that a newer one is told from
// damage.
const recordFormat = 1

// ErrRecord is wrapped by every failure to decode a stored record.
var ErrRecord = errors.New("stored record is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	recordEncoding = must(cbor.EncOptions{Sort: cbor.SortCanonical}.EncMode())
	recordDecoding = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: 16, IndefLength: cbor.IndefLengthForbidden,
		TagsMd: cbor.TagsForbidden, UTF8: cbor.UTF8DecodeInvalid, // what was written is read, whatever it is
		MaxArrayElements: 1 << 24, MaxMapPairs: 1 << 24,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// instant is a moment as nanoseconds since 1970, 0 for the zero time. Moments
// beyond the years 1678 to 2261 become the nearest one within.
type instant int64

func instantOf(t time.Time) instant {
	if t.IsZero() {
		return 0
	}
	if n := boltNanoseconds(t); n != 0 {
		return instant(n)
	}
	return 1
}

func (i instant) time() time.Time {
	if i == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(i)).UTC()
}

type storedGrant struct {
	Name      string          `cbor:"1,keyasint,omitempty"`
	UUID      string          `cbor:"2,keyasint,omitempty"`
	AnyUUID   bool            `cbor:"3,keyasint,omitempty"`
	Minutes   int64           `cbor:"4,keyasint"`
	Resources pam.Permissions `cbor:"5,keyasint"`
	Patterns  pam.Permissions `cbor:"6,keyasint"`
	Meta      map[string]any  `cbor:"7,keyasint,omitempty"`
	Note      string          `cbor:"8,keyasint,omitempty"`
	Loopback  bool            `cbor:"9,keyasint,omitempty"`
	Required  *bool           `cbor:"10,keyasint,omitempty"`
	RegrantAt string          `cbor:"11,keyasint,omitempty"`
	Until     []int64         `cbor:"12,keyasint,omitempty"` // any year: seconds since 1970 and nanoseconds
}

type storedToken struct {
	Generation uint64  `cbor:"1,keyasint"`
	Raw        string  `cbor:"2,keyasint,omitempty"`
	Issued     instant `cbor:"3,keyasint"`
	Minutes    int64   `cbor:"4,keyasint"`
}

type storedWithdrawal struct {
	Token    storedToken `cbor:"1,keyasint"`
	ID       string      `cbor:"2,keyasint"`
	Reason   string      `cbor:"3,keyasint,omitempty"`
	Since    instant     `cbor:"4,keyasint"`
	Phase    string      `cbor:"5,keyasint"`
	Closed   instant     `cbor:"6,keyasint,omitempty"`
	Attempts int         `cbor:"7,keyasint,omitempty"`
	Next     instant     `cbor:"8,keyasint,omitempty"`
	Failure  string      `cbor:"9,keyasint,omitempty"`
}

type storedBlock struct {
	Decision uint64  `cbor:"1,keyasint"`
	Reason   string  `cbor:"2,keyasint,omitempty"`
	Since    instant `cbor:"3,keyasint"`
}

type storedNote struct {
	At   instant `cbor:"1,keyasint"`
	Text string  `cbor:"2,keyasint"`
}

type storedRecord struct {
	Grant       *storedGrant       `cbor:"1,keyasint,omitempty"`
	Source      string             `cbor:"2,keyasint,omitempty"`
	Generation  uint64             `cbor:"3,keyasint,omitempty"`
	Current     *storedToken       `cbor:"4,keyasint,omitempty"`
	Superseded  []storedToken      `cbor:"5,keyasint,omitempty"`
	Withdrawn   []storedWithdrawal `cbor:"6,keyasint,omitempty"`
	GrantedFor  []byte             `cbor:"7,keyasint,omitempty"`
	Attempts    int                `cbor:"8,keyasint,omitempty"`
	LastAttempt instant            `cbor:"9,keyasint,omitempty"`
	LastSuccess instant            `cbor:"10,keyasint,omitempty"`
	Failure     *storedNote        `cbor:"11,keyasint,omitempty"`
	NextAttempt instant            `cbor:"12,keyasint,omitempty"`
	Block       *storedBlock       `cbor:"13,keyasint,omitempty"`
	EndedAt     instant            `cbor:"14,keyasint,omitempty"`
	Unaccounted instant            `cbor:"15,keyasint,omitempty"`
	Decision    uint64             `cbor:"16,keyasint,omitempty"`
	Events      []storedNote       `cbor:"17,keyasint,omitempty"`
}

// seal frames a CBOR body for the row of name.
func seal(name string, v any) ([]byte, error) {
	body, err := recordEncoding.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %q: %w", name, err)
	}
	data := append([]byte{recordFormat}, body...)
	return binary.BigEndian.AppendUint32(data, rowSum(name, data)), nil
}

// unseal checks a frame and decodes its body into v.
func unseal(name string, data []byte, v any) error {
	if len(data) < 6 {
		return fmt.Errorf("decode %q: %w: %d bytes", name, ErrRecord, len(data))
	}
	body, sum := data[:len(data)-4], binary.BigEndian.Uint32(data[len(data)-4:])
	if rowSum(name, body) != sum {
		return fmt.Errorf("decode %q: %w: checksum differs", name, ErrRecord)
	}
	if body[0] > recordFormat {
		return fmt.Errorf("decode %q: %w: %w: format %d, this version knows %d", name, ErrRecord, ErrNewerFormat, body[0], recordFormat)
	}
	if body[0] != recordFormat {
		return fmt.Errorf("decode %q: %w: there is no format %d", name, ErrRecord, body[0])
	}
	if err := recordDecoding.Unmarshal(body[1:], v); err != nil {
		return fmt.Errorf("decode %q: %w: %v", name, ErrRecord, err)
	}
	return nil
}

func rowSum(name string, data []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(name), castagnoli), castagnoli, data)
}

func encodeRecord(r *Record) ([]byte, error) {
	s := storedRecord{
		Source: string(r.Source), Generation: r.Generation,
		GrantedFor: r.GrantedFor[:], Attempts: r.Attempts,
		LastAttempt: instantOf(r.LastAttempt), LastSuccess: instantOf(r.LastSuccess),
		NextAttempt: instantOf(r.NextAttempt), EndedAt: instantOf(r.EndedAt),
		Unaccounted: instantOf(r.UnaccountedUntil), Decision: r.Decision,
	}
	if r.Grant != nil {
		g := storeGrant(*r.Grant)
		s.Grant = &g
	}
	if r.Current != nil {
		t := storeToken(*r.Current)
		s.Current = &t
	}
	for _, t := range r.Superseded {
		s.Superseded = append(s.Superseded, storeToken(t))
	}
	for _, w := range r.Withdrawn {
		s.Withdrawn = append(s.Withdrawn, storedWithdrawal{
			storeToken(w.Token), w.ID, w.Reason, instantOf(w.Since), string(w.Phase),
			instantOf(w.Closed), w.Attempts, instantOf(w.Next), w.Failure,
		})
	}
	if r.Failure != nil {
		s.Failure = &storedNote{instantOf(r.Failure.At), r.Failure.Reason}
	}
	if r.Block != nil {
		s.Block = &storedBlock{r.Block.Decision, r.Block.Reason, instantOf(r.Block.Since)}
	}
	for _, e := range r.Events {
		s.Events = append(s.Events, storedNote{instantOf(e.At), e.Text})
	}
	return seal(r.Name, s)
}

func decodeRecord(name string, data []byte) (*Record, error) {
	var s storedRecord
	if err := unseal(name, data, &s); err != nil {
		return nil, err
	}
	r := &Record{
		Name: name, Source: Source(s.Source), Generation: s.Generation, Attempts: s.Attempts,
		LastAttempt: s.LastAttempt.time(), LastSuccess: s.LastSuccess.time(),
		NextAttempt: s.NextAttempt.time(), EndedAt: s.EndedAt.time(),
		UnaccountedUntil: s.Unaccounted.time(), Decision: s.Decision,
	}
	copy(r.GrantedFor[:], s.GrantedFor)
	if s.Grant != nil {
		g := s.Grant.grant()
		r.Grant = &g
	}
	if s.Current != nil {
		t := s.Current.token()
		r.Current = &t
	}
	for _, t := range s.Superseded {
		r.Superseded = append(r.Superseded, t.token())
	}
	for _, w := range s.Withdrawn {
		r.Withdrawn = append(r.Withdrawn, Withdrawal{
			w.Token.token(), w.ID, w.Reason, w.Since.time(), Phase(w.Phase),
			w.Closed.time(), w.Attempts, w.Next.time(), w.Failure,
		})
	}
	if s.Failure != nil {
		r.Failure = &Failure{s.Failure.At.time(), s.Failure.Text}
	}
	if s.Block != nil {
		r.Block = &Block{s.Block.Decision, s.Block.Reason, s.Block.Since.time()}
	}
	for _, e := range s.Events {
		r.Events = append(r.Events, Event{e.At.time(), e.Text})
	}
	return r, nil
}

func storeGrant(g Grant) storedGrant {
	s := storedGrant{
		Name: g.Name, UUID: g.UUID, AnyUUID: g.AnyUUID, Minutes: int64(g.TTL / time.Minute),
		Resources: g.Resources, Patterns: g.Patterns, Meta: storeMeta(g.Meta), Note: g.Note,
		Loopback: g.Loopback, Required: g.Required, RegrantAt: g.RegrantAt,
	}
	if !g.Until.IsZero() {
		s.Until = []int64{g.Until.Unix(), int64(g.Until.Nanosecond())}
	}
	return s
}

func (s storedGrant) grant() Grant {
	g := Grant{
		Name: s.Name,
		Grant: pam.Grant{
			TTL: time.Duration(s.Minutes) * time.Minute, UUID: s.UUID, AnyUUID: s.AnyUUID,
			Resources: s.Resources, Patterns: s.Patterns, Meta: s.Meta,
		},
		Note: s.Note, Loopback: s.Loopback, Required: s.Required, RegrantAt: s.RegrantAt,
	}
	if len(s.Until) == 2 {
		g.Until = time.Unix(s.Until[0], s.Until[1]).UTC()
	}
	for key, value := range g.Meta {
		if n, ok := value.(uint64); ok && n <= math.MaxInt64 {
			g.Meta[key] = int64(n)
		}
	}
	return g
}

// storeMeta makes numbers out of those that JSON has left as text.
func storeMeta(meta map[string]any) map[string]any {
	numbers := maps.Clone(meta)
	for key, value := range meta {
		text, ok := value.(json.Number)
		if !ok {
			continue
		}
		if i, err := text.Int64(); err == nil {
			numbers[key] = i
		} else if u, err := strconv.ParseUint(text.String(), 10, 64); err == nil {
			numbers[key] = u
		} else if f, err := text.Float64(); err == nil {
			numbers[key] = f
		}
	}
	return numbers
}

func storeToken(t Token) storedToken {
	return storedToken{t.Generation, t.Raw.Reveal(), instantOf(t.Issued), int64(t.TTL / time.Minute)}
}

func (s storedToken) token() Token {
	return Token{s.Generation, pam.Secret(s.Raw), s.Issued.time(), time.Duration(s.Minutes) * time.Minute}
}
