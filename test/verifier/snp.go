// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// Offsets in AMD's ATTESTATION_REPORT (document 56860, table 23).
const (
	reportSize     = 0x4A0
	offGuestSVN    = 0x004
	offPolicy      = 0x008
	offVMPL        = 0x030
	offAlgorithm   = 0x034
	offCurrent     = 0x038
	offPlatform    = 0x040
	offKeyInfo     = 0x048
	offReportData  = 0x050
	offMeasurement = 0x090
	offHostData    = 0x0C0
	offIDKey       = 0x0E0
	offAuthorKey   = 0x110
	offReported    = 0x180
	offCPUID       = 0x188 // family, model; from version 3 on
	offChipID      = 0x1A0
	offCommitted   = 0x1E0
	offCurrentVer  = 0x1E8 // build, minor, major
	offCommitVer   = 0x1EC
	offLaunch      = 0x1F0
	offSignature   = 0x2A0 // r and s, little-endian, in fields of 72 bytes
	sizeField      = 72
)

// simulatedMark is an organisation in the certificates of simulated machines.
const simulatedMark = "SIMULATED"

// verify establishes what the evidence proves: a genuine machine's report that
// commits to the transcript.
func (e *evidence) verify(t transcript, at time.Time) error {
	if e.Type != typeSNP || len(e.VTPM) > 0 {
		return undecided(fmt.Sprintf("this program does not check evidence of type %s (with a paravisor: %v)", e.Type, len(e.VTPM) > 0))
	}
	r := report(e.Report)
	product, err := r.product(e.Product)
	if err != nil {
		return err
	}
	if err := must(bytes.Equal(r[offReportData:offMeasurement], t.reportData()), "REPORT_DATA", hexOf(t.reportData()), hexOf(r[offReportData:offMeasurement])); err != nil {
		return err
	}
	c, err := openVendorChain(e.Certs, product, at)
	if err != nil {
		return err
	}
	if err := cmp.Or(r.checkSignature(c.leaf), c.checkEndorsement(r, product)); err != nil {
		return err
	}
	f, g := r.facts(product), r.guest(product)
	f.root, f.simulated = digestOf(c.root.Raw), c.simulated()
	f.machine, g.signingKey = hexOf(c.chipID), "vcek"
	if c.provider != "" {
		f.machine, g.signingKey = "csp:"+c.provider, "vlek"
	}
	issued, err := c.revocation(e.Collateral, at)
	f.collateral, g.collateralAge = !issued.IsZero(), at.Sub(issued)
	e.facts, e.guest = f, g
	return err
}

// report is one of version 2 to 5.
type report []byte

func (r report) u32(off int) uint32  { return binary.LittleEndian.Uint32(r[off:]) }
func (r report) bit(off, n int) bool { return r[off+n/8]>>(n%8)&1 == 1 }

// product names the processor line. Version 2 does not say: the hint beside
// it is believed until the certificate confirms it.
func (r report) product(hint string) (string, error) {
	if err := same("length of the report", reportSize, len(r)); err != nil {
		return "", err
	}
	version := r.u32(0)
	if err := cmp.Or(must(version >= 2 && version <= 5, "version", "2 to 5", version), same("signature algorithm", 1, r.u32(offAlgorithm))); err != nil {
		return "", err
	}
	if version == 2 {
		return hint, nil
	}
	family, model := r[offCPUID], r[offCPUID+1]>>4
	switch {
	case family == 0x19 && model == 0:
		return "Milan", nil
	case family == 0x19 && (model == 1 || model == 0xA):
		return "Genoa", nil // also Siena and Bergamo
	case family == 0x1A && model <= 1:
		return "Turin", nil
	}
	return "", fmt.Errorf("unknown processor: family %#x, model %#xx", family, model)
}

func (r report) tcb(off int, product string) tcb {
	b := r[off : off+8]
	if product == "Turin" {
		return tcb{FMC: b[0], BootLoader: b[1], TEE: b[2], SNP: b[3], Microcode: b[7]}
	}
	return tcb{BootLoader: b[0], TEE: b[1], SNP: b[6], Microcode: b[7]}
}

func (r report) facts(product string) *facts {
	return &facts{
		tee: "sev-snp", product: product, paravisor: "none",
		measurement: hexOf(r[offMeasurement:offHostData]), hostData: hexOf(r[offHostData:offIDKey]),
		tcb: r.tcb(offReported, product).lower(r.tcb(offCommitted, product)),
	}
}

func (r report) guest(product string) *guest {
	g := &guest{
		launchTCB: r.tcb(offLaunch, product), abiMinor: r[offPolicy], abiMajor: r[offPolicy+1],
		smt: r.bit(offPolicy, 16), migration: r.bit(offPolicy, 18), debug: r.bit(offPolicy, 19), singleSocket: r.bit(offPolicy, 20),
		vmpl: r.u32(offVMPL), svn: r.u32(offGuestSVN), idKey: orNone(r[offIDKey:offAuthorKey]), authorKey: orNone(r[offAuthorKey : offAuthorKey+48]),
		provisional: !bytes.Equal(r[offCurrent:offCurrent+8], r[offCommitted:offCommitted+8]) || !bytes.Equal(r[offCurrentVer:offCurrentVer+3], r[offCommitVer:offCommitVer+3]),
	}
	for bit, word := range []string{"", "tsme", "ecc", "no-rapl", "ciphertext-hiding", "alias-check"} {
		if word != "" && r.bit(offPlatform, bit) {
			g.platform = append(g.platform, word)
		}
	}
	if !r.bit(offPlatform, 0) {
		g.platform = append(g.platform, "no-smt")
	}
	return g
}

func orNone(digest []byte) string {
	if bytes.Equal(digest, make([]byte, len(digest))) {
		return "none"
	}
	return hexOf(digest)
}

func (r report) checkSignature(leaf *x509.Certificate) error {
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P384() {
		return &mismatch{"key of the VCEK or VLEK", "ECDSA on P-384", fmt.Sprintf("%T", leaf.PublicKey)}
	}
	// Whole fields: what pads them is not signed, and must be zero.
	scalar := func(off int) *big.Int {
		b := slices.Clone(r[off : off+sizeField])
		slices.Reverse(b)
		return new(big.Int).SetBytes(b)
	}
	digest := sha512.Sum384(r[:offSignature])
	return cmp.Or(
		must(ecdsa.Verify(key, digest[:], scalar(offSignature), scalar(offSignature+sizeField)), "signature of the report", "by the VCEK or VLEK", "another"),
		same("bytes after the signature", "none", orNone(r[offSignature+2*sizeField:])))
}
