package refresher

import (
	"container/heap"
	"time"
)

// item is a name in the backlog.
type item struct {
	name    string
	kind    work
	urgency urgency
	at      time.Time // order within its kind: end of the token, or since when a revoke is due
	live    bool      // at is the end of a live token
}

// backlog orders names that are due: grants of tokens about to end first, then
// names that readers wait for and the others by turns, each by the nearest end.
// Revokes, the longest due first, take turns with grants. The zero backlog is
// empty.
type backlog struct {
	grants  [routine + 1]byTime
	revokes byTime
	length  int
	soonest time.Time // nearest end of the live tokens to replace, zero: none

	revokeNext  bool // whose turn it is when both wait
	routineNext bool
}

// Len is the number of names.
func (b *backlog) Len() int { return b.length }

// clear takes all names out; whose turn it is stays.
func (b *backlog) clear() {
	*b = backlog{revokeNext: b.revokeNext, routineNext: b.routineNext}
}

func (b *backlog) push(it item) {
	b.length++
	if it.kind == withdraw {
		heap.Push(&b.revokes, it)
		return
	}
	if it.live && (b.soonest.IsZero() || it.at.Before(b.soonest)) {
		b.soonest = it.at
	}
	heap.Push(&b.grants[it.urgency], it)
}

// pop takes the name that comes next. The backlog must not be empty.
func (b *backlog) pop() item {
	b.length--
	grants := b.nextGrants()
	if len(b.revokes) > 0 && (grants == nil || b.revokeNext) {
		b.revokeNext = false
		return heap.Pop(&b.revokes).(item)
	}
	b.revokeNext = true
	it := heap.Pop(grants).(item)
	b.routineNext = it.urgency == awaited
	return it
}

// nextGrants is the heap the next grant comes from, nil if there is none.
func (b *backlog) nextGrants() *byTime {
	if len(b.grants[dying]) > 0 {
		return &b.grants[dying]
	}
	waiting, others := &b.grants[awaited], &b.grants[routine]
	switch {
	case len(*waiting) == 0 && len(*others) == 0:
		return nil
	case len(*waiting) == 0:
		return others
	case len(*others) == 0, !b.routineNext:
		return waiting
	}
	return others
}

// byTime is a heap of names by their time.
type byTime []item

func (h byTime) Len() int           { return len(h) }
func (h byTime) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h byTime) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *byTime) Push(x any)        { *h = append(*h, x.(item)) }

func (h *byTime) Pop() any {
	last := len(*h) - 1
	it := (*h)[last]
	*h = (*h)[:last]
	return it
}
