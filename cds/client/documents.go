// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/cds/trust"
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
