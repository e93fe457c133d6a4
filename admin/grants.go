package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/pamsidecar/pamsidecar/cache"
)

// checkName refuses a name of the path that no grant can have.
func (rq *request) checkName() error {
	if err := cache.ValidName(rq.name); err != nil {
		return badRequest(err.Error())
	}
	return nil
}

func (h *handler) listGrants(_ context.Context, rq *request) (int, any, error) {
	limit, err := rq.limit()
	if err != nil {
		return 0, nil, err
	}
	q := cache.Query{
		State: cache.State(rq.query.Get("state")), Prefix: rq.query.Get("prefix"),
		After: rq.query.Get("cursor"), Limit: limit,
	}
	if q.State != "" && !slices.Contains(cache.States, q.State) {
		return 0, nil, badRequest(fmt.Sprintf("state is one of %s", stateNames()))
	}
	now := h.Now()
	recs, next, err := h.Records.Records(q, now)
	if err != nil {
		return 0, nil, err
	}
	list := GrantList{Items: make([]GrantItem, len(recs)), Next: next}
	for i, r := range recs {
		list.Items[i] = h.item(r, now)
	}
	return http.StatusOK, list, nil
}

func stateNames() string {
	var names []string
	for _, s := range cache.States {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

func (h *handler) showGrant(_ context.Context, rq *request) (int, any, error) {
	if err := rq.checkName(); err != nil {
		return 0, nil, err
	}
	return h.show(rq.name, http.StatusOK)
}

// show answers with the detail of a name.
func (h *handler) show(name string, status int) (int, any, error) {
	r, err := h.Records.Record(name)
	if err != nil {
		return 0, nil, err
	}
	d, err := h.detail(r, h.Now())
	return status, d, err
}

func (h *handler) putGrant(ctx context.Context, rq *request) (int, any, error) {
	if err := rq.checkName(); err != nil {
		return 0, nil, err
	}
	body, err := withName(rq.body, rq.name)
	if err != nil {
		return 0, nil, err
	}
	g, err := h.ParseGrant(body)
	if err != nil {
		p := problem(http.StatusBadRequest, CodeInvalidGrant, "the grant is faulty; nothing was changed")
		p.Faults = faults(err)
		return 0, nil, p
	}
	if g.Name != rq.name {
		return 0, nil, badRequest(fmt.Sprintf("the path is about %q, the body about %q", rq.name, g.Name))
	}
	status := http.StatusOK
	before, err := h.Records.Record(rq.name)
	if errors.Is(err, cache.ErrUnknown) || err == nil && before.Removed() {
		status = http.StatusCreated
	}
	if err := h.Lifecycle.Put(ctx, g, rq.by); err != nil {
		return 0, nil, err
	}
	return h.show(rq.name, status)
}

// withName adds the name to a grant that has none, behind all the rest, so that
// positions told of faults stay right.
func withName(body []byte, name string) ([]byte, error) {
	fields, err := objectFields(body)
	if err != nil || slices.Contains(fields, "name") {
		return body, err
	}
	quoted, err := json.Marshal(name)
	if err != nil {
		return nil, err
	}
	text := strings.TrimSuffix(strings.TrimRight(string(body), " \t\r\n"), "}")
	if len(fields) > 0 {
		text += ","
	}
	return []byte(text + `"name":` + string(quoted) + "}"), nil
}

func (h *handler) deleteGrant(ctx context.Context, rq *request) (int, any, error) {
	if err := rq.checkName(); err != nil {
		return 0, nil, err
	}
	revoke, err := rq.flag("revoke")
	if err != nil {
		return 0, nil, err
	}
	res, err := h.Lifecycle.Delete(ctx, rq.name, revoke, rq.by)
	return h.revoked(res, false, err)
}

func (h *handler) refreshGrant(ctx context.Context, rq *request) (int, any, error) {
	if err := rq.checkName(); err != nil {
		return 0, nil, err
	}
	if err := h.Lifecycle.Refresh(ctx, rq.name, rq.by); err != nil {
		return 0, nil, err
	}
	return h.show(rq.name, http.StatusOK)
}

func (h *handler) unblockGrant(ctx context.Context, rq *request) (int, any, error) {
	if err := rq.checkName(); err != nil {
		return 0, nil, err
	}
	if err := h.Lifecycle.Unblock(ctx, []string{rq.name}, rq.by); err != nil {
		return 0, nil, err
	}
	// A name that was kept only for its block may be gone now.
	status, body, err := h.show(rq.name, http.StatusOK)
	if errors.Is(err, cache.ErrUnknown) {
		return http.StatusOK, UnblockResult{Names: []string{rq.name}}, nil
	}
	return status, body, err
}

func (h *handler) unblock(ctx context.Context, rq *request) (int, any, error) {
	var req UnblockRequest
	fields, err := decode(rq.body, &req, "names", "accept_lost_blocks")
	if err != nil {
		return 0, nil, err
	}
	if len(fields) != 1 {
		return 0, nil, badRequest("give exactly one of names, accept_lost_blocks")
	}
	if fields[0] == "accept_lost_blocks" {
		if !req.AcceptLostBlocks {
			return 0, nil, badRequest("accept_lost_blocks can only be true")
		}
		return http.StatusOK, UnblockResult{AcceptLostBlocks: true}, h.Lifecycle.AcceptLostBlocks(ctx, rq.by)
	}
	names, err := uniqueNames("names", req.Names)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, UnblockResult{Names: names}, h.Lifecycle.Unblock(ctx, names, rq.by)
}

// uniqueNames checks a list of names or UUIDs, which follow the same rules, and
// drops repetitions.
func uniqueNames(field string, names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, badRequest(field + " is empty")
	}
	seen := make(map[string]bool, len(names))
	var unique []string
	for i, n := range names {
		if err := cache.ValidName(n); err != nil {
			return nil, badRequest(fmt.Sprintf("%s[%d]: %v", field, i, err))
		}
		if !seen[n] {
			seen[n] = true
			unique = append(unique, n)
		}
	}
	return unique, nil
}
