// SPDX-License-Identifier: Apache-2.0

package measure_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/measure"
	"github.com/c8s-dev/c8s/attest/measure/measuretest"
)

func mustCode(t *testing.T, err error, code string) {
	t.Helper()
	if got := attest.FailureCode(err); got != code {
		t.Errorf("code %q (%v), want %q", got, err, code)
	}
}

func hashKernel(t testing.TB, kernel, initrd, line string) *measure.KernelHashes {
	t.Helper()
	k, err := measure.HashKernel(strings.NewReader(kernel), strings.NewReader(initrd), line)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func parseOVMF(t testing.TB, image []byte) *measure.OVMF {
	t.Helper()
	o, err := measure.ParseOVMF(image)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// More digests that sev-snp-measure publishes for the same firmware, for the
// inputs that the vectors leave out: other features, and several vCPUs on GCE.
func TestMorePublishedLaunchDigestsMatch(t *testing.T) {
	for _, c := range []struct {
		image, line     string
		kernel          bool
		vcpus, features int
		monitor         measure.Monitor
		want            string
	}{
		{"ovmf_AmdSev_suffix.bin", "console=ttyS0 loglevel=7", true, 1, 1, measure.QEMU, "6d287813eb5222d770f75005c664e34c204f385ce832cc2ce7d0d6f354454362f390ef83a92046c042e706363b4b08fa"},
		{"ovmf_AmdSev_suffix.bin", "", true, 1, 1, measure.EC2, "0883bd0eeb716e65b7b977a321c278d1e51b33b5c655fab985443bbcc65c086b9c15e8a0bd8811050dec7e24964e5056"},
		{"ovmf_AmdSev_suffix.bin", "", true, 4, 1, measure.GCE, "5c5debf100fc339f90276e761ee1f1658d08922c3b20e2a2e6c7a6c3370b2452a15a00eae11886a93d6fd1e7ab81e29d"},
		{"ovmf_AmdSev_suffix.bin", "", true, 4, 1, measure.QEMU, "5061fffb019493a903613d56d54b94912a1a2f9e4502385f5c194616753720a92441310ba6c4933de877c36e23046ad5"},
		{"ovmf_AmdSev_suffix.bin", "", false, 1, 1, measure.QEMU, "19358ba9a7615534a9a1e2f0dfc29384dcd4dcb7062ff9c6013b26869a5fc6ecabe033c48dd6f6db5d6d76e7c5df632d"},
		{"ovmf_OvmfX64_suffix.bin", "", false, 1, 1, measure.QEMU, "da0296de8193586a5512078dcd719eccecbd87e2b825ad4148c44f665dc87df21e5b49e21523a9ad993afdb6a30b4005"},
	} {
		in := measure.SNPInput{OVMF: ovmf(t, c.image), VCPUs: c.vcpus, Signature: 0x800f12, Features: uint64(c.features), Monitor: c.monitor}
		if c.kernel {
			in.Kernel = hashKernel(t, "", "", c.line)
		}
		got, err := measure.SNP(in)
		if err != nil || got.String() != c.want {
			t.Errorf("%s, %s, %d vCPUs: %s, %v", c.image, c.monitor, c.vcpus, got, err)
		}
	}
}

func goodInput(t testing.TB) measure.SNPInput {
	return measure.SNPInput{
		OVMF: parseOVMF(t, measuretest.OVMF(4*4096, measuretest.Sections()...)), VCPUs: 2, Signature: 0xa00f11,
		Features: 1, Monitor: measure.QEMU, Kernel: hashKernel(t, "kernel", "initrd", "quiet"),
	}
}

func TestEveryInputChangesTheLaunchDigest(t *testing.T) {
	seen := map[measure.Digest]string{}
	for name, change := range map[string]func(*measure.SNPInput){
		"nothing":      func(*measure.SNPInput) {},
		"vcpus":        func(in *measure.SNPInput) { in.VCPUs++ },
		"vcpu type":    func(in *measure.SNPInput) { in.Signature++ },
		"features":     func(in *measure.SNPInput) { in.Features |= 0x20 },
		"ec2":          func(in *measure.SNPInput) { in.Monitor = measure.EC2 },
		"gce":          func(in *measure.SNPInput) { in.Monitor = measure.GCE },
		"no kernel":    func(in *measure.SNPInput) { in.Kernel = nil },
		"kernel":       func(in *measure.SNPInput) { in.Kernel = hashKernel(t, "kerneL", "initrd", "quiet") },
		"initrd":       func(in *measure.SNPInput) { in.Kernel = hashKernel(t, "kernel", "initrD", "quiet") },
		"command line": func(in *measure.SNPInput) { in.Kernel = hashKernel(t, "kernel", "initrd", "quiet ") },
		"ovmf digest":  func(in *measure.SNPInput) { in.OVMFDigest = &measure.Digest{1} },
	} {
		in := goodInput(t)
		change(&in)
		d, err := measure.SNP(in)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if other, ok := seen[d]; ok {
			t.Errorf("%s and %s give the same digest", name, other)
		}
		seen[d] = name
	}
}

func TestEveryByteOfTheFirmwareChangesTheLaunchDigest(t *testing.T) {
	image := measuretest.OVMF(2*4096, measuretest.Sections()...)
	want := parseOVMF(t, image).Digest()
	for i := range image {
		image[i] ^= 0x10
		if o, err := measure.ParseOVMF(image); err == nil && o.Digest() == want {
			t.Fatalf("byte %d does not count", i)
		}
		image[i] ^= 0x10
	}
}

func TestGivenFirmwareDigestEqualsTheComputedOne(t *testing.T) {
	in := goodInput(t)
	want, err := measure.SNP(in)
	if err != nil {
		t.Fatal(err)
	}
	d := in.OVMF.Digest()
	in.OVMFDigest = &d
	if got, err := measure.SNP(in); err != nil || got != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}

func TestMissingInputsAreRefusedAndNotGuessed(t *testing.T) {
	for _, c := range []struct {
		code   string
		change func(*measure.SNPInput)
	}{
		{measure.CodeInput, func(in *measure.SNPInput) { in.OVMF = nil }},
		{measure.CodeMonitor, func(in *measure.SNPInput) { in.Monitor = 0 }},
		{measure.CodeMonitor, func(in *measure.SNPInput) { in.Monitor = 4 }},
		{measure.CodeVCPUCount, func(in *measure.SNPInput) { in.VCPUs = 0 }},
		{measure.CodeVCPUCount, func(in *measure.SNPInput) { in.VCPUs = measure.MaxVCPUs + 1 }},
		{measure.CodeVCPUType, func(in *measure.SNPInput) { in.Signature = 0 }},
		{measure.CodeGuestFeatures, func(in *measure.SNPInput) { in.Features = 0x20 }},
		{measure.CodeKernelHashes, func(in *measure.SNPInput) { in.OVMF = ovmf(t, "ovmf_OvmfX64_suffix.bin") }},
		{measure.CodeKernelHashes, func(in *measure.SNPInput) { // a table for SEV, no section for SNP
			in.OVMF = parseOVMF(t, measuretest.OVMF(4096, measuretest.Sections()[:4]...))
		}},
		{measure.CodeResetVector, func(in *measure.SNPInput) {
			in.OVMF = parseOVMF(t, measuretest.Image(4096, map[int][]byte{1024: measuretest.Metadata("ASEV", measuretest.Words(0, 4096, 1))},
				measuretest.Entry{GUID: measuretest.SEVMetadata, Data: measuretest.Words(1024)}))
			in.Kernel = nil
		}},
	} {
		in := goodInput(t)
		c.change(&in)
		d, err := measure.SNP(in)
		mustCode(t, err, c.code)
		if d != (measure.Digest{}) {
			t.Errorf("%s: a digest beside the failure", c.code)
		}
	}
	if _, err := measure.SNP(measure.SNPInput{}); err == nil {
		t.Error("an empty input is measured")
	}
}

func TestKernelInputsAreBounded(t *testing.T) {
	broken := iotest.ErrReader(errors.New("disk"))
	for _, c := range []struct {
		kernel, initrd string
		line, code     string
	}{
		{"", "", strings.Repeat("a", measure.MaxCommandLine+1), measure.CodeCommandLine},
		{"", "", "a\x00b", measure.CodeCommandLine},
		{"", "", "newline\n", measure.CodeCommandLine},
		{"", "", "ü", measure.CodeCommandLine},
	} {
		_, err := measure.HashKernel(strings.NewReader(c.kernel), strings.NewReader(c.initrd), c.line)
		mustCode(t, err, c.code)
	}
	_, err := measure.HashKernel(nil, nil, "")
	mustCode(t, err, measure.CodeInput)
	_, err = measure.HashKernel(broken, nil, "")
	mustCode(t, err, measure.CodeInput)
	_, err = measure.HashKernel(bytes.NewReader(nil), broken, "")
	mustCode(t, err, measure.CodeInput)
	if _, err := measure.HashKernel(bytes.NewReader(nil), nil, strings.Repeat("a", measure.MaxCommandLine)); err != nil {
		t.Error(err)
	}
}

func TestVCPUTypes(t *testing.T) {
	for text, want := range map[string]uint32{
		"EPYC": 0x800f12, "EPYC-v4": 0x800f12, "EPYC-IBPB": 0x800f12, "EPYC-Rome-v2": 0x830f10, "EPYC-Milan": 0xa00f11,
		"EPYC-Milan-v2": 0xa00f11, "EPYC-Genoa": 0xa10f10, "EPYC-Genoa-v1": 0xa10f10, "EPYC-Turin": 0xb00f00,
		"25/1/1": 0xa00f11, "26/2/1": 0xb00f21, "0xa00f11": 0xa00f11,
	} {
		if got, err := measure.ParseVCPUType(text); err != nil || got != want {
			t.Errorf("%s: %#x, %v; want %#x", text, got, err, want)
		}
	}
	for _, text := range []string{"", "epyc", "EPYC-v0", "EPYC-v9", "EPYC-v04", "0x", "0x0", "0x1ffffffff", "14/1/1", "25/256/1", "25/1/16", "25/1", "25/1/1/1", "+25/1/1", "host"} {
		_, err := measure.ParseVCPUType(text)
		mustCode(t, err, measure.CodeVCPUType)
	}
	for _, name := range measure.VCPUTypes() {
		if _, err := measure.ParseVCPUType(name); err != nil {
			t.Error(err)
		}
	}
}
