package storetest

import (
	"testing"

	"github.com/pamsidecar/pamsidecar/cache"
)

func TestModel(t *testing.T) {
	open := func(*testing.T) cache.Store { return Model() }
	Run(t, open)
	t.Run("random", func(t *testing.T) { RunModel(t, open) })
}
