// SPDX-License-Identifier: Apache-2.0

package measure_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/attest/measure"
	"github.com/c8s-dev/c8s/attest/measure/measuretest"
)

func orders() []measure.PageOrder {
	return []measure.PageOrder{measure.PageByPage, measure.SectionBySection}
}

// slowMRTD writes down the whole input of MRTD's hash as a list of pieces, each
// with what sorts it, and hashes it at once. It finds the metadata by its
// signature and not by the table.
func slowMRTD(t testing.TB, image []byte, order measure.PageOrder) measure.Digest {
	t.Helper()
	type piece struct {
		pass, page int
		data       string
	}
	block := func(name string, address uint64) string {
		b := name + strings.Repeat("\x00", 16-len(name))
		return b + string(binary.LittleEndian.AppendUint64(nil, address)) + strings.Repeat("\x00", 104)
	}
	raw := image[tdvfAt(t, image):]
	var input strings.Builder
	for n := binary.LittleEndian.Uint32(raw[12:]); n > 0; n-- {
		s := raw[16 : 16+32]
		raw = raw[32:]
		var pieces []piece
		for page := range int(binary.LittleEndian.Uint64(s[16:]) / 4096) {
			address := binary.LittleEndian.Uint64(s[8:]) + uint64(4096*page)
			if s[28] != 2 {
				pieces = append(pieces, piece{0, page, block("MEM.PAGE.ADD", address)})
			}
			for i := 0; i < 4096 && s[28] == 1; i += 256 {
				from := int(binary.LittleEndian.Uint32(s)) + 4096*page + i
				pieces = append(pieces, piece{1, page, block("MR.EXTEND", address+uint64(i)) + string(image[from:from+256])})
			}
		}
		if order == measure.SectionBySection {
			slices.SortStableFunc(pieces, func(a, b piece) int { return a.pass - b.pass })
		}
		for _, p := range pieces {
			input.WriteString(p.data)
		}
	}
	return sha512.Sum384([]byte(input.String()))
}

// tdvfAt follows the table by searching for the GUID.
func tdvfAt(t testing.TB, image []byte) int {
	t.Helper()
	id := []byte{0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2}
	at := bytes.LastIndex(image, id)
	if at < 6 {
		t.Fatal("no GUID of TDX metadata")
	}
	return len(image) - int(binary.LittleEndian.Uint32(image[at-6:]))
}

func tdvf(t testing.TB, image []byte) *measure.TDVF {
	t.Helper()
	d, err := measure.ParseTDVF(image)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func mrtd(t testing.TB, image []byte, order measure.PageOrder) measure.Digest {
	t.Helper()
	m, err := tdvf(t, image).MRTD(order)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMRTDEqualsTheSlowReference(t *testing.T) {
	image := measuretest.TDVF(8*4096, measuretest.TDXSections(8*4096)...)
	for _, order := range orders() {
		if got, want := mrtd(t, image, order), slowMRTD(t, image, order); got != want {
			t.Errorf("order %d: %s, want %s", order, got, want)
		}
	}
	if mrtd(t, image, measure.PageByPage) == mrtd(t, image, measure.SectionBySection) {
		t.Error("the orders give the same MRTD")
	}
}

// One page that is added and one that is measured, written out by hand: 128
// bytes for the first, 128 + 16 x (128 + 256) for the second.
func TestMRTDOfTwoPagesByHand(t *testing.T) {
	image := measuretest.TDVF(4096, measuretest.TDXSection(0, 0, 0x809000, 4096, 2, 0), measuretest.TDXSection(0, 4096, 0xfffff000, 4096, 0, 1))
	input := make([]byte, 0, 2*128+16*384)
	add := func(text string, address ...byte) {
		block := make([]byte, 128)
		copy(block, text)
		copy(block[16:], address)
		input = append(input, block...)
	}
	add("MEM.PAGE.ADD", 0x00, 0x90, 0x80)
	add("MEM.PAGE.ADD", 0x00, 0xf0, 0xff, 0xff)
	for i := range 16 {
		add("MR.EXTEND", 0x00, byte(0xf0+i), 0xff, 0xff)
		input = append(input, image[256*i:256*i+256]...)
	}
	if len(input) != 6400 {
		t.Fatalf("%d bytes", len(input))
	}
	for _, order := range orders() { // one page per section: the orders agree
		if got := mrtd(t, image, order); got != sha512.Sum384(input) {
			t.Errorf("order %d: %s", order, got)
		}
	}
}

func TestExactlyTheMeasuredBytesChangeMRTD(t *testing.T) {
	const size, variables = 4 * 4096, 4096
	image := measuretest.TDVF(size, measuretest.TDXSections(size)...)
	want := mrtd(t, image, measure.PageByPage)
	for i := range image {
		image[i] ^= 0x04
		d, err := measure.ParseTDVF(image)
		if err == nil {
			got, err := d.MRTD(measure.PageByPage)
			if err != nil {
				t.Fatal(err)
			}
			if (got == want) != (i < variables) {
				t.Fatalf("byte %#x: same MRTD %t", i, got == want)
			}
		} else if i < variables {
			t.Fatalf("byte %#x of the variables: %v", i, err)
		}
		image[i] ^= 0x04
	}
}

func TestBrokenTDVFIsRefused(t *testing.T) {
	const size, top = 4 * 4096, 1<<32 - 4*4096
	code := measuretest.TDXSection(0, size, top, size, 0, 1)
	for name, sections := range map[string][][]byte{
		"nothing measured":         {measuretest.TDXSection(0, size, top, size, 0, 0)},
		"content beyond the image": {measuretest.TDXSection(4096, size, top, size, 0, 1)},
		"offset overflows":         {measuretest.TDXSection(0xfffff000, size, top, size, 0, 1)},
		"more memory than content": {measuretest.TDXSection(0, 4096, top, size, 0, 1)},
		"more content than memory": {measuretest.TDXSection(0, size, top, 4096, 0, 1)},
		"unaligned address":        {measuretest.TDXSection(0, size, top+1, size, 0, 1)},
		"address overflows":        {code, measuretest.TDXSection(0, 0, 1<<63, 4096, 3, 0)},
		"empty":                    {code, measuretest.TDXSection(0, 0, 0, 0, 3, 0)},
		"terabytes":                {code, measuretest.TDXSection(0, 0, 0, 1<<40, 3, 0)},
		"too much together":        {code, measuretest.TDXSection(0, 0, 0, 1<<28, 3, 0)},
		"unknown type":             {code, measuretest.TDXSection(0, 0, 0, 4096, 7, 0)},
		"unknown attribute":        {code, measuretest.TDXSection(0, 0, 0, 4096, 3, 4)},
		"measured and augmented":   {measuretest.TDXSection(0, size, top, size, 0, 3)},
		"measured HOB":             {code, measuretest.TDXSection(0, 0, 0, 4096, 2, 1)},
		"HOB with content":         {code, measuretest.TDXSection(0, 4096, 0, 4096, 2, 0)},
		"permanent memory added":   {code, measuretest.TDXSection(0, 0, 0, 4096, 4, 0)},
		"page added twice":         {code, measuretest.TDXSection(0, 0, top, 4096, 3, 0)},
		"overlap":                  {code, measuretest.TDXSection(0, 0, 0, 0x3000, 3, 0), measuretest.TDXSection(0, 0, 0x2000, 4096, 2, 0)},
	} {
		_, err := measure.ParseTDVF(measuretest.TDVF(size, sections...))
		t.Run(name, func(t *testing.T) { mustCode(t, err, measure.CodeTDXMetadata) })
	}
	_, err := measure.ParseTDVF(measuretest.OVMF(size, measuretest.Sections()...))
	mustCode(t, err, measure.CodeTDXMetadata)
	_, err = measure.ParseTDVF(evidence(t, "measure", "ovmf_AmdSev_suffix.bin")) // a part is not enough for MRTD
	mustCode(t, err, measure.CodeTDXMetadata)
	_, err = tdvf(t, measuretest.TDVF(size, code)).MRTD(0)
	mustCode(t, err, measure.CodeMonitor)
}

func TestAugmentedPagesAreNotMeasured(t *testing.T) {
	code := measuretest.TDXSection(0, 0x2000, 0xffffe000, 0x2000, 0, 1)
	// The metadata itself is measured: it must lie in the image's other half.
	plain := measuretest.TDVF(4*4096, code)
	more := measuretest.TDVF(4*4096, code, measuretest.TDXSection(0, 0, 0, 0x8000, 4, 2))
	if mrtd(t, plain, measure.PageByPage) != mrtd(t, more, measure.PageByPage) {
		t.Error("pages that are added later count towards MRTD")
	}
}
