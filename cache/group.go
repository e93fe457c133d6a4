package cache

import (
	"sync"
	"time"
)

// commitInterval is how long the next commit waits after one, so that what
// arrives meanwhile shares its sync to disk.
const commitInterval = 50 * time.Millisecond

// committer gathers rows of concurrent callers into one transaction. It has no
// goroutine: the first caller writes for all who came before it began, and hands
// the lead to the first who came later.
type committer struct {
	mu      sync.Mutex
	queue   []*batch
	leading bool
	last    time.Time
	write   func([]*Record) []error
}

type batch struct {
	recs []*Record
	errs []error
	done chan struct{}
	lead chan struct{} // closed when this batch's caller is to write
}

func (c *committer) commit(recs []*Record) []error {
	b := &batch{recs: recs, done: make(chan struct{}), lead: make(chan struct{})}
	c.mu.Lock()
	c.queue = append(c.queue, b)
	if !c.leading {
		c.leading = true
		close(b.lead)
	}
	c.mu.Unlock()
	select {
	case <-b.done:
	case <-b.lead:
		c.writeQueue()
	}
	return b.errs
}

// writeQueue writes all that is queued, the caller's batch among it, and hands
// the lead on.
func (c *committer) writeQueue() {
	c.mu.Lock()
	wait := time.Until(c.last.Add(commitInterval))
	c.mu.Unlock()
	if wait > 0 {
		time.Sleep(wait)
	}
	c.mu.Lock()
	batches := c.queue
	c.queue = nil
	c.mu.Unlock()

	var recs []*Record
	for _, b := range batches {
		recs = append(recs, b.recs...)
	}
	errs := c.write(recs)
	for _, b := range batches {
		b.errs, errs = errs[:len(b.recs)], errs[len(b.recs):]
		close(b.done)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = time.Now()
	if len(c.queue) > 0 {
		close(c.queue[0].lead)
		return
	}
	c.leading = false
}
