package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pamsidecar/pamsidecar/cache"
)

// maxMatch bounds a revoke's expression in bytes: a rule made of it is asked about
// at every read from then on.
const maxMatch = 4096

// selectors are the fields of a RevokeRequest of which exactly one is given.
var selectors = []string{"names", "uuids", "match", "all", "token"}

func (h *handler) revoke(ctx context.Context, rq *request) (int, any, error) {
	var req RevokeRequest
	fields, err := decode(rq.body, &req, append(slices.Clone(selectors), "reason", "regrant", "dry_run")...)
	if err != nil {
		return 0, nil, err
	}
	order := cache.Revocation{Regrant: req.Regrant, DryRun: req.DryRun, By: rq.by}
	if order.Selector, err = selectorOf(req, fields); err != nil {
		return 0, nil, err
	}
	if order.Reason, err = reasonOf(req.Reason); err != nil {
		return 0, nil, err
	}
	res, err := h.Lifecycle.Revoke(ctx, order)
	if errors.Is(err, cache.ErrUnknown) && order.Token != "" {
		return 0, nil, problem(http.StatusNotFound, CodeUnknownToken,
			"no name holds this token; a token that this sidecar did not obtain cannot be revoked here")
	}
	return h.revoked(res, req.DryRun, err)
}

// selectorOf reads whom a revoke is for.
func selectorOf(req RevokeRequest, fields []string) (cache.Selector, error) {
	given := slices.DeleteFunc(slices.Clone(fields), func(f string) bool { return !slices.Contains(selectors, f) })
	switch len(given) {
	case 0:
		return cache.Selector{}, badRequest("give one of " + strings.Join(selectors, ", "))
	case 1:
	default:
		return cache.Selector{}, badRequest("give only one of " + strings.Join(given, ", "))
	}
	var s cache.Selector
	var err error
	switch given[0] {
	case "names":
		s.Names, err = uniqueNames("names", req.Names)
	case "uuids":
		s.UUIDs, err = uniqueNames("uuids", req.UUIDs)
	case "match":
		s.Match, err = req.Match, checkMatch(req.Match)
	case "all":
		if s.All = req.All; !req.All {
			err = badRequest("all can only be true")
		}
	case "token":
		if setText(&s.Token, strings.TrimSpace(req.Token)); s.Token == "" {
			err = badRequest("token is empty")
		}
	}
	return s, err
}

// setText converts without naming the type: the packages below cache are not
// imported here.
func setText[T ~string](to *T, text string) { *to = T(text) }

func checkMatch(expr string) error {
	if len(expr) > maxMatch {
		return badRequest(fmt.Sprintf("match is longer than %d bytes", maxMatch))
	}
	if _, err := cache.CompileMatch(expr); err != nil {
		return badRequest(err.Error())
	}
	return nil
}

// reasonOf is the reason of a revoke. It is shown to readers and written to the
// journal, so it is one line.
func reasonOf(text string) (string, error) {
	reason := strings.TrimSpace(text)
	switch {
	case reason == "":
		return "", badRequest("reason is required: it is written to the journal and shown to readers")
	case utf8.RuneCountInString(reason) > MaxReason:
		return "", badRequest(fmt.Sprintf("reason is longer than %d characters", MaxReason))
	case strings.ContainsFunc(reason, unicode.IsControl):
		return "", badRequest("reason contains a control character")
	}
	return reason, nil
}

// revoked is the answer to a revoke that the Lifecycle carried out, however far
// the disk has followed.
func (h *handler) revoked(res cache.RevokeResult, dryRun bool, err error) (int, any, error) {
	if err != nil {
		return 0, nil, err
	}
	result := resultOf(res, dryRun, h.Now())
	switch {
	case res.DiskErr != nil:
		result.Durable = false
		p := problem(http.StatusInsufficientStorage, CodeNotDurable, fmt.Sprintf(
			"%s; the withdrawal holds in this process and revoking upstream has started, but a crash now forgets it", oneLine(res.DiskErr)))
		return p.Status, RevokeProblem{*p, result}, nil
	case !res.Durable && !dryRun:
		return http.StatusAccepted, result, nil
	}
	return http.StatusOK, result, nil
}

func resultOf(res cache.RevokeResult, dryRun bool, now time.Time) RevokeResult {
	result := RevokeResult{
		Decision: res.Decision, DryRun: dryRun, Count: res.Count, Durable: res.Durable,
		Names: make([]RevokedName, len(res.Names)), Upstream: UpstreamNone,
	}
	if res.Rule != nil {
		result.Rule = new(ruleItem(*res.Rule))
	}
	// Names that are not listed may have revokes open: say so rather than not.
	open := res.Count > len(res.Names)
	for i, n := range res.Names {
		result.Names[i] = RevokedName{
			Name: n.Name, Generations: append([]uint64{}, n.Generations...), Blocked: n.Blocked,
			RevokesOpen: n.Open, UnaccountedUntil: future(n.UnaccountedUntil, now),
		}
		open = open || n.Open > 0
	}
	if open && !dryRun {
		result.Upstream = UpstreamPending
	}
	return result
}
