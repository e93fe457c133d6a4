package cache

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// journalOf writes a file of the given lines; each number in it stands for the
// line of that decision.
func journalOf(t testing.TB, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.log")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func lineOf(seq uint64, action Action) string {
	line, err := encodeLine(Decision{Seq: seq, Action: action})
	if err != nil {
		panic(err)
	}
	return string(bytes.TrimSuffix(line, []byte("\n")))
}

func load(t testing.TB, path string, applied uint64) (*journal, journalState) {
	t.Helper()
	j, st, err := openJournal(path, applied)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.close() })
	return j, st
}

func seqs(ds []Decision) (list []uint64) {
	for _, d := range ds {
		list = append(list, d.Seq)
	}
	return list
}

func TestJournalLoad(t *testing.T) {
	r := func(seq uint64) string { return lineOf(seq, ActRevoke) }
	standing, accept := lineOf(1, ActStanding), func(seq uint64) string { return lineOf(seq, ActAcceptLost) }
	tests := []struct {
		about   string
		lines   []string
		applied uint64
		want    journalState
		after   string
		kept    int // lines left in the file, all but a torn one
	}{
		{"empty", nil, 0, journalState{}, "[]", 0},
		{"whole", []string{standing, r(2), r(3), ""}, 0, journalState{lines: 3, lastSeq: 3}, "[1 2 3]", 3},
		{"some applied", []string{standing, r(2), r(3), ""}, 2, journalState{lines: 3, lastSeq: 3}, "[3]", 3},
		{"torn", []string{standing, r(2), r(3)[:20]}, 0, journalState{lines: 2, lastSeq: 2, tornTail: true}, "[1 2]", 2},
		{"torn before its newline", []string{standing, r(2)}, 0, journalState{lines: 1, lastSeq: 1, tornTail: true}, "[1]", 1},
		{"only a torn one", []string{standing[:9]}, 0, journalState{tornTail: true}, "[]", 0},
		{"damaged", []string{standing, "{", r(3), ""}, 0, journalState{lines: 2, lastSeq: 3, damaged: []int{2}, lost: true}, "[1 3]", 3},
		{"damaged, applied", []string{standing, "{", r(3), ""}, 2, journalState{lines: 2, lastSeq: 3, damaged: []int{2}}, "[3]", 3},
		{"damaged, in an old backup", []string{standing, r(2), "{", r(4), ""}, 2, journalState{lines: 3, lastSeq: 4, damaged: []int{3}, lost: true}, "[4]", 4},
		{"damaged, then accepted", []string{standing, "{", accept(3), r(4), ""}, 0, journalState{lines: 3, lastSeq: 4, damaged: []int{2}}, "[1 3 4]", 4},
		{"accepted, then damaged", []string{standing, accept(2), "{", r(4), ""}, 0, journalState{lines: 3, lastSeq: 4, damaged: []int{3}, lost: true}, "[1 2 4]", 4},
		{"damaged, then what stands", []string{"{", lineOf(9, ActStanding), ""}, 0, journalState{lines: 1, lastSeq: 9, damaged: []int{1}}, "[9]", 2},
		{"damaged last", []string{standing, "{", ""}, 0, journalState{lines: 1, lastSeq: 2, damaged: []int{2}, lost: true, unread: true}, "[1]", 2},
		{"damaged last, applied", []string{standing, "{", ""}, 2, journalState{lines: 1, lastSeq: 2, damaged: []int{2}, unread: true}, "[]", 2},
		{"damaged and torn", []string{standing, "{", "{"}, 2, journalState{lines: 1, lastSeq: 2, damaged: []int{2}, tornTail: true, unread: true}, "[]", 2},
		{"an empty line", []string{standing, "", r(2), ""}, 0, journalState{lines: 2, lastSeq: 2, damaged: []int{2}, lost: true}, "[1 2]", 3},
		{"no number", []string{standing, `{"action":"revoke"}`, r(3), ""}, 3, journalState{lines: 2, lastSeq: 3, damaged: []int{2}}, "[]", 3},
		{"other JSON", []string{standing, `[1]`, `"x"`, `7`, r(5), ""}, 5, journalState{lines: 2, lastSeq: 5, damaged: []int{2, 3, 4}}, "[]", 5},
		{"no such number", []string{standing, lineOf(1<<63, ActRevoke), ""}, 2, journalState{lines: 1, lastSeq: 2, damaged: []int{2}, unread: true}, "[]", 2},
		{"a line is missing", []string{standing, r(3), ""}, 0, journalState{lines: 2, lastSeq: 3, gaps: true, lost: true}, "[1 3]", 2},
		{"a line is missing, applied", []string{standing, r(3), ""}, 2, journalState{lines: 2, lastSeq: 3, gaps: true}, "[3]", 2},
		{"the beginning is missing", []string{r(5), ""}, 0, journalState{lines: 1, lastSeq: 5, gaps: true, lost: true}, "[5]", 1},
		{"began anew", []string{lineOf(5, ActStanding), r(6), ""}, 0, journalState{lines: 2, lastSeq: 6}, "[5 6]", 2},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			path := journalOf(t, tt.lines...)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			j, st := load(t, path, tt.applied)
			if got := fmt.Sprint(seqs(st.after)); got != tt.after {
				t.Errorf("after %d: %s, want %s", tt.applied, got, tt.after)
			}
			st.after = nil
			if fmt.Sprint(st) != fmt.Sprint(tt.want) {
				t.Errorf("got  %+v\nwant %+v", st, tt.want)
			}
			after, err := os.ReadFile(path)
			if err != nil || !bytes.HasPrefix(before, after) || bytes.Count(after, []byte("\n")) != tt.kept || int64(len(after)) != j.size.Load() {
				t.Errorf("the file was %q and is %q, %v", before, after, err)
			}
			// What comes next stands on a line of its own.
			if err := j.append([]Decision{{Seq: 77, Action: ActReload}}); err != nil {
				t.Fatal(err)
			}
			if ds, err := j.read(76, 10); err != nil || fmt.Sprint(seqs(ds)) != "[77]" {
				t.Errorf("appended: %v, %v", ds, err)
			}
		})
	}
}

// Decisions come back from the file as they were written.
func TestJournalRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	j, _ := load(t, path, 0)
	want := []Decision{
		{Seq: 1, Action: ActStanding, Rules: []Rule{{ID: 3, Match: "<&>\u2028.*", Reason: "r", Since: recordNow}}, Blocks: []StandingBlock{{"a\"b", Block{9, "why", recordNow}}}, LostBlocks: true},
		{Seq: 2, Time: recordNow, Action: ActRevoke, By: Actor{UID: new(0), PID: new(7), Via: "admin"}, Names: []string{"é/ü", "\U0010ffff"}, Regrant: true, Revoke: true, Reason: "x\ny"},
		{Seq: 3, Action: ActPut, Grant: []byte{0, 255}, Detail: "d", Match: "m", All: true, Rule: 4},
	}
	if err := errors.Join(j.append(want[:1]), j.append(want[1:])); err != nil {
		t.Fatal(err)
	}
	_, st := load(t, path, 0)
	if fmt.Sprintf("%+v", st.after) != fmt.Sprintf("%+v", want) && !slices.EqualFunc(st.after, want, sameDecision) {
		t.Errorf("got  %+v\nwant %+v", st.after, want)
	}
	for _, tt := range []struct {
		after uint64
		limit int
		want  string
	}{{0, 10, "[1 2 3]"}, {1, 10, "[2 3]"}, {0, 2, "[1 2]"}, {1, 1, "[2]"}, {3, 10, "[]"}, {0, 0, "[]"}, {0, -1, "[]"}} {
		if ds, err := j.read(tt.after, tt.limit); err != nil || fmt.Sprint(seqs(ds)) != tt.want {
			t.Errorf("read(%d, %d): %v, %v", tt.after, tt.limit, seqs(ds), err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func sameDecision(a, b Decision) bool {
	x, errX := encodeLine(a)
	y, errY := encodeLine(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// failing is a journal file that fails at one point.
type failing struct {
	journalFile
	write    int // bytes that are written before an error, -1 for all
	sync     bool
	truncate bool
}

var errNoSpace = errors.New("no space")

func (f *failing) Write(p []byte) (int, error) {
	if f.write < 0 {
		return f.journalFile.Write(p)
	}
	n, err := f.journalFile.Write(p[:min(f.write, len(p))])
	return n, errors.Join(errNoSpace, err)
}

func (f *failing) Sync() error {
	if f.sync {
		return errNoSpace
	}
	return f.journalFile.Sync()
}

func (f *failing) Truncate(size int64) error {
	if f.truncate {
		return errNoSpace
	}
	return f.journalFile.Truncate(size)
}

// An append that fails leaves whole lines only, or keeps later ones out until it
// does; nothing of it is read.
func TestJournalAppendFails(t *testing.T) {
	tests := []failing{{write: 0}, {write: 10}, {write: 50}, {write: 1 << 20}, {write: -1, sync: true}}
	for _, tt := range tests {
		for _, truncate := range []bool{false, true} {
			t.Run(fmt.Sprintf("%+v truncate fails %v", tt, truncate), func(t *testing.T) {
				path := journalOf(t, lineOf(1, ActStanding), "")
				j, _ := load(t, path, 0)
				f := tt
				f.journalFile, f.truncate = j.file, truncate
				j.file = &f
				two := []Decision{{Seq: 2, Action: ActRevoke}, {Seq: 3, Action: ActRevoke}}
				for range 2 {
					if err := j.append(two); !errors.Is(err, errNoSpace) {
						t.Fatalf("append: %v", err)
					}
				}
				if ds, err := j.read(0, 10); err != nil || fmt.Sprint(seqs(ds)) != "[1]" {
					t.Errorf("read: %v, %v", seqs(ds), err)
				}
				if data, err := os.ReadFile(path); !truncate && (err != nil || string(data) != lineOf(1, ActStanding)+"\n") {
					t.Errorf("in the file: %q, %v", data, err)
				}
				f.write, f.sync = -1, false
				if err := j.append(two); truncate && err == nil {
					t.Error("a line was written behind half a line")
				}
				f.truncate = false
				if truncate {
					if err := j.append(two); err != nil {
						t.Fatal(err)
					}
				}
				_, st := load(t, path, 0)
				if fmt.Sprint(seqs(st.after)) != "[1 2 3]" || len(st.damaged) > 0 || st.tornTail {
					t.Errorf("after all: %+v", st)
				}
			})
		}
	}
}

// A full device, for what a test file cannot show.
func TestJournalDeviceFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip("there is no /dev/full here")
	}
	defer full.Close()
	j := &journal{file: full}
	if err := j.append([]Decision{{Seq: 1}}); err == nil || j.size.Load() != 0 {
		t.Errorf("append: %v, size %d", err, j.size.Load())
	}
}

// A line that is too long is never written; one that is there costs that line.
func TestJournalLongLine(t *testing.T) {
	long := strings.Repeat("x", maxJournalLine)
	path := journalOf(t, lineOf(1, ActStanding), `{"seq":2,"reason":"`+long+`"}`, lineOf(3, ActRevoke), "")
	j, st := load(t, path, 0)
	if fmt.Sprint(seqs(st.after)) != "[1 3]" || fmt.Sprint(st.damaged) != "[2]" || !st.lost {
		t.Errorf("loaded %v, damaged %v", seqs(st.after), st.damaged)
	}
	size := j.size.Load()
	if err := j.append([]Decision{{Seq: 4, Reason: long}}); err == nil || j.size.Load() != size {
		t.Errorf("append: %v", err)
	}
}

// What is no journal is not taken for one.
func TestJournalRefused(t *testing.T) {
	if _, _, err := openJournal(t.TempDir(), 0); err == nil {
		t.Error("a directory is opened")
	}
	if _, _, err := openJournal("/dev/null", 0); err == nil {
		t.Error("a device is opened")
	}
}

// Whatever is in the file, reading ends with a state that fits it, and what is
// appended can be read.
func FuzzJournal(f *testing.F) {
	f.Add([]byte(lineOf(1, ActStanding)+"\n"+lineOf(2, ActRevoke)+"\n"), uint64(1))
	f.Add([]byte("{\n\n{}"), uint64(0))
	f.Add([]byte(`{"seq":18446744073709551615,"action":"revoke"}`+"\n"), uint64(0))
	f.Fuzz(func(t *testing.T, data []byte, applied uint64) {
		path := journalOf(t, string(data))
		j, st := load(t, path, applied)
		whole := bytes.Count(data, []byte("\n"))
		if st.lines+len(st.damaged) != whole || len(st.after) > st.lines {
			t.Fatalf("%d lines, %d damaged of %d", st.lines, len(st.damaged), whole)
		}
		if err := j.append([]Decision{{Seq: 5, Action: ActRevoke}}); err != nil {
			t.Fatal(err)
		}
		if ds, err := j.read(0, 1<<20); err != nil || len(ds) != st.lines+1 || ds[st.lines].Seq != 5 {
			t.Fatalf("read %d of %d lines, %v", len(ds), st.lines+1, err)
		}
	})
}
