// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"crypto/sha512"
	"encoding/binary"
	"fmt"

	"github.com/c8s-dev/c8s/attest"
)

// The page types of SNP_LAUNCH_UPDATE, AMD 56860 table "PAGE_TYPE".
const (
	pageNormal     = 1
	pageVMSA       = 2
	pageZero       = 3
	pageUnmeasured = 4
	pageSecrets    = 5
	pageCPUID      = 6
)

// vmsaAddress is what KVM gives as guest address of a save area: all ones, with
// the bits above 51 and inside the page cleared by hardware.
const vmsaAddress = 0xfffffffff000

// launchContext is the digest as the firmware of the secure processor keeps it.
type launchContext struct{ digest Digest }

// update hashes the PAGE_INFO of one page: the digest so far, the digest of the
// content, length, type, "initial migration image" and the VMPL permissions
// (all zero: they can only be given later), and the address.
func (l *launchContext) update(kind byte, address uint64, content Digest) {
	const size = 0x70
	var info [size]byte
	copy(info[0:], l.digest[:])
	copy(info[DigestSize:], content[:])
	binary.LittleEndian.PutUint16(info[96:], size)
	info[98] = kind
	binary.LittleEndian.PutUint64(info[104:], address)
	l.digest = sha512.Sum384(info[:])
}

// data adds normal pages; len(b) is a multiple of the page size.
func (l *launchContext) data(address uint64, b []byte) {
	for ; len(b) > 0; b, address = b[pageSize:], address+pageSize {
		l.update(pageNormal, address, sha512.Sum384(b[:pageSize]))
	}
}

// contentless adds pages whose content the processor itself provides.
func (l *launchContext) contentless(kind byte, s sevSection) {
	for offset := uint64(0); offset < uint64(s.size); offset += pageSize {
		l.update(kind, uint64(s.address)+offset, Digest{})
	}
}

// Monitor is the virtual machine monitor. What it puts into the initial
// registers, and in which order, is measured.
type Monitor int

// The monitors. There is no default.
const (
	QEMU Monitor = iota + 1
	EC2          // Amazon's Nitro
	GCE          // Google's Vanadium
)

// ParseMonitor reads qemu, ec2 or gce.
func ParseMonitor(name string) (Monitor, error) {
	for _, m := range []Monitor{QEMU, EC2, GCE} {
		if m.String() == name {
			return m, nil
		}
	}
	return 0, attest.NewFailure(CodeMonitor, "qemu, ec2 or gce", fmt.Sprintf("%.40q", name), "name the monitor that starts the machine")
}

func (m Monitor) String() string {
	switch m {
	case QEMU:
		return "qemu"
	case EC2:
		return "ec2"
	case GCE:
		return "gce"
	}
	return fmt.Sprintf("monitor %d", int(m))
}

// FeatureSNP is bit 0 of SEV_FEATURES, which every SEV-SNP guest has.
const FeatureSNP = 1

// SNPInput is all that the launch digest depends on.
type SNPInput struct {
	OVMF *OVMF
	// OVMFDigest, if not nil, is OVMF.Digest of the whole image. The bytes in
	// OVMF are then only read for the sections.
	OVMFDigest *Digest
	// Kernel is nil where the firmware finds a kernel on a disk.
	Kernel *KernelHashes
	// VCPUs is how many vCPUs the machine is started with.
	VCPUs int
	// Signature is what CPUID function 1 returns in EAX. Only QEMU measures it.
	Signature uint32
	// Features is SEV_FEATURES; 1 on Linux hosts without more configuration.
	Features uint64
	Monitor  Monitor
}

func (in *SNPInput) check() error {
	switch {
	case in.OVMF == nil:
		return attest.NewFailure(CodeInput, "firmware", "none", "give the firmware image that the machine is started with")
	case in.Monitor != QEMU && in.Monitor != EC2 && in.Monitor != GCE:
		return attest.NewFailure(CodeMonitor, "qemu, ec2 or gce", in.Monitor.String(), "name the monitor that starts the machine")
	case in.VCPUs < 1 || in.VCPUs > MaxVCPUs:
		return attest.NewFailure(CodeVCPUCount, fmt.Sprintf("1 to %d vCPUs", MaxVCPUs), fmt.Sprintf("%d", in.VCPUs), "give the number the machine is started with: each vCPU is measured")
	case in.Monitor == QEMU && in.Signature == 0:
		return attest.NewFailure(CodeVCPUType, "the vCPU type, which QEMU puts into a measured register", "none", "give QEMU's -cpu model, like EPYC-v4")
	case in.Features&FeatureSNP == 0:
		return attest.NewFailure(CodeGuestFeatures, "guest features with bit 0, SEV-SNP", fmt.Sprintf("%#x", in.Features), "give 0x1, or the SEV_FEATURES that the host sets")
	case in.VCPUs > 1 && in.OVMF.resetEIP == 0:
		return attest.NewFailure(CodeResetVector, "firmware with the SEV-ES reset block, for more than one vCPU", "none", "use firmware built with SEV-ES support")
	case in.Kernel != nil && in.OVMF.hashTable == 0:
		return attest.NewFailure(CodeKernelHashes, "firmware with a section for kernel hashes", "none",
			"use firmware built from EDK II's AmdSevX64, or leave out kernel, initrd and command line: this firmware does not measure them")
	}
	return nil
}

// Digest returns the launch digest after the image's pages and before anything
// else.
func (o *OVMF) Digest() Digest {
	var l launchContext
	l.data(fourGiB-uint64(len(o.image)), o.image)
	return l.digest
}

// SNP returns the launch digest, which a report has as MEASUREMENT.
func SNP(in SNPInput) (Digest, error) {
	if err := in.check(); err != nil {
		return Digest{}, err
	}
	var l launchContext
	if in.OVMFDigest != nil {
		l.digest = *in.OVMFDigest
	} else {
		l.digest = in.OVMF.Digest()
	}
	for _, s := range in.OVMF.sections {
		in.addSection(&l, s)
	}
	if in.Monitor == EC2 {
		for _, s := range in.OVMF.sections {
			if s.kind == sevCPUID { // EC2 adds it last
				l.contentless(pageCPUID, s)
			}
		}
	}
	// All vCPUs but the first start alike: their pages are hashed once.
	boot := in.saveAreaDigest(bootEIP)
	others := in.saveAreaDigest(in.OVMF.resetEIP)
	l.update(pageVMSA, vmsaAddress, boot)
	for range in.VCPUs - 1 {
		l.update(pageVMSA, vmsaAddress, others)
	}
	return l.digest, nil
}

func (in *SNPInput) saveAreaDigest(eip uint32) Digest {
	page := saveArea(in.Monitor, eip, in.Signature, in.Features)
	return sha512.Sum384(page[:])
}

func (in *SNPInput) addSection(l *launchContext, s sevSection) {
	switch s.kind {
	case sevSecMem:
		if in.Monitor == GCE {
			l.contentless(pageUnmeasured, s)
		} else {
			l.contentless(pageZero, s)
		}
	case sevSVSMCAA:
		l.contentless(pageZero, s)
	case sevSecrets:
		l.contentless(pageSecrets, s)
	case sevCPUID:
		if in.Monitor != EC2 {
			l.contentless(pageCPUID, s)
		}
	case sevKernelHashes:
		if in.Kernel == nil {
			l.contentless(pageZero, s)
			return
		}
		page := in.Kernel.page(in.OVMF.hashTable - s.address)
		l.data(uint64(s.address), page[:])
	}
}
