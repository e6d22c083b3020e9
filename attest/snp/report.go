// SPDX-License-Identifier: Apache-2.0

// Package snp reads AMD SEV-SNP evidence. Its invariant: what is checked is
// what was received. The signature is verified over the received bytes, every
// byte of a report has a known meaning or is zero, and nothing is filled in.
//
// Layouts are those of AMD document 56860 (SEV Secure Nested Paging Firmware
// ABI Specification), certificates those of document 57230 (VCEK Certificate
// and KDS Interface Specification). The package judges nothing by policy.
package snp

import (
	"encoding/binary"
	"fmt"

	"github.com/c8s-dev/c8s/attest"
)

// ReportSize is the size of an ATTESTATION_REPORT in bytes.
const ReportSize = 0x4A0

// signedSize is how much of the report the signature covers.
const signedSize = 0x2A0

// The accepted versions of ATTESTATION_REPORT. CPUID fields came with version
// 3, mitigation vectors with version 5.
const (
	minVersion        = 2
	cpuidVersion      = 3
	mitigationVersion = 5
	maxVersion        = 5
)

// Offsets in ATTESTATION_REPORT.
const (
	offVersion     = 0x000
	offGuestSVN    = 0x004
	offPolicy      = 0x008
	offFamilyID    = 0x010
	offImageID     = 0x020
	offVMPL        = 0x030
	offAlgorithm   = 0x034
	offCurrent     = 0x038
	offPlatform    = 0x040
	offFlags       = 0x048
	offReserved0   = 0x04C
	offReportData  = 0x050
	offMeasurement = 0x090
	offHostData    = 0x0C0
	offIDKey       = 0x0E0
	offAuthorKey   = 0x110
	offReportID    = 0x140
	offReportIDMA  = 0x160
	offReported    = 0x180
	offFamily      = 0x188
	offModel       = 0x189
	offStepping    = 0x18A
	offReserved1   = 0x18B
	offChipID      = 0x1A0
	offCommitted   = 0x1E0
	offCurrentVer  = 0x1E8 // build, minor, major, reserved
	offCommitVer   = 0x1EC // build, minor, major, reserved
	offLaunch      = 0x1F0
	offMitigation  = 0x1F8 // launch and current vectors, 8 bytes each
	offReserved2   = 0x208
	offSignature   = signedSize
)

// The key information at offset 48h: two flags and SIGNING_KEY in bits 4 to 2.
const (
	flagAuthorKey   = 1 << 0
	flagMaskChipKey = 1 << 1
	flagSigningKey  = 2
)

// SigningKey says which key signed a report.
type SigningKey uint8

// The signing keys (56860, ATTESTATION_REPORT, SIGNING_KEY).
const (
	KeyVCEK SigningKey = 0 // of one chip at one TCB
	KeyVLEK SigningKey = 1 // of a cloud provider
	KeyNone SigningKey = 7
)

func (k SigningKey) String() string {
	switch k {
	case KeyVCEK:
		return "VCEK"
	case KeyVLEK:
		return "VLEK"
	case KeyNone:
		return "none"
	}
	return fmt.Sprintf("unknown (%d)", uint8(k))
}

// issuer names the certificate that issues those of the key.
func (k SigningKey) issuer() string {
	if k == KeyVLEK {
		return "ASVK"
	}
	return "ASK"
}

// RawTCB is a TCB_VERSION whose layout depends on the product.
type RawTCB [8]byte

// CPUID is what the firmware says about the processor, from version 3 on.
type CPUID struct{ Family, Model, Stepping uint8 }

func (c CPUID) String() string {
	return fmt.Sprintf("family %#x model %#x stepping %d", c.Family, c.Model, c.Stepping)
}

// FirmwareVersion is the version of the SEV firmware.
type FirmwareVersion struct{ Build, Minor, Major uint8 }

// Report is a parsed report. Its signature has not been checked.
type Report struct {
	Version       uint32
	GuestSVN      uint32
	Policy        uint64
	FamilyID      [16]byte
	ImageID       [16]byte
	VMPL          uint32
	PlatformInfo  uint64
	AuthorKeyUsed bool // AUTHOR_KEY_EN: AuthorKey is the digest of the key that certified the ID key
	MaskChipKey   bool // the host hides the chip id and the VCEK
	SigningKey    SigningKey
	ReportData    [64]byte
	Measurement   [48]byte
	HostData      [32]byte
	IDKey         [48]byte // digest; zero unless launched with an ID block
	AuthorKey     [48]byte // digest; zero unless AuthorKeyUsed
	ReportID      [32]byte
	ReportIDMA    [32]byte
	CPUID         CPUID // zero in version 2
	ChipID        [64]byte
	Current       RawTCB // what runs now
	Reported      RawTCB // what the signing key is derived from
	Committed     RawTCB // below which the firmware cannot be rolled back
	Launch        RawTCB // what ran when the guest was launched

	CurrentVersion   FirmwareVersion
	CommittedVersion FirmwareVersion
	Mitigations      [2]uint64 // launch and current vectors; zero before version 5

	raw [ReportSize]byte
}

// ParseReport reads a report. It refuses unknown versions, unknown policy bits
// and reserved bytes that are not zero: their meaning could be anything.
func ParseReport(b []byte) (*Report, error) {
	if len(b) != ReportSize {
		return nil, attest.NewFailure(CodeReportFormat, fmt.Sprintf("%d bytes", ReportSize), fmt.Sprintf("%d bytes", len(b)), "")
	}
	version := binary.LittleEndian.Uint32(b[offVersion:])
	if version < minVersion || version > maxVersion {
		return nil, attest.NewFailure(CodeReportVersion, fmt.Sprintf("%d to %d", minVersion, maxVersion), fmt.Sprint(version), "use a c8s version that knows this firmware's reports")
	}
	if err := checkReserved(b, version); err != nil {
		return nil, err
	}
	r := &Report{Version: version, raw: [ReportSize]byte(b)}
	r.readFields(b)
	if err := r.checkBits(binary.LittleEndian.Uint32(b[offAlgorithm:])); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Report) readFields(b []byte) {
	le := binary.LittleEndian
	flags := le.Uint32(b[offFlags:])
	r.GuestSVN = le.Uint32(b[offGuestSVN:])
	r.Policy = le.Uint64(b[offPolicy:])
	r.VMPL = le.Uint32(b[offVMPL:])
	r.PlatformInfo = le.Uint64(b[offPlatform:])
	r.AuthorKeyUsed = flags&flagAuthorKey != 0
	r.MaskChipKey = flags&flagMaskChipKey != 0
	r.SigningKey = SigningKey(flags >> flagSigningKey & 0b111)
	r.CPUID = CPUID{b[offFamily], b[offModel], b[offStepping]}
	r.CurrentVersion = FirmwareVersion{b[offCurrentVer], b[offCurrentVer+1], b[offCurrentVer+2]}
	r.CommittedVersion = FirmwareVersion{b[offCommitVer], b[offCommitVer+1], b[offCommitVer+2]}
	r.Mitigations = [2]uint64{le.Uint64(b[offMitigation:]), le.Uint64(b[offMitigation+8:])}
	for _, f := range r.byteFields() {
		copy(f.value, b[f.offset:])
	}
}

type byteField struct {
	value  []byte
	offset int
}

// byteFields are the parts of a report that are copied as they are.
func (r *Report) byteFields() [14]byteField {
	return [14]byteField{
		{r.FamilyID[:], offFamilyID},
		{r.ImageID[:], offImageID},
		{r.ReportData[:], offReportData},
		{r.Measurement[:], offMeasurement},
		{r.HostData[:], offHostData},
		{r.IDKey[:], offIDKey},
		{r.AuthorKey[:], offAuthorKey},
		{r.ReportID[:], offReportID},
		{r.ReportIDMA[:], offReportIDMA},
		{r.ChipID[:], offChipID},
		{r.Current[:], offCurrent},
		{r.Reported[:], offReported},
		{r.Committed[:], offCommitted},
		{r.Launch[:], offLaunch},
	}
}

// checkReserved covers the signature's padding too, which is not signed:
// otherwise one report would have many encodings.
func checkReserved(b []byte, version uint32) error {
	ranges := [][2]int{
		{offReserved0, offReportData},
		{offReserved1, offChipID},
		{offCurrentVer + 3, offCommitVer},
		{offCommitVer + 3, offLaunch},
		{offReserved2, offSignature},
		{offSignature + scalarSize, offSignature + fieldSize},
		{offSignature + fieldSize + scalarSize, ReportSize},
	}
	if version < cpuidVersion {
		ranges = append(ranges, [2]int{offFamily, offReserved1})
	}
	if version < mitigationVersion {
		ranges = append(ranges, [2]int{offMitigation, offReserved2})
	}
	for _, r := range ranges {
		for i := r[0]; i < r[1]; i++ {
			if b[i] != 0 {
				return attest.NewFailure(CodeReportReserved, fmt.Sprintf("zero at offset %#x", i), fmt.Sprintf("%#02x", b[i]), "use a c8s version that knows this firmware's reports")
			}
		}
	}
	if flags := binary.LittleEndian.Uint32(b[offFlags:]); flags>>5 != 0 {
		return attest.NewFailure(CodeReportReserved, "no key flags above bit 4", fmt.Sprintf("%#x", flags), "use a c8s version that knows this firmware's reports")
	}
	return nil
}

func (r *Report) checkBits(algorithm uint32) error {
	const remedy = "use a c8s version that knows these bits"
	switch {
	case algorithm != algorithmP384:
		return attest.NewFailure(CodeAlgorithm, "1 (ECDSA P-384 with SHA-384)", fmt.Sprint(algorithm), "")
	case r.Policy&policyReserved == 0 || r.Policy&^policyKnownBits != 0:
		return attest.NewFailure(CodePolicyBits, "bit 17 set and none above 25", fmt.Sprintf("%#x", r.Policy), remedy)
	case r.PlatformInfo&^platformKnownBits != 0:
		return attest.NewFailure(CodePlatformBits, fmt.Sprintf("no bits but %#x", platformKnownBits), fmt.Sprintf("%#x", r.PlatformInfo), remedy)
	}
	return nil
}
