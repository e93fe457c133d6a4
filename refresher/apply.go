package refresher

import (
	"context"
	"errors"
	"slices"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/pam"
)

// massChange is how many grants may end or be narrowed at once without force.
func massChange(total int) int { return max(5, total/10) }

// Apply makes the grants of the configuration file the ones that are kept: new and
// changed ones are due at once, removed ones are no longer served and their tokens
// are revoked after Handover. Unless force is set, it changes nothing and returns
// a *cache.TooManyChangesError when more than 5 and more than a tenth of the grants would
// end or be narrowed. It must not be called concurrently with itself.
func (r *Refresher) Apply(ctx context.Context, grants []cache.Grant, force bool) (cache.Diff, error) {
	before, err := r.cache.FileNames()
	if err != nil {
		r.log.Error("names of the last configuration cannot be read: those removed since are not noticed", "error", err)
	}
	diff, err := r.diff(before, grants)
	if err != nil {
		return cache.Diff{}, err
	}
	ended := len(diff.Removed) + len(diff.Narrowed)
	if !force && ended > massChange(len(before)) {
		return diff, &cache.TooManyChangesError{Ended: len(diff.Removed), Narrowed: len(diff.Narrowed), Of: len(before)}
	}
	if err := r.applyAll(ctx, grants, diff); err != nil {
		return diff, err
	}
	names := make([]string, len(grants))
	var required []string
	for i, g := range grants {
		names[i] = g.Name
		if g.IsRequired(cache.FromFile) {
			required = append(required, g.Name)
		}
	}
	slices.Sort(names)
	r.required.Store(&required)
	if !slices.Equal(names, before) {
		if err := r.cache.SetFileNames(names); err != nil {
			r.log.Error("names of the configuration cannot be kept: the next start does not notice those removed since", "error", err)
		}
	}
	r.poke()
	return diff, nil
}

// diff compares the file's grants with what is kept.
func (r *Refresher) diff(before []string, grants []cache.Grant) (cache.Diff, error) {
	var d cache.Diff
	listed := make(map[string]bool, len(grants))
	for _, g := range grants {
		listed[g.Name] = true
		rec, err := r.cache.Record(g.Name)
		switch {
		case errors.Is(err, cache.ErrUnknown), err == nil && rec.Removed():
			d.Added = append(d.Added, g.Name)
		case err != nil:
			return cache.Diff{}, err
		case rec.Grant.Fingerprint() == g.Fingerprint() && rec.Source == cache.FromFile:
			d.Unchanged++
		default:
			d.Changed = append(d.Changed, g.Name)
			if narrows(g.Grant, rec) {
				d.Narrowed = append(d.Narrowed, g.Name)
			}
		}
	}
	for _, name := range before {
		if listed[name] {
			continue
		}
		if rec, err := r.cache.Record(name); err == nil && !rec.Removed() && rec.Source == cache.FromFile {
			d.Removed = append(d.Removed, name)
		}
	}
	slices.Sort(d.Added)
	slices.Sort(d.Changed)
	slices.Sort(d.Narrowed)
	slices.Sort(d.Removed)
	return d, nil
}

// narrows reports whether a grant allows less than the record's current token.
func narrows(g pam.Grant, rec *cache.Record) bool {
	if rec.Current == nil {
		return false
	}
	tok, err := pam.Parse(rec.Current.Raw.Reveal())
	return err == nil && g.Narrower(tok)
}

// applyBatch is how many records are committed together.
const applyBatch = 500

func (r *Refresher) applyAll(ctx context.Context, grants []cache.Grant, diff cache.Diff) error {
	wanted := make(map[string]bool, len(diff.Added)+len(diff.Changed))
	for _, name := range slices.Concat(diff.Added, diff.Changed) {
		wanted[name] = true
	}
	now := r.clock.Now()
	var changes []change
	for _, g := range grants {
		if wanted[g.Name] {
			changes = append(changes, change{g.Name, func(rec *cache.Record) {
				if rec.Lost || r.cache.LostDatabase() && rec.Generation == 0 {
					rec.UnaccountedUntil = later(rec.UnaccountedUntil, now.Add(g.TTL+timestampWindow))
				}
				rec.SetGrant(g, cache.FromFile, now)
			}})
		}
	}
	for _, name := range diff.Removed {
		changes = append(changes, change{name, func(rec *cache.Record) {
			rec.End(now)
			rec.Withdraw(now, now.Add(Handover), "removed from the configuration")
			r.log.Info("grant removed", "name", name)
		}})
	}
	for batch := range slices.Chunk(changes, applyBatch) {
		if err := r.commitChanges(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

// change is one record's part in a larger change.
type change struct {
	name  string
	apply func(*cache.Record)
}

// commitChanges commits changes of different names together, and one by one those
// whose name moves on meanwhile.
func (r *Refresher) commitChanges(ctx context.Context, changes []change) error {
	recs := make([]*cache.Record, len(changes))
	for i, c := range changes {
		rec, err := r.cache.Record(c.name)
		if errors.Is(err, cache.ErrUnknown) {
			rec, err = cache.NewRecord(c.name), nil
		}
		if err != nil {
			return err
		}
		c.apply(rec)
		recs[i] = rec
	}
	for i, err := range r.cache.Commit(ctx, recs...) {
		if errors.Is(err, cache.ErrConflict) {
			err = r.cache.Update(changes[i].name, func(rec *cache.Record) bool {
				changes[i].apply(rec)
				return true
			})
		}
		if err != nil && !errors.Is(err, cache.ErrDegraded) {
			return err
		}
	}
	return nil
}
