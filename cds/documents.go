// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"github.com/c8s-dev/c8s/policy"
)

// document is something anybody may read: with nothing but GET, so that an
// auditor needs no client of ours and may mirror it.
type document struct {
	body        []byte
	contentType string
	immutable   bool // its name determines its content
	maxAge      time.Duration
}

const (
	jsonType = "application/json"
	textType = "text/plain; charset=utf-8"
	rawType  = "application/octet-stream"
)

// handleDocuments serves the public documents; docs/cds.md lists them.
func (s *Server) handleDocuments(mux *http.ServeMux) {
	get := func(pattern string, find func(context.Context, *core, *http.Request) (*document, error)) {
		mux.HandleFunc("GET "+pattern, func(w http.ResponseWriter, r *http.Request) { s.serveDocument(w, r, find) })
	}
	get("/v1/endorsement", func(ctx context.Context, c *core, _ *http.Request) (*document, error) {
		body, err := c.endorse(ctx)
		return &document{body: body, contentType: jsonType}, err
	})
	get("/v1/beacon", func(_ context.Context, c *core, _ *http.Request) (*document, error) {
		body, err := c.beacon()
		return &document{body: body, contentType: jsonType}, err
	})
	get("/v1/manifest", inForceDocument(func(f *inForce) []byte { return f.manifest.Envelope }))
	get("/v1/manifest/countersignature", inForceDocument(func(f *inForce) []byte { return f.manifestProof }))
	get("/v1/manifest/pending", inForceDocument(func(f *inForce) []byte {
		if f.pending == nil {
			return nil
		}
		return f.pending.Envelope
	}))
	get("/v1/denylist", inForceDocument(func(f *inForce) []byte {
		if f.deny == nil {
			return nil
		}
		return f.deny.Envelope
	}))
	get("/v1/denylist/countersignature", inForceDocument(func(f *inForce) []byte { return f.denyProof }))
	get("/v1/document/{digest}", func(ctx context.Context, c *core, r *http.Request) (*document, error) {
		body, err := c.policies.document(ctx, policy.Digest(r.PathValue("digest")))
		return &document{body: body, contentType: jsonType, immutable: true}, err
	})
	get("/v1/countersignature/{digest}", stored(countersignatureKey, jsonType))
	get("/v1/certificate/{digest}", stored(certificateKey, rawType))
	get("/v1/evidence/{hash}", func(ctx context.Context, c *core, r *http.Request) (*document, error) {
		body, err := c.evidence.document(ctx, r.PathValue("hash"))
		return &document{body: body, contentType: jsonType, immutable: true}, err
	})
	get("/v1/issuance/{digest}", func(ctx context.Context, c *core, r *http.Request) (*document, error) {
		body, err := c.issuances.document(ctx, policy.Digest(r.PathValue("digest")))
		return &document{body: body, contentType: jsonType, maxAge: issuanceMaxAge}, err
	})
	get("/v1/recovery", func(ctx context.Context, c *core, _ *http.Request) (*document, error) {
		body, err := c.recoveryDocument(ctx)
		return &document{body: body, contentType: jsonType}, err
	})
	get("/log/checkpoint", func(_ context.Context, c *core, _ *http.Request) (*document, error) {
		return &document{body: c.ledger.View().Checkpoint, contentType: textType}, nil
	})
	get("/log/checkpoint.cosigned", func(ctx context.Context, c *core, _ *http.Request) (*document, error) {
		body, err := c.latestCosigned(ctx)
		return &document{body: body, contentType: textType}, err
	})
	get("/log/tile/{path...}", func(ctx context.Context, c *core, r *http.Request) (*document, error) {
		body, err := c.ledger.View().Tree.File(ctx, c.ledger.Storage(), "tile/"+r.PathValue("path"))
		return &document{body: body, contentType: rawType, immutable: true}, err
	})
}

func inForceDocument(pick func(*inForce) []byte) func(context.Context, *core, *http.Request) (*document, error) {
	return func(_ context.Context, c *core, _ *http.Request) (*document, error) {
		body := pick(c.policies.current())
		if body == nil {
			return nil, fs.ErrNotExist
		}
		return &document{body: body, contentType: jsonType}, nil
	}
}

func stored(key func(policy.Digest) string, contentType string) func(context.Context, *core, *http.Request) (*document, error) {
	return func(ctx context.Context, c *core, r *http.Request) (*document, error) {
		digest := policy.Digest(r.PathValue("digest"))
		if !digest.Valid() {
			return nil, fs.ErrNotExist
		}
		v, err := c.sealed.Get(ctx, key(digest))
		return &document{body: v.Data, contentType: contentType, immutable: true}, err
	}
}

func (s *Server) serveDocument(w http.ResponseWriter, r *http.Request, find func(context.Context, *core, *http.Request) (*document, error)) {
	doc, err := s.findDocument(r.Context(), r, find)
	if err != nil {
		s.documentRefused(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", doc.contentType)
	h.Set("Content-Length", fmt.Sprint(len(doc.body)))
	switch {
	case doc.immutable:
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	case doc.maxAge > 0:
		h.Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(doc.maxAge/time.Second)))
	default:
		h.Set("Cache-Control", "no-cache")
	}
	_, _ = w.Write(doc.body) // the caller may be gone
}

func (s *Server) findDocument(ctx context.Context, r *http.Request, find func(context.Context, *core, *http.Request) (*document, error)) (*document, error) {
	c, err := s.ready()
	if err != nil {
		return nil, err
	}
	return find(ctx, c, r)
}

// documentRefused answers with the code alone, like the calls do.
func (s *Server) documentRefused(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, fs.ErrNotExist) || isGone(err) {
		http.Error(w, "not-found", http.StatusNotFound)
		return
	}
	code := codeOf(err)
	s.noteRefusal(r.Context(), r.URL.Path, code, err)
	var own *refusal
	if errors.As(err, &own) && own.retryAfter > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(int(own.retryAfter/time.Second)+1))
	}
	status := http.StatusServiceUnavailable
	switch code {
	case codeEvidenceUnknown:
		status = http.StatusNotFound
	case codeTooFast, codeBusy:
		status = http.StatusTooManyRequests
	case codeInternal:
		status = http.StatusInternalServerError
	}
	http.Error(w, code, status)
}
