package socket

import (
	"bytes"
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/pamsidecar/pamsidecar/client"
)

const problemType = "application/problem+json"

// problem is a problem document with the title of its status.
func problem(status int, code client.Code, detail string) client.Problem {
	return client.Problem{Title: http.StatusText(status), Status: status, Code: code, Detail: detail}
}

func badRequest(detail string) client.Problem {
	return problem(http.StatusBadRequest, client.CodeBadRequest, detail)
}

// writeProblem answers with p and the headers that belong to its status.
func writeProblem(w http.ResponseWriter, p client.Problem) {
	switch p.Status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", "GET, HEAD")
	case http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, p.Status, problemType, p)
}

// retryAfter is the value of Retry-After: whole seconds until at, at least 1.
func retryAfter(at, now time.Time) string {
	if at.IsZero() {
		return "1"
	}
	return strconv.Itoa(max(1, int(math.Ceil(at.Sub(now).Seconds()))))
}

// writeJSON answers with v as one line of JSON.
func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	write(w, status, contentType, marshal(v))
}

// marshal is json.Marshal of the package's own types, which cannot fail, without
// the escapes that only HTML needs.
func marshal(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

// write answers with a whole body. A client that does not take it in time loses
// the connection.
func write(w http.ResponseWriter, status int, contentType string, body []byte) {
	allowWrite(w)
	header := w.Header()
	header.Set("Content-Type", contentType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client is gone: nobody is left to tell
}

// allowWrite gives the client answerTimeout from now for the next piece. Recorders
// of tests have no deadline, which is no fault.
func allowWrite(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTimeout))
}
