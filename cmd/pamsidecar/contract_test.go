package main

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/pamsidecar/pamsidecar/admin"
	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/socket"
)

// strangeNames are valid names that a path must not be confused by.
var strangeNames = []string{"a", "a/b", "a%2Fb", "..", ".", "a/../b", "a b", "?x=1", "#", "größe", "~+&=;,:@!$'()*", `"\`, "a/refresh", "\u202e", "//"}

// nobody is a cache.Reader that knows no name and keeps those it was asked for.
type nobody struct{ asked *[]string }

func (n nobody) View(name string) (cache.View, error) {
	*n.asked = append(*n.asked, name)
	return cache.View{}, cache.ErrUnknown
}
func (nobody) Changed(string) (<-chan struct{}, func())      { return nil, func() {} }
func (nobody) List(string, int) ([]cache.View, error)        { return nil, nil }
func (nobody) Record(string) (*cache.Record, error)          { return nil, cache.ErrUnknown }
func (nobody) StateOf(*cache.Record, time.Time) cache.State  { return cache.Pending }
func (nobody) RuleFor(string) *cache.Rule                    { return nil }
func (nobody) Blocks() ([]cache.BlockInfo, error)            { return nil, nil }
func (nobody) Journal(uint64, int) ([]cache.Decision, error) { return nil, nil }
func (nobody) Records(cache.Query, time.Time) ([]*cache.Record, string, error) {
	return nil, "", nil
}

// orders is an admin.Lifecycle that keeps the names it was ordered to refresh.
type orders struct {
	admin.Lifecycle
	asked *[]string
}

func (o orders) Refresh(_ context.Context, name string, _ cache.Actor) error {
	*o.asked = append(*o.asked, name)
	return cache.ErrUnknown
}

// The real token socket and the real admin endpoint get every name as it was
// typed, and their refusals are understood.
func TestNamesReachTheRealHandlers(t *testing.T) {
	var asked []string
	n := nobody{&asked}
	now := func() time.Time { return testNow }
	tokens := socket.NewHandler(socket.Config{Reader: n, Now: now})
	operators := admin.NewHandler(admin.Config{
		Records: n, Lifecycle: orders{asked: &asked}, Now: now,
		ParseGrant: func([]byte) (cache.Grant, error) { return cache.Grant{}, nil },
		Info:       func() admin.Info { return admin.Info{} },
	})
	f := newFakeSidecar(t)
	f.real = tokens
	for _, name := range strangeNames {
		f.command(t, "", "token", "--", name).wants(t, 1, nil, []string{"add a grant of this name"})
		f.command(t, "", "wait", "--timeout", "0", "--", name).wants(t, 1, nil, []string{showName(name) + ": no grant has this name"})
	}
	f = newFakeSidecar(t)
	f.real = operators
	for _, name := range strangeNames {
		f.command(t, "", "refresh", "--", name).wants(t, 1, nil, []string{"pamsidecar: " + showName(name) + ": ", "`pamsidecar status` lists the names"})
	}
	var want []string
	for _, name := range strangeNames {
		want = append(want, name, name)
	}
	if want = append(want, strangeNames...); !slices.Equal(asked, want) {
		t.Errorf("asked for %q\nwant      %q", asked, want)
	}
	f.command(t, "", "status", "--prefix", "a b", "--state", "fresh").wants(t, 0, []string{"0 names"}, nil)
	f.command(t, "", "audit", "--after", "3").wants(t, 0, nil, nil)
}
