// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/attest"
	cds "github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/policy"
)

const (
	// maxSmallDocument bounds documents that have no limit of their own, in bytes.
	maxSmallDocument = 8 << 20
	// maxDocuments bounds all that one judgement reads, in bytes: nobody has proven
	// anything yet who makes a client read. Years of manifests are a tenth of it.
	maxDocuments = 256 << 20
	// maxRetryAfter is how long the other end may have a client wait.
	maxRetryAfter = 5 * time.Second
)

// limitOf bounds what is read of a document, whatever the other end sends.
func limitOf(path string) int64 {
	switch {
	case strings.HasPrefix(path, proof.PathAttestation):
		return proof.MaxAttestation
	case strings.HasPrefix(path, proof.PathCDS+"/v1/denylist"):
		return policy.MaxDenyListEnvelope
	case strings.HasPrefix(path, proof.PathCDS+"/v1/manifest"), strings.HasPrefix(path, proof.PathCDS+"/v1/document/"):
		return policy.MaxEnvelope
	case strings.HasPrefix(path, proof.PathCDS+"/log/checkpoint"):
		return translog.MaxNote
	}
	return maxSmallDocument
}

// fetch reads one document from the very connection that rt is. Nothing is
// followed: who redirects does not have it.
func (p *peer) fetch(ctx context.Context, path string) ([]byte, error) {
	for {
		body, later, err := p.read(ctx, path)
		if err == nil {
			return body, p.keep(path, body)
		}
		if later <= 0 || later > maxRetryAfter {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		select {
		case <-time.After(later):
		case <-ctx.Done():
			return nil, fmt.Errorf("reading %s: %w: %w", path, context.Cause(ctx), err)
		}
	}
}

// read asks once. later is when the other end, which cannot answer now, wants to
// be asked again.
func (p *peer) read(ctx context.Context, path string) (body []byte, later time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+path, nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("User-Agent", "c8s")
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := p.rt.RoundTrip(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	limit := limitOf(path)
	body, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, 0, err
	case int64(len(body)) > limit:
		return nil, 0, attest.NewFailure(CodeDocument, fmt.Sprintf("at most %d bytes", limit), "more", "")
	case resp.StatusCode == http.StatusNotFound:
		return nil, 0, fmt.Errorf("%w (HTTP status 404)", fs.ErrNotExist)
	case resp.StatusCode != http.StatusOK:
		seconds, _ := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16)
		remedy := "is this host served by an attested ingress of c8s?"
		if seconds > 0 {
			remedy = fmt.Sprintf("try again in %d seconds", seconds)
		}
		code, _, _ := strings.Cut(string(body[:min(len(body), 64)]), "\n")
		return nil, time.Duration(seconds) * time.Second, attest.NewFailure(CodeUnavailable, "HTTP status 200", fmt.Sprintf("%d %q", resp.StatusCode, code), remedy)
	}
	return body, 0, nil
}

// getter reads the CDS's documents as the other end serves them.
func (p *peer) getter() cds.Getter {
	return func(ctx context.Context, path string) ([]byte, error) { return p.fetch(ctx, proof.PathCDS+path) }
}

// keep collects what was read, for reports, as long as it is not too much. The
// log's files are fetched by several goroutines.
func (p *peer) keep(path string, body []byte) error {
	path, _, _ = strings.Cut(path, "?")
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.size += int64(len(body)); p.size > maxDocuments {
		return fmt.Errorf("reading %s: %w", path, attest.NewFailure(CodeDocument, fmt.Sprintf("at most %d bytes of all documents", maxDocuments), "more",
			"the host has the client read without end: do not use it"))
	}
	p.documents = append(p.documents, Document{path, body})
	return nil
}

func (p *peer) taken() []Document {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.documents
	p.documents, p.size = nil, 0
	return found
}
