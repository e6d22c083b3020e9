// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// claims are the extension of issued certificates (docs/attestation.md,
// "Certificates").
type claims struct {
	Version         uint64            `cbor:"0,keyasint"`
	Role            string            `cbor:"1,keyasint"`
	TEE             string            `cbor:"2,keyasint"`
	Product         string            `cbor:"3,keyasint"`
	Simulated       bool              `cbor:"4,keyasint"`
	Measurement     []byte            `cbor:"5,keyasint"`
	HostData        []byte            `cbor:"6,keyasint"`
	TCB             []byte            `cbor:"7,keyasint,omitempty"` // FMC, boot loader, TEE, SNP, microcode
	Machine         string            `cbor:"8,keyasint"`
	Root            []byte            `cbor:"9,keyasint"`
	Workload        string            `cbor:"10,keyasint,omitempty"`
	WorkloadDigest  []byte            `cbor:"11,keyasint,omitempty"`
	ManifestVersion uint64            `cbor:"12,keyasint"`
	ManifestDigest  []byte            `cbor:"13,keyasint"`
	Namespace       string            `cbor:"14,keyasint,omitempty"`
	Pod             string            `cbor:"15,keyasint,omitempty"`
	PodUID          string            `cbor:"16,keyasint,omitempty"`
	EvidenceHash    []byte            `cbor:"17,keyasint"`
	Paravisor       string            `cbor:"18,keyasint"`
	Registers       map[string][]byte `cbor:"19,keyasint,omitempty"`
	TDXTCB          *tdxTCB           `cbor:"20,keyasint,omitempty"`
	Collateral      bool              `cbor:"21,keyasint"`
}

type tdxTCB struct {
	Status           string   `cbor:"1,keyasint"`
	Advisories       []string `cbor:"2,keyasint,omitempty"`
	EvaluationNumber uint32   `cbor:"3,keyasint"`
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// parseClaims accepts the one deterministic encoding (RFC 8949, section
// 4.2.1): a value that could be written in two ways could be read in two.
func parseClaims(b []byte) (*claims, error) {
	var c claims
	if err := oneCBOR(b, &c); err != nil {
		return nil, err
	}
	return &c, same("version", 1, c.Version)
}

func oneCBOR(b []byte, v any) error {
	decode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode()
	if err != nil {
		return err
	}
	if err := decode.Unmarshal(b, v); err != nil {
		return err
	}
	again, err := encodeCBOR(v)
	return cmp.Or(err, must(bytes.Equal(again, b), "encoding", "deterministic CBOR of this value", "another"))
}

func encodeCBOR(v any) ([]byte, error) {
	encode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		return nil, err
	}
	return encode.Marshal(v)
}

// checkLeaf: the rules for X.509-SVIDs, and that the name follows from the
// claims.
func (a *audit) checkLeaf() (string, error) {
	l, oid := a.leaf, asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 8, 1}
	var extensions [][]byte
	for _, e := range l.Extensions {
		if e.Id.Equal(oid) {
			extensions = append(extensions, e.Value)
		}
	}
	const ca = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	if err := cmp.Or(
		same("claims extensions", 1, len(extensions)),
		same("URI, DNS and mail names", "1 0 0", fmt.Sprint(len(l.URIs), len(l.DNSNames), len(l.EmailAddresses))),
		must(!l.IsCA && l.KeyUsage&ca == 0 && l.KeyUsage&x509.KeyUsageDigitalSignature != 0, "use", "digital signatures, no CA", l.KeyUsage),
		must(slices.Contains(l.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && slices.Contains(l.ExtKeyUsage, x509.ExtKeyUsageClientAuth), "use", "TLS servers and clients", l.ExtKeyUsage),
		must(!a.now.Before(l.NotBefore) && !a.now.After(l.NotAfter), "time", validity(l), a.now.UTC()),
	); err != nil {
		return "", err
	}
	var err error
	if a.claims, err = parseClaims(extensions[0]); err != nil {
		return "", err
	}
	name := a.claims.Workload
	if a.claims.Role != "workload" {
		sum := sha256.Sum256([]byte("c8s/machine/v1\x00" + a.claims.Machine))
		name = hexOf(sum[:8])
	}
	id := "spiffe://" + a.inForce().TrustDomain + "/" + a.claims.Role + "/" + name
	return fmt.Sprintf("%s, serial %x, until %s", id, l.SerialNumber, l.NotAfter.UTC().Format(time.RFC3339)), cmp.Or(
		must(slices.Contains([]string{"workload", "node", "ingress", "cds"}, a.claims.Role), "role", "a known one", a.claims.Role),
		must(name != "", "workload", "a name", "none"),
		same("name", id, l.URIs[0].String()))
}

func validity(c *x509.Certificate) string {
	return fmt.Sprintf("%s to %s", c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339))
}

// checkLeafManifest: the manifest that the claims name, and the workload's
// entry in it and in the one in force.
func (a *audit) checkLeafManifest() (string, error) {
	m, err := a.manifestOf(digestPrefix + hexOf(a.claims.ManifestDigest))
	if err != nil {
		return "", err
	}
	found := fmt.Sprintf("version %d", m.Version)
	if err := same("version", m.Version, a.claims.ManifestVersion); err != nil || a.claims.Role != "workload" {
		return found, err
	}
	for _, m := range []*manifest{m, a.inForce()} {
		i := slices.IndexFunc(m.Workloads, func(w workload) bool { return w.Name == a.claims.Workload })
		if i < 0 {
			return "", &mismatch{"workload", fmt.Sprintf("an entry of manifest %d", m.Version), a.claims.Workload}
		}
		w := &m.Workloads[i]
		digest, err := w.digest(m.Signers)
		if err := cmp.Or(err,
			must(!w.HostNetwork, "network", "one of its own", "the node's, where pods get no certificate"),
			same("digest of the entry", digest, digestPrefix+hexOf(a.claims.WorkloadDigest)),
			must(len(w.Namespaces) == 0 || slices.Contains(w.Namespaces, a.claims.Namespace), "namespace", fmt.Sprint(w.Namespaces), a.claims.Namespace),
		); err != nil {
			return "", fmt.Errorf("entry %q of manifest %d: %w", w.Name, m.Version, err)
		}
	}
	return found + ", which has its entry, as has the one in force", nil
}

// checkChain verifies leaf, issuer and root, by name constraints too.
func (a *audit) checkChain() (string, error) {
	roots, issuers := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(a.root)
	issuers.AddCert(a.issuer)
	chains, err := a.leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: issuers, CurrentTime: a.now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return "", err
	}
	return "root " + digestOf(a.root.Raw), same("certificates in the chain", 3, len(chains[0]))
}
