package pamtest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
)

// The services that name themselves in error bodies.
const (
	serviceAccessManager = "Access Manager"
	serviceBalancer      = "Balancer"
)

// hugeBody is where KindHugeBody stops, in bytes.
const hugeBody = 10 << 20

// delivery says how much of a reply reaches the client.
type delivery int

const (
	deliverWhole   delivery = iota
	deliverHalf             // the whole length is declared, half of the body is sent, the connection is closed
	deliverHuge             // body, then filler up to hugeBody, without a declared length
	deliverNothing          // the connection is closed without an answer
)

// reply is an answer before it is put on a wire.
type reply struct {
	status int
	header http.Header // not nil unless how is deliverNothing
	body   []byte
	how    delivery
}

type success struct {
	Data    successData `json:"data"`
	Service string      `json:"service"`
	Status  int         `json:"status"`
}

type successData struct {
	Message string `json:"message"`
	Token   string `json:"token,omitempty"`
}

type structuredBody struct {
	Error   structuredError `json:"error"`
	Service string          `json:"service"`
	Status  int             `json:"status"`
}

type structuredError struct {
	Message string        `json:"message"`
	Source  pam.Op        `json:"source"`
	Details []errorDetail `json:"details"`
}

type errorDetail struct {
	Message      string `json:"message"`
	Location     string `json:"location"`
	LocationType string `json:"locationType"`
}

type flatBody struct {
	Message string `json:"message"`
	Error   bool   `json:"error"`
	Service string `json:"service,omitempty"`
	Status  int    `json:"status"`
}

// refusal is an error in the structured form of grant and revoke.
type refusal struct {
	status                                  int
	message, detail, location, locationType string
}

func (r refusal) reply(source pam.Op) reply {
	return jsonReply(r.status, structuredBody{
		Error: structuredError{
			Message: r.message,
			Source:  source,
			Details: []errorDetail{{Message: r.detail, Location: r.location, LocationType: r.locationType}},
		},
		Service: serviceAccessManager,
		Status:  r.status,
	})
}

func badJSON(detail string) *refusal {
	return &refusal{http.StatusBadRequest, "Invalid JSON", detail, "<root>", "body"}
}

func forbidden(message, detail, parameter string) refusal {
	return refusal{http.StatusForbidden, message, detail, parameter, "query"}
}

func invalidToken(detail string) refusal {
	return refusal{http.StatusBadRequest, "Invalid token", detail, "token", "path"}
}

// flat is an error in the form of the data plane and the front servers.
func flat(status int, service, message string) reply {
	return jsonReply(status, flatBody{Message: message, Error: true, Service: service, Status: status})
}

// jsonReply encodes v without escaping '<', '>' and '&', as the service does.
func jsonReply(status int, v any) reply {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // the types of this file always encode
		panic(err)
	}
	return textReply(status, string(bytes.TrimRight(b.Bytes(), "\n")))
}

// textReply is any answer with the headers the service always sends; JSON comes as text/javascript too.
func textReply(status int, body string) reply {
	return reply{
		status: status,
		header: http.Header{
			"Content-Type":  {"text/javascript; charset=UTF-8"},
			"Cache-Control": {"no-cache, no-store, must-revalidate"},
		},
		body: []byte(body),
	}
}

func httpDate(t time.Time) string { return t.UTC().Format(http.TimeFormat) }

// content returns the body as the client gets it and the declared length (-1: none).
func (r reply) content() (io.Reader, int64) {
	length := int64(len(r.body))
	switch r.how {
	case deliverHalf:
		return io.MultiReader(bytes.NewReader(r.body[:len(r.body)/2]), brokenReader{}), length
	case deliverHuge:
		return io.MultiReader(bytes.NewReader(r.body), io.LimitReader(filler{}, hugeBody-length)), -1
	}
	return bytes.NewReader(r.body), length
}

// write sends the reply over a real connection.
func (r reply) write(w http.ResponseWriter) {
	if r.how == deliverNothing {
		panic(http.ErrAbortHandler)
	}
	for key, values := range r.header {
		w.Header()[key] = values
	}
	content, length := r.content()
	if length >= 0 && bodyAllowed(r.status) {
		w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
	}
	w.WriteHeader(r.status)
	if _, err := io.Copy(w, content); err != nil && r.how == deliverHalf {
		_ = http.NewResponseController(w).Flush() // the half must be out before the connection is cut
		panic(http.ErrAbortHandler)
	}
}

func bodyAllowed(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}

// brokenReader is the place where a connection was cut.
type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// filler is an endless run of the letter x.
type filler struct{}

func (filler) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}
