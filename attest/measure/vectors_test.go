// SPDX-License-Identifier: Apache-2.0

package measure_test

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/attest/measure"
)

// vector is an entry of snp_launch_digests.json.
type vector struct {
	VCPUs    int     `json:"vcpus"`
	Type     *string `json:"vcpu_type"`
	OVMF     string  `json:"ovmf"`
	Kernel   *string `json:"kernel"`
	Initrd   *string `json:"initrd"`
	Cmdline  *string `json:"cmdline"`
	Features string  `json:"guest_features"`
	Monitor  string  `json:"vmm"`
	Given    *string `json:"ovmf_hash_given"`
	Digest   string  `json:"launch_digest"`
}

// evidence returns a file of the folder of real evidence, or skips the test.
func evidence(t testing.TB, name ...string) []byte {
	t.Helper()
	raw, ok := tryEvidence(t, name...)
	if !ok {
		t.Skipf("no real evidence %s: set C8S_EVIDENCE", filepath.Join(name...))
	}
	return raw
}

func tryEvidence(t testing.TB, name ...string) ([]byte, bool) {
	t.Helper()
	root := os.Getenv("C8S_EVIDENCE")
	if root == "" {
		root = filepath.Join("..", "..", "..", "shared", "evidence")
	}
	raw, err := os.ReadFile(filepath.Join(append([]string{root}, name...)...))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return raw, err == nil
}

func ovmf(t testing.TB, name string) *measure.OVMF {
	t.Helper()
	o, err := measure.ParseOVMF(evidence(t, "measure", name))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (v vector) input(t *testing.T) measure.SNPInput {
	t.Helper()
	features, err := strconv.ParseUint(v.Features, 0, 64)
	if err != nil {
		t.Fatal(err)
	}
	monitor, err := measure.ParseMonitor(strings.ToLower(v.Monitor))
	if err != nil {
		t.Fatal(err)
	}
	in := measure.SNPInput{OVMF: ovmf(t, v.OVMF), VCPUs: v.VCPUs, Features: features, Monitor: monitor}
	if v.Type != nil {
		if in.Signature, err = measure.ParseVCPUType(*v.Type); err != nil {
			t.Fatal(err)
		}
	}
	if v.Given != nil {
		d, err := measure.ParseDigest(*v.Given)
		if err != nil {
			t.Fatal(err)
		}
		in.OVMFDigest = &d
	}
	if v.Kernel != nil { // always /dev/null: empty
		var initrd io.Reader
		if v.Initrd != nil {
			initrd = strings.NewReader("")
		}
		if in.Kernel, err = measure.HashKernel(strings.NewReader(""), initrd, *v.Cmdline); err != nil {
			t.Fatal(err)
		}
	}
	return in
}

func TestKnownLaunchDigestsMatch(t *testing.T) {
	var vectors []vector
	if err := json.Unmarshal(evidence(t, "measure", "snp_launch_digests.json"), &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) < 8 {
		t.Fatalf("%d vectors, expected at least 8", len(vectors))
	}
	for i, v := range vectors {
		got, err := measure.SNP(v.input(t))
		if err != nil {
			t.Errorf("vector %d: %v", i, err)
		} else if got.String() != v.Digest {
			t.Errorf("vector %d (%s, %d vCPUs): got %s, want %s", i, v.Monitor, v.VCPUs, got, v.Digest)
		}
	}
}
