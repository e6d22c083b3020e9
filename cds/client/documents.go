// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
)

// Documents reads public documents of the CDS over one verified connection at
// a time. It is safe for concurrent use.
type Documents struct {
	c *Client
	s *session
}

// Documents opens a connection to any replica for reading public documents.
func (c *Client) Documents(ctx context.Context) (*Documents, error) {
	s, err := c.connect(ctx, nil)
	if err != nil {
		return nil, err
	}
	return &Documents{c, s}, nil
}

// Addr is the replica that answers.
func (d *Documents) Addr() string { return d.s.addr }

// Bundle holds the keys the CDS signs with.
func (d *Documents) Bundle() *trust.Bundle { return d.s.bundle }

// Get reads a document by its path; docs/cds.md lists them. One that is not
// there gives an error that wraps fs.ErrNotExist.
func (d *Documents) Get(ctx context.Context, path string) ([]byte, error) { return d.s.get(ctx, path) }

// Issuance reads where a certificate is in the log, and verifies the proof.
// After the certificate has ended the CDS does not know (fs.ErrNotExist).
func (d *Documents) Issuance(ctx context.Context, certificate policy.Digest) (*api.Issuance, error) {
	text, err := d.Get(ctx, "/v1/issuance/"+string(certificate))
	if err != nil {
		return nil, err
	}
	i, err := api.ParseIssuance(text)
	if err != nil {
		return nil, &RefusedError{Code: CodeReceipt, Detail: err.Error()}
	}
	entry, err := d.c.memory.verifyLogged(d.s.bundle, i.Receipt())
	if err != nil {
		return nil, err
	}
	if entry.Type != translog.TypeIssuance || entry.Certificate != certificate {
		return nil, &RefusedError{Code: CodeReceipt, Detail: "the log's entry is about another certificate"}
	}
	return i, nil
}

// Close closes the connection.
func (d *Documents) Close() { d.s.close() }

// documentRefused is the error for an answer other than 200.
func documentRefused(resp *http.Response, path string, body []byte) error {
	code, _, _ := strings.Cut(string(body[:min(len(body), 200)]), "\n")
	if resp.StatusCode == http.StatusNotFound {
		return fmt.Errorf("reading %s: %w (%s)", path, fs.ErrNotExist, code)
	}
	return fmt.Errorf("reading %s: %w", path, &RefusedError{Code: code, RetryAfter: min(retryAfter(resp.Header.Get("Retry-After")), time.Minute)})
}
