package pamtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
)

const (
	controlPrefix = "/emulator/"

	maxControlBody = 1 << 20

	// defaultItems is how many of the newest records a list shows without ?limit=.
	defaultItems = 1000
)

// ControlHandler returns the control API under /emulator/, see docs/EMULATOR.md. It asks nobody who they are: serve it only where everybody
// may read the emulator's tokens and make it fail.
func (s *Server) ControlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /emulator/stats", s.controlStats)
	mux.HandleFunc("GET /emulator/grants", list(s, &s.grants, newGrantJSON))
	mux.HandleFunc("GET /emulator/revocations", list(s, &s.revocations, newRevokeJSON))
	mux.HandleFunc("GET /emulator/requests", list(s, &s.requests, newRequestJSON))
	mux.HandleFunc("GET /emulator/denials", list(s, &s.denials, newDenialJSON))
	mux.HandleFunc("GET /emulator/live", s.controlLive)
	mux.HandleFunc("POST /emulator/live", s.controlLive)
	mux.HandleFunc("GET /emulator/faults", s.controlListFaults)
	mux.HandleFunc("PUT /emulator/faults", s.controlSetFaults)
	mux.HandleFunc("DELETE /emulator/faults", s.controlClearFaults)
	mux.HandleFunc("PUT /emulator/clock", s.controlClock)
	mux.HandleFunc("PUT /emulator/revoke", s.controlRevoke)
	mux.HandleFunc("PUT /emulator/access", s.controlAccess)
	return mux
}

type grantJSON struct {
	Time    time.Time       `json:"time"`
	UUID    string          `json:"uuid,omitempty"`
	TTL     int             `json:"ttl"` // minutes
	Issued  time.Time       `json:"issued_at"`
	Expires time.Time       `json:"expires_at"`
	TokenID string          `json:"token_id"`
	Token   string          `json:"token,omitempty"`
	Body    json.RawMessage `json:"body"`
}

func newGrantJSON(r GrantRecord, raw bool) grantJSON {
	return grantJSON{r.Time.UTC(), r.UUID, int(r.TTL / time.Minute), r.Issued, r.Expires, r.Token.ID(), reveal(r.Token, raw), r.Body}
}

type revokeJSON struct {
	Time    time.Time `json:"time"`
	TokenID string    `json:"token_id"`
	Token   string    `json:"token,omitempty"`
	Status  int       `json:"status"`
	Acted   bool      `json:"acted"`
}

func newRevokeJSON(r RevokeRecord, raw bool) revokeJSON {
	return revokeJSON{r.Time.UTC(), r.Token.ID(), reveal(r.Token, raw), r.Status, r.Acted}
}

type requestJSON struct {
	Time      time.Time `json:"time"`
	Duration  float64   `json:"duration"` // seconds
	Op        pam.Op    `json:"op"`
	Path      string    `json:"path,omitempty"`
	Timestamp string    `json:"timestamp,omitempty"`
	Status    int       `json:"status"`
	Fault     string    `json:"fault,omitempty"`
	Acted     bool      `json:"acted"`
}

func newRequestJSON(r RequestRecord, _ bool) requestJSON {
	return requestJSON{r.Time.UTC(), r.Duration.Seconds(), r.Op, r.Path, r.Timestamp, r.Status, r.Fault, r.Acted}
}

type denialJSON struct {
	Time       time.Time `json:"time"`
	UUID       string    `json:"uuid"`
	Op         pam.Op    `json:"op"`
	Message    string    `json:"message"`
	Cause      string    `json:"cause,omitempty"` // X-Pn-Cause
	Reason     string    `json:"reason"`
	TokenID    string    `json:"token_id,omitempty"`
	Permission string    `json:"permission,omitempty"`
	Channels   []string  `json:"channels,omitempty"`
	Groups     []string  `json:"channel_groups,omitempty"`
	UUIDs      []string  `json:"uuids,omitempty"`
}

func newDenialJSON(r DenialRecord, _ bool) denialJSON {
	permission := ""
	if r.Permission != 0 {
		permission = r.Permission.String()
	}
	return denialJSON{r.Time.UTC(), r.UUID, r.Op, r.Message, r.Cause, r.Reason, r.TokenID, permission, r.Channels, r.Groups, r.UUIDs}
}

func reveal(token pam.Secret, raw bool) string {
	if raw {
		return token.Reveal()
	}
	return ""
}

// list serves the newest ?limit= records in their order, with tokens only for ?raw=1.
func list[R sized, J any](s *Server, records *ring[R], convert func(r R, raw bool) J) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		raw, limit, err := listQuery(r)
		if err != nil {
			writeControlError(w, err)
			return
		}
		s.mu.Lock()
		newest, total := records.newest(limit), records.total()
		s.mu.Unlock()
		items := make([]J, len(newest))
		for i, record := range newest {
			items[i] = convert(record, raw)
		}
		writeControl(w, http.StatusOK, struct {
			Total uint64 `json:"total"`
			Items []J    `json:"items"`
		}{total, items})
	}
}

func listQuery(r *http.Request) (raw bool, limit int, err error) {
	query, err := strictQuery(r, "raw", "limit")
	if err != nil {
		return false, 0, err
	}
	limit = defaultItems
	if text := query.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 {
			return false, 0, errors.New("limit: want a positive whole number")
		}
	}
	switch query.Get("raw") {
	case "", "0":
		return false, limit, nil
	case "1":
		return true, limit, nil
	}
	return false, 0, errors.New("raw: want 0 or 1")
}

func (s *Server) controlLive(w http.ResponseWriter, r *http.Request) {
	query, err := strictQuery(r, "token")
	if err != nil {
		writeControlError(w, err)
		return
	}
	token := query.Get("token")
	if r.Method == http.MethodPost {
		body, err := readControl(w, r)
		if err != nil {
			writeControlError(w, err)
			return
		}
		token = strings.TrimSpace(string(body))
	}
	if token == "" {
		writeControlError(w, errors.New("live: want a token, as ?token= or as the body of a POST"))
		return
	}
	writeControl(w, http.StatusOK, struct {
		TokenID string `json:"token_id"`
		Live    bool   `json:"live"`
	}{pam.Secret(token).ID(), s.Live(pam.Secret(token))})
}

func (s *Server) controlListFaults(w http.ResponseWriter, _ *http.Request) {
	type item struct {
		Fault Fault `json:"fault"`
		Hit   int   `json:"hit"`
	}
	s.mu.Lock()
	items := make([]item, len(s.faults))
	for i, f := range s.faults {
		items[i] = item{f.Fault, f.used}
	}
	s.mu.Unlock()
	writeControl(w, http.StatusOK, struct {
		Items []item `json:"items"`
	}{items})
}

// controlSetFaults takes one fault or a list of them.
func (s *Server) controlSetFaults(w http.ResponseWriter, r *http.Request) {
	body, err := readControl(w, r)
	if err != nil {
		writeControlError(w, err)
		return
	}
	faults := make([]Fault, 1)
	if bytes.HasPrefix(bytes.TrimSpace(body), []byte("[")) {
		err = strictJSON(body, &faults)
	} else {
		err = strictJSON(body, &faults[0])
	}
	for _, f := range faults {
		err = errors.Join(err, f.Validate())
		if err != nil {
			writeControlError(w, err)
			return
		}
	}
	s.SetFaults(faults...)
	s.controlListFaults(w, r)
}

func (s *Server) controlClearFaults(w http.ResponseWriter, r *http.Request) {
	s.ClearFaults()
	s.controlListFaults(w, r)
}

func strictQuery(r *http.Request, known ...string) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errors.New("query: malformed")
	}
	for key, all := range values {
		if !slices.Contains(known, key) {
			return nil, fmt.Errorf("query: unknown parameter %q, known: %s", key, strings.Join(known, ", "))
		}
		if len(all) > 1 {
			return nil, fmt.Errorf("query: parameter %q comes more than once", key)
		}
	}
	return values, nil
}

func readControl(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxControlBody))
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	return body, nil
}

func decodeControl(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := readControl(w, r)
	if err != nil {
		return err
	}
	return strictJSON(body, v)
}

// strictJSON decodes exactly one value without unknown fields.
func strictJSON(body []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("decode body: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("decode body: more than one value")
	}
	return nil
}

func writeControlError(w http.ResponseWriter, err error) {
	writeControl(w, http.StatusBadRequest, struct {
		Error string `json:"error"`
	}{err.Error()})
}

func writeControl(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the client is gone, or all is well
}
