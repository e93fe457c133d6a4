package cache

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
)

// maxJournalLine bounds one journal line. It is far above what the largest
// admissible order of an operator needs.
const maxJournalLine = 64 << 20

// journal is the append-only file of operators' decisions, one JSON object per
// line. A line counts once it is synced to disk. It is safe for concurrent use.
type journal struct {
	file journalFile
	path string
	size atomic.Int64 // bytes that hold whole, synced lines

	mu   sync.Mutex // one append at a time
	torn bool       // more than that may be in the file
}

// journalFile is what a journal does with its file, opened for appending.
type journalFile interface {
	io.ReaderAt
	io.WriteCloser
	Stat() (os.FileInfo, error)
	Sync() error
	Truncate(size int64) error
}

// journalState is what reading a journal from its beginning found.
type journalState struct {
	lines    int        // that can be read
	lastSeq  uint64     // of the last decision, also if its line is unreadable
	after    []Decision // decisions numbered above the one asked for
	damaged  []int      // numbers of unreadable lines, the last one excepted
	gaps     bool       // numbers of decisions are missing
	lost     bool       // such a decision is above the one asked for, and no later line makes up for it
	tornTail bool       // the last line was incomplete and has been ignored

	unread bool // the last line but for a torn one was unreadable
}

// openJournal opens or creates the journal and reads it: decisions numbered
// above applied are returned for replay. A torn last line is cut off, for it was
// never acknowledged; other unreadable lines are reported and left as they are.
func openJournal(path string, applied uint64) (*journal, journalState, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, journalState{}, fmt.Errorf("open journal: %w", err)
	}
	j := &journal{file: f, path: path}
	st, err := j.load(applied)
	if err != nil {
		f.Close()
		return nil, st, fmt.Errorf("read journal %s: %w", path, err)
	}
	return j, st, nil
}

func (j *journal) load(applied uint64) (journalState, error) {
	info, err := j.file.Stat()
	if err != nil {
		return journalState{}, err
	}
	if !info.Mode().IsRegular() {
		return journalState{}, errors.New("not a regular file")
	}
	var st journalState
	end, err := scanJournal(io.NewSectionReader(j.file, 0, info.Size()), func(l journalLine) bool {
		st.take(l, applied)
		return true
	})
	if err != nil {
		return st, err
	}
	st.lost = st.lost || (st.unread && st.lastSeq > applied)
	slices.SortStableFunc(st.after, func(a, b Decision) int { return cmp.Compare(a.Seq, b.Seq) })
	j.size.Store(end)
	if end < info.Size() {
		if err := j.file.Truncate(end); err != nil {
			return st, fmt.Errorf("cut off the torn last line: %w", err)
		}
	}
	return st, nil
}

// take adds a line to the state.
func (st *journalState) take(l journalLine, applied uint64) {
	d := l.decision
	switch {
	case !l.whole:
		st.tornTail = true
		return
	case !l.readable:
		st.damaged = append(st.damaged, l.number)
		st.lastSeq++
		st.unread = true
		return
	}
	missing := d.Seq > st.lastSeq+1
	if d.Action == ActStanding || d.Action == ActAcceptLost {
		st.lost = false
	} else if missing || st.unread {
		st.gaps = st.gaps || missing
		st.lost = st.lost || d.Seq-1 > applied
	}
	st.lines++
	st.unread = false
	st.lastSeq = max(st.lastSeq, d.Seq)
	if d.Seq > applied {
		st.after = append(st.after, d)
	}
}

// journalLine is one line as it was read.
type journalLine struct {
	number   int  // from 1
	whole    bool // false for a last line without its newline
	readable bool // a decision; never for one that is not whole
	decision Decision
}

// scanJournal calls fn for each line until fn returns false, and returns the
// offset after the last whole line.
func scanJournal(r io.Reader, fn func(journalLine) bool) (int64, error) {
	br := bufio.NewReaderSize(r, 1<<16)
	var end int64
	for number := 1; ; number++ {
		text, length, err := readLine(br)
		if err != nil && err != io.EOF {
			return end, err
		}
		l := journalLine{number: number, whole: err == nil}
		switch {
		case l.whole:
			end += length
			l.readable = json.Unmarshal(text, &l.decision) == nil && l.decision.Seq != 0 && l.decision.Seq < 1<<63
		case length == 0:
			return end, nil
		}
		if !fn(l) || !l.whole {
			return end, nil
		}
	}
}

// readLine reads up to and with the next newline, io.EOF when there is none. The
// text of a line over maxJournalLine is not kept.
func readLine(br *bufio.Reader) (text []byte, length int64, err error) {
	for {
		part, err := br.ReadSlice('\n')
		length += int64(len(part))
		if length <= maxJournalLine {
			text = append(text, part...)
		} else {
			text = nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return text, length, err
		}
	}
}

// encodeLine is the journal line of a decision.
func encodeLine(d Decision) ([]byte, error) {
	line, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	if len(line) >= maxJournalLine {
		return nil, fmt.Errorf("decision of %d bytes: a line has at most %d", len(line), maxJournalLine)
	}
	return append(line, '\n'), nil
}

// append writes decisions as one block of lines and syncs it. On an error
// nothing counts: what was written in part is cut off again, at the latest before
// the next line is written.
func (j *journal) append(ds []Decision) error {
	var buf bytes.Buffer
	for _, d := range ds {
		line, err := encodeLine(d)
		if err != nil {
			return fmt.Errorf("write journal: %w", err)
		}
		buf.Write(line)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.mend(); err != nil {
		return fmt.Errorf("mend journal: %w", err)
	}
	j.torn = true
	if _, err := j.file.Write(buf.Bytes()); err != nil {
		return fmt.Errorf("write journal: %w", errors.Join(err, j.mend()))
	}
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("sync journal: %w", errors.Join(err, j.mend()))
	}
	j.torn = false
	j.size.Add(int64(buf.Len()))
	return nil
}

// mend cuts off what an append that failed may have left. j.mu is held.
func (j *journal) mend() error {
	if !j.torn {
		return nil
	}
	err := j.file.Truncate(j.size.Load())
	j.torn = err != nil
	return err
}

// written reads the lines that count.
func (j *journal) written() io.Reader {
	return io.NewSectionReader(j.file, 0, j.size.Load())
}

// read returns up to limit readable decisions numbered above after, oldest first.
func (j *journal) read(after uint64, limit int) ([]Decision, error) {
	var ds []Decision
	if limit <= 0 {
		return nil, nil
	}
	_, err := scanJournal(j.written(), func(l journalLine) bool {
		if l.readable && l.decision.Seq > after {
			ds = append(ds, l.decision)
		}
		return len(ds) < limit
	})
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return ds, nil
}

func (j *journal) close() error { return j.file.Close() }
