// SPDX-License-Identifier: Apache-2.0

// Package measuretest builds firmware images for tests. It writes the formats
// from their descriptions and shares no code with the package that reads them.
package measuretest

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
)

// The GUIDs of firmware tables as documents print them.
const (
	Footer      = "96b582de-1fb2-45f7-baea-a366c55a082d"
	ResetBlock  = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
	HashTable   = "7255371f-3a3b-4b04-927b-1da6efa8d454"
	SEVMetadata = "dc886566-984a-4798-a75e-5585a7bf67cc"
	TDXMetadata = "e47a6535-984a-4798-865e-4685a7bf8ec2"
)

// Entry is an entry of the firmware table.
type Entry struct {
	GUID string
	Data []byte
}

// Words returns values as 32-bit little-endian numbers.
func Words(values ...uint32) []byte {
	var out []byte
	for _, v := range values {
		out = binary.LittleEndian.AppendUint32(out, v)
	}
	return out
}

func guid(text string) []byte {
	raw, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(raw) != 16 {
		panic("not a GUID: " + text)
	}
	for _, swap := range [][2]int{{0, 3}, {1, 2}, {4, 5}, {6, 7}} {
		raw[swap[0]], raw[swap[1]] = raw[swap[1]], raw[swap[0]]
	}
	return raw
}

// Image returns firmware of size bytes with a pattern as code, the metadata at
// each distance before the end, and the table.
func Image(size int, metadata map[int][]byte, entries ...Entry) []byte {
	image := make([]byte, size)
	for i := range image {
		image[i] = byte(i>>8) ^ byte(i*7)
	}
	for distance, data := range metadata {
		copy(image[size-distance:], data)
	}
	at := size - 32
	put := func(data []byte) { at -= len(data); copy(image[at:], data) }
	total := 18
	for _, e := range entries {
		total += 18 + len(e.Data)
	}
	put(guid(Footer))
	put(binary.LittleEndian.AppendUint16(nil, uint16(total)))
	for _, e := range entries {
		put(guid(e.GUID))
		put(binary.LittleEndian.AppendUint16(nil, uint16(18+len(e.Data))))
		put(e.Data)
	}
	return image
}

// Metadata returns a descriptor with sections of encoded bytes.
func Metadata(signature string, sections ...[]byte) []byte {
	length := 16
	for _, s := range sections {
		length += len(s)
	}
	out := append([]byte(signature), Words(uint32(length), 1, uint32(len(sections)))...)
	for _, s := range sections {
		out = append(out, s...)
	}
	return out
}

// TDXSection encodes a section of TDX metadata.
func TDXSection(dataOffset, dataSize uint32, address, size uint64, kind, attributes uint32) []byte {
	out := Words(dataOffset, dataSize)
	out = binary.LittleEndian.AppendUint64(out, address)
	out = binary.LittleEndian.AppendUint64(out, size)
	return append(out, Words(kind, attributes)...)
}

const distance = 1024 // of SEV metadata; TDX's are at twice that

// OVMF returns firmware for SEV-SNP with these sections (address, size, type),
// a reset block, and a table of kernel hashes at 0x810c00.
func OVMF(size int, sections ...[3]uint32) []byte {
	var raw [][]byte
	for _, s := range sections {
		raw = append(raw, Words(s[:]...))
	}
	return Image(size, map[int][]byte{distance: Metadata("ASEV", raw...)},
		Entry{ResetBlock, Words(0x80b004)}, Entry{HashTable, Words(0x810c00, 0x400)}, Entry{SEVMetadata, Words(distance)})
}

// Sections returns sections of SEV metadata as AmdSev's firmware has them.
func Sections() [][3]uint32 {
	return [][3]uint32{{0x800000, 0x9000, 1}, {0x80d000, 0x1000, 2}, {0x80e000, 0x1000, 3}, {0x80f000, 0x1000, 4}, {0x810000, 0x1000, 0x10}}
}

// TDVF returns firmware for TDX with these sections.
func TDVF(size int, sections ...[]byte) []byte {
	return Image(size, map[int][]byte{2 * distance: Metadata("TDVF", sections...)}, Entry{TDXMetadata, Words(2 * distance)})
}

// TDXSections returns sections for an image of size bytes: variables in the
// first quarter, code in the rest, a TD HOB and temporary memory.
func TDXSections(size int) [][]byte {
	quarter, base := uint32(size/4), uint64(1<<32-size)
	return [][]byte{
		TDXSection(quarter, uint32(size)-quarter, base+uint64(quarter), uint64(size)-uint64(quarter), 0, 1),
		TDXSection(0, quarter, base, uint64(quarter), 1, 0),
		TDXSection(0, 0, 0x80b000, 0x2000, 3, 0),
		TDXSection(0, 0, 0x809000, 0x1000, 2, 0),
	}
}

// Kernel returns a small PE image with an EFI kernel's layout: headers, two
// sections, and certificates if wanted.
func Kernel(certificates int) []byte {
	const headers, section = 0x200, 0x100
	image := make([]byte, headers+2*section+certificates)
	for i := headers; i < len(image); i++ {
		image[i] = byte(i * 11)
	}
	copy(image, "MZ")
	put32 := func(at int, v uint32) { binary.LittleEndian.PutUint32(image[at:], v) }
	put16 := func(at int, v uint16) { binary.LittleEndian.PutUint16(image[at:], v) }
	const pe, optional, table = 0x40, 0x58, 0x58 + 160
	put32(0x3c, pe)
	copy(image[pe:], "PE\x00\x00\x64\x86")
	put16(pe+6, 2)
	put16(pe+20, 160)
	put16(optional, 0x20b)
	put32(optional+60, headers)
	put32(optional+64, 0xc0ffee) // checksum
	put32(optional+108, 6)
	if certificates > 0 {
		put32(optional+144, headers+2*section)
		put32(optional+148, uint32(certificates))
	}
	for i := range 2 {
		put32(table+40*i+16, section)
		put32(table+40*i+20, uint32(headers+section*(1-i))) // not in file order
	}
	return image
}
