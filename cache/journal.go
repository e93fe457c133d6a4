package cache

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
)

// maxJournalLine bounds one journal line. It is far above what the largest
// admissible order of an operator needs.
const maxJournalLine = 16 << 20

// journal is the append-only file of operators' decisions, one JSON object per
// line. A line counts once it is synced to disk. It is safe for concurrent use.
type journal struct {
	mu   sync.Mutex
	file *os.File
	path string
	size int64 // bytes that hold whole lines
}

// journalState is what reading a journal from its beginning found.
type journalState struct {
	lines    int
	lastSeq  uint64
	after    []Decision // decisions with a number above the one asked for
	damaged  []int      // numbers of unreadable lines, the last one excepted
	tornTail bool       // the last line was incomplete and has been ignored
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
	end, err := scanJournal(j.file, func(n int, line []byte, whole bool) bool {
		var d Decision
		if err := json.Unmarshal(line, &d); err != nil || d.Seq == 0 || !whole {
			st.tornTail = !whole
			if whole {
				st.damaged = append(st.damaged, n)
			}
			return true
		}
		st.lines++
		st.lastSeq = max(st.lastSeq, d.Seq)
		if d.Seq > applied {
			st.after = append(st.after, d)
		}
		return true
	})
	if err != nil {
		return st, err
	}
	j.size = end
	if end < info.Size() {
		if err := j.file.Truncate(end); err != nil {
			return st, fmt.Errorf("cut off the torn last line: %w", err)
		}
	}
	return st, nil
}

// scanJournal calls fn for each line with its number from 1 until fn returns
// false, and returns the offset after the last whole line. whole is false for a
// last line without its newline.
func scanJournal(r io.ReaderAt, fn func(n int, line []byte, whole bool) bool) (int64, error) {
	br := bufio.NewReaderSize(io.NewSectionReader(r, 0, 1<<62), 1<<16)
	var end int64
	for n := 1; ; n++ {
		line, err := readLine(br)
		if err != nil && err != io.EOF {
			return end, err
		}
		whole := err == nil
		if len(line) == 0 && !whole {
			return end, nil
		}
		if whole {
			end += int64(len(line))
		}
		if !fn(n, bytes.TrimSuffix(line, []byte("\n")), whole) || !whole {
			return end, nil
		}
	}
}

// readLine reads up to and with the next newline, io.EOF when there is none.
func readLine(br *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := br.ReadSlice('\n')
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
		if len(line) > maxJournalLine {
			return nil, fmt.Errorf("a line is longer than %d bytes", maxJournalLine)
		}
	}
}

// append writes decisions as one block of lines and syncs it. On an error
// nothing counts: what was written in part is cut off again.
func (j *journal) append(ds []Decision) error {
	var buf bytes.Buffer
	for _, d := range ds {
		line, err := json.Marshal(d)
		if err != nil {
			return fmt.Errorf("write journal: %w", err)
		}
		buf.Write(append(line, '\n'))
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.file.Write(buf.Bytes()); err != nil {
		return fmt.Errorf("write journal: %w", errors.Join(err, j.file.Truncate(j.size)))
	}
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("sync journal: %w", errors.Join(err, j.file.Truncate(j.size)))
	}
	j.size += int64(buf.Len())
	return nil
}

// read returns up to limit readable decisions numbered above after, oldest first.
func (j *journal) read(after uint64, limit int) ([]Decision, error) {
	var ds []Decision
	_, err := scanJournal(j.file, func(_ int, line []byte, whole bool) bool {
		var d Decision
		if whole && json.Unmarshal(line, &d) == nil && d.Seq > after {
			ds = append(ds, d)
		}
		return len(ds) < limit
	})
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return ds, nil
}

func (j *journal) close() error { return j.file.Close() }

// fileExists reports whether path exists at all.
func fileExists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
