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
	end     time.Time // of its token
}

// backlog orders names that are due: grants of tokens about to end first, then
// names that readers wait for and the others by turns, each by the nearest end.
// Revokes take turns with grants. The zero backlog is empty.
type backlog struct {
	grants  [routine + 1]byEnd
	revokes byEnd
	length  int

	revokeNext  bool // whose turn it is when both wait
	routineNext bool
}

// Len is the number of names.
func (b *backlog) Len() int { return b.length }

func (b *backlog) push(it item) {
	b.length++
	if it.kind == withdraw {
		heap.Push(&b.revokes, it)
		return
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
	return heap.Pop(grants).(item)
}

// nextGrants is the heap the next grant comes from, nil if there is none.
func (b *backlog) nextGrants() *byEnd {
	if len(b.grants[dying]) > 0 {
		return &b.grants[dying]
	}
	waiting, others := &b.grants[awaited], &b.grants[routine]
	switch {
	case len(*waiting) == 0 && len(*others) == 0:
		return nil
	case len(*waiting) == 0:
		return others
	case len(*others) == 0:
		return waiting
	}
	b.routineNext = !b.routineNext
	if b.routineNext {
		return waiting
	}
	return others
}

// byEnd is a heap of names by the end of their token.
type byEnd []item

func (h byEnd) Len() int           { return len(h) }
func (h byEnd) Less(i, j int) bool { return h[i].end.Before(h[j].end) }
func (h byEnd) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *byEnd) Push(x any)        { *h = append(*h, x.(item)) }

func (h *byEnd) Pop() any {
	last := len(*h) - 1
	it := (*h)[last]
	*h = (*h)[:last]
	return it
}
