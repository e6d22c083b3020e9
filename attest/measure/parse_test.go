// SPDX-License-Identifier: Apache-2.0

package measure_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"

	"github.com/c8s-dev/c8s/attest/measure"
	"github.com/c8s-dev/c8s/attest/measure/measuretest"
)

// put32 overwrites a number at a distance from the end.
func put32(distance int, v uint32) func([]byte) []byte {
	return func(b []byte) []byte {
		binary.LittleEndian.PutUint32(b[len(b)-distance:], v)
		return b
	}
}

func put16(distance int, v uint16) func([]byte) []byte {
	return func(b []byte) []byte {
		binary.LittleEndian.PutUint16(b[len(b)-distance:], v)
		return b
	}
}

func sections(s ...[3]uint32) func([]byte) []byte {
	return func(b []byte) []byte { return measuretest.OVMF(len(b), s...) }
}

func TestBrokenOVMFIsRefused(t *testing.T) {
	many := make([][3]uint32, 65)
	for i := range many {
		many[i] = [3]uint32{uint32(i) * 4096, 4096, 1}
	}
	for name, c := range map[string]struct {
		code   string
		change func([]byte) []byte
	}{
		"empty":                 {measure.CodeImageSize, func([]byte) []byte { return nil }},
		"part of a page":        {measure.CodeImageSize, func(b []byte) []byte { return b[1:] }},
		"too large":             {measure.CodeImageSize, func([]byte) []byte { return make([]byte, measure.MaxFirmware+4096) }},
		"no footer":             {measure.CodeFirmwareTable, func([]byte) []byte { return make([]byte, 4096) }},
		"table of 17 bytes":     {measure.CodeFirmwareTable, put16(50, 17)},
		"table beyond image":    {measure.CodeFirmwareTable, put16(50, 0xffff)},
		"table cuts an entry":   {measure.CodeFirmwareTable, put16(50, 18+17)},
		"entry of 0 bytes":      {measure.CodeFirmwareTable, put16(68, 0)},
		"entry beyond table":    {measure.CodeFirmwareTable, put16(68, 0x7fff)},
		"metadata before image": {measure.CodeSEVMetadata, put32(68+22+26+4, 0xfffffff0)},
		"metadata past the end": {measure.CodeSEVMetadata, put32(68+22+26+4, 15)},
		"metadata signature":    {measure.CodeSEVMetadata, put32(1024, 0)},
		"metadata length":       {measure.CodeSEVMetadata, put32(1020, 15)},
		"metadata version":      {measure.CodeSEVMetadata, put32(1016, 2)},
		"no sections":           {measure.CodeSEVMetadata, put32(1012, 0)},
		"sections overflow":     {measure.CodeSEVMetadata, put32(1012, 0xffffffff)},
		"too many sections":     {measure.CodeSEVMetadata, sections(many...)},
		"unknown type":          {measure.CodeSEVMetadata, sections([3]uint32{0, 4096, 5})},
		"unaligned":             {measure.CodeSEVMetadata, sections([3]uint32{1, 4096, 1})},
		"part of a page added":  {measure.CodeSEVMetadata, sections([3]uint32{0, 4097, 1})},
		"empty section":         {measure.CodeSEVMetadata, sections([3]uint32{0, 0, 1})},
		"beyond 4 GiB":          {measure.CodeSEVMetadata, sections([3]uint32{0xfffff000, 0x2000, 1})},
		"gigabytes":             {measure.CodeSEVMetadata, sections([3]uint32{0, 0xf0000000, 1})},
		"secrets of two pages":  {measure.CodeSEVMetadata, sections([3]uint32{0, 0x2000, 2})},
		"two CPUID pages":       {measure.CodeSEVMetadata, sections([3]uint32{0, 4096, 3}, [3]uint32{4096, 4096, 3})},
		"hashes elsewhere":      {measure.CodeKernelHashes, sections([3]uint32{0x811000, 4096, 0x10})},
	} {
		image := measuretest.OVMF(4*4096, measuretest.Sections()...)
		_, err := measure.ParseOVMF(c.change(image))
		t.Run(name, func(t *testing.T) { mustCode(t, err, c.code) })
	}
}

func TestTableEntriesThatContradictAreRefused(t *testing.T) {
	meta := map[int][]byte{1024: measuretest.Metadata("ASEV", measuretest.Words(0, 4096, 1))}
	good := measuretest.Entry{GUID: measuretest.SEVMetadata, Data: measuretest.Words(1024)}
	for _, c := range []struct {
		code    string
		entries []measuretest.Entry
	}{
		{measure.CodeSEVMetadata, nil},
		{measure.CodeFirmwareTable, []measuretest.Entry{good, good}},
		{measure.CodeSEVMetadata, []measuretest.Entry{{GUID: measuretest.SEVMetadata, Data: []byte{0, 4}}}},
		{measure.CodeFirmwareTable, []measuretest.Entry{good, {GUID: measuretest.ResetBlock, Data: []byte{1}}}},
		{measure.CodeFirmwareTable, []measuretest.Entry{good, {GUID: measuretest.HashTable, Data: measuretest.Words(1)}}},
		{"", []measuretest.Entry{good, {GUID: measuretest.HashTable, Data: measuretest.Words(0, 0)}}},
	} {
		_, err := measure.ParseOVMF(measuretest.Image(4096, meta, c.entries...))
		mustCode(t, err, c.code)
	}
}

// Distributions ship firmware for both kinds of machine.
func TestDistributionFirmwareIsRead(t *testing.T) {
	image, err := os.ReadFile("/usr/share/ovmf/OVMF.fd")
	if err != nil {
		t.Skip("Debian's package ovmf is not installed")
	}
	o := parseOVMF(t, image)
	if o.HasKernelHashes() {
		t.Error("OvmfPkgX64 has no kernel hashes")
	}
	if _, err := measure.SNP(measure.SNPInput{OVMF: o, VCPUs: 2, Signature: 1, Features: 1, Monitor: measure.QEMU}); err != nil {
		t.Error(err)
	}
	d, err := measure.ParseTDVF(image)
	if err != nil {
		t.Fatal(err)
	}
	for _, order := range orders() {
		got, err := d.MRTD(order)
		if want := slowMRTD(t, image, order); err != nil || got != want {
			t.Errorf("order %d: %s, %v; want %s", order, got, err, want)
		}
	}
}

// padded puts zeros before the end of an image, up to a whole page: the end is
// all that parsers look at, and short inputs are mutated better.
func padded(end []byte) []byte {
	return append(make([]byte, (4096-len(end)%4096)%4096), end...)
}

func FuzzOVMF(f *testing.F) {
	f.Add(measuretest.OVMF(4096, measuretest.Sections()...)[4096-1024:])
	for _, name := range []string{"ovmf_AmdSev_suffix.bin", "ovmf_OvmfX64_suffix.bin"} {
		if raw, ok := tryEvidence(f, "measure", name); ok {
			f.Add(raw[len(raw)-1400:])
		}
	}
	f.Fuzz(func(t *testing.T, end []byte) {
		image := padded(end)
		before := bytes.Clone(image)
		o, err := measure.ParseOVMF(image)
		if err != nil {
			return
		}
		for _, m := range []measure.Monitor{measure.QEMU, measure.EC2, measure.GCE} {
			if _, err := measure.SNP(measure.SNPInput{OVMF: o, VCPUs: 1, Signature: 1, Features: 1, Monitor: m}); err != nil {
				t.Errorf("readable firmware, but: %v", err)
			}
		}
		in := measure.SNPInput{OVMF: o, VCPUs: 1, Signature: 1, Features: 1, Monitor: measure.QEMU, Kernel: hashKernel(t, "", "", "")}
		if _, err := measure.SNP(in); (err == nil) != o.HasKernelHashes() {
			t.Errorf("kernel hashes %t, but: %v", o.HasKernelHashes(), err)
		}
		if !bytes.Equal(before, image) {
			t.Error("the image was changed")
		}
	})
}

func FuzzTDVF(f *testing.F) {
	f.Add(measuretest.TDVF(4096, measuretest.TDXSections(16384)...)[4096-2048:])
	f.Add(measuretest.TDVF(4096, measuretest.TDXSection(0, 4096, 0xfffff000, 4096, 0, 1), measuretest.TDXSection(0, 0, 0, 4096, 4, 2))[4096-2048:])
	f.Fuzz(func(t *testing.T, end []byte) {
		image := padded(end)
		d, err := measure.ParseTDVF(image)
		if err != nil {
			return
		}
		for _, order := range orders() {
			if got, err := d.MRTD(order); err != nil || got != slowMRTD(t, image, order) {
				t.Errorf("%s, %v; differs from the reference", got, err)
			}
		}
	})
}

func FuzzAuthenticode(f *testing.F) {
	f.Add(measuretest.Kernel(0))
	f.Add(measuretest.Kernel(64))
	f.Fuzz(func(t *testing.T, image []byte) {
		got, err := measure.Authenticode(bytes.NewReader(image), int64(len(image)))
		if err == nil && got != slowAuthenticode(t, image) {
			t.Error("differs from the reference")
		}
	})
}

func BenchmarkOVMFDigest(b *testing.B) {
	image := measuretest.OVMF(4<<20, measuretest.Sections()...)
	b.SetBytes(int64(len(image)))
	b.ReportAllocs()
	for b.Loop() {
		if parseOVMF(b, image).Digest() == (measure.Digest{}) {
			b.Fatal()
		}
	}
}

func BenchmarkMRTD(b *testing.B) {
	image := measuretest.TDVF(4<<20, measuretest.TDXSections(4<<20)...)
	b.SetBytes(int64(len(image)))
	b.ReportAllocs()
	for b.Loop() {
		d, err := measure.ParseTDVF(image)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := d.MRTD(measure.PageByPage); err != nil {
			b.Fatal(err)
		}
	}
}
