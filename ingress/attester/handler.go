// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/client/proof"
)

// Codes of answers, as their body.
const (
	CodeNotFound   = "not-found"
	CodeMethod     = "method-not-allowed"
	CodeNonce      = "nonce-malformed"
	CodeKeyNeeded  = "key-needed" // several TLS keys, and none named
	CodeKeyUnknown = "key-unknown"
	CodeNoProof    = "proof-not-ready"
	CodeTooMany    = "too-many-requests"
	CodeTooLarge   = "document-too-large"
	CodeTEE        = "tee-failed"
)

// answer is what is sent.
type answer struct {
	status       int // 0 is 200
	body         []byte
	contentType  string
	etag         string
	cacheControl string
	cacheStatus  string // RFC 9211
	retryAfter   time.Duration
}

func refused(status int, code string) *answer {
	return &answer{status: status, body: []byte(code + "\n"), contentType: textType, cacheControl: "no-store"}
}

// ServeHTTP answers for everything under /.well-known/c8s. All of it is public,
// so pages of other origins may read it.
func (a *Attester) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p := r.URL.Path; (p == proof.PathStatus || p == proof.PathStatus+".json") && a.cfg.Status != nil {
		a.cfg.Status.ServeHTTP(w, r)
		return
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "ETag, Cache-Status, Retry-After")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		a.answer(r).send(w, r)
	case http.MethodOptions:
		h.Set("Access-Control-Allow-Methods", "GET, HEAD")
		h.Set("Access-Control-Allow-Headers", "*")
		h.Set("Access-Control-Max-Age", "86400")
		w.WriteHeader(http.StatusNoContent)
	default:
		h.Set("Allow", "GET, HEAD, OPTIONS")
		refused(http.StatusMethodNotAllowed, CodeMethod).send(w, r)
	}
}

func (a *Attester) answer(r *http.Request) *answer {
	switch p := r.URL.Path; {
	case p == proof.PathDiscovery:
		return a.discovery()
	case p == proof.PathAttestation:
		return a.attestation(r)
	case strings.HasPrefix(p, proof.PathCDS+"/"):
		return a.document(r, strings.TrimPrefix(p, proof.PathCDS))
	}
	return refused(http.StatusNotFound, CodeNotFound)
}

func (a *Attester) discovery() *answer {
	d := proof.NewDiscovery(a.cfg.CDS.Manifest().Manifest.TrustDomain, int64(a.cfg.Refresh/time.Second))
	body, err := d.Encode()
	if err != nil {
		a.cfg.Log.Error("the discovery document cannot be made", "err", err)
		return refused(http.StatusInternalServerError, "internal")
	}
	return &answer{body: body, contentType: jsonType, etag: etagOf(body), cacheControl: "public, max-age=60"}
}

func (a *Attester) attestation(r *http.Request) *answer {
	p, failed := a.proofFor(r)
	if failed != nil {
		return failed
	}
	query := r.URL.Query()
	if !query.Has("nonce") {
		return &answer{body: p.body, contentType: jsonType, etag: p.etag, cacheControl: "private, no-cache"}
	}
	nonce, err := parseNonce(query.Get("nonce"))
	if err != nil {
		return refused(http.StatusBadRequest, CodeNonce)
	}
	if r.Method == http.MethodHead { // the TEE is not asked for what is thrown away
		return &answer{contentType: jsonType, cacheControl: "no-store"}
	}
	body, err := a.withNonce(r.Context(), clientOf(r.RemoteAddr), p, nonce)
	if err != nil {
		return a.failed(err, http.StatusServiceUnavailable, CodeTEE)
	}
	return &answer{body: body, contentType: jsonType, cacheControl: "no-store"}
}

// proofFor finds the proof of the key that the connection was answered with. A
// client may name the key only where that is not known here.
func (a *Attester) proofFor(r *http.Request) (*keyProof, *answer) {
	s := a.shown.Load()
	if len(s.keys) == 0 {
		failed := refused(http.StatusServiceUnavailable, CodeNoProof)
		failed.retryAfter = 2 * time.Second
		return nil, failed
	}
	if a.cfg.KeyOf != nil {
		if key, ok := a.cfg.KeyOf(r); ok {
			if p := s.keys[key]; p != nil {
				return p, nil
			}
			failed := refused(http.StatusServiceUnavailable, CodeNoProof) // the key is new
			failed.retryAfter = 2 * time.Second
			return nil, failed
		}
	}
	named := r.URL.Query().Get("key")
	if named == "" && s.only != nil {
		return s.only, nil
	}
	if named == "" {
		return nil, refused(http.StatusBadRequest, CodeKeyNeeded)
	}
	key, err := hex.DecodeString(named)
	if err != nil || len(key) != 32 || s.keys[[32]byte(key)] == nil {
		return nil, refused(http.StatusNotFound, CodeKeyUnknown)
	}
	return s.keys[[32]byte(key)], nil
}

// document passes on a public document of the CDS.
func (a *Attester) document(r *http.Request, path string) *answer {
	k, ok := kindOf(path)
	if !ok {
		return refused(http.StatusNotFound, CodeNotFound)
	}
	d, stale, err := a.cache.get(r.Context(), clientOf(r.RemoteAddr), path, k)
	if err != nil {
		return a.failed(err, http.StatusBadGateway, CodeUnreachable)
	}
	if d.absent {
		return refused(http.StatusNotFound, CodeNotFound)
	}
	out := &answer{body: d.body, contentType: k.contentType, etag: d.etag, cacheControl: "no-cache"}
	if k.immutable {
		out.cacheControl = "public, max-age=31536000, immutable"
	}
	if stale {
		over := mutableLife - d.age(a.cfg.Now())
		out.cacheStatus = fmt.Sprintf("c8s-ingress; hit; ttl=%d; detail=%s", int(over/time.Second), CodeUnreachable)
	}
	return out
}

// failed turns an error into what a stranger is told: a code.
func (a *Attester) failed(err error, status int, code string) *answer {
	var wait time.Duration
	var many *tooManyError
	switch {
	case errors.As(err, &many):
		status, code, wait = http.StatusTooManyRequests, CodeTooMany, many.wait
	case errors.Is(err, errTooLarge):
		code = CodeTooLarge
	default:
		a.cfg.Log.Debug("a request for the ingress's documents failed", "code", code, "err", err)
		wait = 2 * time.Second
	}
	out := refused(status, code)
	out.retryAfter = wait
	return out
}

func (o *answer) send(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", o.contentType)
	h.Set("Cache-Control", o.cacheControl)
	if o.cacheStatus != "" {
		h.Set("Cache-Status", o.cacheStatus)
	}
	if o.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((o.retryAfter+time.Second-1)/time.Second)))
	}
	if o.etag != "" {
		h.Set("ETag", o.etag)
		if matches(r.Header.Get("If-None-Match"), o.etag) {
			h.Del("Content-Type")
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	if len(o.body) > 0 {
		h.Set("Content-Length", strconv.Itoa(len(o.body)))
	}
	if o.status != 0 {
		w.WriteHeader(o.status)
	}
	if r.Method != http.MethodHead {
		_, _ = w.Write(o.body) // the client may be gone
	}
}

// matches compares weakly (RFC 9110 section 13.1.2).
func matches(header, etag string) bool {
	for tag := range strings.SplitSeq(header, ",") {
		if tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/"); tag == etag || tag == "*" {
			return true
		}
	}
	return false
}
