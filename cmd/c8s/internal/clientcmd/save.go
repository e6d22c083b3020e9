// SPDX-License-Identifier: Apache-2.0

package clientcmd

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/c8s-dev/c8s/client"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
)

const maxRoots = 4 << 20

func readRoots(file string) (*x509.CertPool, error) {
	raw, err := desk.ReadFile(file, maxRoots)
	if err != nil {
		return nil, fmt.Errorf("reading the roots of the web PKI: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("reading the roots of the web PKI: %s holds no certificate in PEM", file)
	}
	return pool, nil
}

// save writes every document as it was read, and the report. The CDS's are below
// cds by the paths they have there; colons, which not every file system takes,
// become dashes.
func save(dir string, r *client.Report) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("saving the documents: %w", err)
	}
	root, err := os.OpenRoot(dir) // paths have digests from documents in them
	if err != nil {
		return fmt.Errorf("saving the documents: %w", err)
	}
	defer root.Close()
	report, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	documents := append([]client.Document{{Path: proof.PathDiscovery + "/report.json", Body: append(report, '\n')}}, r.Documents...)
	for _, d := range documents {
		name := fileName(d.Path)
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return fmt.Errorf("saving the documents: %w", err)
		}
		if err := root.WriteFile(name, d.Body, desk.ModePublic); err != nil {
			return fmt.Errorf("saving the documents: %w", err)
		}
	}
	return nil
}

func fileName(document string) string {
	name, _, _ := strings.Cut(document, "?")
	name = strings.TrimPrefix(path.Clean(name), proof.PathDiscovery+"/")
	if name == "attestation" {
		name += ".json"
	}
	return filepath.FromSlash(strings.ReplaceAll(name, ":", "-"))
}
