// SPDX-License-Identifier: Apache-2.0

// Package measure never guesses: it computes the launch measurement that
// hardware will report for given files, or it refuses and says what is missing.
// Every byte that hardware measures comes from the caller or from a rule of the
// documents named here, and an input that would make virtual machine monitor
// and verifier disagree (an unknown section, a duplicate table entry, a command
// line that the kernel cuts) is refused rather than interpreted.
//
// SNP computes the launch digest of AMD SEV-SNP, TDVF.MRTD, RTMR1 and RTMR2 the
// measurement registers of Intel TDX. RTMR0 holds ACPI tables and a memory map
// that the monitor makes when it starts the machine; there is no file to
// compute it from, so it is judged by replaying the event log.
//
// Sources: AMD 56860 "SEV Secure Nested Paging Firmware ABI Specification"
// (section 8.17, launch update), AMD 24593 "Architecture Programmer's Manual
// Volume 2" (appendix B, save area), Intel 344425 "TDX Module Base Architecture"
// (measurement), Intel 344991 "TDX Virtual Firmware Design Guide" (metadata),
// EDK II OvmfPkg, QEMU, and sev-snp-measure for what monitors do.
package measure

import (
	"encoding/hex"
	"fmt"

	"github.com/c8s-dev/c8s/attest"
)

// The codes of the failures.
const (
	CodeImageSize     = "image-size"          // the firmware is empty, too large or no whole number of pages
	CodeFirmwareTable = "firmware-table"      // the table of GUIDs at the end of the firmware cannot be read
	CodeSEVMetadata   = "sev-metadata"        // the SEV metadata is missing, unreadable or unknown
	CodeTDXMetadata   = "tdx-metadata"        // the TDX metadata is missing, unreadable or unknown
	CodeKernelHashes  = "kernel-hashes"       // this firmware has no place for the hashes of kernel, initrd and command line
	CodeResetVector   = "reset-vector"        // several vCPUs, but the firmware does not say where the others start
	CodeVCPUCount     = "vcpu-count"          // no vCPU, or more than a machine can have
	CodeVCPUType      = "vcpu-type"           // not a known name, not family/model/stepping, not a signature
	CodeGuestFeatures = "guest-features"      // SEV_FEATURES without the SNP bit
	CodeMonitor       = "vmm"                 // not a monitor this package knows
	CodeCommandLine   = "command-line"        // too long or with characters that are not passed on unchanged
	CodeKernelImage   = "kernel-image"        // the kernel is not a PE image whose Authenticode digest is defined
	CodeInput         = "measure-input"       // an input is missing, too large or could not be read
	CodeInitrdToken   = "initrd-token"        // not a known way of naming the initrd to the kernel
	CodeLoadOptions   = "kernel-load-options" // neither command line nor initrd: the kernel measures nothing
)

// Size limits. Real firmware has 2 to 16 MiB and a dozen sections.
const (
	MaxFirmware    = 64 << 20
	MaxKernel      = 1 << 30
	MaxInitrd      = 4 << 30
	MaxCommandLine = 2047 // x86 Linux: COMMAND_LINE_SIZE with its NUL; the rest is cut off in silence
	MaxVCPUs       = 4096 // KVM_MAX_VCPUS on x86

	maxSections     = 64
	maxSectionPages = 256 << 20 / pageSize // sum over all sections
)

const (
	pageSize = 4096
	fourGiB  = 1 << 32
)

// DigestSize is the size of all measurements: SHA-384.
const DigestSize = 48

// Digest is a measurement.
type Digest [DigestSize]byte

// String returns the digest as the manifest's "measurements" has it.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// ParseDigest reads 96 hexadecimal digits.
func ParseDigest(text string) (Digest, error) {
	var d Digest
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != DigestSize {
		return d, attest.NewFailure(CodeInput, "a digest of 96 hexadecimal digits", fmt.Sprintf("%.100q", text), "")
	}
	copy(d[:], raw)
	return d, nil
}
