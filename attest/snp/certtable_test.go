// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-sev-guest/abi"
)

type entry struct {
	guid           GUID
	offset, length uint32
}

func table(size int, entries ...entry) []byte {
	b := make([]byte, size)
	for i, e := range entries {
		copy(b[i*certEntrySize:], e.guid[:])
		binary.LittleEndian.PutUint32(b[i*certEntrySize+16:], e.offset)
		binary.LittleEndian.PutUint32(b[i*certEntrySize+20:], e.length)
	}
	return b
}

func TestCertTableRoundTrips(t *testing.T) {
	want := [][]byte{{1}, {2, 2}, {3, 3, 3}}
	b := MarshalCertTable(want[0], want[1], want[2])
	got, err := ParseCertTable(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var other abi.CertTable
	if err := other.Unmarshal(b); err != nil {
		t.Fatal(err)
	}
	for i, guid := range []string{abi.VcekGUID, abi.AskGUID, abi.ArkGUID} {
		if c, err := other.GetByGUIDString(guid); err != nil || !bytes.Equal(c, want[i]) {
			t.Errorf("another implementation reads %x, %v", c, err)
		}
	}
}

func TestCertTableReadsBothGUIDSpellingsAndKeepsTheOrder(t *testing.T) {
	b := table(256, entry{guidARK(), 200, 1}, entry{GUID{9}, 0, 256}, entry{guidVCEK().swapped(), 201, 1})
	b[200], b[201] = 3, 1
	got, err := ParseCertTable(b)
	if diff := cmp.Diff([][]byte{{1}, {3}}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestHostileCertTablesAreRefused(t *testing.T) {
	many := make([]entry, maxCertTableEntry+1)
	for i := range many {
		many[i] = entry{GUID{byte(i + 1)}, 0, 0}
	}
	for name, b := range map[string][]byte{
		"empty":                   nil,
		"half an entry":           make([]byte, certEntrySize-1),
		"no end":                  table(certEntrySize, entry{guidVCEK(), 0, 1}),
		"past the end":            table(100, entry{guidVCEK(), 90, 11}),
		"sum wraps in 32 bits":    table(1400, entry{guidVCEK(), 0xffffffff, 2}),
		"length wraps":            table(1400, entry{guidVCEK(), 1000, 0xffffffff}),
		"one GUID twice":          table(100, entry{guidASK(), 0, 1}, entry{guidASK(), 0, 1}),
		"one GUID in two tongues": table(100, entry{guidASK(), 0, 1}, entry{guidASK().swapped(), 0, 1}),
		"too many":                table(4096, many...),
		"too large":               make([]byte, MaxCertTable+1),
	} {
		t.Run(name, func(t *testing.T) {
			if c, err := ParseCertTable(b); CodeOf(err) != CodeCertTable {
				t.Errorf("got %v, %v", c, err)
			}
		})
	}
}

func FuzzParseCertTable(f *testing.F) {
	f.Add(MarshalCertTable([]byte{1}, []byte{2}, []byte{3}))
	f.Add(table(1400, entry{guidVCEK(), 0xffffffff, 2}))
	f.Add(make([]byte, certEntrySize))
	f.Fuzz(func(t *testing.T, b []byte) {
		certs, err := ParseCertTable(b)
		if err == nil && len(certs) > 3 {
			t.Errorf("%d certificates", len(certs))
		}
	})
}

func FuzzParseChain(f *testing.F) {
	f.Add([]byte{}, []byte{}, []byte{})
	if r, c := realCases()[1].load(f); r != nil {
		f.Add(c.VCEK.Raw, c.ASK.Raw, c.ARK.Raw)
	}
	f.Fuzz(func(_ *testing.T, vcek, ask, ark []byte) {
		if c, err := ParseChain([][]byte{vcek, ask, ark}); err == nil {
			_ = c.Verify()
		}
	})
}
