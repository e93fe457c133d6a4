package storetest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

func testContext(t *testing.T, s cache.Store) {
	put(t, s, cache.Row{Name: "a", Data: []byte("1")})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	errs := s.Commit(ctx, []cache.Row{{Name: "a", Revision: 1, Data: []byte("2")}, {Name: "b", Data: []byte("2")}})
	if len(errs) != 2 || !errors.Is(errs[0], context.Canceled) || !errors.Is(errs[1], context.Canceled) {
		t.Errorf("Commit with a cancelled context: %v", errs)
	}
	holds(t, s, cache.Row{Name: "a", Revision: 1, Data: []byte("1")})
	holds(t, s, cache.Row{Name: "b"})
}

// testContextWaiting cancels commits at any moment: whatever they answer must be what happened.
func testContextWaiting(t *testing.T, s cache.Store) {
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*200*time.Microsecond)
			defer cancel()
			row := cache.Row{Name: strconv.Itoa(i), Due: noon, Data: []byte("x")}
			switch err := s.Commit(ctx, []cache.Row{row})[0]; {
			case err == nil:
				row.Revision = 1
				holds(t, s, row)
			case errors.Is(err, context.DeadlineExceeded):
				holds(t, s, row)
			default:
				t.Errorf("Commit: %v", err)
			}
		})
	}
	wg.Wait()
}

// testCounters adds to shared counters by reading, adding and committing at the revision that was read.
func testCounters(t *testing.T, s cache.Store) {
	const workers, rounds, counters = 8, 25, 3
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				name := strconv.Itoa((w + i) % counters)
				for !increment(t, s, name) {
				}
			}
		})
	}
	wg.Wait()
	sum := uint64(0)
	for i := range counters {
		row, err := s.Get(strconv.Itoa(i))
		if err != nil {
			t.Fatal(err)
		}
		n := binary.BigEndian.Uint64(row.Data)
		if n != row.Revision {
			t.Errorf("counter %d is %d at revision %d", i, n, row.Revision)
		}
		sum += n
	}
	if sum != workers*rounds {
		t.Errorf("counted to %d, want %d", sum, workers*rounds)
	}
}

func increment(t *testing.T, s cache.Store, name string) bool {
	row, err := s.Get(name)
	if err != nil && !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("Get: %v", err)
		return true
	}
	n := uint64(0)
	if err == nil {
		n = binary.BigEndian.Uint64(row.Data)
	}
	row.Name, row.Data = name, binary.BigEndian.AppendUint64(nil, n+1)
	err = s.Commit(context.Background(), []cache.Row{row})[0]
	if err != nil && !errors.Is(err, cache.ErrConflict) {
		t.Errorf("Commit: %v", err)
		return true
	}
	return err == nil
}

// testConsistentReads commits pairs of rows that must always be seen together, in Scan and in Due, and never older
// than what had been committed before the read.
func testConsistentReads(t *testing.T, s cache.Store) {
	const rounds = 60
	var committed atomic.Uint64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	check := func(what string, rows []cache.Row, err error, least uint64) {
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		for _, row := range rows {
			if len(rows) != 2 || row.Revision != rows[0].Revision {
				t.Errorf("%s: %d rows, revision %d beside %d", what, len(rows), row.Revision, rows[0].Revision)
			}
		}
		if least > 0 && (len(rows) == 0 || rows[0].Revision < least) {
			t.Errorf("%s: %v, committed was revision %d", what, rows, least)
		}
	}
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				least := committed.Load()
				rows, err := s.Scan("", 10)
				check("Scan", rows, err, least)
				least = committed.Load()
				rows, err = s.Due(noon.Add(time.Hour), 10)
				check("Due", rows, err, least)
				least = committed.Load()
				if row, err := s.Get("b"); err == nil && row.Revision < least || least > 0 && err != nil {
					t.Errorf("Get: revision %d, %v; committed was %d", row.Revision, err, least)
				}
			}
		})
	}
	for i := range uint64(rounds) {
		due := noon.Add(time.Duration(i%7) * time.Second)
		put(t, s, cache.Row{Name: "a", Revision: i, Due: due, Data: make([]byte, i*50)}, cache.Row{Name: "b", Revision: i, Due: due, Data: make([]byte, i)})
		committed.Store(i + 1)
	}
	close(stop)
	wg.Wait()
}

func testClose(t *testing.T, s cache.Store) {
	put(t, s, cache.Row{Name: "a", Due: noon, Data: []byte("1")})
	for range 3 {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if _, err := s.Get("a"); !errors.Is(err, cache.ErrClosed) {
		t.Errorf("Get after Close: %v", err)
	}
	if _, err := s.Scan("", 1); !errors.Is(err, cache.ErrClosed) {
		t.Errorf("Scan after Close: %v", err)
	}
	if _, err := s.Due(noon, 1); !errors.Is(err, cache.ErrClosed) {
		t.Errorf("Due after Close: %v", err)
	}
	commit(t, s, []cache.Row{{Name: "a", Revision: 1}, {Name: "b", Data: []byte("1")}}, []error{cache.ErrClosed, cache.ErrClosed})
}

// testCloseWhileUsed closes a store that is being used: each call either works or says ErrClosed.
func testCloseWhileUsed(t *testing.T, s cache.Store) {
	var wg sync.WaitGroup
	started := make(chan struct{}, 6)
	for w := range 6 {
		wg.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("%d-%d", w, i)
				err := s.Commit(context.Background(), []cache.Row{{Name: name, Data: []byte(name)}})[0]
				if err == nil {
					_, err = s.Get(name)
				}
				if err == nil {
					_, err = s.Scan("", 3)
				}
				if i == 0 {
					started <- struct{}{}
				}
				if err != nil {
					if !errors.Is(err, cache.ErrClosed) {
						t.Errorf("use while closing: %v", err)
					}
					return
				}
			}
		})
	}
	for range 6 {
		<-started
	}
	for range 2 {
		wg.Go(func() {
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	wg.Wait()
}
