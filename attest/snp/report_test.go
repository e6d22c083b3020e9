// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-sev-guest/abi"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/policy"
)

func sampleReport(version uint32) *Report {
	r := &Report{
		Version: version, GuestSVN: 3, Policy: 0x30000, AuthorKeyUsed: true, VMPL: 1, PlatformInfo: 0x25,
		ChipID: [64]byte{1, 2}, Measurement: [48]byte{3}, HostData: [32]byte{4}, ReportData: [64]byte{5},
		Current: RawTCB{4, 0, 0, 0, 0, 0, 24, 219}, Reported: RawTCB{4, 0, 0, 0, 0, 0, 23, 219},
		CurrentVersion: FirmwareVersion{1, 2, 3}, CommittedVersion: FirmwareVersion{4, 5, 6},
	}
	if version >= cpuidVersion {
		r.CPUID = CPUID{0x19, 1, 1}
	}
	if version >= mitigationVersion {
		r.Mitigations = [2]uint64{7, 8}
	}
	return r
}

func testKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func compose(t testing.TB, r *Report, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	b, err := r.Compose(rand.Reader, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEveryReportVersionRoundTrips(t *testing.T) {
	key := testKey(t)
	for version := uint32(minVersion); version <= maxVersion; version++ {
		want := sampleReport(version)
		b := compose(t, want, key)
		got, err := ParseReport(b)
		if err != nil {
			t.Fatalf("version %d: %v", version, err)
		}
		want.raw = [ReportSize]byte(b)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(Report{})); diff != "" {
			t.Errorf("version %d: %s", version, diff)
		}
		chain := &Chain{Leaf: &x509.Certificate{PublicKey: key.Public()}}
		if err := chain.VerifySignature(got); err != nil {
			t.Errorf("version %d: %v", version, err)
		}
	}
}

func TestReportsWithUnknownPartsAreRefused(t *testing.T) {
	key := testKey(t)
	put32 := func(off int, v uint32) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint32(b[off:], v) }
	}
	for name, c := range map[string]struct {
		version uint32
		edit    func([]byte)
		code    string
	}{
		"version 1":                      {3, put32(offVersion, 1), CodeReportVersion},
		"version 6":                      {3, put32(offVersion, 6), CodeReportVersion},
		"another algorithm":              {3, put32(offAlgorithm, 2), CodeAlgorithm},
		"policy bit 17 clear":            {3, put32(offPolicy, 0), CodePolicyBits},
		"policy bit 26":                  {3, put32(offPolicy, 1<<17|1<<26), CodePolicyBits},
		"platform bit 6":                 {3, put32(offPlatform, 1<<6), CodePlatformBits},
		"platform bit 40":                {3, put32(offPlatform+4, 1<<8), CodePlatformBits},
		"key flags bit 5":                {3, put32(offFlags, 1<<5), CodeReportReserved},
		"reserved after flags":           {3, put32(offReserved0, 1), CodeReportReserved},
		"reserved after CPUID":           {3, put32(offReserved1+1, 1), CodeReportReserved},
		"CPUID in version 2":             {2, put32(offFamily, 0x19), CodeReportReserved},
		"mitigation vector in version 4": {4, put32(offMitigation, 1), CodeReportReserved},
		"reserved before signature":      {5, put32(offSignature-4, 1), CodeReportReserved},
		"padding of r":                   {3, put32(offSignature+scalarSize, 1), CodeReportReserved},
		"padding of s":                   {3, put32(offSignature+fieldSize+scalarSize, 1), CodeReportReserved},
		"last byte":                      {3, func(b []byte) { b[ReportSize-1] = 1 }, CodeReportReserved},
	} {
		t.Run(name, func(t *testing.T) {
			b := compose(t, sampleReport(c.version), key)
			c.edit(b)
			if _, err := ParseReport(b); attest.FailureCode(err) != c.code {
				t.Errorf("got %v, want %s", err, c.code)
			}
		})
	}
	for _, size := range []int{0, 1, ReportSize - 1, ReportSize + 1} {
		if _, err := ParseReport(make([]byte, size)); attest.FailureCode(err) != CodeReportFormat {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// TestFlippingAnyByteOfARealReportRefuses flips one bit of each byte, of the
// signed part and of the signature field.
func TestFlippingAnyByteOfARealReportRefuses(t *testing.T) {
	for _, c := range realCases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			step := 1
			if testing.Short() {
				step = 17 // every field, not every byte
			}
			r, chain := c.load(t)
			for i := 0; i < ReportSize; i += step {
				b := r.raw
				b[i] ^= 1 << (i % 8)
				changed, err := ParseReport(b[:])
				if err == nil {
					err = chain.VerifySignature(changed)
				}
				if attest.FailureCode(err) == "" {
					t.Fatalf("a change at %#x: %v", i, err)
				}
			}
		})
	}
}

func TestTheSigningKeyMustBeOfTheLeafsKind(t *testing.T) {
	leaf := &x509.Certificate{PublicKey: testKey(t).Public()}
	for _, signer := range []SigningKey{KeyVCEK, KeyVLEK} {
		chain := &Chain{Leaf: leaf, Endorsement: Endorsement{Signer: signer}}
		for _, key := range []SigningKey{KeyVCEK, KeyVLEK, KeyNone, 2, 3} {
			want := CodeSigningKey
			if key == signer {
				want = CodeSignature
			}
			if err := chain.VerifySignature(&Report{SigningKey: key}); attest.FailureCode(err) != want {
				t.Errorf("%s with a %s: %v", key, signer, err)
			}
		}
	}
}

func TestProductsFollowFromTheProcessor(t *testing.T) {
	for name, c := range map[string]struct {
		report Report
		hint   string
		want   Product
		code   string
	}{
		"Milan":                 {Report{Version: 3, CPUID: CPUID{0x19, 0x01, 1}}, "", Milan, ""},
		"Milan and its hint":    {Report{Version: 3, CPUID: CPUID{0x19, 0x01, 1}}, "Milan", Milan, ""},
		"Genoa":                 {Report{Version: 3, CPUID: CPUID{0x19, 0x11, 1}}, "", Genoa, ""},
		"Siena":                 {Report{Version: 3, CPUID: CPUID{0x19, 0xA0, 2}}, "", Genoa, ""},
		"hint disagrees":        {Report{Version: 3, CPUID: CPUID{0x19, 0x11, 1}}, "Milan", "", CodeProductMismatch},
		"Turin":                 {Report{Version: 3, CPUID: CPUID{0x1A, 0x02, 1}}, "", Turin, ""},
		"Turin Dense":           {Report{Version: 3, CPUID: CPUID{0x1A, 0x11, 1}}, "", Turin, ""},
		"Turin, last model":     {Report{Version: 3, CPUID: CPUID{0x1A, 0x1f, 1}}, "", Turin, ""},
		"Bergamo, last model":   {Report{Version: 3, CPUID: CPUID{0x19, 0xaf, 2}}, "", Genoa, ""},
		"Turin hinted as Genoa": {Report{Version: 3, CPUID: CPUID{0x1A, 0x02, 1}}, "Genoa", "", CodeProductMismatch},
		"later Zen 5 family":    {Report{Version: 3, CPUID: CPUID{0x1A, 0x50, 1}}, "", "", CodeProductUnknown},
		"unknown":               {Report{Version: 3, CPUID: CPUID{0x18, 0, 0}}, "", "", CodeProductUnknown},
		"version 2, given":      {Report{Version: 2}, "Milan", Milan, ""},
		"version 2, not given":  {Report{Version: 2}, "", "", CodeProductUnknown},
		"version 2, nonsense":   {Report{Version: 2}, "Rome", "Rome", CodeProductUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.report.Product(c.hint)
			if got != c.want || attest.FailureCode(err) != c.code {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestTCBLayout(t *testing.T) {
	got, err := Milan.TCB(RawTCB{1, 2, 0, 0, 0, 0, 3, 4})
	if want := (policy.TCB{BootLoader: 1, TEE: 2, SNP: 3, Microcode: 4}); err != nil || got != want {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := Genoa.TCB(RawTCB{2: 1}); attest.FailureCode(err) != CodeTCBReserved {
		t.Errorf("reserved: %v", err)
	}
}

func TestAlteredRealVCEKsAreRefused(t *testing.T) {
	for _, file := range []string{"invalid_vcek_legacy.der", "invalid_vcek_new.der"} {
		t.Run(file, func(t *testing.T) {
			dir := evidenceDir(t)
			ask, ark, _ := VendorCerts(Milan, KeyVCEK)
			chain, err := ParseChain([][]byte{readCert(t, filepath.Join(dir, file)), ask, ark})
			if err == nil {
				err = chain.Verify()
			}
			t.Log(err)
			if code := attest.FailureCode(err); code != CodeChain {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestMixedUpRealEvidenceIsRefused(t *testing.T) {
	milan2, chain2 := realCases()[0].load(t)
	milan3, chain3 := realCases()[1].load(t)
	_, genoa := realCases()[2].load(t)
	crossed := &Chain{Leaf: chain3.Leaf, Intermediate: genoa.Intermediate, Root: genoa.Root, Endorsement: chain3.Endorsement}
	foreignRoot := &Chain{Leaf: chain3.Leaf, Intermediate: chain3.Intermediate, Root: genoa.Root, Endorsement: chain3.Endorsement}
	shuffled := &Chain{Leaf: chain3.Intermediate, Intermediate: chain3.Intermediate, Root: chain3.Root, Endorsement: chain3.Endorsement}
	for name, c := range map[string]struct {
		err  error
		code string
	}{
		"VCEK of another chip":         {chain2.VerifySignature(milan3), CodeSignature},
		"TCB of another VCEK":          {chain2.CheckTCB(milan3), CodeEndorsedTCB},
		"chip of another VCEK":         {chain3.CheckChip(milan2), CodeEndorsedChip},
		"another product":              {genoa.CheckProduct(Milan), CodeProductMismatch},
		"issuer of another product":    {crossed.Verify(), CodeChain},
		"root of another product":      {foreignRoot.Verify(), CodeChain},
		"an issuer in the VCEK's seat": {shuffled.Verify(), CodeChain},
		"before the chain":             {verifyAll(milan3, chain3, "Milan", time.Date(2019, 1, 1, 0, 0, 0, 0, time.UTC)), CodeChainExpired},
		"after the chain":              {verifyAll(milan3, chain3, "Milan", time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC)), CodeChainExpired},
	} {
		if attest.FailureCode(c.err) != c.code {
			t.Errorf("%s: got %v, want %s", name, c.err, c.code)
		}
	}
}

func TestChipIDMustBeThere(t *testing.T) {
	c := &Chain{Endorsement: Endorsement{ChipID: make([]byte, ChipIDSize)}}
	if err := c.CheckChip(&Report{}); attest.FailureCode(err) != CodeEndorsedChip {
		t.Errorf("zeros: %v", err)
	}
	if err := c.CheckChip(&Report{MaskChipKey: true, ChipID: [64]byte{1}}); attest.FailureCode(err) != CodeEndorsedChip {
		t.Errorf("masked: %v", err)
	}
	if err := (&Chain{}).CheckChip(&Report{ChipID: [64]byte{1}}); attest.FailureCode(err) != CodeNoEndorsedChip {
		t.Errorf("none endorsed: %v", err)
	}
}

// TestParserAgreesWithGoSEVGuest compares fields with another implementation.
func TestParserAgreesWithGoSEVGuest(t *testing.T) {
	raws := map[string][]byte{}
	key := testKey(t)
	for v := uint32(minVersion); v <= maxVersion; v++ {
		raws["composed version "+string(rune('0'+v))] = compose(t, sampleReport(v), key)
	}
	for _, c := range realCases() {
		r, _ := c.load(t)
		raws[c.name] = r.raw[:]
	}
	for name, raw := range raws {
		t.Run(name, func(t *testing.T) {
			want, err := abi.ReportToProto(raw)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseReport(raw)
			if err != nil {
				t.Fatal(err)
			}
			for field, pair := range map[string][2]any{
				"version": {got.Version, want.GetVersion()}, "guest SVN": {got.GuestSVN, want.GetGuestSvn()},
				"policy": {got.Policy, want.GetPolicy()}, "VMPL": {got.VMPL, want.GetVmpl()},
				"platform info": {got.PlatformInfo, want.GetPlatformInfo()},
				"report data":   {got.ReportData[:], want.GetReportData()}, "measurement": {got.Measurement[:], want.GetMeasurement()},
				"host data": {got.HostData[:], want.GetHostData()}, "chip id": {got.ChipID[:], want.GetChipId()},
				"report id": {got.ReportID[:], want.GetReportId()}, "id key": {got.IDKey[:], want.GetIdKeyDigest()},
				"author key": {got.AuthorKey[:], want.GetAuthorKeyDigest()}, "family id": {got.FamilyID[:], want.GetFamilyId()},
				"image id":      {got.ImageID[:], want.GetImageId()},
				"current TCB":   {binary.LittleEndian.Uint64(got.Current[:]), want.GetCurrentTcb()},
				"reported TCB":  {binary.LittleEndian.Uint64(got.Reported[:]), want.GetReportedTcb()},
				"committed TCB": {binary.LittleEndian.Uint64(got.Committed[:]), want.GetCommittedTcb()},
				"launch TCB":    {binary.LittleEndian.Uint64(got.Launch[:]), want.GetLaunchTcb()},
				"current build": {uint32(got.CurrentVersion.Build), want.GetCurrentBuild()},
				"commit major":  {uint32(got.CommittedVersion.Major), want.GetCommittedMajor()},
			} {
				if diff := cmp.Diff(pair[1], pair[0]); diff != "" {
					t.Errorf("%s: %s", field, diff)
				}
			}
			if signed := abi.SignedComponent(raw); len(signed) != signedSize {
				t.Errorf("signed part of %d bytes", len(signed))
			}
		})
	}
}
