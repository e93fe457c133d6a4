package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/pamsidecar/pamsidecar/cache"
)

// Error makes a Problem an error: its code and detail.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Code
	}
	return p.Code + ": " + p.Detail
}

// problem is a problem document with the title of its status.
func problem(status int, code, detail string) *Problem {
	return &Problem{Title: http.StatusText(status), Status: status, Code: code, Detail: detail}
}

func badRequest(detail string) *Problem {
	return problem(http.StatusBadRequest, CodeBadRequest, detail)
}

// refusal is the answer to a request that failed with err.
func refusal(err error) (status int, body any) {
	p := problemOf(err)
	return p.Status, p
}

// problemOf says what an error of a Lifecycle or of the records means to the one
// who asked.
func problemOf(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if e, ok := errors.AsType[*cache.RuleBlockedError](err); ok {
		return ruleBlocked(e.Name, e.Rule)
	}
	if e, ok := errors.AsType[*cache.UnknownNamesError](err); ok {
		return unknownNames(e.Names)
	}
	switch {
	case errors.Is(err, cache.ErrUnknown):
		return problem(http.StatusNotFound, CodeUnknownName, "nothing is kept for this name")
	case errors.Is(err, cache.ErrBlocked):
		return problem(http.StatusConflict, CodeBlocked, "the name is blocked: nothing is granted until it is unblocked")
	case errors.Is(err, cache.ErrEnded):
		return problem(http.StatusConflict, CodeEnded, "the grant has ended: nothing is granted any more")
	case errors.Is(err, cache.ErrInFile):
		return problem(http.StatusConflict, CodeInFile, "the configuration file has this name: change it there and reload")
	case errors.Is(err, cache.ErrNotBlocked):
		return problem(http.StatusConflict, CodeNotBlocked, oneLine(err))
	case errors.Is(err, cache.ErrDegraded):
		return problem(http.StatusInsufficientStorage, CodeNotDurable,
			oneLine(err)+"; it is written again as soon as the disk takes it, but a crash before that forgets it")
	case errors.Is(err, context.DeadlineExceeded):
		return problem(http.StatusServiceUnavailable, CodeTimeout, "not confirmed in time; it may still take effect: look at the state before trying again")
	}
	return problem(http.StatusInternalServerError, CodeInternal, oneLine(err))
}

// ruleBlocked says which rule blocks a name and how to remove it.
func ruleBlocked(name string, rule cache.Rule) *Problem {
	p := problem(http.StatusConflict, CodeRuleBlocked, fmt.Sprintf(
		"%q is blocked by rule %d, which blocks every name that matches %q: DELETE %s/%d removes the rule",
		name, rule.ID, rule.Match, PathBlocks, rule.ID))
	p.BlockRule = new(ruleItem(rule))
	return p
}

func unknownNames(names []string) *Problem {
	p := problem(http.StatusNotFound, CodeUnknownName, fmt.Sprintf("nothing is kept for %s; nothing was changed", counted(len(names), "name")))
	p.Unknown = names
	return p
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// faults lists the parts of an error that joins several, otherwise the error.
func faults(err error) []string {
	all, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](err)
	if !ok || len(all.Unwrap()) == 0 {
		return []string{oneLine(err)}
	}
	var texts []string
	for _, e := range all.Unwrap() {
		texts = append(texts, faults(e)...)
	}
	return texts
}

// oneLine is the text of an error without line breaks.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// send writes an answer: a status from 400 on is a problem document. Nothing of
// this endpoint may be cached.
func send(w http.ResponseWriter, status int, body any, log *slog.Logger) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		log.Error("admin answer cannot be encoded", "error", err)
		status = http.StatusInternalServerError
		buf.Reset()
		buf.WriteString(`{"title":"Internal Server Error","status":500,"code":"internal","detail":"the answer cannot be encoded"}` + "\n")
	}
	media := MediaJSON
	if status >= http.StatusBadRequest {
		media = MediaProblem
	}
	w.Header().Set("Content-Type", media)
	w.Header().Set("Content-Length", strconv.Itoa(buf.Len()))
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(buf.Bytes()) // the caller is gone: nobody is left to tell
}
