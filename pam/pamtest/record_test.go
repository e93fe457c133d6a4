package pamtest

import (
	"testing"
	"time"
)

func TestRingDropsTheOldest(t *testing.T) {
	r := ring[RevokeRecord]{limit: 3}
	for i := range 10 {
		if got := r.put(RevokeRecord{Status: i}); got != uint64(i) {
			t.Fatalf("number %d, want %d", got, i)
		}
	}
	all := r.all()
	if len(all) != 3 || all[0].Status != 7 || all[2].Status != 9 {
		t.Errorf("kept %+v", all)
	}
	if r.total() != 10 {
		t.Errorf("total = %d, want 10", r.total())
	}
	if r.at(6) != nil || r.at(7).Status != 7 || r.at(9).Status != 9 {
		t.Error("at finds the wrong records")
	}
	if got := r.newest(2); len(got) != 2 || got[0].Status != 8 {
		t.Errorf("newest = %+v", got)
	}
	if got := r.newest(100); len(got) != 3 {
		t.Errorf("newest(100) = %+v", got)
	}
}

func TestRingBoundsBytes(t *testing.T) {
	r := ring[GrantRecord]{limit: 1000}
	body := make([]byte, maxRecordBytes/4)
	for range 20 {
		r.put(GrantRecord{Body: body})
	}
	if got := len(r.all()); got != 4 {
		t.Errorf("kept %d records, want 4", got)
	}
	if r.put(GrantRecord{Body: make([]byte, maxRecordBytes+1)}); len(r.all()) != 1 {
		t.Error("the newest record is not kept alone")
	}
}

func TestPeak(t *testing.T) {
	var p peak
	start := time.Unix(1700000000, 0)
	for _, ms := range []int{0, 100, 999, 1000, 1050, 5000} {
		p.add(start.Add(time.Duration(ms) * time.Millisecond))
	}
	if p.most != 4 { // 100, 999, 1000, 1050
		t.Errorf("most = %d, want 4", p.most)
	}
	p.add(start.Add(-time.Hour))
	if len(p.recent) != 1 {
		t.Error("a clock set back keeps old arrivals")
	}
}
