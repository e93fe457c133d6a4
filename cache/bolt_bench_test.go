package cache_test

import (
	"errors"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

func BenchmarkBoltCommit(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			s := openBolt(b, filepath.Join(b.TempDir(), "tokens.db"), cache.BoltOptions{})
			rows := boltRows(10_000, 1500)
			putBolt(b, s, rows...)
			for i := range rows {
				rows[i].Revision = 1
			}
			at := 0
			for b.Loop() {
				some := make([]cache.Row, n)
				for i := range some {
					r := &rows[(at+i*31)%len(rows)]
					r.Due = r.Due.Add(time.Hour)
					some[i] = *r
					r.Revision++
				}
				at += n*31 + 1
				if err := errors.Join(s.Commit(b.Context(), some)...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkBoltGet(b *testing.B) {
	s := openBolt(b, filepath.Join(b.TempDir(), "tokens.db"), cache.BoltOptions{NoSync: true})
	rows := boltRows(10_000, 1500)
	putBolt(b, s, rows...)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := s.Get(rows[i*7919%len(rows)].Name); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkBoltOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "tokens.db")
	s := openBolt(b, path, cache.BoltOptions{NoSync: true})
	putBolt(b, s, boltRows(10_000, 1500)...)
	s.Close()
	for b.Loop() {
		s, err := cache.OpenBolt(path, cache.BoltOptions{})
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
