package socket

import (
	"bufio"
	"bytes"
	"net/http"
	"time"

	"github.com/pamsidecar/pamsidecar/cache"
	"github.com/pamsidecar/pamsidecar/client"
)

// pageSize is how many names a list holds in memory at a time.
const pageSize = 256

// serveList streams the names this handler serves. A fault on the way cuts the
// connection, so that a part never looks like the whole.
func (h *Handler) serveList(w http.ResponseWriter, r *http.Request) {
	page, err := h.cfg.Reader.List("", pageSize)
	if err != nil {
		h.log.Warn("token socket: names cannot be listed", "error", err)
		writeProblem(w, problem(http.StatusInternalServerError, client.CodeInternal, "the names could not be listed; the sidecar's log says why"))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	allowWrite(w)
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	out := bufio.NewWriterSize(w, 32<<10)
	_, _ = out.WriteString(`{"items":[`)
	comma := ""
	for len(page) > 0 {
		allowWrite(w)
		for _, v := range page {
			if h.cfg.Loopback && !v.Loopback() {
				continue
			}
			_, _ = out.WriteString(comma)
			_, _ = out.Write(bytes.TrimSuffix(marshal(nameItem(v, h.cfg.Now())), []byte("\n")))
			comma = ","
		}
		page, err = h.cfg.Reader.List(page[len(page)-1].Name(), pageSize)
		if err == nil && len(page) > 0 {
			err = out.Flush()
		}
		if err != nil || r.Context().Err() != nil {
			h.log.Debug("token socket: list was cut", "error", err)
			panic(http.ErrAbortHandler)
		}
	}
	allowWrite(w)
	_, _ = out.WriteString("]}\n")
	_ = out.Flush() // the client is gone: nobody is left to tell
}

func nameItem(v cache.View, now time.Time) client.NameItem {
	state := v.State(now)
	item := client.NameItem{Name: v.Name(), UUID: uuidOf(v), State: string(state), Generation: v.Generation()}
	if state.Live() {
		item.ExpiresAt = momentOf(v.Expires())
	}
	return item
}
