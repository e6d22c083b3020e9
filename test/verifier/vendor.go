// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// vendorChain is what AMD says about the machine: VCEK, ASK, ARK, or VLEK,
// ASVK, ARK. Which root is to be trusted, the manifest says.
type vendorChain struct {
	leaf, issuer, root *x509.Certificate
	chipID             []byte // of a VCEK
	provider           string // of a VLEK
}

// The last arcs of AMD's extensions (document 57230).
const (
	arcProduct  = "2"
	arcChipID   = "4"
	arcProvider = "5"
)

// openVendorChain verifies names, signatures and dates.
func openVendorChain(certs [][]byte, product string, at time.Time) (*vendorChain, error) {
	if err := same("vendor certificates", 3, len(certs)); err != nil {
		return nil, err
	}
	c := &vendorChain{}
	for i, to := range []**x509.Certificate{&c.leaf, &c.issuer, &c.root} {
		var err error
		if *to, err = x509.ParseCertificate(certs[i]); err != nil {
			return nil, err
		}
		if err := must(!at.Before((*to).NotBefore) && !at.After((*to).NotAfter), "time", validity(*to), at.UTC()); err != nil {
			return nil, err
		}
	}
	extensions := amdExtensions(c.leaf)
	kind, issuer := "SEV-VCEK", "SEV-"+product
	if provider, ok := extensions[arcProvider]; ok {
		kind, issuer = "SEV-VLEK", "SEV-VLEK-"+product
		c.provider = asText(provider)
	} else if c.chipID = extensions[arcChipID]; len(c.chipID) > 64 || len(c.chipID) == 10 { // in an OCTET STRING
		c.chipID = c.chipID[2:]
	}
	names := make([]string, 0, len(certs))
	for _, cert := range []*x509.Certificate{c.leaf, c.issuer, c.root} {
		names = append(names, strings.TrimPrefix(cert.Subject.CommonName, simulatedMark+" "))
	}
	return c, cmp.Or(
		same("names", fmt.Sprint([]string{kind, issuer, "ARK-" + product}), fmt.Sprint(names)),
		same("issuer of the VCEK or VLEK a CA", false, c.leaf.IsCA),
		c.leaf.CheckSignatureFrom(c.issuer), c.issuer.CheckSignatureFrom(c.root), c.root.CheckSignatureFrom(c.root))
}

// checkEndorsement: the leaf is for the product, patch level and chip that the
// report names.
func (c *vendorChain) checkEndorsement(r report, product string) error {
	extensions := amdExtensions(c.leaf)
	line, _, _ := strings.Cut(asText(extensions[arcProduct]), "-")
	if line == "Siena" || line == "Bergamo" {
		line = "Genoa"
	}
	endorsed := tcb{BootLoader: asByte(extensions["3.1"]), TEE: asByte(extensions["3.2"]), SNP: asByte(extensions["3.3"]), Microcode: asByte(extensions["3.8"])}
	signer, size := byte(0), 64
	if product == "Turin" {
		endorsed.FMC, size = asByte(extensions["3.9"]), 8
	}
	chip := error(nil)
	if c.provider != "" {
		signer = 1
	} else {
		padded := append(slices.Clone(c.chipID), make([]byte, max(0, 64-len(c.chipID)))...)
		chip = cmp.Or(same("length of the chip id", size, len(c.chipID)), same("chip id", hexOf(padded), hexOf(r[offChipID:offCommitted])))
	}
	return cmp.Or(chip,
		same("product of the certificate", product, line),
		same("patch level of the certificate", r.tcb(offReported, product), endorsed),
		same("signing key (0 VCEK, 1 VLEK)", signer, r[offKeyInfo]>>2&7))
}

// simulated: every certificate of a simulator bears its mark; one is enough.
func (c *vendorChain) simulated() bool {
	return slices.ContainsFunc([]*x509.Certificate{c.leaf, c.issuer, c.root}, func(cert *x509.Certificate) bool {
		return slices.Contains(cert.Subject.Organization, simulatedMark) || slices.Contains(cert.Issuer.Organization, simulatedMark)
	})
}

// revocation returns when AMD issued the newest current list, zero without
// one. It fails if any list of AMD's, also an old one, names the chain.
func (c *vendorChain) revocation(items []collateral, at time.Time) (issued time.Time, err error) {
	for _, item := range items {
		if item.Kind != "amd-crl" {
			continue
		}
		list, err := x509.ParseRevocationList(item.Body)
		if err != nil || list.CheckSignatureFrom(c.root) != nil {
			continue // nobody's word
		}
		for _, entry := range list.RevokedCertificateEntries {
			for _, cert := range []*x509.Certificate{c.leaf, c.issuer, c.root} {
				if entry.SerialNumber.Cmp(cert.SerialNumber) == 0 {
					return time.Time{}, &mismatch{"revocation list", "none of the chain", cert.Subject.CommonName}
				}
			}
		}
		if !at.Before(list.ThisUpdate) && !at.After(list.NextUpdate) && list.ThisUpdate.After(issued) {
			issued = list.ThisUpdate
		}
	}
	return issued, nil
}

// amdExtensions returns the values by their arcs below 1.3.6.1.4.1.3704.1.
func amdExtensions(cert *x509.Certificate) map[string][]byte {
	base := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}
	found := map[string][]byte{}
	for _, e := range cert.Extensions {
		if len(e.Id) > len(base) && slices.Equal(e.Id[:len(base)], base) {
			found[e.Id[len(base):].String()] = e.Value
		}
	}
	return found
}

func asByte(der []byte) (n uint8) {
	s := cryptobyte.String(der)
	if !s.ReadASN1Integer(&n) {
		return 0
	}
	return n
}

func asText(der []byte) string {
	s, text := cryptobyte.String(der), cryptobyte.String{}
	if !s.ReadASN1(&text, cbasn1.IA5String) {
		return ""
	}
	return string(bytes.Clone(text))
}
