package cache_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/cache/storetest"
)

var boltNoon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// openBolt opens a file and closes it at the end of the test.
func openBolt(t testing.TB, path string, o cache.BoltOptions) *cache.Bolt {
	t.Helper()
	b, err := cache.OpenBolt(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func putBolt(t testing.TB, b *cache.Bolt, rows ...cache.Row) {
	t.Helper()
	if err := errors.Join(b.Commit(t.Context(), rows)...); err != nil {
		t.Fatal(err)
	}
}

// boltRows makes rows with due times, some of them in several pages.
func boltRows(n, size int) []cache.Row {
	rows := make([]cache.Row, n)
	for i := range rows {
		rows[i] = cache.Row{
			Name: fmt.Sprintf("name-%05d", i), Due: boltNoon.Add(time.Duration(i) * time.Second),
			Data: bytes.Repeat([]byte{byte(i)}, size+i%7),
		}
	}
	return rows
}

// allBolt reads everything there is and checks the index.
func allBolt(t testing.TB, b *cache.Bolt) []cache.Row {
	t.Helper()
	rows, err := b.Scan("", 1e6)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.CheckIndex(); err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestBoltStore(t *testing.T) {
	for name, o := range map[string]cache.BoltOptions{"sync": {}, "no sync": {NoSync: true}} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) cache.Store {
				return openBolt(t, filepath.Join(t.TempDir(), "tokens.db"), o)
			})
		})
	}
}

func TestBoltRandom(t *testing.T) {
	i := 0
	dir := t.TempDir()
	storetest.RunModel(t, func(t *testing.T) cache.Store {
		i++
		path := filepath.Join(dir, strconv.Itoa(i))
		return &checkedBolt{openBolt(t, path, cache.BoltOptions{NoSync: true}), t, path}
	})
}

// checkedBolt checks its index when it is closed, and that it can be opened again.
type checkedBolt struct {
	*cache.Bolt
	t    *testing.T
	path string
}

func (c *checkedBolt) Close() error {
	before := allBolt(c.t, c.Bolt)
	if err := c.Bolt.Close(); err != nil {
		return err
	}
	again := openBolt(c.t, c.path, cache.BoltOptions{NoSync: true})
	sameBolt(c.t, allBolt(c.t, again), before)
	if again.Quarantined() != "" {
		c.t.Fatal("a sound file was moved aside")
	}
	return errors.Join(again.Close(), os.Remove(c.path))
}

func sameBolt(t testing.TB, got, want []cache.Row) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d rows, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].Name != want[i].Name || got[i].Revision != want[i].Revision || !got[i].Due.Equal(want[i].Due) || !bytes.Equal(got[i].Data, want[i].Data) {
			t.Fatalf("row %d: %q at revision %d, want %q at %d (or other data)", i, got[i].Name, got[i].Revision, want[i].Name, want[i].Revision)
		}
	}
}

func TestBoltReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.db")
	var want []cache.Row
	for round := range 5 {
		b := openBolt(t, path, cache.BoltOptions{})
		sameBolt(t, allBolt(t, b), want)
		rows := boltRows(50*(round+1), 300)
		for i := range rows {
			if i < len(want) {
				rows[i].Revision = want[i].Revision
			}
		}
		putBolt(t, b, rows...)
		want = allBolt(t, b)
		if b.Quarantined() != "" || b.Size() == 0 {
			t.Errorf("Quarantined %q, Size %d", b.Quarantined(), b.Size())
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// TestBoltKilled kills a process that commits, 20 times. Every commit that was acknowledged must be there, at most the
// one in flight may be there besides, and both rows of it or none.
func TestBoltKilled(t *testing.T) {
	if path := os.Getenv("BOLT_KILLED"); path != "" {
		commitUntilKilled(path)
		return
	}
	path := filepath.Join(t.TempDir(), "tokens.db")
	var acknowledged uint64
	for range 20 {
		acknowledged = killBolt(t, path, 1+rand.IntN(15))
		b := openBolt(t, path, cache.BoltOptions{})
		if b.Quarantined() != "" {
			t.Fatal("a sound file was moved aside")
		}
		rows := allBolt(t, b)
		if len(rows) != 2 || rows[0].Revision != rows[1].Revision {
			t.Fatalf("half of a commit: %d rows", len(rows))
		}
		if got := rows[0].Revision; got < acknowledged || got > acknowledged+1 {
			t.Fatalf("revision %d, acknowledged was %d", got, acknowledged)
		}
		b.Close()
	}
}

// killBolt runs a process, kills it after n commits and returns the last revision that it acknowledged.
func killBolt(t *testing.T, path string, n int) (last uint64) {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestBoltKilled$")
	child.Env = append(os.Environ(), "BOLT_KILLED="+path)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		revision, err := strconv.ParseUint(lines.Text(), 10, 64)
		if err != nil {
			t.Errorf("the child says %q", lines.Text())
		}
		last = max(last, revision)
		if n--; n == 0 {
			child.Process.Kill()
		}
	}
	child.Wait()
	if n > 0 {
		t.Fatalf("the child ended by itself: %v", child.ProcessState)
	}
	return last
}

func commitUntilKilled(path string) {
	b, err := cache.OpenBolt(path, cache.BoltOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	rows := []cache.Row{{Name: "a"}, {Name: "b"}}
	if stored, err := b.Scan("", 2); err == nil && len(stored) == 2 {
		rows = stored
	}
	for {
		for i := range rows {
			rows[i].Due = boltNoon.Add(time.Duration(rows[i].Revision) * time.Second)
			rows[i].Data = make([]byte, rows[i].Revision*97%9000)
		}
		if err := errors.Join(b.Commit(context.Background(), rows)...); err != nil {
			fmt.Println(err)
			return
		}
		for i := range rows {
			rows[i].Revision++
		}
		fmt.Println(rows[0].Revision)
	}
}

// TestBoltCommitFails lets commits fail in both ways: before anything is written, and (as a failing last fsync would)
// after all is written. Nobody may see the rows, and the next commit works.
func TestBoltCommitFails(t *testing.T) {
	errDisk := errors.New("input/output error")
	fail := map[string]func(*bbolt.Tx) error{
		"before": func(tx *bbolt.Tx) error { return errors.Join(errDisk, tx.Rollback()) },
		"after":  func(tx *bbolt.Tx) error { return errors.Join(errDisk, tx.Commit()) },
	}
	for _, order := range [][]string{{"before"}, {"after"}, {"after", "after"}, {"after", "before"}, {"before", "after", "after"}} {
		t.Run(strings.Join(order, " "), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tokens.db")
			b := openBolt(t, path, cache.BoltOptions{NoSync: true})
			putBolt(t, b, boltRows(4, 10)...)
			want := allBolt(t, b)
			rows := []cache.Row{
				{Name: "name-00000", Revision: 1, Due: boltNoon.Add(time.Hour), Data: []byte("new")},
				{Name: "name-00001", Revision: 1},
				{Name: "name-00002", Data: []byte("conflict")},
				{Name: "another", Due: boltNoon, Data: []byte("new")},
			}
			for i, how := range order {
				cache.SetBoltCommit(b, fail[how])
				rows[3].Name = "another" + strconv.Itoa(i)
				for i, err := range b.Commit(t.Context(), rows) {
					if i == 2 && !errors.Is(err, cache.ErrConflict) || i != 2 && !errors.Is(err, errDisk) {
						t.Errorf("row %d: %v", i, err)
					}
				}
				seesBolt(t, b, want)
			}
			cache.SetBoltCommit(b, nil)
			putBolt(t, b, cache.Row{Name: "next", Due: boltNoon, Data: []byte("next")})
			row, err := b.Get("next")
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, row)
			seesBolt(t, b, want)
			b.Close()
			seesBolt(t, openBolt(t, path, cache.BoltOptions{NoSync: true}), want)
		})
	}
}

// seesBolt compares every kind of read with rows (in the order of their names, due at or after noon).
func seesBolt(t *testing.T, b *cache.Bolt, want []cache.Row) {
	t.Helper()
	sameBolt(t, allBolt(t, b), want)
	for _, row := range want {
		got, err := b.Get(row.Name)
		if err != nil {
			t.Fatal(err)
		}
		sameBolt(t, []cache.Row{got}, []cache.Row{row})
	}
	for limit := range len(want) + 2 {
		rows, err := b.Scan("", limit)
		if err != nil {
			t.Fatal(err)
		}
		sameBolt(t, rows, want[:min(limit, len(want))])
	}
	due, err := b.Due(boltNoon.Add(48*time.Hour), 100)
	if err != nil || len(due) != len(want) {
		t.Fatalf("Due: %d rows, %v", len(due), err)
	}
	for i := range due {
		if i > 0 && due[i].Due.Before(due[i-1].Due) {
			t.Error("Due is out of order")
		}
	}
	if _, err := b.Get("another0"); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("Get of a row whose commit failed: %v", err)
	}
}

// TestBoltVisibleWhenDurable reads while a commit has written everything but has not been told that it is durable.
func TestBoltVisibleWhenDurable(t *testing.T) {
	b := openBolt(t, filepath.Join(t.TempDir(), "tokens.db"), cache.BoltOptions{NoSync: true})
	putBolt(t, b, boltRows(4, 10)...)
	want := allBolt(t, b)
	cache.SetBoltCommit(b, func(tx *bbolt.Tx) error {
		err := tx.Commit()
		seesBolt(t, b, want)
		return err
	})
	putBolt(t, b, cache.Row{Name: "name-00001", Revision: 1, Data: []byte("new")}, cache.Row{Name: "z", Data: []byte("new")})
	if rows := allBolt(t, b); len(rows) != 5 || rows[1].Revision != 2 {
		t.Errorf("the commit is not visible: %d rows", len(rows))
	}
}

func TestBoltCommitPanics(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.db")
	b := openBolt(t, path, cache.BoltOptions{NoSync: true})
	putBolt(t, b, boltRows(4, 10)...)
	want := allBolt(t, b)
	cache.SetBoltCommit(b, func(*bbolt.Tx) error { panic("page 7 already freed") })
	for range 2 { // the second must not wait for the lock that the first left behind
		err := b.Commit(t.Context(), []cache.Row{{Name: "a", Data: []byte("x")}})[0]
		if !errors.Is(err, cache.ErrDamaged) || !strings.Contains(err.Error(), "page 7") {
			t.Errorf("Commit: %v", err)
		}
	}
	seesBolt(t, b, want)
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	seesBolt(t, openBolt(t, path, cache.BoltOptions{NoSync: true}), want)
}

func TestBoltReadOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.db")
	if _, err := cache.OpenBolt(path, cache.BoltOptions{ReadOnly: true}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := cache.OpenBolt(path, cache.BoltOptions{ReadOnly: true}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("empty file: %v", err)
	}
	b := openBolt(t, path, cache.BoltOptions{})
	putBolt(t, b, boltRows(10, 10)...)
	if _, err := cache.OpenBolt(path, cache.BoltOptions{ReadOnly: true, LockTimeout: time.Millisecond}); !errors.Is(err, cache.ErrLocked) {
		t.Errorf("open elsewhere: %v", err)
	}
	b.Close()
	first := openBolt(t, path, cache.BoltOptions{ReadOnly: true})
	second := openBolt(t, path, cache.BoltOptions{ReadOnly: true})
	sameBolt(t, allBolt(t, first), allBolt(t, second))
	if err := first.Commit(t.Context(), []cache.Row{{Name: "a", Data: []byte("x")}})[0]; !errors.Is(err, cache.ErrReadOnly) {
		t.Errorf("Commit: %v", err)
	}
	if _, err := cache.OpenBolt(path, cache.BoltOptions{LockTimeout: time.Millisecond}); !errors.Is(err, cache.ErrLocked) {
		t.Errorf("open for reading elsewhere: %v", err)
	}
}

func boltLog(t *testing.T) (*slog.Logger, *bytes.Buffer) {
	var buf bytes.Buffer
	return slog.New(slog.NewTextHandler(&buf, nil)), &buf
}
