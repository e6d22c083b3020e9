// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"cmp"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/c8s-dev/c8s/attest"
)

// Offsets in a PE image, Microsoft "PE Format".
const (
	peOffsetAt        = 0x3c // in the DOS header
	peSections        = 6    // from the PE signature
	peOptionalSize    = 20
	peOptional        = 24
	peSizeOfHeaders   = 60 // from the optional header
	peChecksum        = 64
	peDirectoryCount  = 108 // PE32+
	peCertificateAt   = 144
	peSectionSize     = 40
	peSectionRawSize  = 16
	peSectionRawAt    = 20
	peMaxSections     = 96 // Windows' limit
	peHeaderBytesRead = 64 << 10
)

// Authenticode returns the digest that firmware extends when it loads a PE
// image, Microsoft "Windows Authenticode Portable Executable Signature Format":
// the file without checksum, entry of the certificate directory, and
// certificates. EDK II walks the sections where signing tools walk the file.
// Both agree if sections follow each other without gaps and the size is a
// multiple of 8; all else is refused. Kernels and boot loaders are like that.
func Authenticode(image io.ReaderAt, size int64) (Digest, error) {
	h := sha512.New384()
	if err := authenticode(h, image, size); err != nil {
		return Digest{}, err
	}
	return Digest(h.Sum(nil)), nil
}

func authenticode(h hash.Hash, image io.ReaderAt, size int64) error {
	if size <= 0 || size > MaxKernel || size%8 != 0 {
		return peFailure(fmt.Sprintf("1 to %d bytes, a multiple of 8", MaxKernel), fmt.Sprintf("%d bytes", size))
	}
	header := make([]byte, min(size, peHeaderBytesRead))
	if n, err := image.ReadAt(header, 0); n != len(header) {
		return attest.NewFailure(CodeInput, "a readable kernel", fmt.Sprint(err), "")
	}
	p, err := parsePE(header, size)
	if err != nil {
		return err
	}
	at := int64(0)
	for _, hole := range []struct{ at, size int64 }{{p.checksum, 4}, {p.certificate, 8}, {p.end, 0}} {
		want := hole.at - at
		if n, err := io.Copy(h, io.NewSectionReader(image, at, want)); err != nil || n != want {
			return attest.NewFailure(CodeInput, "a readable kernel", fmt.Sprintf("%d of %d bytes: %v", n, want, err), "")
		}
		at = hole.at + hole.size
	}
	return nil
}

func peFailure(expected, actual string) error {
	return attest.NewFailure(CodeKernelImage, expected, actual, "give a kernel with EFI stub (bzImage), as it is on disk")
}

// peLayout is where the parts lie that the digest leaves out.
type peLayout struct{ checksum, certificate, end int64 }

func parsePE(header []byte, size int64) (peLayout, error) {
	var p peLayout
	n := uint64(len(header))
	if n < peOffsetAt+4 || string(header[:2]) != "MZ" {
		return p, peFailure("a PE image, which starts with MZ", fmt.Sprintf("%x", header[:2]))
	}
	pe := uint64(binary.LittleEndian.Uint32(header[peOffsetAt:]))
	optional := pe + peOptional
	if optional+peCertificateAt+8 > n || string(header[pe:pe+4]) != "PE\x00\x00" {
		return p, peFailure("a PE header", fmt.Sprintf("none at %#x", pe))
	}
	if magic := binary.LittleEndian.Uint16(header[optional:]); magic != 0x20b {
		return p, peFailure("an image for 64 bits, PE32+", fmt.Sprintf("magic %#x", magic))
	}
	optionalSize := uint64(binary.LittleEndian.Uint16(header[pe+peOptionalSize:]))
	directories := binary.LittleEndian.Uint32(header[optional+peDirectoryCount:])
	if directories < 5 || optionalSize < peCertificateAt+8 {
		return p, peFailure("a certificate directory, used or not", fmt.Sprintf("%d directories", directories))
	}
	p.checksum, p.certificate, p.end = int64(optional+peChecksum), int64(optional+peCertificateAt), size
	if err := p.certificates(header[p.certificate:], size); err != nil {
		return p, err
	}
	headers := uint64(binary.LittleEndian.Uint32(header[optional+peSizeOfHeaders:]))
	count := uint64(binary.LittleEndian.Uint16(header[pe+peSections:]))
	table := optional + optionalSize
	if count == 0 || count > peMaxSections || table+count*peSectionSize > n || table+count*peSectionSize > headers {
		return p, peFailure(fmt.Sprintf("1 to %d sections, named inside the headers", peMaxSections), fmt.Sprintf("%d in headers of %#x bytes", count, headers))
	}
	return p, p.contiguous(header[table:table+count*peSectionSize], headers)
}

// certificates moves the end before the certificates, which must be last.
func (p *peLayout) certificates(entry []byte, size int64) error {
	at, length := int64(binary.LittleEndian.Uint32(entry)), int64(binary.LittleEndian.Uint32(entry[4:]))
	if at == 0 && length == 0 {
		return nil
	}
	if at <= p.certificate || length == 0 || at+length != size {
		return peFailure(fmt.Sprintf("certificates that end with the file, at %#x", size), fmt.Sprintf("%#x bytes at %#x", length, at))
	}
	p.end = at
	return nil
}

// contiguous checks that headers and sections follow each other.
func (p *peLayout) contiguous(table []byte, headers uint64) error {
	type span struct{ at, size uint64 }
	var spans []span
	for ; len(table) > 0; table = table[peSectionSize:] {
		s := span{uint64(binary.LittleEndian.Uint32(table[peSectionRawAt:])), uint64(binary.LittleEndian.Uint32(table[peSectionRawSize:]))}
		if s.size > 0 {
			spans = append(spans, s)
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.at, b.at) })
	end := headers
	for _, s := range spans {
		if s.at != end {
			return peFailure("sections that follow each other", fmt.Sprintf("one at %#x, where %#x was due", s.at, end))
		}
		end += s.size
	}
	if end > uint64(p.end) {
		return peFailure(fmt.Sprintf("sections inside the %#x bytes before the certificates", p.end), fmt.Sprintf("sections up to %#x: the file is cut off", end))
	}
	return nil
}
