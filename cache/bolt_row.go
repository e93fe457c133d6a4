package cache

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// Layout of the file: bucket meta holds the format under the key format (8 bytes, big-endian); bucket rows holds, by
// name, a header of 16 bytes and the data; bucket due holds an empty value under the due time and name of each row
// that has one. The header is the revision (8 bytes, big-endian) and the due time as in the index, all zero for none.
// So the index can be kept, checked and built again without decoding any data.
var (
	boltMeta      = []byte("meta")
	boltRows      = []byte("rows")
	boltDue       = []byte("due")
	boltFormatKey = []byte("format")
)

const (
	boltFormat     = 1
	boltHeaderSize = 16
)

// encodeBoltDue gives 8 bytes that sort like the times: nanoseconds since 1970 with the sign bit turned round. The
// zero time is all zero, which no other time is.
func encodeBoltDue(t time.Time) (key [8]byte) {
	if !t.IsZero() {
		binary.BigEndian.PutUint64(key[:], uint64(boltNanoseconds(t))^1<<63)
	}
	return key
}

func boltNanoseconds(t time.Time) int64 {
	const first, last = math.MinInt64 + 1, math.MaxInt64
	switch {
	case t.Before(time.Unix(0, first)):
		return first
	case t.After(time.Unix(0, last)):
		return last
	}
	return t.UnixNano()
}

func decodeBoltDue(key [8]byte) time.Time {
	if key == [8]byte{} {
		return time.Time{}
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(key[:])^1<<63)).UTC()
}

func boltDueKey(due [8]byte, name string) []byte {
	return append(due[:], name...)
}

func encodeBoltRow(revision uint64, due [8]byte, data []byte) []byte {
	value := make([]byte, 0, boltHeaderSize+len(data))
	value = binary.BigEndian.AppendUint64(value, revision)
	value = append(value, due[:]...)
	return append(value, data...)
}

// decodeBoltHeader reads a stored row without copying its data.
func decodeBoltHeader(name string, value []byte) (revision uint64, due [8]byte, data []byte, err error) {
	if len(value) >= boltHeaderSize {
		revision = binary.BigEndian.Uint64(value)
	}
	if revision == 0 {
		return 0, due, nil, fmt.Errorf("%w: the header of row %q makes no sense", ErrDamaged, name)
	}
	return revision, [8]byte(value[8:boltHeaderSize]), value[boltHeaderSize:], nil
}

func decodeBoltRow(name string, value []byte) (Row, error) {
	revision, due, data, err := decodeBoltHeader(name, value)
	if err != nil {
		return Row{}, err
	}
	return Row{Name: name, Revision: revision, Due: decodeBoltDue(due), Data: append([]byte{}, data...)}, nil
}

func cloneBoltRow(row Row) Row {
	row.Data = bytes.Clone(row.Data)
	return row
}
