// SPDX-License-Identifier: Apache-2.0

package measurecmd_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/attest/measure"
	"github.com/c8s-dev/c8s/attest/measure/measuretest"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/measurecmd"
)

type result struct {
	code        int
	out, errOut string
}

func run(args ...string) result {
	var out, errOut bytes.Buffer
	c := measurecmd.New()
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(&errOut)
	err := c.Execute()
	if err != nil {
		errOut.WriteString(err.Error())
	}
	return result{exit.Code(err), out.String(), errOut.String()}
}

func file(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func evidence(t *testing.T) string {
	t.Helper()
	root := os.Getenv("C8S_EVIDENCE")
	if root == "" {
		root = filepath.Join("..", "..", "..", "..", "..", "shared", "evidence")
	}
	if _, err := os.Stat(root); err != nil {
		t.Skipf("no real evidence at %s: set C8S_EVIDENCE", root)
	}
	return filepath.Join(root, "measure")
}

func TestCommandGivesTheKnownLaunchDigests(t *testing.T) {
	dir := evidence(t)
	raw, err := os.ReadFile(filepath.Join(dir, "snp_launch_digests.json"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		VCPUs                   int
		OVMF, VMM               string
		Kernel, Initrd, Cmdline *string
		Type                    *string `json:"vcpu_type"`
		Features                string  `json:"guest_features"`
		Given                   *string `json:"ovmf_hash_given"`
		Digest                  string  `json:"launch_digest"`
	}
	if err := json.Unmarshal(raw, &vectors); err != nil {
		t.Fatal(err)
	}
	for i, v := range vectors {
		args := []string{
			"snp", "--ovmf", filepath.Join(dir, v.OVMF), "--vcpus", strconv.Itoa(v.VCPUs),
			"--guest-features", v.Features, "--vmm", strings.ToLower(v.VMM),
		}
		for flag, value := range map[string]*string{"--kernel": v.Kernel, "--initrd": v.Initrd, "--cmdline": v.Cmdline, "--vcpu-type": v.Type, "--ovmf-digest": v.Given} {
			if value != nil {
				args = append(args, flag, *value)
			}
		}
		if r := run(args...); r.code != exit.OK || r.out != v.Digest+"\n" {
			t.Errorf("vector %d: exit %d, %s%s; want %s", i, r.code, r.out, r.errOut, v.Digest)
		}
	}
	if len(vectors) < 8 {
		t.Errorf("only %d vectors", len(vectors))
	}
}

func TestSeveralVCPUCountsGiveADigestEach(t *testing.T) {
	firmware := file(t, measuretest.OVMF(4*4096, measuretest.Sections()...))
	args := []string{"snp", "--ovmf", firmware, "--vcpu-type", "EPYC-Milan", "--vcpus"}
	lines := strings.Fields(run(append(args, "1,2,8")...).out)
	if len(lines) != 3 || lines[0] == lines[1] || lines[1] == lines[2] {
		t.Fatalf("%q", lines)
	}
	for i, n := range []string{"1", "2", "8"} {
		if r := run(append(args, n)...); r.out != lines[i]+"\n" {
			t.Errorf("%s vCPUs alone: %q, in the list %q", n, r.out, lines[i])
		}
	}
	var got []struct {
		VCPUs       int
		Measurement string
	}
	if err := json.Unmarshal([]byte(run(append(args, "1,2,8", "-o", "json")...).out), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[2].VCPUs != 8 || got[2].Measurement != lines[2] {
		t.Errorf("%+v", got)
	}
}

func TestTDXPrintsMRTDAlone(t *testing.T) {
	image := measuretest.TDVF(4*4096, measuretest.TDXSections(4*4096)...)
	firmware, err := measure.ParseTDVF(image)
	if err != nil {
		t.Fatal(err)
	}
	for name, order := range map[string]measure.PageOrder{"qemu": measure.PageByPage, "qemu-legacy": measure.SectionBySection} {
		want, err := firmware.MRTD(order)
		if err != nil {
			t.Fatal(err)
		}
		r := run("tdx", "--tdvf", file(t, image), "--vmm", name)
		if r.code != exit.OK || r.out != want.String()+"\n" {
			t.Errorf("%s: exit %d, %s%s; want %s", name, r.code, r.out, r.errOut, want)
		}
		for _, word := range []string{"RTMR0", "c8s attest"} {
			if !strings.Contains(r.errOut, word) {
				t.Errorf("the note does not name %s: %s", word, r.errOut)
			}
		}
	}
}

func TestTDXWithAKernelAddsTwoRegisters(t *testing.T) {
	image, kernel := measuretest.TDVF(4*4096, measuretest.TDXSections(4*4096)...), measuretest.Kernel(64)
	args := []string{"tdx", "--tdvf", file(t, image), "--kernel", file(t, kernel), "--initrd", file(t, []byte("initrd")), "--cmdline", "quiet"}
	d, err := measure.Authenticode(bytes.NewReader(kernel), int64(len(kernel)))
	if err != nil {
		t.Fatal(err)
	}
	rtmr2, err := measure.RTMR2("quiet", strings.NewReader("initrd"), measure.TokenBefore)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	r := run(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatalf("%v: %+v", err, r)
	}
	if got["rtmr1"] != measure.RTMR1(d).String() || got["rtmr2"] != rtmr2.String() || got["rtmr0"] != "" {
		t.Errorf("%v", got)
	}
	text := run(args...).out
	for name, value := range got {
		if name != "note" && !strings.Contains(text, strings.ToUpper(name)+" ") || name != "note" && !strings.Contains(text, value) {
			t.Errorf("%s is missing in %s", name, text)
		}
	}
	if after := run(append(args, "--initrd-token", "after")...); after.code != exit.OK || after.out == text {
		t.Errorf("the token's place does not count: %+v", after)
	}
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	snp, tdx := file(t, measuretest.OVMF(4*4096, measuretest.Sections()[:3]...)), file(t, measuretest.TDVF(4*4096, measuretest.TDXSections(4*4096)...))
	amdsev := file(t, measuretest.OVMF(4*4096, measuretest.Sections()...))
	missing := filepath.Join(t.TempDir(), "missing")
	text := file(t, []byte("not a kernel, 24 bytes.."))
	for _, c := range []struct {
		code int
		says string
		line string
	}{
		{exit.OK, "", ""},
		{exit.Misuse, "--ovmf is required", "snp"},
		{exit.Misuse, "--vcpus is required", "snp --ovmf " + amdsev},
		{exit.Misuse, "--vcpu-type is required", "snp --vcpus 1 --ovmf " + amdsev},
		{exit.Misuse, "EPYC-Milan-v2", "snp --vcpus 1 --vcpu-type Opteron --ovmf " + amdsev},
		{exit.Misuse, "qemu, ec2 or gce", "snp --vcpus 1 --vmm xen --ovmf " + amdsev},
		{exit.Misuse, "0x1", "snp --vcpus 1 --vcpu-type EPYC --guest-features many --ovmf " + amdsev},
		{exit.Misuse, "need --kernel", "snp --vcpus 1 --vcpu-type EPYC --cmdline quiet --ovmf " + amdsev},
		{exit.Misuse, "text or json", "snp --vcpus 1 -o yaml --ovmf " + amdsev},
		{exit.Misuse, "96 hexadecimal", "snp --vcpus 1 --vcpu-type EPYC --ovmf-digest abc --ovmf " + amdsev},
		{exit.Misuse, "not expected", "snp OVMF.fd"},
		{exit.Misuse, "--help", "snp --cpus 1"},
		{exit.Refused, "vcpu-count", "snp --vcpus 0 --vcpu-type EPYC --ovmf " + amdsev},
		{exit.Refused, "guest-features", "snp --vcpus 1 --vcpu-type EPYC --guest-features 0x20 --ovmf " + amdsev},
		{exit.Refused, "kernel-hashes", "snp --vcpus 1 --vcpu-type EPYC --kernel /dev/null --ovmf " + snp},
		{exit.Refused, "sev-metadata", "snp --vcpus 1 --vcpu-type EPYC --ovmf " + tdx},
		{exit.Refused, "image-size", "snp --vcpus 1 --vcpu-type EPYC --ovmf " + text},
		{exit.Refused, "reading the firmware", "snp --vcpus 1 --vcpu-type EPYC --ovmf " + missing},
		{exit.Refused, "reading the kernel", "snp --vcpus 1 --vcpu-type EPYC --ovmf " + amdsev + " --kernel " + missing},
		{exit.Refused, "reading the initrd", "snp --vcpus 1 --vcpu-type EPYC --ovmf " + amdsev + " --kernel /dev/null --initrd " + missing},
		{exit.Misuse, "--tdvf is required", "tdx"},
		{exit.Misuse, "qemu-legacy", "tdx --vmm gce --tdvf " + tdx},
		{exit.Misuse, "before, after or none", "tdx --initrd-token here --tdvf " + tdx},
		{exit.Misuse, "need --kernel", "tdx --initrd x --tdvf " + tdx},
		{exit.Refused, "tdx-metadata", "tdx --tdvf " + amdsev},
		{exit.Refused, "kernel-image", "tdx --cmdline quiet --kernel " + text + " --tdvf " + tdx},
		{exit.Refused, "kernel-load-options", "tdx --kernel " + file(t, measuretest.Kernel(0)) + " --tdvf " + tdx},
	} {
		r := run(strings.Fields(c.line)...)
		if r.code != c.code || !strings.Contains(r.errOut, c.says) {
			t.Errorf("%q: exit %d, want %d, and %q to say %q", c.line, r.code, c.code, r.errOut, c.says)
		}
		if c.code != exit.OK && r.out != "" {
			t.Errorf("%q: a result beside the refusal: %s", c.line, r.out)
		}
	}
}
