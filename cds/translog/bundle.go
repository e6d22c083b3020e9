// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// MaxRecord is the largest entry in bytes: its length is written as a uint16.
const MaxRecord = 1<<16 - 1

// appendRecord adds a record to an entry bundle (tlog-tiles, "Log entries").
func appendRecord(bundle, record []byte) []byte {
	bundle = binary.BigEndian.AppendUint16(bundle, uint16(len(record)))
	return append(bundle, record...)
}

// ParseBundle splits an entry bundle into its records, which share its memory.
// A bundle has 1 to 256 records and nothing after them. Records are never
// empty.
func ParseBundle(bundle []byte) ([][]byte, error) {
	var records [][]byte
	for rest := bundle; len(rest) > 0; {
		if len(records) == tileWidth {
			return nil, fmt.Errorf("parsing an entry bundle: more than %d entries", tileWidth)
		}
		if len(rest) < 2 {
			return nil, fmt.Errorf("parsing an entry bundle: it ends inside the length of entry %d", len(records))
		}
		n := int(binary.BigEndian.Uint16(rest))
		if n == 0 {
			return nil, fmt.Errorf("parsing an entry bundle: entry %d is empty", len(records))
		}
		if len(rest) < 2+n {
			return nil, fmt.Errorf("parsing an entry bundle: entry %d has %d bytes, %d are left", len(records), n, len(rest)-2)
		}
		records = append(records, rest[2:2+n:2+n])
		rest = rest[2+n:]
	}
	if len(records) == 0 {
		return nil, fmt.Errorf("parsing an entry bundle: it is empty")
	}
	return records, nil
}

// bundlePrefix is the part of a parsed bundle with its first n records.
func bundlePrefix(bundle []byte, records [][]byte, n int) []byte {
	size := 0
	for _, r := range records[:n] {
		size += 2 + len(r)
	}
	return bundle[:size:size]
}

func leafHashes(records [][]byte) []Hash {
	leaves := make([]Hash, len(records))
	for i, r := range records {
		leaves[i] = tlog.RecordHash(r)
	}
	return leaves
}
