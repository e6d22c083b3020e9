// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	maxDocument = 32 << 20 // bytes; a full entry bundle is the largest
	httpTimeout = 30 * time.Second
)

// documents are what anybody may read of a CDS, by path (docs/cds.md). Where
// they come from is trusted for nothing. What was read once does not change.
type documents struct {
	fetch func(path string) ([]byte, error) // fs.ErrNotExist where there is none
	save  string
	read  map[string][]byte
}

func openDocuments(from, save string) (*documents, error) {
	d := &documents{save: save, read: map[string][]byte{}}
	if strings.HasPrefix(from, "https://") || strings.HasPrefix(from, "http://") {
		// A CDS's TLS certificate is self-signed, with evidence in it. Here it
		// proves nothing: every document is checked on its own.
		client := &http.Client{Timeout: httpTimeout, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // see above
		d.fetch = func(path string) ([]byte, error) { return httpGet(client, strings.TrimRight(from, "/")+"/"+path) }
		return d, nil
	}
	root, err := os.OpenRoot(from)
	if err != nil {
		return nil, err
	}
	d.fetch = func(path string) ([]byte, error) { return root.ReadFile(fileName(path)) }
	return d, nil
}

// fileName is where a folder has a document: colons are not for every file
// system.
func fileName(path string) string { return filepath.FromSlash(strings.ReplaceAll(path, ":", "-")) }

func httpGet(client *http.Client, url string) ([]byte, error) {
	resp, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return nil, fs.ErrNotExist
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %s", resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err == nil && len(b) > maxDocument {
		err = fmt.Errorf("more than %d bytes", maxDocument)
	}
	return b, err
}

// get reads a document, such as "v1/manifest".
func (d *documents) get(path string) ([]byte, error) {
	if b, ok := d.read[path]; ok {
		return b, nil
	}
	b, err := d.fetch(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	d.read[path] = b
	return b, d.keep(path, b)
}

// optional reads a document that need not be there: nil then.
func (d *documents) optional(path string) ([]byte, error) {
	b, err := d.get(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

func (d *documents) keep(path string, b []byte) error {
	if d.save == "" {
		return nil
	}
	to := filepath.Join(d.save, fileName(path))
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

// readPEM reads a leaf and its issuer. What follows, such as a root, is not
// looked at: the root is the one of the CDS's bundle.
func readPEM(file string) (leaf, issuer *x509.Certificate, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	for _, to := range []**x509.Certificate{&leaf, &issuer} {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil || block.Type != "CERTIFICATE" {
			return nil, nil, fmt.Errorf("reading %s: it does not begin with two certificates, the leaf and its issuer", file)
		}
		if *to, err = x509.ParseCertificate(block.Bytes); err != nil {
			return nil, nil, fmt.Errorf("reading %s: %w", file, err)
		}
	}
	return leaf, issuer, nil
}
