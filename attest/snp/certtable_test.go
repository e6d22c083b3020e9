// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-sev-guest/abi"

	"github.com/c8s-dev/c8s/attest"
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
	want := &CertTable{VCEK: []byte{1}, VLEK: []byte{2, 2}, ASK: []byte{3, 3, 3}, ARK: []byte{4}, CRL: []byte{5}}
	b := want.Marshal()
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
	for guid, want := range map[string][]byte{abi.VcekGUID: want.VCEK, abi.VlekGUID: want.VLEK, abi.AskGUID: want.ASK, abi.ArkGUID: want.ARK} {
		if c, err := other.GetByGUIDString(guid); err != nil || !bytes.Equal(c, want) {
			t.Errorf("another implementation reads %x, %v", c, err)
		}
	}
}

func TestCertTableReadsBothGUIDSpellingsAndIgnoresUnknownOnes(t *testing.T) {
	for _, f := range (&CertTable{}).fields() {
		for _, guid := range []GUID{f.guid, f.guid.swapped()} {
			b := table(256, entry{GUID{9}, 0, 256}, entry{guid, 200, 1}, entry{GUID{8}, 256, 0})
			b[200] = 7
			got, err := ParseCertTable(b)
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range got.fields() {
				if (g.guid == f.guid) != bytes.Equal(*g.to, []byte{7}) {
					t.Errorf("%x: %x is %x", guid, g.guid, *g.to)
				}
			}
		}
	}
}

func TestTheReportChoosesTheLeafOfATable(t *testing.T) {
	both := &CertTable{VCEK: []byte{1}, VLEK: []byte{2}, ASK: []byte{3}, ARK: []byte{4}}
	for name, c := range map[string]struct {
		table  *CertTable
		signer SigningKey
		want   [][]byte
	}{
		"VCEK of both":       {both, KeyVCEK, [][]byte{{1}, {3}, {4}}},
		"VLEK of both":       {both, KeyVLEK, [][]byte{{2}, {3}, {4}}},
		"no key":             {both, KeyNone, nil},
		"only the other":     {&CertTable{VCEK: []byte{1}}, KeyVLEK, nil},
		"leaf alone, AWS":    {&CertTable{VLEK: []byte{2}}, KeyVLEK, [][]byte{{2}}},
		"issuers but a leaf": {&CertTable{ASK: []byte{3}, ARK: []byte{4}}, KeyVCEK, nil},
		"no intermediate":    {&CertTable{VCEK: []byte{1}, ARK: []byte{4}}, KeyVCEK, [][]byte{{1}, {4}}},
	} {
		got, err := c.table.Chain(c.signer)
		if diff := cmp.Diff(c.want, got); diff != "" || (err == nil) != (c.want != nil) || err != nil && attest.FailureCode(err) != CodeCertificates {
			t.Errorf("%s: %s%v", name, diff, err)
		}
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
			if c, err := ParseCertTable(b); attest.FailureCode(err) != CodeCertTable {
				t.Errorf("got %v, %v", c, err)
			}
		})
	}
}
