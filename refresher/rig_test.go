package refresher_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
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
	inFlight int
	secret   pam.Secret    // of the next start, the emulator's own when empty
	reload   func() bool   // refresher.Config.ReloadSecret
	opened   func(*rig)    // called when the state is open, before the grants are applied
	answers  time.Duration // how long each answer takes
	shift    time.Duration // from the bubble's clock to the emulator's
	quiet    bool          // no debug log: for tests with thousands of names

	mu   sync.Mutex
	step time.Duration // of the local wall clock

	cache     *cache.Cache
	store     *fragileStore
	clock     *refresher.Clock
	limiter   *refresher.Limiter
	client    *pam.Client
	refresher *refresher.Refresher
	logs      *logBuffer
	wire      *wire
	stop      context.CancelFunc
	stopped   chan struct{}
}

// epoch is where the virtual clocks are moved to: the bubble begins in 2000, when
// time tokens had one digit less.
var epoch = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

func newRig(t *testing.T) *rig {
	shift := time.Until(epoch)
	r := &rig{t: t, dir: t.TempDir(), rate: 10, burst: 20, shift: shift, step: shift, logs: &logBuffer{}}
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

// suspend lets d pass for everybody but this machine's monotonic clock.
func (r *rig) suspend(d time.Duration) {
	r.stepWall(d)
	r.emulator.SetClockOffset(r.emulator.Stats().ClockOffset + d)
}

// start opens the state and runs a refresher for the grants.
func (r *rig) start(grants ...cache.Grant) {
	r.t.Helper()
	r.open()
	_, err := r.refresher.Apply(r.t.Context(), grants, true)
	r.must(err)
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	r.stop, r.stopped = stop, stopped
	r.t.Cleanup(func() { // for tests that fail
		stop()
		r.emulator.ClearFaults()
		r.store.release()
		<-stopped
	})
	ref := r.refresher
	go func() {
		defer close(stopped)
		ref.Run(ctx)
	}()
}

// open opens the state and wires a refresher.
func (r *rig) open() {
	r.t.Helper()
	r.clock = refresher.NewClock(r.wall)
	r.limiter = refresher.NewLimiter(r.rate, r.burst)
	r.wire = newWire(r.emulator.Transport(), r.answers)
	keyset := r.emulator.Keyset()
	if r.secret != "" {
		keyset.SecretKey = r.secret
	}
	level := slog.LevelDebug
	if r.quiet {
		level = slog.LevelError
	}
	log := slog.New(slog.NewTextHandler(r.logs, &slog.HandlerOptions{Level: level}))
	var ref *refresher.Refresher
	var err error
	r.client, err = pam.NewClient(pam.ClientConfig{
		Keyset: keyset, Transport: r.wire, Now: r.clock.Signing,
		BeforeRequest: func(ctx context.Context, op pam.Op) error { return r.limiter.Wait(ctx, laneOf(op)) },
		AfterRequest:  func(x pam.Exchange) { ref.Observe(x) },
		Throttled:     r.limiter.Pause,
	})
	r.must(err)
	bolt, err := cache.OpenBolt(filepath.Join(r.dir, "tokens.db"), cache.BoltOptions{NoSync: true, Log: log})
	r.must(err)
	r.store = &fragileStore{Bolt: bolt}
	r.cache, err = cache.Open(r.store, r.dir, cache.Options{
		Identity: cache.Identity{SubscribeKey: keyset.SubscribeKey, Origin: r.client.Origin()},
		Now:      r.clock.Now, Measured: r.clock.Restore, Quarantined: bolt.Quarantined(), Log: log,
	})
	r.must(err)
	ref = refresher.New(refresher.Config{
		Cache: r.cache, Upstream: r.client, Clock: r.clock, Limiter: r.limiter, ReloadSecret: r.reload, InFlight: r.inFlight, Log: log,
	})
	r.refresher = ref
	if r.opened != nil {
		r.opened(r)
	}
}

func laneOf(op pam.Op) refresher.Lane {
	if op == pam.OpRevoke {
		return refresher.Revoking
	}
	return refresher.Granting
}

// end stops the refresher and closes the state in order.
func (r *rig) end() {
	r.t.Helper()
	r.stop()
	<-r.stopped
	r.must(r.cache.Close())
	r.noSecrets()
}

// crash ends the refresher as a kill would: its requests are cut, nothing of what
// it does from now on reaches the service, and the state is as it is on disk now.
func (r *rig) crash() {
	r.t.Helper()
	synctest.Wait()
	dir := r.t.TempDir()
	for _, name := range []string{"tokens.db", "audit.log"} {
		data, err := os.ReadFile(filepath.Join(r.dir, name))
		r.must(err)
		r.must(os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	r.wire.kill()
	r.stop()
	<-r.stopped
	r.must(r.store.Close())
	r.dir = dir
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

// eventually waits until the condition holds, at most d.
func (r *rig) eventually(d time.Duration, what string, condition func() bool) {
	r.t.Helper()
	for end := time.Now().Add(d); !condition(); r.wait(100 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("not within %s: %s", d, what)
		}
	}
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

// served is the token readers get, empty if they get none.
func (r *rig) served(name string) pam.Secret {
	r.t.Helper()
	if v := r.view(name); v.State(r.clock.Now()).Live() {
		return v.Token()
	}
	return ""
}

// wantState fails unless the name is in the state.
func (r *rig) wantState(name string, want cache.State) {
	r.t.Helper()
	if got, gen := r.state(name); got != want {
		r.t.Fatalf("%s is %s (generation %d), want %s; reason %q", name, got, gen, want, r.view(name).Reason())
	}
}

// neverDead lets d pass and fails when a served token is dead at the service.
func (r *rig) neverDead(d time.Duration, names ...string) {
	r.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); r.wait(time.Second) {
		for _, name := range names {
			if raw := r.served(name); raw != "" && !r.emulator.Live(raw) {
				r.t.Fatalf("%s: token #%s is served and dead, %s before the end of the wait", name, raw.ID(), time.Until(end))
			}
		}
	}
}

// neverWithout lets d pass and fails when a name has no live token.
func (r *rig) neverWithout(d time.Duration, names ...string) {
	r.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); r.wait(time.Second) {
		for _, name := range names {
			if raw := r.served(name); raw == "" || !r.emulator.Live(raw) {
				state, gen := r.state(name)
				r.t.Fatalf("%s is %s (generation %d) without a live token, %s before the end of the wait; reason %q",
					name, state, gen, time.Until(end), r.view(name).Reason())
			}
		}
	}
}

func (r *rig) record(name string) *cache.Record {
	r.t.Helper()
	rec, err := r.cache.Record(name)
	r.must(err)
	return rec
}

// apply replaces the configuration.
func (r *rig) apply(grants ...cache.Grant) cache.Diff {
	r.t.Helper()
	diff, err := r.refresher.Apply(r.t.Context(), grants, true)
	r.must(err)
	return diff
}

// accounted fails if a token lives at the service that the record of its name
// (the token's UUID) neither holds nor tells of.
func (r *rig) accounted() {
	r.t.Helper()
	for _, g := range r.emulator.Grants() {
		rec, err := r.cache.Record(g.UUID)
		if errors.Is(err, cache.ErrUnknown) {
			rec = cache.NewRecord(g.UUID)
		} else {
			r.must(err)
		}
		if r.emulator.Live(g.Token) && !rec.Holds(g.Token) && rec.UnaccountedUntil.Before(g.Expires) {
			r.t.Errorf("%s: token #%s lives until %s, nobody holds it, and unaccounted is told until %s only",
				g.UUID, g.Token.ID(), g.Expires, rec.UnaccountedUntil)
		}
	}
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

// times are the moments at which requests that match reached the emulator.
func (r *rig) times(match func(pamtest.RequestRecord) bool) []time.Time {
	var at []time.Time
	for _, q := range r.emulator.Requests() {
		if match(q) {
			at = append(at, q.Time)
		}
	}
	return at
}

func anyRequest(pamtest.RequestRecord) bool { return true }

func isOp(op pam.Op) func(pamtest.RequestRecord) bool {
	return func(q pamtest.RequestRecord) bool { return q.Op == op }
}

// withinRate fails if any window had more requests than the limiter may let out.
func (r *rig) withinRate() {
	r.t.Helper()
	at := r.times(anyRequest)
	for _, window := range []time.Duration{time.Second, 5 * time.Second, time.Minute} {
		if most, limit := mostWithin(at, window), int(r.rate*window.Seconds())+r.burst; most > limit {
			r.t.Fatalf("%d requests within %s, at most %d are allowed", most, window, limit)
		}
	}
}

// mostWithin is the largest number of moments in any window.
func mostWithin(at []time.Time, window time.Duration) int {
	slices.SortFunc(at, time.Time.Compare)
	most, from := 0, 0
	for i := range at {
		for at[i].Sub(at[from]) >= window {
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

// narrowed is the grant with reading alone.
func narrowed(g cache.Grant) cache.Grant {
	g.Resources = pam.Permissions{Channels: map[string]pam.Permission{"room": pam.Read}}
	return g
}
