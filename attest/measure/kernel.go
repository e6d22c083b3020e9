// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/c8s-dev/c8s/attest"
)

// hashTableSize is the table of kernel hashes: header (GUID, length) and three
// entries (GUID, length, SHA-256).
const hashTableSize = 18 + 3*hashEntrySize

const hashEntrySize = 18 + sha256.Size

// The GUIDs of the table of kernel hashes, from EDK II
// OvmfPkg/AmdSev/BlobVerifierLibSevHashes and QEMU target/i386/sev.c.
func guidHashes() guid {
	return makeGUID(0x9438d606, 0x4f22, 0x4cc9, 0xb479, 0xa793d411fd21)
}

func guidHashKernel() guid {
	return makeGUID(0x4de79437, 0xabd2, 0x427f, 0xb835, 0xd5b172d2045b)
}

func guidHashInitrd() guid {
	return makeGUID(0x44baf731, 0x3a2f, 0x4bd7, 0x9af1, 0x41e29169781d)
}

func guidHashCommandLine() guid {
	return makeGUID(0x97d02dd8, 0xbd20, 0x4c94, 0xaa78, 0xe7714d36ab2a)
}

// KernelHashes is what firmware compares kernel, initrd and command line with.
// It is only made by HashKernel, so that a forgotten input is no zero hash.
type KernelHashes struct{ kernel, initrd, commandLine [sha256.Size]byte }

// HashKernel reads the files that QEMU's -kernel, -initrd and -append name. A
// nil initrd means none, which counts like an empty one.
func HashKernel(kernel, initrd io.Reader, commandLine string) (*KernelHashes, error) {
	if kernel == nil {
		return nil, attest.NewFailure(CodeInput, "a kernel", "none", "give the kernel: initrd and command line are measured together with it")
	}
	if err := checkCommandLine(commandLine); err != nil {
		return nil, err
	}
	var k KernelHashes
	h := sha256.New()
	if _, err := sumReader(h, "kernel", kernel, MaxKernel); err != nil {
		return nil, err
	}
	h.Sum(k.kernel[:0])
	if initrd == nil {
		initrd = strings.NewReader("")
	}
	h.Reset()
	if _, err := sumReader(h, "initrd", initrd, MaxInitrd); err != nil {
		return nil, err
	}
	h.Sum(k.initrd[:0])
	k.commandLine = sha256.Sum256(append([]byte(commandLine), 0)) // QEMU hands it over with its NUL
	return &k, nil
}

// checkCommandLine lets only text through that reaches the kernel unchanged:
// x86 Linux cuts at 2047 bytes, and firmware turns bytes into UTF-16 one by one.
func checkCommandLine(text string) error {
	if len(text) > MaxCommandLine {
		return attest.NewFailure(CodeCommandLine, fmt.Sprintf("at most %d bytes, which is what x86 Linux keeps", MaxCommandLine),
			fmt.Sprintf("%d bytes", len(text)), "shorten it, or move settings into the initrd: what is cut off would be measured and not obeyed")
	}
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return attest.NewFailure(CodeCommandLine, "printable ASCII", fmt.Sprintf("byte %#02x at offset %d", text[i], i), "remove the character; a file's last newline is not part of the command line")
		}
	}
	return nil
}

func sumReader(h hash.Hash, name string, r io.Reader, limit int64) (int64, error) {
	n, err := io.Copy(h, io.LimitReader(r, limit+1))
	if err != nil {
		return n, attest.NewFailure(CodeInput, "a readable "+name, err.Error(), "")
	}
	if n > limit {
		return n, attest.NewFailure(CodeInput, fmt.Sprintf("%s of at most %d bytes", name, limit), "more", "check that the right file is given")
	}
	return n, nil
}

// page returns the page with the table at the offset, in QEMU's order.
func (k *KernelHashes) page(offset uint32) [pageSize]byte {
	var page [pageSize]byte
	at := page[offset : offset+hashTableSize]
	header := func(id guid, size int) {
		copy(at, id[:])
		binary.LittleEndian.PutUint16(at[16:], uint16(size))
		at = at[18:]
	}
	header(guidHashes(), hashTableSize)
	for _, e := range []struct {
		id  guid
		sum [sha256.Size]byte
	}{{guidHashCommandLine(), k.commandLine}, {guidHashInitrd(), k.initrd}, {guidHashKernel(), k.kernel}} {
		header(e.id, hashEntrySize)
		copy(at, e.sum[:])
		at = at[sha256.Size:]
	}
	return page
}
