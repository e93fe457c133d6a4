package admin

import (
	"context"
	"errors"
	"net/http"

	"github.com/pamsidecar/pamsidecar/cache"
)

// maxMissing bounds the names the status lists as missing.
const maxMissing = 100

func (h *handler) live(context.Context, *request) (int, any, error) {
	return http.StatusOK, struct {
		Live bool `json:"live"`
	}{true}, nil
}

func (h *handler) status(ctx context.Context, _ *request) (int, any, error) {
	st := Status{Info: h.Info(), Now: utc(h.Now())}
	st.StartedAt = utc(st.StartedAt)
	st.Upstream.PausedUntil = future(st.Upstream.PausedUntil, st.Now)
	if st.Names == nil {
		var err error
		if st.Names, err = h.countNames(ctx); err != nil {
			return 0, nil, err
		}
	}
	if h.Ready != nil {
		missing := h.Ready()
		st.Ready = new(len(missing) == 0)
		st.Missing = missing[:min(len(missing), maxMissing)]
	}
	return http.StatusOK, st, nil
}

// countNames counts the names of each state, nil if there are too many to read.
func (h *handler) countNames(ctx context.Context) (map[cache.State]int, error) {
	counts := make(map[cache.State]int, len(cache.States))
	for _, s := range cache.States {
		counts[s] = 0
	}
	now, after := h.Now(), ""
	for range maxPages {
		recs, next, err := h.Records.Records(cache.Query{After: after, Limit: MaxLimit}, now)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		for _, r := range recs {
			counts[h.Records.StateOf(r, now)]++
		}
		if after = next; next == "" {
			return counts, nil
		}
	}
	return nil, nil
}

func (h *handler) reload(ctx context.Context, rq *request) (int, any, error) {
	var req ReloadRequest
	if rq.body != nil {
		if _, err := decode(rq.body, &req, "force"); err != nil {
			return 0, nil, err
		}
	}
	result, err := h.Lifecycle.Reload(ctx, req.Force, rq.by)
	if err != nil {
		return refusedReload(result, err)
	}
	return http.StatusOK, result.complete(), nil
}

// refusedReload is the answer to a reload that failed.
func refusedReload(would ReloadResult, err error) (int, any, error) {
	if e, ok := errors.AsType[*TooManyChangesError](err); ok {
		p := problem(http.StatusConflict, CodeTooManyChanges, oneLine(e)+"; nothing was changed; \"force\": true applies it")
		return p.Status, ReloadProblem{*p, would.complete()}, nil
	}
	if e, ok := errors.AsType[*FaultyConfigurationError](err); ok {
		p := problem(http.StatusUnprocessableEntity, CodeReloadFailed, "the configuration cannot be taken; nothing was changed")
		p.Faults = faults(e.Err)
		return 0, nil, p
	}
	return 0, nil, err
}

// complete makes every list of the result one, if only an empty one.
func (r ReloadResult) complete() ReloadResult {
	for _, list := range []*[]string{&r.Added, &r.Changed, &r.Narrowed, &r.Removed} {
		if *list == nil {
			*list = []string{}
		}
	}
	return r
}
