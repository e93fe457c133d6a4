package pamtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"syscall"
)

// Transport returns a transport that hands requests to this Server within the process: no sockets and no goroutines, and waiting is by timers
// and the request's context only, so it works in a testing/synctest bubble (make the Server in the bubble too if a fault is to hang). Faults
// show as they would over a network: a cut connection is io.EOF, a cut answer is io.ErrUnexpectedEOF from the body, a refused connection is
// a *net.OpError of a dial. The hooks of net/http/httptrace see the connection and the written request. The host does not matter.
//
// A bubble's clock starts in the year 2000, where a timetoken of /time/0 has 16 digits, not 17: give Config.Now a later start if that matters.
func (s *Server) Transport() http.RoundTripper { return transport{s} }

type transport struct{ server *Server }

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	body := req.Body
	if body == nil {
		body = http.NoBody
	}
	defer body.Close()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	trace := tracer{httptrace.ContextClientTrace(ctx)}
	c := t.server.arrive(req)
	trace.getConn(req.URL.Host)
	if c.fault.refuses() {
		if !c.fault.hold(ctx) {
			return nil, context.Cause(ctx)
		}
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	trace.gotConn()
	sent, err := io.ReadAll(body)
	trace.wroteRequest(err)
	if err != nil {
		return nil, err
	}
	rep := t.server.exchange(ctx, c, bytes.NewReader(sent))
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if rep.how == deliverNothing {
		return nil, io.EOF
	}
	trace.firstByte()
	return rep.response(req), nil
}

// response is the reply as a client's transport returns it.
func (r reply) response(req *http.Request) *http.Response {
	content, length := r.content()
	if req.Method == http.MethodHead || !bodyAllowed(r.status) {
		content, length = http.NoBody, 0
	}
	return &http.Response{
		Status:        strconv.Itoa(r.status) + " " + http.StatusText(r.status),
		StatusCode:    r.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        r.header,
		Body:          &abortable{ctx: req.Context(), r: content},
		ContentLength: length,
		Request:       req,
	}
}

// abortable is a body that ends with its request's context, as one from a network does.
type abortable struct {
	ctx    context.Context
	r      io.Reader
	closed bool
}

var errBodyClosed = errors.New("pamtest: read on closed response body")

func (b *abortable) Read(p []byte) (int, error) {
	if b.closed {
		return 0, errBodyClosed
	}
	if err := context.Cause(b.ctx); err != nil {
		return 0, err
	}
	return b.r.Read(p)
}

func (b *abortable) Close() error {
	b.closed = true
	return nil
}

// tracer calls the hooks that are set.
type tracer struct{ *httptrace.ClientTrace }

func (t tracer) getConn(host string) {
	if t.ClientTrace != nil && t.GetConn != nil {
		t.GetConn(host)
	}
}

func (t tracer) gotConn() {
	if t.ClientTrace != nil && t.GotConn != nil {
		t.GotConn(httptrace.GotConnInfo{})
	}
}

func (t tracer) wroteRequest(err error) {
	if t.ClientTrace == nil {
		return
	}
	if t.WroteHeaders != nil {
		t.WroteHeaders()
	}
	if t.WroteRequest != nil {
		t.WroteRequest(httptrace.WroteRequestInfo{Err: err})
	}
}

func (t tracer) firstByte() {
	if t.ClientTrace != nil && t.GotFirstResponseByte != nil {
		t.GotFirstResponseByte()
	}
}
