// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/c8s-dev/c8s/ingress/route"
)

// Codes of answers that the ingress itself gives instead of a backend's. Where
// the mesh or the manifest refused, the code is theirs (package datapath,
// package policy). docs/ingress.md lists them.
const (
	codeBadRequest   = "bad-request"
	codeHostUnknown  = "host-unknown"
	codeMisdirected  = "misdirected"
	codeNoRoute      = "no-route"
	codeMethod       = "method-not-allowed"
	codeTooLarge     = "body-too-large"
	codeHeaderLarge  = "header-too-large"
	codeRate         = "too-many-requests"
	codeConnections  = "too-many-connections"
	codeNoBackend    = "backend-invalid"
	codeNoEndpoints  = "no-endpoints"
	codeBackendDown  = "backend-unreachable"
	codeBackendBroke = "backend-broke-off"
	codeTimeout      = "timeout"
	codeStalled      = "client-stalled"
	codeClientGone   = "client-gone"
	codeDraining     = "draining"
	codeInternal     = "internal"
)

// statusClientGone is for records only (nginx uses the number, too): nobody is
// there to read it.
const statusClientGone = 499

// failure is why a request got no answer of a backend.
type failure struct {
	status int
	code   string
	cause  error
}

func (f *failure) Error() string {
	if f.cause != nil {
		return f.code + ": " + f.cause.Error()
	}
	return f.code
}

func (f *failure) Unwrap() error { return f.cause }

func fail(status int, code string, cause error) *failure { return &failure{status, code, cause} }

// problem is the body of an error (RFC 9457). It says no more than the code:
// the detail is for the operator's log.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   string `json:"code"`
}

// write answers with f. A call of gRPC gets a status of gRPC, which its
// libraries understand.
func (f *failure) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if f.status == http.StatusTooManyRequests || f.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	if route.IsGRPC(r.Header) {
		h.Set("Content-Type", "application/grpc")
		h.Set("Grpc-Status", strconv.Itoa(grpcStatus(f.status)))
		h.Set("Grpc-Message", f.code)
		w.WriteHeader(http.StatusOK)
		return
	}
	title := http.StatusText(f.status)
	if title == "" {
		title = "Error"
	}
	body, err := json.Marshal(problem{"about:blank", title, f.status, f.code})
	if err != nil {
		body = []byte("{}")
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(f.status)
	_, _ = w.Write(body)
}

// grpcStatus is what gRPC makes of an HTTP status (grpc/doc/http-grpc-status-mapping.md),
// finer where it would say "unknown".
func grpcStatus(status int) int {
	switch status {
	case http.StatusBadRequest, http.StatusInternalServerError:
		return 13 // INTERNAL
	case http.StatusUnauthorized:
		return 16
	case http.StatusForbidden:
		return 7
	case http.StatusNotFound, http.StatusMisdirectedRequest, http.StatusMethodNotAllowed:
		return 12 // UNIMPLEMENTED
	case http.StatusRequestEntityTooLarge, http.StatusRequestHeaderFieldsTooLarge:
		return 8 // RESOURCE_EXHAUSTED
	case http.StatusGatewayTimeout, http.StatusRequestTimeout:
		return 4 // DEADLINE_EXCEEDED
	}
	return 14 // UNAVAILABLE: the call may be tried again
}
