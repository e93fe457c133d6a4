package socket

import (
	"bytes"
	"log"
	"log/slog"
	"net/http"
	"time"
)

// Limits of NewServer.
const (
	headerTimeout  = 10 * time.Second
	idleTimeout    = time.Minute
	maxHeaderBytes = 16 << 10
)

// NewServer returns a server for h with limits against slow and greedy clients. It
// puts the peer of each connection into the context of its requests, see PeerFrom.
// What net/http has to say goes to log at debug level, without data of requests; a
// nil log discards it.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		// The longest wait and the answer behind it; each answer sets its own,
		// shorter deadline.
		WriteTimeout:                 MaxWait + 2*answerTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		ErrorLog:                     serverLog(log),
		ConnContext:                  WithPeer,
		DisableGeneralOptionsHandler: true,
	}
}

// serverLog is the ErrorLog of a server.
func serverLog(to *slog.Logger) *log.Logger {
	if to == nil {
		to = slog.New(slog.DiscardHandler)
	}
	return log.New(logWriter{to}, "", 0)
}

// logWriter takes the lines of net/http. Faults of Accept concern everybody and
// quote nobody; of other lines only the kind is kept, which stands before the
// second colon.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(line []byte) (int, error) {
	text := bytes.TrimSpace(line)
	if bytes.HasPrefix(text, []byte("http: Accept error:")) {
		w.log.Warn("socket: connections cannot be accepted", "error", string(text))
		return len(line), nil
	}
	kind, rest, _ := bytes.Cut(text, []byte(": "))
	what, _, _ := bytes.Cut(rest, []byte(":"))
	w.log.Debug("socket: connection failed", "kind", string(kind)+": "+string(what[:min(len(what), 60)]))
	return len(line), nil
}
