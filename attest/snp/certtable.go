// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"encoding/binary"
	"fmt"
)

// GUID is a GUID as the certificate table stores it.
type GUID [16]byte

// The certificates in a table (AMD document 56421, GHCB, "SNP Extended Guest
// Request"). Linux stores GUIDs as they are printed; some hosts swap the first
// three groups as UEFI does, and both are read.
func guidVCEK() GUID {
	return GUID{0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac, 0xcd}
}

func guidASK() GUID {
	return GUID{0x4a, 0xb7, 0xb3, 0x79, 0xbb, 0xac, 0x4f, 0xe4, 0xa0, 0x2f, 0x05, 0xae, 0xf3, 0x27, 0xc7, 0x82}
}

func guidARK() GUID {
	return GUID{0xc0, 0xb4, 0x06, 0xa4, 0xa8, 0x03, 0x49, 0x52, 0x97, 0x43, 0x3f, 0xb6, 0x01, 0x4c, 0xd0, 0xae}
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

// ParseCertTable returns the VCEK, ASK and ARK of the host's table, in that
// order, leaving out those that are not there. Other entries are ignored.
func ParseCertTable(b []byte) ([][]byte, error) {
	if len(b) > MaxCertTable {
		return nil, fail(CodeCertTable, fmt.Sprintf("at most %d bytes", MaxCertTable), fmt.Sprintf("%d bytes", len(b)), "")
	}
	found := make(map[GUID][]byte, 3)
	for i := 0; ; i++ {
		if i == maxCertTableEntry {
			return nil, fail(CodeCertTable, fmt.Sprintf("at most %d entries", maxCertTableEntry), "more", "")
		}
		if len(b) < (i+1)*certEntrySize {
			return nil, fail(CodeCertTable, "an all-zero entry at the end of the header", "the end of the table", "")
		}
		entry := b[i*certEntrySize:][:certEntrySize]
		guid := GUID(entry[:16])
		// In 64 bits, offset + length cannot wrap.
		offset, length := uint64(binary.LittleEndian.Uint32(entry[16:])), uint64(binary.LittleEndian.Uint32(entry[20:]))
		if guid == (GUID{}) && offset == 0 && length == 0 {
			break
		}
		if offset+length > uint64(len(b)) {
			return nil, fail(CodeCertTable, fmt.Sprintf("entry %d inside the table's %d bytes", i, len(b)), fmt.Sprintf("offset %d, length %d", offset, length), "")
		}
		if _, twice := found[guid]; twice {
			return nil, fail(CodeCertTable, "one entry for each GUID", fmt.Sprintf("two for %x", guid), "")
		}
		found[guid] = b[offset : offset+length]
	}
	return inOrder(found)
}

func inOrder(found map[GUID][]byte) ([][]byte, error) {
	var certs [][]byte
	for _, guid := range []GUID{guidVCEK(), guidASK(), guidARK()} {
		plain, isPlain := found[guid]
		swapped, isSwapped := found[guid.swapped()]
		switch {
		case isPlain && isSwapped:
			return nil, fail(CodeCertTable, "one entry for each GUID", fmt.Sprintf("two spellings of %x", guid), "")
		case isPlain:
			certs = append(certs, append([]byte(nil), plain...))
		case isSwapped:
			certs = append(certs, append([]byte(nil), swapped...))
		}
	}
	return certs, nil
}

// MarshalCertTable writes a table with a VCEK, an ASK and an ARK, as a host
// does.
func MarshalCertTable(vcek, ask, ark []byte) []byte {
	certs := [][]byte{vcek, ask, ark}
	guids := []GUID{guidVCEK(), guidASK(), guidARK()}
	b := make([]byte, (len(certs)+1)*certEntrySize)
	for i, c := range certs {
		entry := b[i*certEntrySize:]
		copy(entry, guids[i][:])
		binary.LittleEndian.PutUint32(entry[16:], uint32(len(b))) //nolint:gosec // a few kilobytes
		binary.LittleEndian.PutUint32(entry[20:], uint32(len(c))) //nolint:gosec // a few kilobytes
		b = append(b, c...)
	}
	return b
}
