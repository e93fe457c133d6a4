package pamtest

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
)

type statsJSON struct {
	Now            time.Time                    `json:"now"`
	ClockOffset    string                       `json:"clock_offset"`
	RevokeDisabled bool                         `json:"revoke_disabled"`
	Requests       uint64                       `json:"requests"`
	Answers        map[pam.Op]map[string]uint64 `json:"answers"`
	Grants         uint64                       `json:"grants"`
	Live           int                          `json:"live"`
	MaxPerSecond   int                          `json:"max_per_second"`
	Published      uint64                       `json:"published"`
	Delivered      uint64                       `json:"delivered"`
	Denied         uint64                       `json:"denied"`
	Waiting        int                          `json:"waiting"`
	Messages       int                          `json:"messages"`
	Present        int                          `json:"present"`
	Access         accessJSON                   `json:"access"`
}

// accessJSON is Access on the wire; what is absent stays as it is.
type accessJSON struct {
	Required    *bool   `json:"required,omitempty"`
	RevokeDelay *string `json:"revoke_delay,omitempty"`
	DenyCache   *string `json:"deny_cache,omitempty"`
}

func newAccessJSON(a Access) accessJSON {
	required, revoke, deny := !a.Off, a.RevokeDelay.String(), a.DenyCache.String()
	return accessJSON{&required, &revoke, &deny}
}

func (a accessJSON) apply(to Access) (Access, error) {
	if a == (accessJSON{}) {
		return to, errors.New(`access: want {"required":true,"revoke_delay":"60s","deny_cache":"30s"} or a part of it`)
	}
	if a.Required != nil {
		to.Off = !*a.Required
	}
	var err error
	for _, d := range []struct {
		text *string
		to   *time.Duration
	}{{a.RevokeDelay, &to.RevokeDelay}, {a.DenyCache, &to.DenyCache}} {
		if d.text == nil {
			continue
		}
		if *d.to, err = time.ParseDuration(*d.text); err != nil || *d.to < 0 {
			return to, fmt.Errorf("access: %q is not a duration of 0s or more", *d.text)
		}
	}
	return to, nil
}

func (s *Server) controlStats(w http.ResponseWriter, _ *http.Request) {
	st := s.Stats()
	answers := make(map[pam.Op]map[string]uint64, len(st.Answers))
	for op, byStatus := range st.Answers {
		answers[op] = make(map[string]uint64, len(byStatus))
		for status, n := range byStatus {
			answers[op][strconv.Itoa(status)] = n
		}
	}
	writeControl(w, http.StatusOK, statsJSON{
		st.Now, st.ClockOffset.String(), st.RevokeDisabled, st.Requests, answers, st.Grants, st.Live, st.MaxPerSecond,
		st.Published, st.Delivered, st.Denied, st.Waiting, st.Messages, st.Present, newAccessJSON(st.Access),
	})
}

func (s *Server) controlClock(w http.ResponseWriter, r *http.Request) {
	var want struct {
		Offset *string `json:"offset"`
	}
	if err := decodeControl(w, r, &want); err != nil {
		writeControlError(w, err)
		return
	}
	if want.Offset == nil {
		writeControlError(w, errors.New(`clock: want {"offset":"300s"}`))
		return
	}
	offset, err := time.ParseDuration(*want.Offset)
	if err != nil {
		writeControlError(w, fmt.Errorf("offset: %w", err))
		return
	}
	s.SetClockOffset(offset)
	s.controlStats(w, r)
}

func (s *Server) controlRevoke(w http.ResponseWriter, r *http.Request) {
	var want struct {
		Disabled *bool `json:"disabled"`
	}
	if err := decodeControl(w, r, &want); err != nil {
		writeControlError(w, err)
		return
	}
	if want.Disabled == nil {
		writeControlError(w, errors.New(`revoke: want {"disabled":true}`))
		return
	}
	s.SetRevokeDisabled(*want.Disabled)
	s.controlStats(w, r)
}

func (s *Server) controlAccess(w http.ResponseWriter, r *http.Request) {
	var want accessJSON
	if err := decodeControl(w, r, &want); err != nil {
		writeControlError(w, err)
		return
	}
	access, err := want.apply(s.Stats().Access)
	if err != nil {
		writeControlError(w, err)
		return
	}
	s.SetAccess(access)
	s.controlStats(w, r)
}
