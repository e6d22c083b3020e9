// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/c8s-dev/c8s/cds/api"
)

// admission decides who is listened to, before a byte of a body is read.
type admission struct {
	rate       *callers
	calls      *quota
	publishing *quota
	watches    *quota
	conns      *quota
}

func newAdmission(limits Limits) *admission {
	half := limits.Connections / 2
	return &admission{
		rate: newCallers(limits), calls: newQuota("calls", maxCalls, maxCalls*3/4),
		publishing: newQuota("publications", maxPublishing, maxPublishingPerHost),
		watches:    newQuota("watches", limits.Connections, half), conns: newQuota("connections", limits.Connections, half),
	}
}

// admit takes what the call needs, or says why it gets nothing.
func (a *admission) admit(procedure, host string) (release func(), err error) {
	if err := a.rate.allow(host); err != nil {
		return nil, err
	}
	if procedure == api.PolicyWatchProcedure {
		return a.watches.take(host)
	}
	call, err := a.calls.take(host)
	if err != nil || procedure != api.PolicyPublishManifestProcedure && procedure != api.PolicyPublishDenyListProcedure {
		return call, err
	}
	publishing, err := a.publishing.take(host)
	if err != nil {
		call()
		return nil, err
	}
	return func() { publishing(); call() }, nil
}

// limited lets in what admission does, and has it end in time.
func (s *Server) limited(next http.Handler) http.Handler {
	refuse := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Handlers need the TLS session: evidence binds to it.
		answer := http.NewResponseController(w)
		r = r.WithContext(withSession(r.Context(), session{r.TLS, r.RemoteAddr, answer}))
		release, err := s.admission.admit(r.URL.Path, hostOf(r.RemoteAddr))
		switch {
		case err != nil && refuse.IsSupported(r):
			_ = refuse.Write(w, r, guard{s}.conceal(r.Context(), r.URL.Path, err))
			return
		case err != nil:
			s.documentRefused(w, r, err)
			return
		}
		defer release()
		if r.URL.Path == api.PolicyWatchProcedure { // lasts as long as both sides want
			_ = answer.SetWriteDeadline(time.Time{})
			next.ServeHTTP(w, r)
			return
		}
		_ = answer.SetReadDeadline(time.Now().Add(s.callTime)) // every net/http server can
		ctx, cancel := context.WithTimeout(r.Context(), s.callTime)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}
