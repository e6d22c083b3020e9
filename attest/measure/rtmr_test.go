// SPDX-License-Identifier: Apache-2.0

package measure_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/attest/measure"
	"github.com/c8s-dev/c8s/attest/measure/measuretest"
)

// slowAuthenticode blanks what does not count by building a copy without it.
func slowAuthenticode(t testing.TB, image []byte) measure.Digest {
	t.Helper()
	optional := int(binary.LittleEndian.Uint32(image[0x3c:])) + 24
	end := len(image) - int(binary.LittleEndian.Uint32(image[optional+148:]))
	var kept []byte
	for i, b := range image[:end] {
		if o := i - optional; o >= 64 && o < 68 || o >= 144 && o < 152 {
			continue
		}
		kept = append(kept, b)
	}
	return sha512.Sum384(kept)
}

func authenticode(t testing.TB, image []byte) measure.Digest {
	t.Helper()
	d, err := measure.Authenticode(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAuthenticodeLeavesOutExactlyChecksumAndSignature(t *testing.T) {
	signed, plain := measuretest.Kernel(64), measuretest.Kernel(0)
	want := authenticode(t, signed)
	if want != authenticode(t, plain) || want != slowAuthenticode(t, signed) {
		t.Error("a signature changes the digest, or the reference differs")
	}
	const optional = 0x58
	for i := range signed {
		signed[i] ^= 1
		got, err := measure.Authenticode(bytes.NewReader(signed), int64(len(signed)))
		free := i >= optional+64 && i < optional+68 || i >= len(plain)
		if free && (err != nil || got != want) {
			t.Errorf("byte %#x counts: %v", i, err)
		}
		if !free && err == nil && got == want {
			t.Errorf("byte %#x does not count", i)
		}
		signed[i] ^= 1
	}
}

func TestAmbiguousKernelsAreRefused(t *testing.T) {
	const pe, optional, table = 0x40, 0x58, 0x58 + 160
	put := func(at int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[at:], v); return b }
	}
	for name, change := range map[string]func([]byte) []byte{
		"empty":                     func([]byte) []byte { return nil },
		"text":                      func([]byte) []byte { return []byte("#!/bin/sh\nexit\n\n") },
		"size":                      func(b []byte) []byte { return b[:len(b)-4] },
		"cut":                       func(b []byte) []byte { return b[:len(b)-64-8] },
		"appended":                  func(b []byte) []byte { return append(b, make([]byte, 8)...) },
		"PE header beyond":          put(0x3c, 0xfffffff0),
		"PE signature":              put(pe, 0),
		"32 bits":                   put(optional, 0x10b),
		"no certificate directory":  put(optional+108, 4),
		"certificates inside":       put(optional+144, 0x300),
		"certificates without size": put(optional+148, 0),
		"headers too short":         put(optional+60, 0x100),
		"headers too long":          put(optional+60, 0x10000),
		"gap":                       put(table+40+16, 0x80),
		"overlap":                   put(table+20, 0x2f0),
		"section overflows":         put(table+16, 0xffffffff),
	} {
		image := change(measuretest.Kernel(64))
		_, err := measure.Authenticode(bytes.NewReader(image), int64(len(image)))
		t.Run(name, func(t *testing.T) { mustCode(t, err, measure.CodeKernelImage) })
	}
	_, err := measure.Authenticode(bytes.NewReader(nil), measure.MaxKernel+8)
	mustCode(t, err, measure.CodeKernelImage)
	_, err = measure.Authenticode(bytes.NewReader(nil), 4096) // shorter than said
	mustCode(t, err, measure.CodeInput)
}

// logEvent is an event of a CC event log.
type logEvent struct {
	register uint32
	digest   measure.Digest
	data     []byte
}

// readLog reads a log with SHA-384 only, behind its first event.
func readLog(raw []byte) []logEvent {
	var events []logEvent
	raw = raw[32+binary.LittleEndian.Uint32(raw[28:]):]
	for binary.LittleEndian.Uint32(raw) != 0xffffffff {
		n := binary.LittleEndian.Uint32(raw[62:])
		events = append(events, logEvent{binary.LittleEndian.Uint32(raw), measure.Digest(raw[14:62]), raw[66 : 66+n]})
		raw = raw[66+n:]
	}
	return events
}

// A machine whose kernel QEMU started directly: from the digests of kernel,
// load options and initrd in its log follow the registers in its quote.
func TestRegistersFollowFromARealMachinesKernelCommandLineAndInitrd(t *testing.T) {
	quote := evidence(t, "tdx", "quote_v4_baremetal.dat")
	register := func(i int) measure.Digest { return measure.Digest(quote[48+328+48*i:]) }
	var kernel measure.Digest
	var rtmr2 []measure.Digest
	for _, e := range readLog(evidence(t, "tdx", "ccel_baremetal.dat")) {
		switch {
		case e.register == 2 && bytes.Contains(e.data, []byte("k\x00e\x00r\x00n\x00e\x00l\x00")):
			kernel = e.digest
		case e.register == 3:
			rtmr2 = append(rtmr2, e.digest)
		}
	}
	if got := measure.RTMR1(kernel); got != register(1) {
		t.Errorf("RTMR1 %s, the quote has %s", got, register(1))
	}
	if got := measure.Extend(rtmr2...); len(rtmr2) != 2 || got != register(2) {
		t.Errorf("RTMR2 %s of %d events, the quote has %s", got, len(rtmr2), register(2))
	}
}

func utf16(text string) measure.Digest {
	return sha512.Sum384([]byte(strings.Join(strings.Split(text, ""), "\x00") + "\x00\x00\x00"))
}

func TestRTMR2HoldsLoadOptionsAndInitrd(t *testing.T) {
	initrd := measure.Digest(sha512.Sum384([]byte("initrd")))
	for _, c := range []struct {
		line, initrd string
		token        measure.InitrdToken
		want         measure.Digest
	}{
		{"quiet", "", measure.TokenBefore, measure.Extend(utf16("quiet"))},
		{"quiet", "initrd", measure.TokenBefore, measure.Extend(utf16("initrd=initrd quiet"), initrd)},
		{"quiet", "initrd", measure.TokenAfter, measure.Extend(utf16("quiet initrd=initrd"), initrd)},
		{"quiet", "initrd", measure.TokenNone, measure.Extend(utf16("quiet"), initrd)},
		{"", "initrd", measure.TokenBefore, measure.Extend(utf16("initrd=initrd "), initrd)},
	} {
		got, err := measure.RTMR2(c.line, strings.NewReader(c.initrd), c.token)
		if err != nil || got != c.want {
			t.Errorf("%+v: %s, %v", c, got, err)
		}
	}
	long := strings.Repeat("a", measure.MaxCommandLine)
	for code, call := range map[string]func() (measure.Digest, error){
		measure.CodeLoadOptions: func() (measure.Digest, error) { return measure.RTMR2("", nil, measure.TokenBefore) },
		measure.CodeInitrdToken: func() (measure.Digest, error) { return measure.RTMR2("a", nil, 0) },
		measure.CodeCommandLine: func() (measure.Digest, error) {
			return measure.RTMR2(long, strings.NewReader("x"), measure.TokenAfter) // fits only without the token
		},
	} {
		_, err := call()
		mustCode(t, err, code)
	}
	if _, err := measure.RTMR2(long, nil, measure.TokenAfter); err != nil {
		t.Error(err)
	}
}

// Signed boot loaders and kernels carry the SHA-256 of what Authenticode
// covers. Debian's are used where they are installed.
func TestDigestEqualsTheOneInRealSignatures(t *testing.T) {
	found := 0
	for _, pattern := range []string{os.Getenv("C8S_SIGNED_IMAGES"), "/usr/lib/grub/x86_64-efi-signed/*.signed", "/usr/lib/shim/*.signed"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			image, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			h := sha256.New()
			if err := measure.AuthenticodeWith(h, image); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			directory := image[binary.LittleEndian.Uint32(image[0x3c:])+24+144:]
			certificates := image[binary.LittleEndian.Uint32(directory):]
			if binary.LittleEndian.Uint32(directory) == 0 {
				continue // not signed
			}
			if found++; !bytes.Contains(certificates, h.Sum(nil)) {
				t.Errorf("%s: %x is not what was signed", name, h.Sum(nil))
			}
		}
	}
	if found == 0 {
		t.Skip("no signed images: install grub-efi-amd64-signed, or name some by C8S_SIGNED_IMAGES")
	}
	t.Logf("%d signed images", found)
}
