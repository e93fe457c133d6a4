package cache_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/pamsidecar/pamsidecar/cache"
)

func TestBoltLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.db")
	b := openBolt(t, path, cache.BoltOptions{})
	putBolt(t, b, boltRows(10, 10)...)
	want := allBolt(t, b)
	for range 3 {
		_, err := cache.OpenBolt(path, cache.BoltOptions{LockTimeout: 10 * time.Millisecond})
		if !errors.Is(err, cache.ErrLocked) || !strings.Contains(err.Error(), path) {
			t.Errorf("second open: %v", err)
		}
		if _, _, err := cache.CompactFile(path, cache.BoltOptions{LockTimeout: time.Millisecond}); !errors.Is(err, cache.ErrLocked) {
			t.Errorf("CompactFile: %v", err)
		}
	}
	// A file that looks damaged to the second must not be moved while the first has it open.
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	head := make([]byte, 64)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{16, 4096 + 16} {
		if _, err := file.WriteAt(head, at); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := cache.OpenBolt(path, cache.BoltOptions{LockTimeout: time.Millisecond}); !errors.Is(err, cache.ErrLocked) {
		t.Errorf("open of a damaged file that is in use: %v", err)
	}
	for _, at := range []int64{16, 4096 + 16} {
		if _, err := file.WriteAt(whole[at:at+64], at); err != nil {
			t.Fatal(err)
		}
	}
	sameBolt(t, allBolt(t, b), want)
	putBolt(t, b, cache.Row{Name: "more", Data: []byte("x")})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if again := openBolt(t, path, cache.BoltOptions{}); len(allBolt(t, again)) != 11 {
		t.Error("the commit after the second open is lost")
	}
}

// TestBoltOneAtATime lets many openers of a file compete that is damaged, or worth compacting: at no time may two of
// them have it, and what was committed stays.
func TestBoltOneAtATime(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T, string){
		"new file": func(*testing.T, string) {},
		"damaged":  func(t *testing.T, path string) { writeBoltFile(t, path, bytes.Repeat([]byte("x"), 9000)) },
		"wasteful": func(t *testing.T, path string) { wastefulBolt(t, path) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tokens.db")
			prepare(t, path)
			var holders sync.Mutex
			var wg sync.WaitGroup
			aside := make(chan string, 100)
			for w := range 8 {
				wg.Go(func() {
					b, err := cache.OpenBolt(path, cache.BoltOptions{LockTimeout: time.Minute, NoSync: true})
					if err != nil {
						t.Error(err)
						return
					}
					if !holders.TryLock() {
						t.Error("two have the file open")
						return
					}
					if b.Quarantined() != "" {
						aside <- b.Quarantined()
					}
					if err := b.Commit(t.Context(), []cache.Row{{Name: fmt.Sprintf("worker-%d", w), Data: []byte("x")}})[0]; err != nil {
						t.Error(err)
					}
					holders.Unlock()
					if err := b.Close(); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := len(aside); n > 1 || (n == 1) != (name == "damaged") {
				t.Errorf("%d files moved aside", n)
			}
			rows, err := openBolt(t, path, cache.BoltOptions{}).Scan("worker", 100)
			if err != nil || len(rows) != 8 {
				t.Errorf("%d of 8 commits are left, %v", len(rows), err)
			}
		})
	}
}

func TestBoltMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.db")
	openBolt(t, path, cache.BoltOptions{}).Close()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	log, text := boltLog(t)
	openBolt(t, path, cache.BoltOptions{ReadOnly: true, Log: log}).Close()
	if !strings.Contains(text.String(), "level=WARN") {
		t.Errorf("read only, log: %s", text)
	}
	text.Reset()
	openBolt(t, path, cache.BoltOptions{Log: log}).Close()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || !strings.Contains(text.String(), "level=WARN") {
		t.Errorf("mode %v, %v, log: %s", info.Mode(), err, text)
	}
	text.Reset()
	openBolt(t, path, cache.BoltOptions{Log: log}).Close()
	if text.Len() > 0 {
		t.Errorf("log: %s", text)
	}
}

func TestBoltInterruptedCreation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.db")
	for name, prepare := range map[string]func(){
		"empty file":  func() { writeBoltFile(t, path, nil) },
		"no buckets":  func() { db, err := bbolt.Open(path, 0o600, nil); mustBolt(t, err); mustBolt(t, db.Close()) },
		"copy left":   func() { writeBoltFile(t, path+".new", []byte("secret")) },
		"nothing yet": func() {},
	} {
		t.Run(name, func(t *testing.T) {
			removeAside(t, path)
			prepare()
			b := openBolt(t, path, cache.BoltOptions{})
			if b.Quarantined() != "" || len(allBolt(t, b)) != 0 {
				t.Error("not a fresh start")
			}
			putBolt(t, b, cache.Row{Name: "a", Data: []byte("x")})
			b.Close()
			if _, err := os.Stat(path + ".new"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("copy: %v", err)
			}
		})
	}
}

func TestBoltSymlink(t *testing.T) {
	dir, real := t.TempDir(), t.TempDir()
	link := filepath.Join(dir, "tokens.db")
	mustBolt(t, os.Symlink(filepath.Join(real, "file"), link))
	wastefulBolt(t, filepath.Join(real, "file"))
	b := openBolt(t, link, cache.BoltOptions{})
	putBolt(t, b, cache.Row{Name: "z", Data: []byte("x")})
	want := allBolt(t, b)
	b.Close()
	info, err := os.Lstat(link)
	if err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link became %v, %v", info, err)
	}
	sameBolt(t, allBolt(t, openBolt(t, filepath.Join(real, "file"), cache.BoltOptions{})), want)
}

// wastefulBolt makes a file that OpenBolt compacts and returns its rows.
func wastefulBolt(t *testing.T, path string) []cache.Row {
	t.Helper()
	b := openBolt(t, path, cache.BoltOptions{NoSync: true})
	rows := boltRows(3000, 1000)
	putBolt(t, b, rows...)
	var gone []cache.Row
	for i := range rows {
		if rows[i].Revision = 1; i%10 != 0 {
			gone = append(gone, cache.Row{Name: rows[i].Name, Revision: 1})
		}
	}
	putBolt(t, b, gone...)
	putBolt(t, b, cache.Row{Name: "\x00own", Data: []byte{}}, cache.Row{Name: "settle", Due: boltNoon, Data: []byte("x")})
	want := allBolt(t, b)
	if b.Free() < b.Size()/4 {
		t.Fatalf("%d of %d bytes are free", b.Free(), b.Size())
	}
	mustBolt(t, b.Close())
	return want
}

func TestBoltCompaction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.db")
	for name, compact := range map[string]func(t *testing.T, before int64){
		"when opened": func(t *testing.T, before int64) {
			log, text := boltLog(t)
			b := openBolt(t, path, cache.BoltOptions{Log: log})
			if b.Size() > before/2 || !strings.Contains(text.String(), "compacted") {
				t.Errorf("%d bytes became %d, log: %s", before, b.Size(), text)
			}
			if _, err := cache.OpenBolt(path, cache.BoltOptions{LockTimeout: time.Millisecond}); !errors.Is(err, cache.ErrLocked) {
				t.Errorf("not locked: %v", err)
			}
			mustBolt(t, b.Close())
			text.Reset()
			openBolt(t, path, cache.BoltOptions{Log: log}).Close()
			if text.Len() > 0 {
				t.Errorf("opened again, log: %s", text)
			}
		},
		"by command": func(t *testing.T, size int64) {
			before, after, err := cache.CompactFile(path, cache.BoltOptions{})
			if err != nil || before != size || after > size/2 {
				t.Errorf("from %d to %d, %v", before, after, err)
			}
			if info, err := os.Stat(path); err != nil || info.Size() != after {
				t.Errorf("size %d, %v", info.Size(), err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			removeAside(t, path)
			want := wastefulBolt(t, path)
			before, err := os.Stat(path)
			mustBolt(t, err)
			compact(t, before.Size())
			b := openBolt(t, path, cache.BoltOptions{})
			sameBolt(t, allBolt(t, b), want)
			putBolt(t, b, cache.Row{Name: "after", Due: boltNoon, Data: []byte("x")})
			due, err := b.Due(boltNoon, 10)
			if err != nil || len(due) != 3 {
				t.Errorf("Due: %d rows, %v", len(due), err)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
				t.Errorf("%d files, %v", len(entries), err)
			}
			mustBolt(t, b.Close())
		})
	}
	if _, _, err := cache.CompactFile(path+"-missing", cache.BoltOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// TestBoltCompactionFails: when the copy cannot be made, the file is used as it is.
func TestBoltCompactionFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.db")
	want := wastefulBolt(t, path)
	mustBolt(t, os.MkdirAll(filepath.Join(path+".new", "in the way"), 0o700))
	log, text := boltLog(t)
	b := openBolt(t, path, cache.BoltOptions{Log: log})
	sameBolt(t, allBolt(t, b), want)
	if !strings.Contains(text.String(), "could not be compacted") {
		t.Errorf("log: %s", text)
	}
	mustBolt(t, b.Close())
	if _, _, err := cache.CompactFile(path, cache.BoltOptions{}); err == nil {
		t.Error("CompactFile says that it worked")
	}
	sameBolt(t, allBolt(t, openBolt(t, path, cache.BoltOptions{})), want)
}

// TestBoltQuarantineFails: when a damaged file cannot be replaced, it stays where it is.
func TestBoltQuarantineFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.db")
	content := bytes.Repeat([]byte("damaged"), 1000)
	writeBoltFile(t, path, content)
	mustBolt(t, os.MkdirAll(filepath.Join(path+".new", "in the way"), 0o700))
	if _, err := cache.OpenBolt(path, cache.BoltOptions{}); !errors.Is(err, cache.ErrDamaged) || !errors.Is(err, os.ErrExist) {
		t.Errorf("OpenBolt: %v", err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
		t.Errorf("the file was changed, %v", err)
	}
}

// TestBoltRefused: none of these files may be touched.
func TestBoltRefused(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(t *testing.T, path string)
		want error
	}{
		{"newer format", func(t *testing.T, path string) {
			b := openBolt(t, path, cache.BoltOptions{NoSync: true})
			putBolt(t, b, boltRows(10, 10)...)
			if err := cache.UpdateBolt(b, func(tx *bbolt.Tx) error {
				// What a later format looks like is not known: its rows may be anything.
				err := tx.Bucket([]byte("rows")).Put([]byte("a"), []byte("short"))
				return errors.Join(err, tx.Bucket([]byte("meta")).Put([]byte("format"), binary.BigEndian.AppendUint64(nil, 2)))
			}); err != nil {
				t.Fatal(err)
			}
			b.Close()
		}, cache.ErrNewerFormat},
		{"other program", func(t *testing.T, path string) {
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			err = db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("jobs")); return err })
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
		}, cache.ErrForeign},
		{"directory", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, cache.ErrForeign},
		{"link to nothing", func(t *testing.T, path string) {
			if err := os.Symlink("nothing", path); err != nil {
				t.Fatal(err)
			}
		}, fs.ErrNotExist},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tokens.db")
			test.make(t, path)
			before, _ := os.ReadFile(path)
			for _, o := range []cache.BoltOptions{{}, {ReadOnly: true}} {
				if _, err := cache.OpenBolt(path, o); !errors.Is(err, test.want) {
					t.Errorf("OpenBolt: %v, want %v", err, test.want)
				}
			}
			if _, _, err := cache.CompactFile(path, cache.BoltOptions{}); !errors.Is(err, test.want) {
				t.Errorf("CompactFile: %v, want %v", err, test.want)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Error("the file was changed")
			}
			entries, err := os.ReadDir(filepath.Dir(path))
			if err != nil || len(entries) != 1 {
				t.Errorf("%d files, %v", len(entries), err)
			}
		})
	}
	_, err := cache.OpenBolt(filepath.Join(t.TempDir(), "missing", "tokens.db"), cache.BoltOptions{})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "create the directory") {
		t.Errorf("without its directory: %v", err)
	}
}

func TestBoltNoPermission(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may do anything")
	}
	path := filepath.Join(t.TempDir(), "tokens.db")
	if err := os.WriteFile(path, []byte("damaged"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := cache.OpenBolt(path, cache.BoltOptions{}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("OpenBolt: %v", err)
	}
}

func writeBoltFile(t *testing.T, path string, content []byte) {
	t.Helper()
	mustBolt(t, os.WriteFile(path, content, 0o600))
}

func mustBolt(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
