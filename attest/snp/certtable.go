// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/c8s-dev/c8s/attest"
)

// GUID is a GUID as the certificate table stores it.
type GUID [16]byte

// The certificates in a table (AMD document 56421, GHCB, "SNP Extended Guest
// Request"; Linux, virt/coco/sev-guest). Linux stores GUIDs as they are printed;
// some hosts swap the first three groups as UEFI does, and both are read.
func guidVCEK() GUID {
	return GUID{0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac, 0xcd}
}

func guidVLEK() GUID {
	return GUID{0xa8, 0x07, 0x4b, 0xc2, 0xa2, 0x5a, 0x48, 0x3e, 0xaa, 0xe6, 0x39, 0xc0, 0x45, 0xa0, 0xb8, 0xa1}
}

func guidASK() GUID {
	return GUID{0x4a, 0xb7, 0xb3, 0x79, 0xbb, 0xac, 0x4f, 0xe4, 0xa0, 0x2f, 0x05, 0xae, 0xf3, 0x27, 0xc7, 0x82}
}

func guidARK() GUID {
	return GUID{0xc0, 0xb4, 0x06, 0xa4, 0xa8, 0x03, 0x49, 0x52, 0x97, 0x43, 0x3f, 0xb6, 0x01, 0x4c, 0xd0, 0xae}
}

func guidCRL() GUID {
	return GUID{0x92, 0xf8, 0x1b, 0xc3, 0x58, 0x11, 0x4d, 0x3d, 0x97, 0xff, 0xd1, 0x9f, 0x88, 0xdc, 0x67, 0xea}
}

func (g GUID) swapped() GUID {
	return GUID{g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]}
}

// Caps on a certificate table, which the host writes.
const (
	MaxCertTable      = 64 << 10
	maxCertTableEntry = 16
	certEntrySize     = 24 // GUID, offset, length
)

// CertTable is what the host gives its guests beside reports. What is not in
// the table is nil.
type CertTable struct {
	VCEK, VLEK []byte
	ASK        []byte // issuer of the leaf: the ASK of a VCEK or the ASVK of a VLEK
	ARK        []byte
	CRL        []byte
}

type tableField struct {
	guid GUID
	to   *[]byte
}

func (t *CertTable) fields() [5]tableField {
	return [5]tableField{{guidVCEK(), &t.VCEK}, {guidVLEK(), &t.VLEK}, {guidASK(), &t.ASK}, {guidARK(), &t.ARK}, {guidCRL(), &t.CRL}}
}

// ParseCertTable reads the host's table. Entries with other GUIDs are ignored,
// entries of no bytes count as not there.
func ParseCertTable(b []byte) (*CertTable, error) {
	if len(b) > MaxCertTable {
		return nil, attest.NewFailure(CodeCertTable, fmt.Sprintf("at most %d bytes", MaxCertTable), fmt.Sprintf("%d bytes", len(b)), "")
	}
	t := &CertTable{}
	seen := make(map[GUID]bool, maxCertTableEntry)
	for i := 0; ; i++ {
		if i == maxCertTableEntry {
			return nil, attest.NewFailure(CodeCertTable, fmt.Sprintf("at most %d entries", maxCertTableEntry), "more", "")
		}
		if len(b) < (i+1)*certEntrySize {
			return nil, attest.NewFailure(CodeCertTable, "an all-zero entry at the end of the header", "the end of the table", "")
		}
		entry := b[i*certEntrySize:][:certEntrySize]
		guid := GUID(entry[:16])
		// In 64 bits, offset + length cannot wrap.
		offset, length := uint64(binary.LittleEndian.Uint32(entry[16:])), uint64(binary.LittleEndian.Uint32(entry[20:]))
		if guid == (GUID{}) && offset == 0 && length == 0 {
			return t, nil
		}
		if offset+length > uint64(len(b)) {
			return nil, attest.NewFailure(CodeCertTable, fmt.Sprintf("entry %d inside the table's %d bytes", i, len(b)), fmt.Sprintf("offset %d, length %d", offset, length), "")
		}
		if seen[guid] || seen[guid.swapped()] {
			return nil, attest.NewFailure(CodeCertTable, "one entry for each GUID", fmt.Sprintf("two for %x", guid), "")
		}
		seen[guid] = true
		t.keep(guid, b[offset:offset+length])
	}
}

// keep copies, so that a table of 64 KiB does not live as long as a certificate.
func (t *CertTable) keep(guid GUID, data []byte) {
	for _, f := range t.fields() {
		if (guid == f.guid || guid == f.guid.swapped()) && len(data) > 0 {
			*f.to = bytes.Clone(data)
		}
	}
}

// Leaf returns the certificate of the key that signed a report with the given
// SIGNING_KEY. A table may hold both; only the report says which is meant.
func (t *CertTable) Leaf(signer SigningKey) ([]byte, error) {
	leaf := t.VCEK
	if signer == KeyVLEK {
		leaf = t.VLEK
	}
	if leaf == nil || signer != KeyVCEK && signer != KeyVLEK {
		return nil, attest.NewFailure(CodeCertificates, fmt.Sprintf("a certificate of the report's signing key (%s) in the host's table", signer), "none",
			"have the host put it into its certificate table")
	}
	return leaf, nil
}

// Chain returns the leaf for the signing key, and its issuers as far as they
// are in the table. Complete adds those that are missing.
func (t *CertTable) Chain(signer SigningKey) ([][]byte, error) {
	leaf, err := t.Leaf(signer)
	if err != nil {
		return nil, err
	}
	certs := [][]byte{leaf}
	for _, issuer := range [][]byte{t.ASK, t.ARK} {
		if issuer != nil {
			certs = append(certs, issuer)
		}
	}
	return certs, nil
}

// Marshal writes the table as a host does.
func (t *CertTable) Marshal() []byte {
	var present []tableField
	for _, f := range t.fields() {
		if len(*f.to) > 0 {
			present = append(present, f)
		}
	}
	b := make([]byte, (len(present)+1)*certEntrySize)
	for i, f := range present {
		entry := b[i*certEntrySize:]
		copy(entry, f.guid[:])
		binary.LittleEndian.PutUint32(entry[16:], uint32(len(b)))     //nolint:gosec // a few kilobytes
		binary.LittleEndian.PutUint32(entry[20:], uint32(len(*f.to))) //nolint:gosec // a few kilobytes
		b = append(b, *f.to...)
	}
	return b
}
