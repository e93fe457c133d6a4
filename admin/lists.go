package admin

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"

	"github.com/pamsidecar/pamsidecar/cache"
)

// maxPages bounds the pages of records that one request reads through.
const maxPages = 10

func (h *handler) listBlocks(context.Context, *request) (int, any, error) {
	blocks, err := h.Records.Blocks()
	if err != nil {
		return 0, nil, err
	}
	list := BlockList{Items: make([]BlockItem, len(blocks))}
	for i, b := range blocks {
		list.Items[i] = blockItem(b)
	}
	return http.StatusOK, list, nil
}

// liftBlock removes what one decision blocks: its rule, and its blocks of names.
func (h *handler) liftBlock(ctx context.Context, rq *request) (int, any, error) {
	id, err := strconv.ParseUint(rq.name, 10, 64)
	if err != nil || id == 0 {
		return 0, nil, badRequest("the path does not end in the number of a block")
	}
	blocks, err := h.Records.Blocks()
	if err != nil {
		return 0, nil, err
	}
	lifted := BlockList{}
	var names []string
	rule := false
	for _, b := range blocks {
		if b.ID != id {
			continue
		}
		lifted.Items = append(lifted.Items, blockItem(b))
		if b.Name == "" {
			rule = true
		} else {
			names = append(names, b.Name)
		}
	}
	if len(lifted.Items) == 0 {
		return 0, nil, problem(http.StatusNotFound, CodeUnknownBlock, fmt.Sprintf("no block and no block rule has the number %d", id))
	}
	if rule {
		if err := h.Lifecycle.RemoveRule(ctx, id, rq.by); err != nil {
			return 0, nil, err
		}
	}
	if len(names) > 0 {
		if err := h.Lifecycle.Unblock(ctx, names, rq.by); err != nil {
			return 0, nil, err
		}
	}
	return http.StatusOK, lifted, nil
}

func (h *handler) listRevocations(ctx context.Context, rq *request) (int, any, error) {
	limit, err := rq.limit()
	if err != nil {
		return 0, nil, err
	}
	onlyOpen, err := rq.flag("open")
	if err != nil {
		return 0, nil, err
	}
	now := h.Now()
	list := RevocationList{Items: []Revocation{}, Next: rq.query.Get("cursor")}
	for range maxPages {
		recs, next, err := h.Records.Records(cache.Query{After: list.Next, Limit: MaxLimit}, now)
		if err != nil {
			return 0, nil, err
		}
		for _, r := range recs {
			if len(list.Items) >= limit {
				return http.StatusOK, list, nil
			}
			for _, w := range r.Withdrawn {
				if w.Open() || !onlyOpen {
					list.Items = append(list.Items, Revocation{r.Name, withdrawal(w, now)})
				}
			}
			list.Next = r.Name
		}
		list.Next = next
		if next == "" || ctx.Err() != nil {
			break
		}
	}
	return http.StatusOK, list, ctx.Err()
}

func (h *handler) listAudit(_ context.Context, rq *request) (int, any, error) {
	limit, err := rq.limit()
	if err != nil {
		return 0, nil, err
	}
	after := uint64(0)
	if s := rq.query.Get("after"); s != "" {
		if after, err = strconv.ParseUint(s, 10, 64); err != nil || after == math.MaxUint64 {
			return 0, nil, badRequest("after is the number of a line")
		}
	}
	// One more than asked for tells whether there is a next page.
	decisions, err := h.Records.Journal(after, limit+1)
	if err != nil {
		return 0, nil, err
	}
	list := AuditList{Items: []AuditItem{}}
	for i, d := range decisions {
		if i == limit {
			list.Next = list.Items[limit-1].Seq
			break
		}
		list.Items = append(list.Items, auditItem(d))
	}
	return http.StatusOK, list, nil
}
