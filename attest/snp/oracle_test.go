// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/binary"
	mathrand "math/rand/v2"
	"testing"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/verify"

	"github.com/c8s-dev/c8s/attest"
)

// oracleAccepts asks go-sev-guest for parsing and signature.
func oracleAccepts(raw []byte, c *Chain) bool {
	report, err := abi.ReportToProto(raw)
	return err == nil && verify.SnpProtoReportSignature(report, c.Leaf) == nil
}

func weAccept(raw []byte, c *Chain) error {
	r, err := ParseReport(raw)
	if err != nil {
		return err
	}
	return c.VerifySignature(r)
}

// TestGoSEVGuestAgreesAboutChangedReports changes reports of Milan and Genoa,
// signs some of them again, and compares. What the other accepts and we do not
// must be one of our stricter rules; what we accept it must accept.
func TestGoSEVGuestAgreesAboutChangedReports(t *testing.T) {
	rounds := 600
	if testing.Short() {
		rounds = 100
	}
	rng := mathrand.New(mathrand.NewPCG(1, 2))
	stricter := map[string]bool{CodeReportReserved: true, CodePolicyBits: true, CodePlatformBits: true, CodeSigningKey: true, CodeAlgorithm: true, CodeReportVersion: true}
	agreed := map[bool]int{}
	for _, product := range []Product{Milan, Genoa} {
		m := testMachine{product: product}
		chain, key := m.chain(t)
		for range rounds {
			r := reportOf(m)
			r.Version = minVersion + rng.Uint32N(maxVersion-minVersion+1)
			if r.Version < mitigationVersion {
				r.Mitigations = [2]uint64{}
			}
			raw := compose(t, r, key)
			change(t, rng, raw, key)
			ours, theirs := weAccept(raw, chain), oracleAccepts(raw, chain)
			switch {
			case (ours == nil) == theirs:
				agreed[theirs]++
			case ours == nil:
				t.Errorf("only we accept %x", raw)
			case !stricter[attest.FailureCode(ours)]:
				t.Errorf("only the other accepts %x: %v", raw, ours)
			}
		}
	}
	if agreed[true] == 0 || agreed[false] == 0 {
		t.Errorf("agreed: %v: the changes show nothing", agreed)
	}
}

// change alters none or some bytes, and signs the report again two times of three.
func change(t *testing.T, rng *mathrand.Rand, raw []byte, key *ecdsa.PrivateKey) {
	t.Helper()
	for range rng.IntN(3) {
		raw[rng.IntN(ReportSize)] ^= 1 << rng.IntN(8)
	}
	if rng.IntN(3) != 0 {
		if err := sign(raw, rand.Reader, key); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTheReceivedBytesAreWhatIsSigned: go-sev-guest writes the report anew
// before it checks the signature, and changes the stepping on the way.
func TestTheReceivedBytesAreWhatIsSigned(t *testing.T) {
	m := testMachine{product: Milan}
	chain, key := m.chain(t)
	for _, stepping := range []byte{0, 1, 0x0f, 0x10, 0xff} {
		raw := compose(t, reportOf(m), key)
		raw[offStepping] = stepping
		if err := sign(raw, rand.Reader, key); err != nil {
			t.Fatal(err)
		}
		if err := weAccept(raw, chain); err != nil {
			t.Errorf("stepping %#x as signed: %v", stepping, err)
		}
		raw[offStepping] ^= 0x10
		if err := weAccept(raw, chain); attest.FailureCode(err) != CodeSignature {
			t.Errorf("stepping %#x changed: %v", stepping, err)
		}
	}
}

// TestACertificateOfTheSameKeyMustBeForTheTCBAndTheChip: go-sev-guest's verify
// leaves both comparisons to another package.
func TestACertificateOfTheSameKeyMustBeForTheTCBAndTheChip(t *testing.T) {
	m := testMachine{product: Genoa}
	chain, key := m.chain(t)
	for name, c := range map[string]struct {
		edit func(*Report)
		code string
	}{
		"TCB":  {func(r *Report) { r.Reported[7]++ }, CodeEndorsedTCB},
		"chip": {func(r *Report) { r.ChipID[63]++ }, CodeEndorsedChip},
	} {
		r := reportOf(m)
		c.edit(r)
		raw := compose(t, r, key)
		if !oracleAccepts(raw, chain) {
			t.Errorf("%s: the signature is not good", name)
		}
		parsed, err := ParseReport(raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifyAll(parsed, chain, Genoa, testClock()); attest.FailureCode(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOverflowingTablesThatPanicElsewhere has the offsets that wrap in 32 bits.
func TestOverflowingTablesThatPanicElsewhere(t *testing.T) {
	for _, guid := range []GUID{guidVCEK(), guidVLEK(), guidVCEK().swapped(), {9}} {
		for _, e := range [][2]uint32{{0xffffffff, 2}, {0xffffff00, 0x200}, {48, 0xffffffd1}, {0x80000000, 0x80000000}, {0, 0xffffffff}} {
			b := make([]byte, 1400)
			copy(b, guid[:])
			binary.LittleEndian.PutUint32(b[16:], e[0])
			binary.LittleEndian.PutUint32(b[20:], e[1])
			if got, err := ParseCertTable(b); attest.FailureCode(err) != CodeCertTable {
				t.Errorf("%x: %v, %v", e, got, err)
			}
		}
	}
}
