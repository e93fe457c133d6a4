package interop

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// ttl is the shortest life a token can have.
const ttl = time.Minute

// outage is how long Access Manager fails at a time.
const outage = 10 * time.Second

// event is something bad that happens to an app's tokens.
type event struct {
	name  string
	after time.Duration // at least this long after the last one ended; it waits for the next refresh that is due
	do    func(l *life)
}

// life is one run of the life test.
type life struct {
	*rig
	ctx     context.Context
	sidecar *sidecar
	gate    *gate
	uuids   []string
	book    *ledger
	began   time.Time

	restarts, outages, hit int
}

func killed(l *life) {
	l.sidecar.restart(syscall.SIGKILL)
	l.restarts++
}

func restarted(l *life) {
	l.sidecar.restart(syscall.SIGTERM)
	l.restarts++
}

func refuses(l *life) {
	l.gate.shut()
	l.suffer()
	l.gate.open()
}

func hangs(l *life) { l.fail(pamtest.Fault{Kind: pamtest.KindHang}) }

func says503(l *life) { l.fail(pamtest.Fault{Status: 503}) }

// fail lets Access Manager fail, and the data plane go on.
func (l *life) fail(f pamtest.Fault) {
	f.Op = pamtest.OpPAM
	l.SetFault(f)
	l.suffer()
	l.ClearFaults()
}

// suffer passes the time of an outage and notes whether a refresh met it at all.
func (l *life) suffer() {
	l.outages++
	before, met := len(l.Requests()), false
	for end := time.Now().Add(outage); time.Now().Before(end) && l.ctx.Err() == nil; sleep(l.ctx, 250*time.Millisecond) {
		states, err := l.sidecar.states(l.ctx)
		if err != nil {
			l.t.Errorf("during the outage: %v", err)
			return
		}
		for name, state := range states {
			met = met || state == "failing"
			if state != "failing" && state != "fresh" {
				l.t.Errorf("during the outage %s is %s", name, state)
			}
		}
	}
	for _, req := range l.Requests()[before:] {
		met = met || req.Fault != ""
	}
	if met {
		l.hit++
	}
}

// untilDue waits until a token is about to be replaced: that is when it matters.
func (l *life) untilDue() {
	for l.ctx.Err() == nil {
		for _, uuid := range l.uuids {
			doc, err := l.sidecar.document(l.ctx, uuid)
			if err != nil || doc.RefreshAt == nil {
				continue
			}
			if soon := time.Until(*doc.RefreshAt); soon > 100*time.Millisecond && soon < 700*time.Millisecond {
				return
			}
		}
		sleep(l.ctx, 100*time.Millisecond)
	}
}

// TestLife is what the product is for: publishers and subscribers that nobody here wrote keep working while their tokens come and go, the sidecar
// is restarted and killed, and Access Manager fails. LIFE=long makes it last thirteen lives, with two between any two events; see README.md.
func TestLife(t *testing.T) {
	if testing.Short() {
		t.Skip("takes over two minutes")
	}
	lives, events := 2, []event{
		{"killed", 20 * time.Second, killed},
		{"refuses connections", 2 * time.Second, refuses},
	}
	if os.Getenv("LIFE") == "long" {
		lives, events = 13, []event{
			{"killed", 1 * ttl, killed},
			{"refuses connections", 2 * ttl, refuses},
			{"hangs", 2 * ttl, hangs},
			{"restarted", 2 * ttl, restarted},
			{"says 503", 2 * ttl, says503},
		}
	}
	check(t, fmt.Sprintf("%d lives", lives), func(t *testing.T) { runLife(t, lives, events) })
}

func runLife(t *testing.T, lives int, events []event) {
	r := newRig(t, pamtest.Config{
		ChannelMessages: 1000,
		Access:          pamtest.Access{RevokeDelay: time.Minute, DenyCache: 30 * time.Second}, // as at PubNub
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(lives)*ttl+2*time.Minute)
	defer cancel()
	l := &life{rig: r, ctx: ctx, gate: newGate(t, r.origin), uuids: []string{"anna", "ben", "clara", "dora"}, book: newLedger()}
	l.sidecar = newSidecar(t, r.Keyset(), "http://"+l.gate.addr, l.uuids)
	l.sidecar.start()
	l.began = time.Now()

	stopPublishing, stopAll := l.startApps()
	quiet := l.began // since when nothing was done to it
	for _, e := range events {
		sleep(ctx, e.after-time.Since(quiet))
		l.untilDue()
		t.Logf("%6.1f s: %s", time.Since(l.began).Seconds(), e.name)
		e.do(l)
		quiet = time.Now()
	}
	sleep(ctx, time.Duration(lives)*ttl-time.Since(l.began))
	lasted := time.Since(l.began)
	stopPublishing()
	l.settle()
	stopAll()
	l.sidecar.stop(syscall.SIGTERM)
	l.judge(t, lives, lasted, events)
}

// startApps starts the subscribers and, once all of them listen, the publishers.
func (l *life) startApps() (stopPublishing, stopAll func()) {
	l.t.Helper()
	var channels []string
	for _, uuid := range l.uuids {
		channels = append(channels, channelOf(uuid))
	}
	subCtx, cancelSub := context.WithCancel(l.ctx)
	pubCtx, cancelPub := context.WithCancel(l.ctx)
	var subscribers, publishers, ready sync.WaitGroup
	ready.Add(len(l.uuids))
	for _, uuid := range l.uuids {
		subscribers.Go(func() { subscribeTo(subCtx, l.rig, l.sidecar, l.book, uuid, channels, sync.OnceFunc(ready.Done)) })
	}
	listening := make(chan struct{})
	go func() {
		ready.Wait()
		close(listening)
	}()
	select {
	case <-listening:
	case <-time.After(30 * time.Second):
		l.t.Error("the subscribers do not connect within 30 s")
	}
	for _, uuid := range l.uuids {
		publishers.Go(func() { publishFrom(pubCtx, l.rig, l.sidecar, l.book, uuid, 250*time.Millisecond) })
	}
	stopPublishing = func() { cancelPub(); publishers.Wait() }
	stopAll = func() { cancelSub(); subscribers.Wait() }
	l.t.Cleanup(func() { stopPublishing(); stopAll() })
	return stopPublishing, stopAll
}

// settle lets the last messages arrive, and duplicates too.
func (l *life) settle() {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && l.book.sum(l.uuids).lost > 0; {
		sleep(l.ctx, 50*time.Millisecond)
	}
	sleep(l.ctx, time.Second)
}

func (l *life) judge(t *testing.T, lives int, lasted time.Duration, events []event) {
	t.Helper()
	f := l.book.sum(l.uuids)
	var refused, grants int
	for _, req := range l.Requests() {
		if req.Status == 403 {
			refused++
		}
	}
	grants = len(l.Grants())
	report("life test: %.1f lives of %s, %d UUIDs, %d restarts, %d outages of %s (%d met by a refresh); %d grants, at least %d tokens per app, %d renewals of subscriptions, "+
		"never less than %d s left on arrival; messages sent %d, received %d (by %d subscribers), lost %d, duplicates %d; 403 seen by publishers %d, by subscribers %d, answered %d",
		lasted.Seconds()/ttl.Seconds(), ttl, len(l.uuids), l.restarts, l.outages, outage, l.hit, grants, f.generations, l.book.renewals.Load(),
		l.book.shortestEnd.Load(), f.sent, f.received, len(l.uuids), f.lost, f.duplicates, l.book.denied.Load(), l.book.subDenied.Load(), refused)

	if l.book.denied.Load() != 0 || l.book.subDenied.Load() != 0 || refused != 0 {
		t.Errorf("403: publishers %d, subscribers %d, answered %d", l.book.denied.Load(), l.book.subDenied.Load(), refused)
	}
	if len(l.book.errors) > 0 {
		t.Errorf("%d failed publishes, the first: %s", len(l.book.errors), l.book.errors[0])
	}
	if len(l.book.strays) > 0 {
		t.Errorf("subscribers were told: %v", l.book.strays)
	}
	if untold := l.book.untold(l.uuids); len(untold) > 0 {
		t.Errorf("not every message came once: %v", untold)
	}
	if least := int(lasted/time.Second) * len(l.uuids); f.sent < 2*least {
		t.Errorf("only %d messages in %s", f.sent, lasted)
	}
	if f.generations <= lives {
		t.Errorf("an app saw only %d tokens in %d lives", f.generations, lives)
	}
	if l.hit != l.outages {
		t.Errorf("%d of %d outages were met by no refresh: nothing was tested", l.outages-l.hit, l.outages)
	}
	wantRestarts := 0
	for _, e := range events {
		if slices.Contains([]string{"killed", "restarted"}, e.name) {
			wantRestarts++
		}
	}
	if l.restarts != wantRestarts || l.sidecar.starts != wantRestarts+1 {
		t.Errorf("%d restarts and %d starts, want %d", l.restarts, l.sidecar.starts, wantRestarts)
	}
	l.economical(t, grants, lasted)
	l.discreet(t)
}

// economical checks that the failures cost few extra tokens: a refresh comes after half of a life at the earliest, and each event may waste one
// grant per name.
func (l *life) economical(t *testing.T, grants int, lasted time.Duration) {
	t.Helper()
	most := len(l.uuids) * (int(lasted/(ttl/2)) + 1 + l.restarts + l.outages)
	if grants > most {
		t.Errorf("%d grants, at most %d are explained", grants, most)
	}
	if peak := l.Stats(); peak.Answers[pam.OpGrant][200] < uint64(len(l.uuids)) {
		t.Errorf("answers to grants: %v", peak.Answers[pam.OpGrant])
	}
}

// discreet checks that the log of the sidecar, at level debug, holds neither the secret key nor any token.
func (l *life) discreet(t *testing.T) {
	t.Helper()
	log, err := os.ReadFile(l.sidecar.log.Name())
	if err != nil || len(log) == 0 {
		t.Fatalf("the sidecar's log: %d bytes, %v", len(log), err)
	}
	if bytes.Contains(log, []byte(l.Keyset().SecretKey.Reveal())) {
		t.Error("the secret key is in the log")
	}
	for _, g := range l.Grants() {
		if bytes.Contains(log, []byte(strings.TrimRight(g.Token.Reveal(), "="))) {
			t.Errorf("token %s is in the log", g.Token)
		}
	}
}
