package refresher_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
)

// fragileStore is a store that can be made to refuse or to hang, and that counts
// how often it is asked for due rows.
type fragileStore struct {
	*cache.Bolt
	full atomic.Bool
	hung atomic.Pointer[chan struct{}]
	dues atomic.Int64
}

func (s *fragileStore) Due(before time.Time, limit int) ([]cache.Row, error) {
	s.dues.Add(1)
	return s.Bolt.Due(before, limit)
}

func (s *fragileStore) Commit(ctx context.Context, rows []cache.Row) []error {
	if release := s.hung.Load(); release != nil {
		<-*release
	}
	if !s.full.Load() {
		return s.Bolt.Commit(ctx, rows)
	}
	errs := make([]error, len(rows))
	for i := range errs {
		errs[i] = fmt.Errorf("write: %w", syscall.ENOSPC)
	}
	return errs
}

// hang makes commits wait until release.
func (s *fragileStore) hang() {
	ch := make(chan struct{})
	s.hung.Store(&ch)
}

func (s *fragileStore) release() {
	if ch := s.hung.Swap(nil); ch != nil {
		close(*ch)
	}
}

// wire is the network between one process and the emulator. After kill nothing
// gets through and what is under way is cut.
type wire struct {
	next  http.RoundTripper
	delay time.Duration
	ctx   context.Context
	kill  context.CancelFunc

	dials atomic.Int64 // requests tried, also those that never arrive
}

func newWire(next http.RoundTripper, delay time.Duration) *wire {
	w := &wire{next: next, delay: delay}
	w.ctx, w.kill = context.WithCancel(context.Background())
	return w
}

func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	w.dials.Add(1)
	if w.ctx.Err() != nil {
		return nil, w.ctx.Err()
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	defer context.AfterFunc(w.ctx, func() { cancel(context.Canceled) })()
	resp, err := w.next.RoundTrip(req.WithContext(ctx))
	if err == nil && w.delay > 0 {
		select {
		case <-time.After(w.delay):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return resp, err
}

type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// count is how many lines have the text.
func (l *logBuffer) count(text string) int { return strings.Count(l.String(), text) }
