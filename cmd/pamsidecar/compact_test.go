package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/pamsidecar/pamsidecar/cache"
)

func TestCompact(t *testing.T) {
	dir := t.TempDir()
	db, err := cache.OpenBolt(filepath.Join(dir, stateFile), cache.BoltOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	rows := []cache.Row{{Name: "a", Data: []byte(strings.Repeat("x", 1<<20))}, {Name: "b", Data: []byte("y")}}
	for _, err := range db.Commit(t.Context(), rows) {
		if err != nil {
			t.Fatal(err)
		}
	}
	f := newFakeSidecar(t)
	f.command(t, "", "compact", "--state-dir", dir).wants(t, 1, nil, []string{"another pamsidecar uses this state", "stop the sidecar first"})
	if err := db.Commit(t.Context(), []cache.Row{{Name: "a", Revision: 1}})[0]; err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	f.command(t, "", "compact", "--state-dir", dir).wants(t, 0, []string{"tokens.db: ", " bytes, were "}, nil)
	db, err = cache.OpenBolt(filepath.Join(dir, stateFile), cache.BoltOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if row, err := db.Get("b"); err != nil || string(row.Data) != "y" {
		t.Errorf("row b: %q, %v", row.Data, err)
	}
}
