package refresher_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
	"github.com/pamsidecar/pamsidecar/refresher"
)

// rig is a refresher over a real bbolt file and an emulator in the same bubble of
// virtual time.
type rig struct {
	t        *testing.T
	dir      string
	emulator *pamtest.Server
	rate     float64
	burst    int

	mu   sync.Mutex
	step time.Duration // of the local wall clock

	cache     *cache.Cache
	store     *cache.Bolt
	clock     *refresher.Clock
	limiter   *refresher.Limiter
	refresher *refresher.Refresher
	logs      *logBuffer
	stop      context.CancelFunc
	stopped   chan struct{}
}

// epoch is where the virtual clocks are moved to: the bubble begins in 2000, when
// time tokens had one digit less.
var epoch = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

func newRig(t *testing.T) *rig {
	shift := epoch.Sub(time.Now())
	r := &rig{t: t, dir: t.TempDir(), rate: 10, burst: 20, logs: &logBuffer{}}
	r.step = shift
	r.emulator = pamtest.New(pamtest.Config{Now: func() time.Time { return time.Now().Add(shift) }})
	return r
}

// wall is the local wall clock, which tests may set.
func (r *rig) wall() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Round(0).Add(r.step)
}

func (r *rig) stepWall(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.step += d
}

// start opens the state and runs a refresher for the grants.
func (r *rig) start(grants ...cache.Grant) {
	r.t.Helper()
	r.clock = refresher.NewClock(r.wall)
	r.limiter = refresher.NewLimiter(r.rate, r.burst)
	var ref *refresher.Refresher
	client, err := pam.NewClient(pam.ClientConfig{
		Keyset: r.emulator.Keyset(), Transport: r.emulator.Transport(), Now: r.clock.Signing,
		BeforeRequest: func(ctx context.Context, op pam.Op) error {
			lane := refresher.Granting
			if op == pam.OpRevoke {
				lane = refresher.Revoking
			}
			return r.limiter.Wait(ctx, lane)
		},
		AfterRequest: func(x pam.Exchange) { ref.Observe(x) },
		Throttled:    r.limiter.Pause,
	})
	r.must(err)
	log := slog.New(slog.NewTextHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r.store, err = cache.OpenBolt(filepath.Join(r.dir, "tokens.db"), cache.BoltOptions{NoSync: true, Log: log})
	r.must(err)
	r.cache, err = cache.Open(r.store, r.dir, cache.Options{
		Identity: cache.Identity{SubscribeKey: r.emulator.Keyset().SubscribeKey, Origin: client.Origin()},
		Now:      r.clock.Now, Measured: r.clock.Restore, Quarantined: r.store.Quarantined(), Log: log,
	})
	r.must(err)
	ref = refresher.New(refresher.Config{Cache: r.cache, Upstream: client, Clock: r.clock, Limiter: r.limiter, Log: log})
	r.refresher = ref
	_, err = ref.Apply(r.t.Context(), grants, true)
	r.must(err)
	ctx, stop := context.WithCancel(context.Background())
	r.stop, r.stopped = stop, make(chan struct{})
	go func() {
		defer close(r.stopped)
		ref.Run(ctx)
	}()
}

// end stops the refresher and closes the state in order.
func (r *rig) end() {
	r.t.Helper()
	r.stop()
	<-r.stopped
	r.must(r.store.CheckIndex())
	r.must(r.cache.Close())
	r.noSecrets()
}

// crash abandons the state as a killed process would: nothing is marked as clean.
func (r *rig) crash() {
	r.t.Helper()
	r.stop()
	<-r.stopped
	r.must(r.store.Close())
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// wait lets virtual time pass.
func (r *rig) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// view is what readers see of a name.
func (r *rig) view(name string) cache.View {
	r.t.Helper()
	v, err := r.cache.View(name)
	r.must(err)
	return v
}

// state is the state of a name and the generation readers get.
func (r *rig) state(name string) (cache.State, uint64) {
	r.t.Helper()
	v := r.view(name)
	return v.State(r.clock.Now()), v.Generation()
}

// wantState fails unless the name is in the state.
func (r *rig) wantState(name string, want cache.State) {
	r.t.Helper()
	if got, gen := r.state(name); got != want {
		r.t.Fatalf("%s is %s (generation %d), want %s; reason %q", name, got, gen, want, r.view(name).Reason())
	}
}

func (r *rig) record(name string) *cache.Record {
	r.t.Helper()
	rec, err := r.cache.Record(name)
	r.must(err)
	return rec
}

// noSecrets fails if the log has a token or the secret key.
func (r *rig) noSecrets() {
	r.t.Helper()
	text := r.logs.String()
	if strings.Contains(text, r.emulator.Keyset().SecretKey.Reveal()) {
		r.t.Error("the secret key is in the log")
	}
	for _, g := range r.emulator.Grants() {
		if raw := strings.TrimRight(g.Token.Reveal(), "="); strings.Contains(text, raw) {
			r.t.Errorf("token %s is in the log", g.Token)
		}
	}
}

// maxInWindow is the largest number of requests the emulator saw in any window.
func (r *rig) maxInWindow(window time.Duration) int {
	var times []time.Time
	for _, q := range r.emulator.Requests() {
		times = append(times, q.Time)
	}
	most, from := 0, 0
	for i, at := range times {
		for at.Sub(times[from]) >= window {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}

func grantOf(name string, ttl time.Duration) cache.Grant {
	return cache.Grant{Name: name, Grant: pam.Grant{
		TTL: ttl, UUID: name,
		Resources: pam.Permissions{Channels: map[string]pam.Permission{"room": pam.Read | pam.Write}},
	}}
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
