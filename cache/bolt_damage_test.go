package cache_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/pamsidecar/pamsidecar/cache"
)

// smallBolt makes a database with every kind of page: two levels, values over several pages, free pages.
func smallBolt(t testing.TB) (file []byte, rows []cache.Row) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens.db")
	b := openBolt(t, path, cache.BoltOptions{NoSync: true})
	putBolt(t, b, boltRows(40, 400)...)
	putBolt(t, b, cache.Row{Name: "large", Due: boltNoon, Data: bytes.Repeat([]byte("large"), 2000)})
	var gone []cache.Row
	for i := range 12 {
		gone = append(gone, cache.Row{Name: fmt.Sprintf("name-%05d", i), Revision: 1})
	}
	putBolt(t, b, gone...)
	putBolt(t, b, cache.Row{Name: "more", Due: boltNoon, Data: []byte("more")})
	rows = allBolt(t, b)
	b.Close()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return file, rows
}

// openDamaged opens a file with that content. It may be damaged in any way: the store is usable afterwards, no
// content is lost (the file is either in use or moved aside), and what is in use reads without a panic.
func openDamaged(t testing.TB, path string, content []byte) (b *cache.Bolt) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := cache.OpenBolt(path, cache.BoltOptions{NoSync: true})
	if err != nil {
		if !errors.Is(err, cache.ErrNewerFormat) && !errors.Is(err, cache.ErrForeign) {
			t.Fatal(err)
		}
		if now, _ := os.ReadFile(path); !bytes.Equal(now, content) {
			t.Fatalf("refused (%v), but changed", err)
		}
		return nil
	}
	if aside := b.Quarantined(); aside != "" {
		if moved, _ := os.ReadFile(aside); !bytes.Equal(moved, content) {
			t.Fatal("the file was changed before it was moved aside")
		}
	}
	for _, read := range []func() error{
		func() error { _, err := b.Scan("", 1e6); return err },
		func() error { _, err := b.Due(boltNoon.Add(time.Hour), 1e6); return err },
		func() error { _, err := b.Get("large"); return err },
		b.CheckIndex,
	} {
		if err := read(); err != nil && !errors.Is(err, cache.ErrDamaged) && !errors.Is(err, cache.ErrNotFound) {
			t.Fatal(err)
		}
	}
	if err := b.Commit(t.Context(), []cache.Row{{Name: "after the damage", Data: []byte("x")}})[0]; err != nil {
		t.Fatal(err)
	}
	return b
}

func removeAside(t testing.TB, path string) {
	t.Helper()
	aside, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range aside {
		os.Remove(path)
	}
}

func TestBoltDamagedPages(t *testing.T) {
	const page = 4096
	file, rows := smallBolt(t)
	path := filepath.Join(t.TempDir(), "tokens.db")
	kinds := map[string]func([]byte, int) []byte{
		"zero":     func(f []byte, at int) []byte { clear(f[at : at+page]); return f },
		"truncate": func(f []byte, at int) []byte { return f[:at] },
		"cut":      func(f []byte, at int) []byte { return f[:at+page/2] },
		"noise":    func(f []byte, at int) []byte { fillNoise(f[at : at+page]); return f },
		"invert": func(f []byte, at int) []byte {
			for i := range page {
				f[at+i] ^= 0xff
			}
			return f
		},
		"copy of another": func(f []byte, at int) []byte { copy(f[at:at+page], f[3*page:]); return f },
	}
	quarantined := 0
	for kind, damage := range kinds {
		for at := 0; at+page <= len(file); at += page {
			b := openDamaged(t, path, damage(bytes.Clone(file), at))
			if b == nil {
				t.Fatalf("%s at %d: refused", kind, at)
			}
			if b.Quarantined() == "" && kind != "noise" && kind != "invert" { // data has no checksum here
				got, err := b.Scan("", 1e6)
				if err != nil {
					t.Fatal(err)
				}
				if len(got) > 0 && got[0].Name == "after the damage" {
					got = got[1:]
				}
				if at > page && kind != "zero" && kind != "copy of another" {
					sameBolt(t, got, rows)
				}
			} else if b.Quarantined() != "" {
				quarantined++
			}
			b.Close()
			removeAside(t, path)
		}
	}
	if quarantined < 20 {
		t.Errorf("only %d damaged files were moved aside", quarantined)
	}
}

func fillNoise(p []byte) {
	r := rand.New(rand.NewPCG(1, uint64(len(p))))
	for i := range p {
		p[i] = byte(r.Uint32())
	}
}

// TestBoltDamagedBits flips single bits where the structure is: in the first bytes of each page.
func TestBoltDamagedBits(t *testing.T) {
	file, _ := smallBolt(t)
	path := filepath.Join(t.TempDir(), "tokens.db")
	r := rand.New(rand.NewPCG(7, 7))
	for range 400 {
		damaged := bytes.Clone(file)
		at := r.IntN(len(file)/4096)*4096 + r.IntN(200)
		damaged[at] ^= 1 << r.IntN(8)
		if b := openDamaged(t, path, damaged); b != nil {
			b.Close()
		}
		removeAside(t, path)
	}
}

func FuzzBoltFile(f *testing.F) {
	file, _ := smallBolt(f)
	f.Add(uint32(0), []byte{})
	f.Add(uint32(4096*3), []byte{1, 0, 2})
	f.Add(uint32(4096*5+8), []byte{2, 0, 255, 255})
	f.Fuzz(func(t *testing.T, at uint32, change []byte) {
		path := filepath.Join(t.TempDir(), "tokens.db")
		damaged := bytes.Clone(file)
		copy(damaged[int(at)%len(damaged):], change)
		if b := openDamaged(t, path, damaged); b != nil {
			b.Close()
		}
	})
}

// TestBoltCycle makes a branch page its own child: bbolt would follow it for ever.
func TestBoltCycle(t *testing.T) {
	file, _ := smallBolt(t)
	found := false
	for at := 2 * 4096; at+4096 <= len(file); at += 4096 {
		page := file[at : at+4096]
		if binary.NativeEndian.Uint16(page[8:]) == 1 && binary.NativeEndian.Uint64(page) == uint64(at/4096) {
			binary.NativeEndian.PutUint64(page[16+8:], uint64(at/4096))
			found = true
		}
	}
	if !found {
		t.Fatal("no branch page")
	}
	b := openDamaged(t, filepath.Join(t.TempDir(), "tokens.db"), file)
	if b == nil || b.Quarantined() == "" {
		t.Fatal("not moved aside")
	}
	b.Close()
}

func TestBoltQuarantine(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tokens.db")
	var aside []string
	for i := range 4 {
		log, text := boltLog(t)
		content := bytes.Repeat([]byte{byte(i + 1)}, 5000)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := cache.OpenBolt(path, cache.BoltOptions{ReadOnly: true}); !errors.Is(err, cache.ErrDamaged) {
			t.Errorf("read only: %v", err)
		}
		if _, _, err := cache.CompactFile(path, cache.BoltOptions{}); !errors.Is(err, cache.ErrDamaged) {
			t.Errorf("CompactFile: %v", err)
		}
		b, err := cache.OpenBolt(path, cache.BoltOptions{Log: log})
		if err != nil {
			t.Fatal(err)
		}
		if len(allBolt(t, b)) != 0 || !strings.HasPrefix(b.Quarantined(), path+".corrupt-20") {
			t.Errorf("moved to %q", b.Quarantined())
		}
		if moved, err := os.ReadFile(b.Quarantined()); err != nil || !bytes.Equal(moved, content) {
			t.Errorf("the file moved aside: %d bytes, %v", len(moved), err)
		}
		if !strings.Contains(text.String(), "level=ERROR") || !strings.Contains(text.String(), b.Quarantined()) {
			t.Errorf("log: %s", text)
		}
		if _, err := cache.OpenBolt(path, cache.BoltOptions{LockTimeout: time.Millisecond}); !errors.Is(err, cache.ErrLocked) {
			t.Errorf("the new file is not locked: %v", err)
		}
		aside = append(aside, b.Quarantined())
		putBolt(t, b, cache.Row{Name: "a", Data: []byte("x")})
		b.Close()
		again := openBolt(t, path, cache.BoltOptions{})
		if len(allBolt(t, again)) != 1 || again.Quarantined() != "" {
			t.Error("the new file is not kept")
		}
		again.Close()
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, filepath.Join(dir, e.Name()))
	}
	if want := append([]string{path}, aside[2:]...); !slices.Equal(left, want) {
		t.Errorf("files left: %q, want %q", left, want)
	}
}

// TestBoltDamagedWhileOpen overwrites and cuts the file below an open store.
func TestBoltDamagedWhileOpen(t *testing.T) {
	for name, damage := range map[string]func(*testing.T, string, int){
		"noise": func(t *testing.T, path string, size int) {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			noise := make([]byte, size-2*4096)
			fillNoise(noise)
			if _, err := f.WriteAt(noise, 2*4096); err != nil {
				t.Fatal(err)
			}
		},
		"cut after the meta pages": func(t *testing.T, path string, _ int) {
			if err := os.Truncate(path, 2*4096); err != nil {
				t.Fatal(err)
			}
		},
		"cut to nothing": func(t *testing.T, path string, _ int) {
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tokens.db")
			b := openBolt(t, path, cache.BoltOptions{NoSync: true})
			rows := boltRows(200, 400)
			putBolt(t, b, rows...)
			damage(t, path, int(b.Size()))
			for range 3 { // neither may wait for a lock that the one before left behind
				if _, err := b.Get(rows[100].Name); !errors.Is(err, cache.ErrDamaged) {
					t.Errorf("Get: %v", err)
				}
				if _, err := b.Scan("", 1e6); !errors.Is(err, cache.ErrDamaged) {
					t.Errorf("Scan: %v", err)
				}
				if _, err := b.Due(boltNoon.Add(time.Hour), 1e6); !errors.Is(err, cache.ErrDamaged) {
					t.Errorf("Due: %v", err)
				}
				if err := b.CheckIndex(); !errors.Is(err, cache.ErrDamaged) {
					t.Errorf("CheckIndex: %v", err)
				}
				rows[100].Revision = 1
				if err := b.Commit(t.Context(), rows[100:101])[0]; !errors.Is(err, cache.ErrDamaged) {
					t.Errorf("Commit: %v", err)
				}
			}
			if err := b.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if again := openBolt(t, path, cache.BoltOptions{}); again.Quarantined() == "" && name != "cut to nothing" {
				t.Error("not moved aside")
			}
		})
	}
}

func TestBoltIndexBuiltAgain(t *testing.T) {
	for name, change := range map[string]func(*bbolt.Tx) error{
		"missing entry": func(tx *bbolt.Tx) error {
			c := tx.Bucket([]byte("due")).Cursor()
			c.First()
			return c.Delete()
		},
		"strange entry": func(tx *bbolt.Tx) error { return tx.Bucket([]byte("due")).Put([]byte("12345678nobody"), nil) },
		"short entry":   func(tx *bbolt.Tx) error { return tx.Bucket([]byte("due")).Put([]byte("1"), nil) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tokens.db")
			b := openBolt(t, path, cache.BoltOptions{NoSync: true})
			putBolt(t, b, boltRows(100, 10)...)
			putBolt(t, b, cache.Row{Name: "never", Data: []byte("x")})
			want := allBolt(t, b)
			if err := cache.UpdateBolt(b, change); err != nil {
				t.Fatal(err)
			}
			if err := b.CheckIndex(); !errors.Is(err, cache.ErrDamaged) {
				t.Errorf("CheckIndex: %v", err)
			}
			b.Close()
			log, text := boltLog(t)
			b = openBolt(t, path, cache.BoltOptions{Log: log})
			sameBolt(t, allBolt(t, b), want)
			if !strings.Contains(text.String(), "building it again") || b.Quarantined() != "" {
				t.Errorf("log: %s", text)
			}
		})
	}
}
