package socket

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/client"
)

// Missing lists, in byte order, the names that readiness depends on and that have
// no live token at now (server time), leaving out blocked and ended ones, which
// should not have one. It knows only names the Reader has: before a configuration
// is applied it has nothing to miss.
func Missing(r cache.Reader, now time.Time) ([]client.Missing, error) {
	var missing []client.Missing
	after := ""
	for {
		page, err := r.List(after, pageSize)
		if err != nil {
			return nil, fmt.Errorf("list names: %w", err)
		}
		if len(page) == 0 {
			return missing, nil
		}
		for _, v := range page {
			state := v.State(now)
			if v.Required() && (state == cache.Pending || state == cache.Expired) {
				missing = append(missing, missingOf(v, state))
			}
		}
		after = page[len(page)-1].Name()
	}
}

func missingOf(v cache.View, state cache.State) client.Missing {
	m := client.Missing{Name: v.Name(), State: string(state), Reason: v.Reason()}
	if state == cache.Pending || state == cache.Expired {
		m.RetryAt = wholeSeconds(v.NextAttempt())
	}
	return m
}

func (h *Handler) serveReady(w http.ResponseWriter, t target) {
	if t.name != "" {
		h.serveReadyName(w, t.name)
		return
	}
	missing, err := h.cfg.Ready()
	if err != nil {
		h.log.Warn("token socket: readiness cannot be told", "error", err)
		writeProblem(w, problem(http.StatusInternalServerError, client.CodeInternal, "readiness could not be told; the sidecar's log says why"))
		return
	}
	h.writeReadiness(w, missing)
}

// serveReadyName answers for one name, required or not: it is ready while it has a
// live token.
func (h *Handler) serveReadyName(w http.ResponseWriter, name string) {
	v, err := h.view(name)
	if errors.Is(err, cache.ErrUnknown) {
		writeProblem(w, problem(http.StatusNotFound, client.CodeUnknownName, "no grant has this name"))
		return
	}
	if err != nil {
		h.log.Warn("token socket: name cannot be looked up", "name", name, "error", err)
		writeProblem(w, problem(http.StatusInternalServerError, client.CodeInternal, "the name could not be looked up; the sidecar's log says why"))
		return
	}
	var missing []client.Missing
	if state := v.State(h.cfg.Now()); !state.Live() {
		missing = append(missing, missingOf(v, state))
	}
	h.writeReadiness(w, missing)
}

// writeReadiness answers with what is missing. Names that the caller may not read
// are only counted.
func (h *Handler) writeReadiness(w http.ResponseWriter, missing []client.Missing) {
	status := http.StatusOK
	doc := client.Readiness{Ready: len(missing) == 0}
	if !doc.Ready {
		status = http.StatusServiceUnavailable
	}
	for _, m := range missing {
		if h.cfg.Loopback {
			if _, err := h.view(m.Name); err != nil {
				doc.Others++
				continue
			}
		}
		doc.Missing = append(doc.Missing, m)
	}
	writeJSON(w, status, "application/json", doc)
}
