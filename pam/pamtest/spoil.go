package pamtest

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
)

// hold passes the fault's time; false if the client went first.
func (f *activeFault) hold(ctx context.Context) bool {
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-f.released:
		case <-ctx.Done():
			return false
		}
	}
	if f.Kind != KindHang {
		return true
	}
	select {
	case <-f.released:
		return true
	case <-ctx.Done():
		return false
	}
}

// name is the fault in a record.
func (f *activeFault) name() string {
	switch {
	case f == nil:
		return ""
	case f.Kind != KindNone:
		return string(f.Kind)
	case f.Status != 0:
		return "status"
	}
	return "delay"
}

func (f *activeFault) refuses() bool { return f != nil && f.Kind == KindRefused }

// cutsUnread reports whether the connection is closed before the request is read.
func (f *activeFault) cutsUnread() bool {
	if f == nil || f.Delay > 0 {
		return false
	}
	return f.Kind == KindRefused || f.Kind == KindCut && !f.AfterWork
}

// spoils reports whether the answer is the fault's own instead of the service's.
func (f *activeFault) spoils() bool {
	switch f.Kind {
	case KindNone:
		return f.Status != 0
	case KindCut, KindRefused:
		return true
	}
	return slices.Contains(answerKinds, f.Kind)
}

// spoil makes the fault's answer; rep is the service's own answer if the work was done.
func (f *activeFault) spoil(rep reply, op pam.Op) reply {
	status := cmp.Or(f.Status, http.StatusOK)
	switch f.Kind {
	case KindNone:
		rep = f.statusReply(op)
	case KindCut, KindRefused:
		return reply{how: deliverNothing}
	case KindBadJSON:
		rep = textReply(status, `{"data":{"message":"Success","token":`)
	case KindEmpty:
		rep = textReply(status, "")
	case KindHTML:
		rep = textReply(status, "<!DOCTYPE html>\n<html><head><title>Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>\n")
		rep.header.Set("Content-Type", "text/html; charset=UTF-8")
	case KindTruncated:
		if rep.header == nil || f.Status != 0 {
			rep = jsonReply(status, success{Data: successData{Message: "Success", Token: "qEF2AkF0Gg=="}, Service: serviceAccessManager, Status: status})
		}
		rep.how = deliverHalf
	case KindHugeBody:
		rep = textReply(status, `{"data":{"message":"`)
		rep.how = deliverHuge
	case KindRedirect:
		rep = textReply(cmp.Or(f.Status, http.StatusTemporaryRedirect), "")
		rep.header.Set("Location", "/v3/redirected")
	case KindNoToken:
		rep = jsonReply(status, success{Data: successData{Message: "Success"}, Service: serviceAccessManager, Status: status})
	}
	if f.RetryAfter != "" {
		rep.header["Retry-After"] = []string{f.RetryAfter}
	}
	return rep
}

// statusReply is the answer of KindNone: the given body, or the one a PubNub server is known to send with that status.
func (f *activeFault) statusReply(op pam.Op) reply {
	switch {
	case f.Body != "":
		return textReply(f.Status, f.Body)
	case f.Status == http.StatusTooManyRequests:
		return flat(f.Status, "", "Too many requests.")
	case f.Status == http.StatusGatewayTimeout:
		return flat(f.Status, serviceAccessManager, "Service Unavailable")
	case f.Status == http.StatusForbidden:
		return flat(f.Status, serviceAccessManager, "Forbidden")
	case isData(op):
		return flat(f.Status, "", http.StatusText(f.Status))
	case f.Status < 400:
		return jsonReply(f.Status, success{Data: successData{Message: "Success"}, Service: serviceAccessManager, Status: f.Status})
	}
	return refusal{f.Status, http.StatusText(f.Status), "The emulator was asked to fail.", "", ""}.reply(op)
}

// alter makes a grant's token differ from what was asked, where the fault says so.
func (f *activeFault) alter(ask grantAsk, issued time.Time) (grantAsk, time.Time) {
	if f == nil {
		return ask, issued
	}
	switch f.Kind {
	case KindLess:
		if !ask.resources.takeBit() {
			ask.patterns.takeBit()
		}
	case KindOtherUUID:
		ask.uuid = "somebody-else"
	case KindOtherTTL:
		if ask.ttl == 1 {
			ask.ttl = 4
		}
		ask.ttl /= 2
	case KindAlreadyEnded:
		issued = issued.Add(-time.Duration(ask.ttl+1) * time.Minute)
	}
	return ask, issued
}

// takeBit takes the lowest permission bit of the first name away, and the name with its last bit; false if there is no name.
func (s *side) takeBit() bool {
	for _, names := range s {
		if len(names) == 0 {
			continue
		}
		name := slices.Min(slices.Collect(maps.Keys(names)))
		names[name] &= names[name] - 1
		if names[name] == 0 {
			delete(names, name)
		}
		return true
	}
	return false
}
