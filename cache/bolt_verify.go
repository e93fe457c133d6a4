package cache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"hash/maphash"
	"io"
	"math"
	"slices"
)

// Before bbolt maps a file, boltVerifier reads it once in the plain way and follows every page that its newest meta
// page reaches. bbolt itself trusts its pages: damage makes it panic, fault, or walk in circles for ever. What passes
// here is sound as far as structure goes, so opening either works or says why the file is damaged. Data is not looked
// at; the layer above has checksums for that.
//
// The layout (bbolt's format 2, in the byte order of the machine): a page begins with id (8 bytes), flags (2), count
// (2), overflow (4: how many pages follow that belong to it). Pages 0 and 1 are meta pages.

// boltReport is what verification learned.
type boltReport struct {
	pageSize int
	pages    uint64 // below the high water mark
	free     uint64 // of them on the free list
	empty    bool   // no bucket at all: the first start was interrupted
	rows     int
	indexed  bool // the due index holds exactly the due rows
}

const (
	boltPageHeader  = 16
	boltBranch      = 0x01
	boltLeaf        = 0x02
	boltFreelist    = 0x10
	boltMagic       = 0xED0CDAED
	boltFileVersion = 2
	boltMaxKey      = 32768
	boltNoFreelist  = math.MaxUint64
)

type boltVerifier struct {
	r        io.ReaderAt
	size     int64
	pageSize int
	high     uint64 // high water mark: all pages have smaller ids
	seen     []bool
}

type boltMetaPage struct {
	pageSize             int
	root, freelist, high uint64
	txid                 uint64
}

// verifyBolt reports on a file of that size. The errors are ErrDamaged, ErrNewerFormat, ErrForeign, or those of
// reading, which prove nothing.
func verifyBolt(r io.ReaderAt, size int64) (report boltReport, err error) {
	meta, err := findBoltMeta(r, size)
	if err != nil {
		return report, err
	}
	if meta.high < 4 || meta.high > uint64(size)/uint64(meta.pageSize) {
		return report, damagedBolt("the file has %d bytes, its meta page says %d pages of %d", size, meta.high, meta.pageSize)
	}
	v := &boltVerifier{r: r, size: size, pageSize: meta.pageSize, high: meta.high, seen: make([]bool, meta.high)}
	v.seen[0], v.seen[1] = true, true
	report = boltReport{pageSize: meta.pageSize, pages: meta.high}

	buckets := make(map[string][]byte)
	err = v.tree(meta.root, func(flags uint32, key, value []byte) error {
		if flags&1 == 0 || len(value) < 16 {
			return damagedBolt("the list of buckets is not one")
		}
		buckets[string(key)] = bytes.Clone(value)
		return nil
	})
	if err != nil {
		return report, err
	}
	report.empty, report.indexed = len(buckets) == 0, true
	if !report.empty {
		if err := v.format(buckets[string(boltMeta)]); err != nil {
			return report, err
		}
		if err := v.content(buckets, &report); err != nil {
			return report, err
		}
	}
	report.free, err = v.freelist(meta.freelist)
	return report, err
}

func damagedBolt(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrDamaged}, args...)...)
}

// findBoltMeta finds the newest valid meta page, in the places where bbolt looks for it.
func findBoltMeta(r io.ReaderAt, size int64) (boltMetaPage, error) {
	first, err := readBoltMeta(r, 0)
	for pos := int64(1024); err != nil && pos < size && pos <= 1024<<14; pos *= 2 {
		if !errors.Is(err, ErrDamaged) {
			return first, err
		}
		if m, err2 := readBoltMeta(r, pos); err2 == nil && int64(m.pageSize) == pos {
			return m, nil
		}
	}
	if err != nil {
		return first, err
	}
	second, err := readBoltMeta(r, int64(first.pageSize))
	if err != nil && !errors.Is(err, ErrDamaged) {
		return first, err
	}
	if err == nil && second.pageSize == first.pageSize && second.txid > first.txid {
		return second, nil
	}
	return first, nil
}

func readBoltMeta(r io.ReaderAt, pos int64) (m boltMetaPage, err error) {
	buf := make([]byte, 64)
	if err := readBolt(r, buf, pos+boltPageHeader); err != nil {
		return m, err
	}
	ne := binary.NativeEndian
	sum := fnv.New64a()
	sum.Write(buf[:56])
	m = boltMetaPage{
		pageSize: int(ne.Uint32(buf[8:])),
		root:     ne.Uint64(buf[16:]), freelist: ne.Uint64(buf[32:]), high: ne.Uint64(buf[40:]), txid: ne.Uint64(buf[48:]),
	}
	switch {
	case ne.Uint32(buf) != boltMagic || ne.Uint64(buf[56:]) != sum.Sum64():
		return m, damagedBolt("no valid meta page")
	case ne.Uint32(buf[4:]) != boltFileVersion:
		return m, fmt.Errorf("%w: bbolt format %d, this one knows %d", ErrNewerFormat, ne.Uint32(buf[4:]), boltFileVersion)
	case m.pageSize < 512 || m.pageSize > 1024<<14 || m.pageSize&(m.pageSize-1) != 0:
		return m, damagedBolt("a page size of %d", m.pageSize)
	}
	return m, nil
}

func readBolt(r io.ReaderAt, buf []byte, pos int64) error {
	n, err := r.ReadAt(buf, pos)
	if n == len(buf) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return damagedBolt("the file ends too early")
	}
	return err
}

// page reads a page with all that belongs to it. No page may be reached twice.
func (v *boltVerifier) page(id uint64) (flags uint16, count int, page []byte, err error) {
	if id < 2 || id >= v.high {
		return 0, 0, nil, damagedBolt("a reference to page %d of %d", id, v.high)
	}
	page = make([]byte, v.pageSize)
	if err := readBolt(v.r, page, int64(id)*int64(v.pageSize)); err != nil {
		return 0, 0, nil, err
	}
	ne := binary.NativeEndian
	flags, count = ne.Uint16(page[8:]), int(ne.Uint16(page[10:]))
	more := uint64(ne.Uint32(page[12:]))
	if ne.Uint64(page) != id || more >= v.high-id {
		return 0, 0, nil, damagedBolt("the header of page %d makes no sense", id)
	}
	for i := id; i <= id+more; i++ {
		if v.seen[i] {
			return 0, 0, nil, damagedBolt("page %d is used twice", i)
		}
		v.seen[i] = true
	}
	if more > 0 {
		page = append(page, make([]byte, more*uint64(v.pageSize))...)
		err = readBolt(v.r, page[v.pageSize:], int64(id+1)*int64(v.pageSize))
	}
	return flags, count, page, err
}

// tree follows a B+ tree from its root page and calls leaf for each element, whose slices it must not keep.
func (v *boltVerifier) tree(root uint64, leaf func(flags uint32, key, value []byte) error) error {
	return v.subtree(root, nil, nil, leaf)
}

// subtree is tree below a branch element: all keys are at least low and below high (nil: no bound).
func (v *boltVerifier) subtree(id uint64, low, high []byte, leaf func(flags uint32, key, value []byte) error) error {
	flags, count, page, err := v.page(id)
	if err != nil {
		return err
	}
	switch flags {
	case boltLeaf:
		return boltLeaves(page, id, count, low, high, leaf)
	case boltBranch:
	default:
		return damagedBolt("page %d has the flags %#x", id, flags)
	}
	keys, children, err := boltBranches(page, id, count, low, high)
	if err != nil {
		return err
	}
	for i, child := range children {
		upper := high
		if i+1 < len(keys) {
			upper = keys[i+1]
		}
		if err := v.subtree(child, keys[i], upper, leaf); err != nil {
			return err
		}
	}
	return nil
}

// boltBranches reads the elements of a branch page: position of the key (4 bytes), its size (4), child page (8).
func boltBranches(page []byte, id uint64, count int, low, high []byte) (keys [][]byte, children []uint64, err error) {
	ne := binary.NativeEndian
	for i := range count {
		at := boltPageHeader + i*16
		if at+16 > len(page) {
			return nil, nil, damagedBolt("page %d has no room for its %d elements", id, count)
		}
		key, ok := boltSlice(page, at, ne.Uint32(page[at:]), ne.Uint32(page[at+4:]))
		if !ok || len(key) == 0 || len(key) > boltMaxKey {
			return nil, nil, damagedBolt("element %d of page %d makes no sense", i, id)
		}
		if i > 0 {
			low = append(slices.Clip(keys[i-1]), 0) // the least key above the one before
		}
		if !boltBetween(key, low, high) {
			return nil, nil, damagedBolt("the keys of page %d are out of order", id)
		}
		keys, children = append(keys, key), append(children, ne.Uint64(page[at+8:]))
	}
	if count == 0 {
		return nil, nil, damagedBolt("branch page %d is empty", id)
	}
	return keys, children, nil
}

// boltLeaves reads the elements of a leaf page: flags (4 bytes), position of the key (4), its size (4), size of the
// value behind it (4).
func boltLeaves(page []byte, id uint64, count int, low, high []byte, leaf func(uint32, []byte, []byte) error) error {
	ne := binary.NativeEndian
	var before []byte
	for i := range count {
		at := boltPageHeader + i*16
		if at+16 > len(page) {
			return damagedBolt("page %d has no room for its %d elements", id, count)
		}
		pos, size := ne.Uint32(page[at+4:]), ne.Uint32(page[at+8:])
		key, ok := boltSlice(page, at, pos, size)
		value, ok2 := boltSlice(page, at, pos+size, ne.Uint32(page[at+12:]))
		flags := ne.Uint32(page[at:])
		if !ok || !ok2 || len(key) == 0 || len(key) > boltMaxKey || flags > 1 {
			return damagedBolt("element %d of page %d makes no sense", i, id)
		}
		if !boltBetween(key, low, high) || (before != nil && bytes.Compare(before, key) >= 0) {
			return damagedBolt("the keys of page %d are out of order", id)
		}
		before = key
		if err := leaf(flags, key, value); err != nil {
			return err
		}
	}
	return nil
}

func boltSlice(page []byte, at int, pos, size uint32) ([]byte, bool) {
	from := uint64(at) + uint64(pos)
	if from > uint64(len(page)) || uint64(size) > uint64(len(page))-from {
		return nil, false
	}
	return page[from : from+uint64(size)], true
}

func boltBetween(key, low, high []byte) bool {
	return bytes.Compare(key, low) >= 0 && (high == nil || bytes.Compare(key, high) < 0)
}

// bucket follows one bucket: its value is root page (8 bytes) and sequence (8); root 0 says that the only page follows
// right there.
func (v *boltVerifier) bucket(name, value []byte, leaf func(key, value []byte) error) error {
	plain := func(flags uint32, key, value []byte) error {
		if flags != 0 {
			return damagedBolt("a bucket inside of bucket %s", name)
		}
		return leaf(key, value)
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return v.tree(root, plain)
	}
	page := value[16:]
	if len(page) < boltPageHeader || binary.NativeEndian.Uint16(page[8:]) != boltLeaf {
		return damagedBolt("bucket %s has no page", name)
	}
	return boltLeaves(page, 0, int(binary.NativeEndian.Uint16(page[10:])), nil, nil, plain)
}

// format decides whose file this is.
func (v *boltVerifier) format(meta []byte) error {
	if meta == nil {
		return fmt.Errorf("%w: it is the database of another program", ErrForeign)
	}
	var stored []byte
	err := v.bucket(boltMeta, meta, func(key, value []byte) error {
		if bytes.Equal(key, boltFormatKey) {
			stored = bytes.Clone(value)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case stored == nil:
		return fmt.Errorf("%w: it is the database of another program", ErrForeign)
	case len(stored) != 8 || binary.BigEndian.Uint64(stored) == 0:
		return damagedBolt("the format makes no sense")
	case binary.BigEndian.Uint64(stored) > boltFormat:
		return fmt.Errorf("%w: format %d, this one knows %d", ErrNewerFormat, binary.BigEndian.Uint64(stored), boltFormat)
	}
	return nil
}

// content follows rows and due. Whether they agree is found without a look-up: both sides add up the hashes of the
// index entries that there are and that there should be.
func (v *boltVerifier) content(buckets map[string][]byte, report *boltReport) error {
	if buckets[string(boltRows)] == nil || buckets[string(boltDue)] == nil {
		return damagedBolt("a bucket is missing")
	}
	seed := maphash.MakeSeed()
	var want, got uint64
	err := v.bucket(boltRows, buckets[string(boltRows)], func(name, value []byte) error {
		_, due, _, err := decodeBoltHeader(string(name), value)
		if err == nil && len(name) > MaxRowName {
			err = damagedBolt("a name of %d bytes", len(name))
		}
		if err == nil && due != [8]byte{} {
			want += maphash.Bytes(seed, boltDueKey(due, string(name)))
		}
		report.rows++
		return err
	})
	if err != nil {
		return err
	}
	err = v.bucket(boltDue, buckets[string(boltDue)], func(key, _ []byte) error {
		got += maphash.Bytes(seed, key)
		return nil
	})
	report.indexed = want == got
	return err
}

// freelist reads the list of free pages: if its count is 65535, the first element is the true count.
func (v *boltVerifier) freelist(id uint64) (free uint64, err error) {
	if id == boltNoFreelist {
		return 0, nil // bbolt makes a new one from what is reachable
	}
	flags, count, page, err := v.page(id)
	if err != nil {
		return 0, err
	}
	ne := binary.NativeEndian
	n, ids := uint64(count), page[boltPageHeader:]
	if n == math.MaxUint16 {
		n, ids = ne.Uint64(ids), ids[8:]
	}
	if flags != boltFreelist || n > uint64(len(ids))/8 {
		return 0, damagedBolt("the list of free pages makes no sense")
	}
	for i := range n {
		id := ne.Uint64(ids[i*8:])
		if id < 2 || id >= v.high || v.seen[id] {
			return 0, damagedBolt("page %d is free and used", id)
		}
		v.seen[id] = true
	}
	return n, nil
}
