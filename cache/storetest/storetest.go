// Package storetest holds what every cache.Store must pass: Run, a suite with one test for each sentence of the
// contract, and RunModel, random operations compared with a plain model. The tests of a store call both; nothing else
// uses this package.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// Run runs the suite. open returns a new empty store each time it is called; the suite closes it.
func Run(t *testing.T, open func(t *testing.T) cache.Store) {
	tests := []struct {
		name string
		test func(*testing.T, cache.Store)
	}{
		{"get", testGet},
		{"names", testNames},
		{"revisions", testRevisions},
		{"delete", testDelete},
		{"each row on its own", testEachRow},
		{"same name twice", testSameName},
		{"refused rows", testRefused},
		{"data", testData},
		{"scan", testScan},
		{"due", testDue},
		{"due times", testDueTimes},
		{"due index", testDueIndex},
		{"context", testContext},
		{"context while waiting", testContextWaiting},
		{"concurrent counters", testCounters},
		{"consistent reads", testConsistentReads},
		{"many rows", testManyRows},
		{"close", testClose},
		{"close while used", testCloseWhileUsed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := open(t)
			defer func() {
				if err := s.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}()
			test.test(t, s)
		})
	}
}

// put commits rows that must all pass.
func put(t testing.TB, s cache.Store, rows ...cache.Row) {
	t.Helper()
	for i, err := range s.Commit(context.Background(), rows) {
		if err != nil {
			t.Fatalf("Commit of row %d, %q at revision %d: %v", i, rows[i].Name, rows[i].Revision, err)
		}
	}
}

// commit commits rows and compares their errors.
func commit(t testing.TB, s cache.Store, rows []cache.Row, want []error) {
	t.Helper()
	got := s.Commit(context.Background(), rows)
	if len(got) != len(want) {
		t.Fatalf("Commit gave %d errors for %d rows", len(got), len(rows))
	}
	for i := range want {
		if !errors.Is(got[i], want[i]) {
			t.Errorf("Commit of row %d, %q at revision %d: %v, want %v", i, rows[i].Name, rows[i].Revision, got[i], want[i])
		}
	}
}

// holds checks that Get gives that row (revision 0: none).
func holds(t testing.TB, s cache.Store, want cache.Row) {
	t.Helper()
	got, err := s.Get(want.Name)
	if want.Revision == 0 {
		if !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("Get %q: %v, want ErrNotFound", want.Name, err)
		}
		return
	}
	if err != nil {
		t.Errorf("Get %q: %v", want.Name, err)
		return
	}
	if diff := difference(got, want); diff != "" {
		t.Errorf("Get %q: %s", want.Name, diff)
	}
}

// difference compares a row that was read with the expected one.
func difference(got, want cache.Row) string {
	switch {
	case got.Name != want.Name:
		return fmt.Sprintf("name %q, want %q", got.Name, want.Name)
	case got.Revision != want.Revision:
		return fmt.Sprintf("%q: revision %d, want %d", got.Name, got.Revision, want.Revision)
	case !got.Due.Equal(want.Due) || got.Due.IsZero() != want.Due.IsZero():
		return fmt.Sprintf("%q: due %v, want %v", got.Name, got.Due, want.Due)
	case !got.Due.IsZero() && got.Due.Location() != time.UTC:
		return fmt.Sprintf("%q: due in %v, want UTC", got.Name, got.Due.Location())
	case got.Data == nil:
		return fmt.Sprintf("%q: data is nil", got.Name)
	case !bytes.Equal(got.Data, want.Data):
		return fmt.Sprintf("%q: %d bytes of data, want %d (or other ones)", got.Name, len(got.Data), len(want.Data))
	}
	return ""
}

// list checks an answer of Scan or Due by its names.
func list(t testing.TB, what string, rows []cache.Row, err error, want ...string) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	got := make([]string, len(rows))
	for i, row := range rows {
		got[i] = row.Name
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}
