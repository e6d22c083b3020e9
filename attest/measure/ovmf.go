// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/c8s-dev/c8s/attest"
)

// guid is a GUID as it lies in memory: the first three fields little-endian.
type guid [16]byte

// makeGUID takes the fields as they are written, so that a GUID of a document
// can be compared by eye with the one here.
func makeGUID(a uint32, b, c uint16, d uint16, e uint64) guid {
	var g guid
	binary.LittleEndian.PutUint32(g[0:], a)
	binary.LittleEndian.PutUint16(g[4:], b)
	binary.LittleEndian.PutUint16(g[6:], c)
	binary.BigEndian.PutUint16(g[8:], d)
	var tail [8]byte
	binary.BigEndian.PutUint64(tail[:], e)
	copy(g[10:], tail[2:])
	return g
}

// The GUIDs of the table at the end of OVMF, from EDK II
// OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm.
func guidFooter() guid {
	return makeGUID(0x96b582de, 0x1fb2, 0x45f7, 0xbaea, 0xa366c55a082d)
}

func guidResetBlock() guid {
	return makeGUID(0x00f771de, 0x1a7e, 0x4fcb, 0x890e, 0x68c77e2fb44e)
}

func guidHashTable() guid {
	return makeGUID(0x7255371f, 0x3a3b, 0x4b04, 0x927b, 0x1da6efa8d454)
}

func guidSEVMetadata() guid {
	return makeGUID(0xdc886566, 0x984a, 0x4798, 0xa75e, 0x5585a7bf67cc)
}

func guidTDXMetadata() guid {
	return makeGUID(0xe47a6535, 0x984a, 0x4798, 0x865e, 0x4685a7bf8ec2)
}

const (
	resetVectorSize = 32 // follows the table
	entryHeaderSize = 18 // size of the entry, GUID; lies behind the entry's data
)

// checkImage returns why an image cannot be firmware that ends at 4 GiB.
func checkImage(image []byte) error {
	if n := len(image); n < pageSize || n > MaxFirmware || n%pageSize != 0 {
		return attest.NewFailure(CodeImageSize, fmt.Sprintf("a firmware image of %d to %d bytes, in pages of %d", pageSize, MaxFirmware, pageSize),
			fmt.Sprintf("%d bytes", n), "give the whole firmware file, like OVMF.fd, and not the one of the variables alone")
	}
	return nil
}

// footerTable reads the table of GUIDs. It is built downwards from 32 bytes
// before the end, each entry with its header last; the footer's size counts
// itself. A GUID that is there twice is refused: readers differ in which they
// take.
func footerTable(image []byte) (map[guid][]byte, error) {
	fail := func(expected, actual string) (map[guid][]byte, error) {
		return nil, attest.NewFailure(CodeFirmwareTable, expected, actual,
			"use firmware built with SEV or TDX support: OVMF.fd of EDK II's OvmfPkg, AmdSev or IntelTdx, not split into code and variables")
	}
	end := len(image) - resetVectorSize
	header := end - entryHeaderSize
	if !bytes.Equal(image[header+2:end], guidBytes(guidFooter())) {
		return fail("the GUID of the firmware table 32 bytes before the end", fmt.Sprintf("%x", image[header+2:end]))
	}
	size := int(binary.LittleEndian.Uint16(image[header:]))
	if size < entryHeaderSize || size > end {
		return fail(fmt.Sprintf("a firmware table of %d to %d bytes", entryHeaderSize, end), fmt.Sprintf("%d", size))
	}
	rest := image[end-size : header]
	table := make(map[guid][]byte)
	for len(rest) > 0 {
		if len(rest) < entryHeaderSize {
			return fail("whole entries in the firmware table", fmt.Sprintf("%d bytes left over", len(rest)))
		}
		at := len(rest) - entryHeaderSize
		n := int(binary.LittleEndian.Uint16(rest[at:]))
		if n < entryHeaderSize || n > len(rest) {
			return fail(fmt.Sprintf("an entry of %d to %d bytes in the firmware table", entryHeaderSize, len(rest)), fmt.Sprintf("%d", n))
		}
		id := guid(rest[at+2:])
		if _, twice := table[id]; twice {
			return fail("each GUID once in the firmware table", fmt.Sprintf("%x twice", id))
		}
		table[id] = rest[len(rest)-n : at]
		rest = rest[:len(rest)-n]
	}
	return table, nil
}

func guidBytes(g guid) []byte { return g[:] }

// descriptor finds metadata: the table's entry holds its distance from the end
// of the image. SEV's and TDX's have the same header: signature, length
// including the header, version, number of sections.
func descriptor(image, entry []byte, code, signature string, sectionSize int) ([]byte, error) {
	const headerSize = 16
	fail := func(expected, actual string) ([]byte, error) {
		return nil, attest.NewFailure(code, expected, actual, "use firmware whose metadata is intact and of version 1")
	}
	if len(entry) != 4 {
		return fail("an entry of 4 bytes that points to "+signature, fmt.Sprintf("%d bytes", len(entry)))
	}
	distance := binary.LittleEndian.Uint32(entry)
	if distance < headerSize || uint64(distance) > uint64(len(image)) {
		return fail(fmt.Sprintf("%s between %d and %d bytes before the end", signature, headerSize, len(image)), fmt.Sprintf("%d", distance))
	}
	at := image[len(image)-int(distance):]
	if string(at[:4]) != signature {
		return fail("the signature "+signature, fmt.Sprintf("%q", at[:4]))
	}
	length := uint64(binary.LittleEndian.Uint32(at[4:]))
	version, count := binary.LittleEndian.Uint32(at[8:]), uint64(binary.LittleEndian.Uint32(at[12:]))
	if version != 1 {
		return fail(signature+" of version 1", fmt.Sprintf("version %d", version))
	}
	if count == 0 || count > maxSections {
		return fail(fmt.Sprintf("1 to %d sections in %s", maxSections, signature), fmt.Sprintf("%d", count))
	}
	want := headerSize + count*uint64(sectionSize)
	if length != want || want > uint64(distance) {
		return fail(fmt.Sprintf("%s of %d bytes for %d sections, inside the image", signature, want, count),
			fmt.Sprintf("length %d, %d bytes before the end", length, distance))
	}
	return at[headerSize:want], nil
}

// The types of SEV metadata sections, from EDK II
// OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm.
const (
	sevSecMem       = 0x01
	sevSecrets      = 0x02
	sevCPUID        = 0x03
	sevSVSMCAA      = 0x04
	sevKernelHashes = 0x10
)

type sevSection struct{ address, size, kind uint32 }

// OVMF is firmware for SEV-SNP. It holds on to the image, which must not change.
type OVMF struct {
	image     []byte
	sections  []sevSection
	resetEIP  uint32 // 0: the firmware does not say
	hashTable uint32 // 0: no hashes of the kernel
}

// ParseOVMF reads what the end of an image says about it. A part of an image
// that ends where the image ends is enough when its digest is given to SNP.
func ParseOVMF(image []byte) (*OVMF, error) {
	if err := checkImage(image); err != nil {
		return nil, err
	}
	table, err := footerTable(image)
	if err != nil {
		return nil, err
	}
	o := &OVMF{image: image}
	if entry, ok := table[guidResetBlock()]; ok {
		if len(entry) != 4 {
			return nil, attest.NewFailure(CodeFirmwareTable, "a reset block of 4 bytes", fmt.Sprintf("%d", len(entry)), "use intact firmware")
		}
		o.resetEIP = binary.LittleEndian.Uint32(entry)
	}
	entry, ok := table[guidSEVMetadata()]
	if !ok {
		return nil, attest.NewFailure(CodeSEVMetadata, "firmware with SEV metadata", "none", "use OVMF.fd built from EDK II's OvmfPkgX64 or AmdSevX64, not split into code and variables")
	}
	raw, err := descriptor(image, entry, CodeSEVMetadata, "ASEV", 12)
	if err != nil {
		return nil, err
	}
	if err := o.readSections(raw); err != nil {
		return nil, err
	}
	return o, o.readHashTable(table[guidHashTable()])
}

func (o *OVMF) readSections(raw []byte) error {
	pages := uint64(0)
	seen := map[uint32]bool{}
	for ; len(raw) > 0; raw = raw[12:] {
		s := sevSection{binary.LittleEndian.Uint32(raw), binary.LittleEndian.Uint32(raw[4:]), binary.LittleEndian.Uint32(raw[8:])}
		actual := fmt.Sprintf("type %#x at %#x, %#x bytes", s.kind, s.address, s.size)
		fail := func(expected string) error {
			return attest.NewFailure(CodeSEVMetadata, expected, actual, "use intact firmware that this program knows")
		}
		if s.size == 0 || s.size%pageSize != 0 || s.address%pageSize != 0 || uint64(s.address)+uint64(s.size) > fourGiB {
			return fail("a section of whole pages below 4 GiB")
		}
		if pages += uint64(s.size / pageSize); pages > maxSectionPages {
			return fail(fmt.Sprintf("sections of %d pages together", maxSectionPages))
		}
		switch s.kind {
		case sevSecMem, sevSVSMCAA:
		case sevSecrets, sevCPUID, sevKernelHashes:
			if s.size != pageSize || seen[s.kind] {
				return fail("secrets, CPUID and kernel hashes once, of one page each")
			}
		default:
			return fail("a section of type 0x1, 0x2, 0x3, 0x4 or 0x10")
		}
		seen[s.kind] = true
		o.sections = append(o.sections, s)
	}
	return nil
}

// readHashTable checks that the table of kernel hashes lies in its section.
// Firmware without it has zeros in the entry.
func (o *OVMF) readHashTable(entry []byte) error {
	if len(entry) == 0 {
		return nil
	}
	if len(entry) != 8 {
		return attest.NewFailure(CodeFirmwareTable, "an entry of 8 bytes for the kernel hashes", fmt.Sprintf("%d", len(entry)), "use intact firmware")
	}
	base, size := binary.LittleEndian.Uint32(entry), binary.LittleEndian.Uint32(entry[4:])
	if base == 0 && size == 0 {
		return nil
	}
	for _, s := range o.sections {
		if s.kind != sevKernelHashes {
			continue
		}
		if base < s.address || uint64(base)+hashTableSize > uint64(s.address)+pageSize || size < hashTableSize {
			return attest.NewFailure(CodeKernelHashes, fmt.Sprintf("a table of at least %d bytes inside the section of kernel hashes", hashTableSize),
				fmt.Sprintf("%d bytes at %#x", size, base), "use firmware built from EDK II's AmdSevX64")
		}
		o.hashTable = base
	}
	return nil // a table without section is for SEV before SNP: SNP launches do not fill it
}

// HasKernelHashes says whether the firmware checks kernel, initrd and command
// line against measured hashes.
func (o *OVMF) HasKernelHashes() bool { return o.hashTable != 0 }
