package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	boltKept        = 2 // damaged files that are kept
	boltAsideSuffix = ".corrupt-"
	boltAsideTime   = "20060102T150405.000Z"
)

// quarantine moves the damaged file aside and returns a new one, empty and locked. The new file takes the path in one
// step from the old, so that no other process finds the path free; where that is impossible it returns no file, and
// the path is free.
func (c *boltOpener) quarantine(f *os.File, damage error) (*os.File, error) {
	aside, err := c.asidePath()
	if err != nil {
		return f, err
	}
	if !boltReplaces {
		f.Close()
		if err := os.Rename(c.path, aside); err != nil {
			return nil, fmt.Errorf("%w; moving it aside: %w", damage, err)
		}
		return nil, c.quarantinedTo(aside, damage)
	}
	fresh, err := c.newFile()
	if err == nil && os.Link(c.path, aside) != nil {
		err = os.Rename(c.path, aside) // no hard links here
	}
	if err == nil {
		err = os.Rename(fresh.Name(), c.path)
	}
	if err != nil {
		if fresh != nil {
			err = errors.Join(err, fresh.Close(), os.Remove(fresh.Name()))
		}
		return f, fmt.Errorf("%w; moving it aside: %w", damage, err)
	}
	f.Close()
	return fresh, c.quarantinedTo(aside, damage)
}

func (c *boltOpener) quarantinedTo(aside string, damage error) error {
	c.quarantined = aside
	c.log.Error("state file is damaged: moved aside, beginning with an empty one", "moved_to", aside, "error", damage)
	c.prune()
	return syncBoltDir(filepath.Dir(c.path))
}

func (c *boltOpener) asidePath() (string, error) {
	name := c.path + boltAsideSuffix + time.Now().UTC().Format(boltAsideTime)
	for i := 1; ; i++ {
		path := name
		if i > 1 {
			path = fmt.Sprintf("%s-%d", name, i)
		}
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return path, nil
		} else if err != nil {
			return "", err
		}
	}
}

// prune removes all damaged files but the one just moved and the newest of the others; their names sort by time.
func (c *boltOpener) prune() {
	entries, err := os.ReadDir(filepath.Dir(c.path))
	if err != nil {
		c.log.Warn("old damaged state files could not be listed", "error", err)
		return
	}
	var aside []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(c.path)+boltAsideSuffix) && e.Type().IsRegular() {
			aside = append(aside, filepath.Join(filepath.Dir(c.path), e.Name()))
		}
	}
	aside = slices.DeleteFunc(aside, func(path string) bool { return path == c.quarantined })
	slices.Sort(aside)
	for _, path := range aside[:max(0, len(aside)-(boltKept-1))] {
		if err := os.Remove(path); err != nil {
			c.log.Warn("old damaged state file could not be removed", "file", path, "error", err)
		}
	}
}
