// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"cmp"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"

	"github.com/c8s-dev/c8s/attest"
)

// The types and attributes of TDX metadata sections, Intel 344991 "TDX Metadata".
const (
	tdxBFV     = 0 // boot firmware volume: the code
	tdxCFV     = 1 // configuration firmware volume: UEFI variables
	tdxHOB     = 2 // the monitor's description of the machine
	tdxTempMem = 3
	tdxPermMem = 4

	tdxExtend  = 1 << 0 // MR.EXTEND: the content is measured
	tdxAugment = 1 << 1 // PAGE.AUG: added when the guest runs, and so not measured

	tdxSectionSize = 32
)

type tdxSection struct {
	dataOffset, dataSize uint32
	address, size        uint64
	kind, attributes     uint32
}

func (s *tdxSection) extended() bool  { return s.attributes&tdxExtend != 0 }
func (s *tdxSection) augmented() bool { return s.attributes&tdxAugment != 0 }

func (s *tdxSection) String() string {
	return fmt.Sprintf("type %d, attributes %#x, %#x bytes at %#x from %#x bytes at offset %#x",
		s.kind, s.attributes, s.size, s.address, s.dataSize, s.dataOffset)
}

// TDVF is firmware for TDX. It holds on to the image, which must not change.
type TDVF struct {
	image    []byte
	sections []tdxSection
}

// ParseTDVF reads the metadata of a whole firmware image.
func ParseTDVF(image []byte) (*TDVF, error) {
	if err := checkImage(image); err != nil {
		return nil, err
	}
	table, err := footerTable(image)
	if err != nil {
		return nil, err
	}
	entry, ok := table[guidTDXMetadata()]
	if !ok {
		return nil, attest.NewFailure(CodeTDXMetadata, "firmware with TDX metadata", "none", "use OVMF.fd built from EDK II's OvmfPkgX64 or IntelTdxX64, not split into code and variables")
	}
	raw, err := descriptor(image, entry, CodeTDXMetadata, "TDVF", tdxSectionSize)
	if err != nil {
		return nil, err
	}
	t := &TDVF{image: image}
	pages, measured := uint64(0), false
	for ; len(raw) > 0; raw = raw[tdxSectionSize:] {
		s := readTDXSection(raw)
		if expected := s.refuse(len(image)); expected != "" {
			return nil, tdxFailure(expected, s.String())
		}
		if pages += s.size / pageSize; pages > maxSectionPages {
			return nil, tdxFailure(fmt.Sprintf("sections of %d pages together", maxSectionPages), s.String())
		}
		measured = measured || s.extended()
		t.sections = append(t.sections, s)
	}
	if !measured {
		return nil, tdxFailure("a section whose content is measured", "none: MRTD would not depend on the firmware's code")
	}
	return t, t.checkOverlap()
}

func tdxFailure(expected, actual string) error {
	return attest.NewFailure(CodeTDXMetadata, expected, actual, "use a whole, intact TDVF that this program knows")
}

func readTDXSection(raw []byte) tdxSection {
	return tdxSection{
		dataOffset: binary.LittleEndian.Uint32(raw[0:]), dataSize: binary.LittleEndian.Uint32(raw[4:]),
		address: binary.LittleEndian.Uint64(raw[8:]), size: binary.LittleEndian.Uint64(raw[16:]),
		kind: binary.LittleEndian.Uint32(raw[24:]), attributes: binary.LittleEndian.Uint32(raw[28:]),
	}
}

// refuse returns what was expected instead of s, or "". The rules are those of
// the design guide and of QEMU; where content and memory differ in size,
// monitors fill the rest as they like, so that is refused.
func (s *tdxSection) refuse(imageSize int) string {
	switch {
	case s.size == 0 || s.size%pageSize != 0 || s.address%pageSize != 0:
		return "a section of whole pages"
	case s.size > maxSectionPages*pageSize || s.address > 1<<52:
		return fmt.Sprintf("a section of at most %d bytes in 52 bits of address", maxSectionPages*pageSize)
	case s.attributes&^(tdxExtend|tdxAugment) != 0 || (s.extended() && s.augmented()):
		return "attributes 0, 1 (MR.EXTEND) or 2 (PAGE.AUG)"
	}
	switch s.kind {
	case tdxBFV, tdxCFV:
		if s.augmented() || uint64(s.dataSize) != s.size || uint64(s.dataOffset)+uint64(s.dataSize) > uint64(imageSize) {
			return fmt.Sprintf("a firmware volume with all its content inside the image of %#x bytes", imageSize)
		}
	case tdxHOB, tdxTempMem:
		if s.attributes != 0 || s.dataSize != 0 {
			return "a TD HOB or temporary memory without content and attributes"
		}
	case tdxPermMem:
		if !s.augmented() || s.dataSize != 0 {
			return "permanent memory without content, with attribute PAGE.AUG"
		}
	default:
		return "a section of type 0 to 4"
	}
	return ""
}

// checkOverlap refuses pages that would be added twice, which the TDX module
// refuses too.
func (t *TDVF) checkOverlap() error {
	sorted := slices.SortedFunc(slices.Values(t.sections), func(a, b tdxSection) int { return cmp.Compare(a.address, b.address) })
	for i := 1; i < len(sorted); i++ {
		if before := sorted[i-1]; before.address+before.size > sorted[i].address {
			return tdxFailure("sections that do not overlap", before.String()+"; "+sorted[i].String())
		}
	}
	return nil
}

// PageOrder is in which order the monitor has pages added and measured.
type PageOrder int

// The orders. There is no default.
const (
	// PageByPage adds a page, measures it, and goes on to the next: Linux's
	// KVM_TDX_INIT_MEM_REGION, used by QEMU from 10.1 on.
	PageByPage PageOrder = iota + 1
	// SectionBySection adds all pages of a section before it measures them:
	// QEMU and kernels with Intel's patches from before TDX was in Linux.
	SectionBySection
)

// MRTD returns the measurement of the TD's initial memory, Intel 344425
// "Measurement and attestation": SHA-384 over a block of 128 bytes for each
// added page (TDH.MEM.PAGE.ADD), and over such a block and the content for each
// measured piece of 256 bytes (TDH.MR.EXTEND). Sections come in the metadata's
// order.
func (t *TDVF) MRTD(order PageOrder) (Digest, error) {
	if order != PageByPage && order != SectionBySection {
		return Digest{}, attest.NewFailure(CodeMonitor, "an order of pages", fmt.Sprintf("%d", int(order)), "name the monitor that starts the machine")
	}
	m := mrtd{hash: sha512.New384()}
	for i := range t.sections {
		s := &t.sections[i]
		if s.augmented() {
			continue
		}
		if order == SectionBySection {
			for at := uint64(0); at < s.size; at += pageSize {
				m.add(s.address + at)
			}
		}
		for at := uint64(0); at < s.size; at += pageSize {
			if order == PageByPage {
				m.add(s.address + at)
			}
			if s.extended() {
				m.extend(s.address+at, t.image[uint64(s.dataOffset)+at:][:pageSize])
			}
		}
	}
	return Digest(m.hash.Sum(nil)), nil
}

// mrtd keeps its block between operations, so that none allocates.
type mrtd struct {
	hash  hash.Hash
	block [128]byte
}

func (m *mrtd) operation(name string, address uint64) {
	clear(m.block[copy(m.block[:], name):])
	binary.LittleEndian.PutUint64(m.block[16:], address)
	_, _ = m.hash.Write(m.block[:]) // a hash never fails
}

func (m *mrtd) add(address uint64) { m.operation("MEM.PAGE.ADD", address) }

func (m *mrtd) extend(address uint64, page []byte) {
	const piece = 256
	for chunk := range slices.Chunk(page, piece) {
		m.operation("MR.EXTEND", address)
		_, _ = m.hash.Write(chunk)
		address += piece
	}
}
