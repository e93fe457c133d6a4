package cache

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pamsidecar/pamsidecar/pam"
)

var writeSamples = flag.Bool("write-samples", false, "write testdata/records anew: only for a new format")

// samplesDir holds encoded records as versions before this one wrote them.
const samplesDir = "../testdata/records"

// A record comes back as it was, field by field.
func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genRecord().Draw(t, "record")
		data, err := encodeRecord(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeRecord(want.Name, data)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
		if want.Grant != nil && (got.Grant.Fingerprint() != want.Grant.Fingerprint() || got.Grant.Grant.Fingerprint() != want.Grant.Grant.Fingerprint()) {
			t.Fatal("the fingerprint of the grant has changed")
		}
		again, err := encodeRecord(got)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("encoded again: other bytes, %v", err)
		}
	})
}

// The round trip is worth what its generator covers: a field added to a record
// and forgotten in the codec has to fail it.
func TestRecordFieldsAreDrawn(t *testing.T) {
	set := map[string]bool{}
	for seed := range 200 {
		fields(reflect.ValueOf(*genRecord().Example(seed)), "Record", set)
	}
	for path, was := range set {
		if !was && path != "Record.Lost" && !strings.HasPrefix(path, "Record.version") && path != "Record.staged" {
			t.Errorf("%s is never set by the generator", path)
		}
	}
	if len(set) < 60 {
		t.Errorf("only %d fields were looked at", len(set))
	}
}

// fields notes for each field below v whether it is set.
func fields(v reflect.Value, path string, set map[string]bool) {
	set[path] = set[path] || !v.IsZero()
	switch {
	case v.Kind() == reflect.Pointer && !v.IsNil():
		fields(v.Elem(), path, set)
	case v.Kind() == reflect.Slice && v.Len() > 0:
		fields(v.Index(0), path+"[]", set)
	case v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[time.Time]():
		for i := range v.NumField() {
			fields(v.Field(i), path+"."+v.Type().Field(i).Name, set)
		}
	}
}

// Numbers of meta in every type that a grant may have them in: what is asked of
// Access Manager, and so the fingerprint, is the same after a restart.
func TestMetaNumbers(t *testing.T) {
	meta := map[string]any{
		"int": 7, "int8": int8(-7), "int64": int64(math.MinInt64), "uint8": uint8(7), "uint64": uint64(math.MaxUint64),
		"max int64": uint64(math.MaxInt64), "float32": float32(1.5), "float64": 0.1, "whole float": 3.0, "large float": 1e300,
		"above 2^53": float64(1 << 60), "negative zero": math.Copysign(0, -1),
		"json whole": json.Number("12"), "json float": json.Number("12.5"), "json exponent": json.Number("1e3"),
		"nil": nil, "bool": true, "text": "12", "empty": "",
	}
	for key, value := range meta {
		t.Run(key, func(t *testing.T) {
			g := Grant{Name: "a", Grant: pam.Grant{TTL: time.Minute, UUID: "a", Meta: map[string]any{key: value}}}
			data, err := encodeRecord(&Record{Name: "a", Grant: &g})
			if err != nil {
				t.Fatal(err)
			}
			r, err := decodeRecord("a", data)
			if err != nil {
				t.Fatal(err)
			}
			if r.Grant.Fingerprint() != g.Fingerprint() {
				t.Errorf("%T %v comes back as %T %v: the fingerprint differs", value, value, r.Grant.Meta[key], r.Grant.Meta[key])
			}
			if _, ok := g.Meta[key].(json.Number); ok != strings.HasPrefix(key, "json") {
				t.Error("encoding has changed the grant")
			}
			encoded, err := EncodeGrant(g)
			if err != nil {
				t.Fatal(err)
			}
			put, err := Decision{Action: ActPut, Grant: encoded}.grant()
			if err != nil || put.Fingerprint() != g.Fingerprint() {
				t.Errorf("the grant of a put decision differs: %v", err)
			}
		})
	}
	// A json.Number above the signed range keeps its value.
	if got := storeMeta(map[string]any{"n": json.Number("18446744073709551615")}); got["n"] != uint64(math.MaxUint64) {
		t.Errorf("18446744073709551615 is stored as %T %v", got["n"], got["n"])
	}
}

// Moments that do not fit do not turn into others far away.
func TestInstantBounds(t *testing.T) {
	epoch := time.Unix(0, 0)
	for _, at := range []time.Time{epoch, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1500, 1, 1, 0, 0, 0, 0, time.UTC)} {
		got := instantOf(at).time()
		if got.IsZero() || got.Before(epoch) != at.Before(epoch) || got.After(time.Now()) != at.After(time.Now()) {
			t.Errorf("%v comes back as %v", at, got)
		}
	}
}

// reseal gives a changed body a right checksum.
func reseal(name string, body []byte) []byte {
	return binary.BigEndian.AppendUint32(bytes.Clone(body), rowSum(name, body))
}

func TestRecordFaults(t *testing.T) {
	data, err := encodeRecord(genRecord().Example(1))
	if err != nil {
		t.Fatal(err)
	}
	name := genRecord().Example(1).Name
	body := data[:len(data)-4]
	newer := bytes.Clone(body)
	newer[0] = recordFormat + 1
	older := bytes.Clone(body)
	older[0] = 0
	tests := []struct {
		about string
		name  string
		data  []byte
		newer bool
	}{
		{"another name", name + "x", data, false},
		{"nothing", name, nil, false},
		{"too short", name, []byte{recordFormat, 0xa0, 0, 0, 0}, false},
		{"one byte less", name, data[:len(data)-1], false},
		{"one byte more", name, append(bytes.Clone(data), 0), false},
		{"newer format", name, reseal(name, newer), true},
		{"newer format, damaged", name, append(bytes.Clone(newer), 1, 2, 3, 4), false},
		{"format 0", name, reseal(name, older), false},
		{"no CBOR", name, reseal(name, []byte{recordFormat, 0xff}), false},
		{"a list", name, reseal(name, []byte{recordFormat, 0x81, 0x01}), false},
		{"bytes behind", name, reseal(name, append(bytes.Clone(body), 0x01)), false},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			r, err := decodeRecord(tt.name, tt.data)
			if r != nil || !errors.Is(err, ErrRecord) || errors.Is(err, ErrNewerFormat) != tt.newer {
				t.Errorf("got %v, %v", r, err)
			}
		})
	}
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 0x10
		if _, err := decodeRecord(name, bad); !errors.Is(err, ErrRecord) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
}

// What is not UTF-8 may come in with a message of the service; it must not make
// the record unreadable.
func TestRecordForeignText(t *testing.T) {
	r := &Record{Name: "a", Failure: &Failure{Reason: "bad \xff byte"}, Withdrawn: []Withdrawal{{Failure: "\xc3"}}}
	data, err := encodeRecord(r)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeRecord("a", data); err != nil || got.Failure.Reason != r.Failure.Reason {
		t.Errorf("got %v, %v", got, err)
	}
}

// sampleRecords are what the samples of format 1 hold. They never change; a new
// format gets samples beside them.
func sampleRecords() map[string]*Record {
	at := time.Date(2027, 3, 1, 12, 0, 0, 123456789, time.UTC)
	issued := at.Truncate(time.Second)
	grant := Grant{
		Name: "checkout", Grant: pam.Grant{
			TTL: 15 * time.Minute, UUID: "checkout",
			Resources: pam.Permissions{Channels: map[string]pam.Permission{"orders": pam.Read | pam.Write}, Groups: map[string]pam.Permission{"feeds": pam.Read}, UUIDs: map[string]pam.Permission{"checkout": pam.Get | pam.Update}},
			Patterns:  pam.Permissions{Channels: map[string]pam.Permission{`^receipts\.[a-z]+$`: pam.Read}, Users: map[string]pam.Permission{"^u": pam.Get}, Spaces: map[string]pam.Permission{"^s": pam.Join}},
			Meta:      map[string]any{"service": "checkout", "n": int64(-3), "big": uint64(math.MaxUint64), "f": 0.5, "on": true, "none": nil},
		},
		Note: "order service", Loopback: true, Required: new(false), RegrantAt: "CRON_TZ=UTC 0 3 * * *", Until: time.Date(9999, 12, 31, 0, 0, 0, 5, time.UTC),
	}
	token := func(generation uint64) Token {
		return Token{Generation: generation, Raw: pam.Secret("sample-token-" + strings.Repeat("x", int(generation))), Issued: issued, TTL: 15 * time.Minute}
	}
	return map[string]*Record{
		"full": {
			Name: "checkout", Grant: &grant, Source: FromFile, Generation: 7, Current: new(token(7)), Superseded: []Token{token(5), token(6)},
			Withdrawn: []Withdrawal{
				{Token: token(4), ID: token(4).Raw.ID(), Reason: "laptop stolen", Since: at, Phase: Waiting, Attempts: 2, Next: at.Add(time.Minute), Failure: "Access Manager: 503"},
				{Token: Token{Generation: 3, Issued: issued, TTL: time.Minute}, ID: "3f9a1c02", Since: at, Phase: Confirmed, Closed: at},
			},
			GrantedFor: grant.Grant.Fingerprint(), Attempts: 3, LastAttempt: at, LastSuccess: at.Add(-time.Hour), Failure: &Failure{at, "Access Manager: 503"},
			NextAttempt: at.Add(8 * time.Minute), UnaccountedUntil: at.Add(20 * time.Minute), Decision: 12, Events: []Event{{at, "granted generation 7"}},
		},
		"pending": {Name: "a/wätch", Grant: &Grant{Name: "a/wätch", Grant: pam.Grant{TTL: time.Minute, AnyUUID: true}}, Source: FromAdmin, NextAttempt: at},
		"blocked": {Name: "mallory", Block: &Block{9, "account closed", at}, Decision: 9},
		"removed": {Name: "old", Grant: &Grant{Name: "old", Grant: pam.Grant{TTL: time.Hour, UUID: "o"}}, Source: FromFile, Generation: 1, EndedAt: at, Withdrawn: []Withdrawal{{Token: token(1), ID: "00000000", Since: at, Phase: Refused, Next: at}}},
	}
}

// Records that versions before this one wrote can be read, and hold what they
// held.
func TestRecordSamples(t *testing.T) {
	want := sampleRecords()
	if *writeSamples {
		writeRecordSamples(t, want)
	}
	paths, err := filepath.Glob(filepath.Join(samplesDir, "*.bin"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no samples in %s: %v", samplesDir, err)
	}
	seen := 0
	for _, path := range paths {
		sample := want[strings.TrimSuffix(filepath.Base(path), ".bin")]
		if sample == nil {
			t.Errorf("%s: nobody knows what it holds", path)
			continue
		}
		seen++
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeRecord(sample.Name, data)
		if err != nil || !reflect.DeepEqual(got, sample) {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", path, err, got, sample)
		}
	}
	if seen != len(want) {
		t.Errorf("%d of %d samples are there", seen, len(want))
	}
}

func writeRecordSamples(t *testing.T, samples map[string]*Record) {
	if err := os.MkdirAll(samplesDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, r := range samples {
		data, err := encodeRecord(r)
		if err == nil {
			err = os.WriteFile(filepath.Join(samplesDir, file+".bin"), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever is on disk: decoding gives a record or ErrRecord, and a record can be
// used, and written and read again.
func FuzzRecord(f *testing.F) {
	paths, err := filepath.Glob(filepath.Join(samplesDir, "*.bin"))
	if err != nil || len(paths) == 0 {
		f.Fatalf("no samples in %s: %v", samplesDir, err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data[1 : len(data)-4])
	}
	now := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, body []byte) {
		data := reseal("fuzz", append([]byte{recordFormat}, body...))
		r, err := decodeRecord("fuzz", data)
		if err != nil {
			if r != nil || !errors.Is(err, ErrRecord) {
				t.Fatalf("got %v, %v", r, err)
			}
			return
		}
		v := View{newBlock(r)}
		if v.State(now) != r.State(now) {
			t.Errorf("the view is %s, the record %s", v.State(now), r.State(now))
		}
		r.Tidy(now)
		r.Withdraw(now, now, "fuzz")
		r.Due()
		again, err := encodeRecord(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeRecord("fuzz", again); err != nil {
			t.Errorf("written again: %v", err)
		}
	})
}
