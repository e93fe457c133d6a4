package admin

import (
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// All pages together hold every name once, whatever the size of a page.
func TestGrantPages(t *testing.T) {
	for limit := 1; limit <= 6; limit++ {
		b := newBench(t)
		var names []string
		for cursor := ""; ; {
			var list GrantList
			b.into(b.serve(newRequest("GET", fmt.Sprintf("/v1/grants?limit=%d&cursor=%s", limit, url.QueryEscape(cursor)), "")), &list)
			for _, it := range list.Items {
				names = append(names, it.Name)
			}
			if cursor = list.Next; cursor == "" {
				break
			}
		}
		if want := []string{"a/b ü", "checkout", "mallory", "old", "temp-1"}; !slices.Equal(names, want) {
			t.Errorf("limit %d: %q", limit, names)
		}
	}
}

func TestQueryOfTheList(t *testing.T) {
	b := newBench(t)
	b.serve(newRequest("GET", "/v1/grants?state=expired&prefix=a%2F&cursor=a%2Fb&limit=7", ""))
	want := cache.Query{State: cache.Expired, Prefix: "a/", After: "a/b", Limit: 7}
	if len(b.records.queries) != 1 || b.records.queries[0] != want {
		t.Errorf("asked for %+v", b.records.queries)
	}
}

// All pages of revocations together hold every withdrawal once, also when most
// records have none.
func TestRevocationPages(t *testing.T) {
	b := newBench(t)
	b.records.records = map[string]*cache.Record{}
	want := 0
	for i := range 2 * maxPages * MaxLimit / 10 {
		r := &cache.Record{Name: fmt.Sprintf("user-%05d", i)}
		for range i % 100 / 98 * 2 {
			r.Withdrawn = append(r.Withdrawn, cache.Withdrawal{ID: "x", Phase: cache.Waiting})
			want++
		}
		b.records.records[r.Name] = r
	}
	for _, limit := range []int{1, 7, 1000} {
		got, pages := 0, 0
		for cursor := ""; ; pages++ {
			var list RevocationList
			b.into(b.serve(newRequest("GET", fmt.Sprintf("/v1/revocations?limit=%d&cursor=%s", limit, cursor), "")), &list)
			got += len(list.Items)
			if cursor = list.Next; cursor == "" {
				break
			}
		}
		if got != want || pages > want/limit+1 {
			t.Errorf("limit %d: %d items on %d pages, want %d", limit, got, pages, want)
		}
	}
}

// One request reads through a bounded number of records: a page may be empty and
// have a next one.
func TestRevocationsAreReadInPieces(t *testing.T) {
	b := newBench(t)
	b.records.records = map[string]*cache.Record{}
	for i := range maxPages*MaxLimit + 5 {
		name := fmt.Sprintf("user-%05d", i)
		b.records.records[name] = &cache.Record{Name: name}
	}
	var list RevocationList
	b.into(b.serve(newRequest("GET", "/v1/revocations", "")), &list)
	if len(list.Items) != 0 || list.Next != "user-09999" || len(b.records.queries) != maxPages {
		t.Errorf("%d items, next %q, %d reads", len(list.Items), list.Next, len(b.records.queries))
	}
	var st Status
	b.into(b.serve(newRequest("GET", "/v1/status", "")), &st)
	if st.Names != nil {
		t.Errorf("counted %v although there are too many", st.Names)
	}
}

func TestOpenRevocations(t *testing.T) {
	b := newBench(t)
	var list RevocationList
	b.into(b.serve(newRequest("GET", "/v1/revocations?open=true", "")), &list)
	if len(list.Items) != 1 || list.Items[0].ID != "1c1c1c1c" || list.Items[0].Name != "a/b ü" {
		t.Errorf("%+v", list)
	}
}

func TestAuditPages(t *testing.T) {
	b := newBench(t)
	for seq := uint64(3); seq <= 9; seq++ {
		b.records.journal = append(b.records.journal, cache.Decision{Seq: seq, Time: now, Action: cache.ActRefresh})
	}
	for limit := 1; limit <= 8; limit++ {
		var seqs []uint64
		for after := uint64(0); ; {
			var list AuditList
			b.into(b.serve(newRequest("GET", fmt.Sprintf("/v1/audit?after=%d&limit=%d", after, limit), "")), &list)
			for _, it := range list.Items {
				seqs = append(seqs, it.Seq)
			}
			if after = list.Next; after == 0 {
				break
			}
		}
		if !slices.Equal(seqs, []uint64{3, 4, 5, 6, 7, 8, 9}) {
			t.Errorf("limit %d: %v", limit, seqs)
		}
	}
}

func TestStatusCountsNames(t *testing.T) {
	b := newBench(t)
	var st Status
	b.into(b.serve(newRequest("GET", "/v1/status", "")), &st)
	if st.Ready != nil || st.Names[cache.Blocked] != 2 || st.Names[cache.Fresh] != 1 || st.Names[cache.Expired] != 0 || len(st.Names) != len(cache.States) {
		t.Errorf("%+v", st)
	}
	b.config.Info = func() Info {
		return Info{Names: map[cache.State]int{cache.Fresh: 70000}, Upstream: Upstream{PausedUntil: now.Add(-time.Second)}}
	}
	b.config.Ready = func() []string { return nil }
	b.records.queries = nil
	st = Status{}
	b.into(b.serve(newRequest("GET", "/v1/status", "")), &st)
	if st.Ready == nil || !*st.Ready || st.Names[cache.Fresh] != 70000 || len(b.records.queries) != 0 || !st.Upstream.PausedUntil.IsZero() {
		t.Errorf("%+v", st)
	}
	b.config.Ready = func() []string { return make([]string, 250) }
	b.into(b.serve(newRequest("GET", "/v1/status", "")), &st)
	if *st.Ready || len(st.Missing) != maxMissing {
		t.Errorf("ready %t with %d missing", *st.Ready, len(st.Missing))
	}
}
