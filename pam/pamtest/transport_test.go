package pamtest_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

func TestDelayInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, pamtest.Config{})
		g.SetFault(pamtest.Fault{Op: pam.OpGrant, Delay: 3 * time.Second})
		start := time.Now()
		g.token(g.do(g.grantRequest(simpleGrant)))
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("took %v", took)
		}
		if r := g.Requests()[0]; r.Duration != 3*time.Second || r.Fault != "delay" {
			t.Errorf("record %+v", r)
		}
	})
}

// A client that gives up during a delay leaves a token behind only if the work was done first.
func TestGivingUpInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, pamtest.Config{})
		for _, kind := range []pamtest.FaultKind{pamtest.KindNone, pamtest.KindHang, pamtest.KindRefused} {
			for _, after := range []bool{false, true} {
				g.SetFault(pamtest.Fault{Kind: kind, Delay: time.Minute, AfterWork: after})
				issued := len(g.Grants())
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				start := time.Now()
				_, err := g.rt.RoundTrip(g.build(ctx, g.grantRequest(simpleGrant)))
				cancel()
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 2*time.Second {
					t.Errorf("%s: %v after %v", kind, err, time.Since(start))
				}
				if got := len(g.Grants()) - issued; (got == 1) != (after && kind != pamtest.KindRefused) {
					t.Errorf("%s, after work %v: %d tokens issued", kind, after, got)
				}
			}
		}
	})
}

func TestHangUntilCleared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, pamtest.Config{})
		g.SetFault(pamtest.Fault{Kind: pamtest.KindHang, Count: 2})
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { g.token(g.do(g.grantRequest(simpleGrant))) })
		}
		synctest.Wait()
		if n := len(g.Grants()); n != 0 {
			t.Errorf("%d tokens issued while hanging", n)
		}
		g.token(g.do(g.grantRequest(simpleGrant))) // the count is used up
		time.Sleep(time.Hour)
		g.ClearFaults()
		wg.Wait()
		if n := len(g.Grants()); n != 3 {
			t.Errorf("%d tokens issued, want 3", n)
		}
	})
}

func TestHangOverSocket(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	abandoned := make(chan struct{})
	handler := g.Handler()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			defer close(abandoned)
		}
		handler.ServeHTTP(w, r)
	}))
	defer server.Close()
	g.rt, g.origin = server.Client().Transport, server.URL
	g.SetFault(pamtest.Fault{Op: pam.OpGrant, Kind: pamtest.KindHang, AfterWork: true})

	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	req := g.build(ctx, g.grantRequest(simpleGrant))
	go func() {
		resp, err := g.rt.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		failed <- err
	}()
	for len(g.Grants()) == 0 { // until the request has arrived; the control API answers meanwhile
		resp, err := http.Get(server.URL + "/emulator/stats")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	<-abandoned
	if got := g.Stats().Answers[pam.OpGrant][0]; got != 1 {
		t.Errorf("%d grants without an answer, want 1", got)
	}
}

// The hooks tell a client that watches them what may have been sent.
func TestTraceHooks(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	trace := func(f pamtest.Fault) (calls []string) {
		g.SetFault(f)
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			GetConn:              func(string) { calls = append(calls, "get") },
			GotConn:              func(httptrace.GotConnInfo) { calls = append(calls, "got") },
			WroteHeaders:         func() { calls = append(calls, "headers") },
			WroteRequest:         func(httptrace.WroteRequestInfo) { calls = append(calls, "wrote") },
			GotFirstResponseByte: func() { calls = append(calls, "first") },
		})
		resp, err := g.rt.RoundTrip(g.build(ctx, g.grantRequest(simpleGrant)))
		if err == nil {
			resp.Body.Close()
		}
		return calls
	}
	for name, c := range map[string]struct {
		fault pamtest.Fault
		want  int
	}{
		"answer":  {pamtest.Fault{Status: 200}, 5},
		"cut":     {pamtest.Fault{Kind: pamtest.KindCut}, 4},
		"refused": {pamtest.Fault{Kind: pamtest.KindRefused}, 1},
	} {
		if got := trace(c.fault); len(got) != c.want {
			t.Errorf("%s: hooks %v, want %d of them", name, got, c.want)
		}
	}
}

func TestBodyEndsWithContext(t *testing.T) {
	g := newRig(t, pamtest.Config{})
	g.SetFault(pamtest.Fault{Kind: pamtest.KindHugeBody})
	ctx, cancel := context.WithCancel(t.Context())
	resp, err := g.rt.RoundTrip(g.build(ctx, g.grantRequest(simpleGrant)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := resp.Body.Read(make([]byte, 10)); err != nil {
		t.Error(err)
	}
	cancel()
	if _, err := resp.Body.Read(make([]byte, 10)); !errors.Is(err, context.Canceled) {
		t.Errorf("read after cancel: %v", err)
	}
}

func TestConcurrentUse(t *testing.T) {
	g := newRig(t, pamtest.Config{RecordLimit: 50})
	c := g.client()
	const workers, each = 8, 25
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				token, err := c.Grant(t.Context(), pam.Grant{TTL: time.Minute, UUID: "u", Resources: pam.Permissions{Channels: map[string]pam.Permission{"a": pam.Read}}})
				if err != nil {
					t.Error(err)
					return
				}
				if err := c.Revoke(t.Context(), token.Raw); err != nil {
					t.Error(err)
				}
				g.Live(token.Raw)
				g.Requests()
				g.SetClockOffset(0)
				g.SetFault(pamtest.Fault{Op: pam.OpTime, Delay: time.Nanosecond})
			}
		})
	}
	wg.Wait()
	st := g.Stats()
	if st.Grants != workers*each || st.Requests != 2*workers*each || st.Live != 0 {
		t.Errorf("stats %+v", st)
	}
	if n := len(g.Grants()); n != 50 {
		t.Errorf("%d grants kept, want 50", n)
	}
	seen := make(map[string]bool)
	for _, r := range g.Grants() {
		seen[r.Token.Reveal()] = true
	}
	if len(seen) != 50 {
		t.Errorf("%d different tokens of 50", len(seen))
	}
}
