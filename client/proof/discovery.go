// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/internal/onejson"
)

// MaxDiscovery bounds the document, in bytes.
const MaxDiscovery = 16 << 10

const maxSchemas = 16

// Discovery says where an ingress's documents are. It proves nothing: a client
// that follows it finds what it then verifies.
type Discovery struct {
	Schema      string   `json:"schema"` // DiscoverySchema
	TrustDomain string   `json:"trustDomain"`
	Attestation string   `json:"attestation"` // path on this host, below PathDiscovery, as the next two
	CDS         string   `json:"cds"`         // the CDS's own paths follow
	Status      string   `json:"status"`
	Statements  []string `json:"statements"`   // schemas that the ingress speaks
	Documents   []string `json:"attestations"` // likewise
	Refresh     int64    `json:"refresh"`      // seconds between two proofs
	NonceBytes  [2]int   `json:"nonceBytes"`   // least and most; 0, 0: no nonces
}

// NewDiscovery describes an ingress that makes proofs every so many seconds.
func NewDiscovery(trustDomain string, refresh int64) *Discovery {
	return &Discovery{
		Schema: DiscoverySchema, TrustDomain: trustDomain, Attestation: PathAttestation, CDS: PathCDS, Status: PathStatus,
		Statements: []string{StatementSchema}, Documents: []string{AttestationSchema}, Refresh: refresh, NonceBytes: [2]int{MinNonce, MaxNonce},
	}
}

// ParseDiscovery reads a discovery document in its canonical encoding.
func ParseDiscovery(text []byte) (*Discovery, error) {
	d := &Discovery{}
	err := onejson.Decode(text, MaxDiscovery, d)
	if err == nil {
		err = d.check()
	}
	if err != nil {
		return nil, attest.NewFailure(CodeDiscoveryFormat, "a discovery document in its canonical encoding", err.Error(), "ask an ingress of this version of c8s")
	}
	return d, nil
}

// Encode writes the document's one encoding.
func (d *Discovery) Encode() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("encoding a discovery document: %w", err)
	}
	return onejson.Encode(d)
}

func (d *Discovery) check() error {
	if d.Schema != DiscoverySchema {
		return fmt.Errorf("schema %.64q, expected %q", d.Schema, DiscoverySchema)
	}
	if td, err := spiffeid.TrustDomainFromString(d.TrustDomain); err != nil || td.Name() != d.TrustDomain {
		return fmt.Errorf("%.64q is not the name of a trust domain", d.TrustDomain)
	}
	for _, p := range []string{d.Attestation, d.CDS, d.Status} {
		// Below the well-known path, so that it leads to no backend.
		if len(p) > 256 || !strings.HasPrefix(p, PathDiscovery+"/") || path.Clean(p) != p || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789-./_") != "" {
			return fmt.Errorf("path %.80q, expected one below %s", p, PathDiscovery)
		}
	}
	for _, list := range [][]string{d.Statements, d.Documents} {
		if len(list) == 0 || len(list) > maxSchemas || slices.ContainsFunc(list, func(s string) bool { return s == "" || len(s) > 128 }) {
			return fmt.Errorf("%d schemas, expected 1 to %d", len(list), maxSchemas)
		}
	}
	if d.Refresh < 1 || d.Refresh > 24*60*60 {
		return fmt.Errorf("a proof every %d seconds, expected 1 to a day", d.Refresh)
	}
	if n := d.NonceBytes; n[0] < 0 || n[1] < n[0] || n[1] > 1<<10 {
		return fmt.Errorf("nonces of %d to %d bytes", n[0], n[1])
	}
	return nil
}
