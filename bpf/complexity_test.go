// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"reflect"
	"testing"

	"github.com/cilium/ebpf"
)

// programs are all programs by their names in C.
func (k *kernel) programs() map[string]*ebpf.Program {
	all := map[string]*ebpf.Program{}
	v := reflect.ValueOf(k.C8sPrograms)
	for i := range v.NumField() {
		all[v.Type().Field(i).Tag.Get("ebpf")] = v.Field(i).Interface().(*ebpf.Program)
	}
	return all
}

// complexity is how many instructions the verifier walked through, over all
// paths, and how long the program is in machine code.
func complexity(t testing.TB, p *ebpf.Program) (walked, size uint32) {
	t.Helper()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	walked, ok := info.VerifiedInstructions()
	if !ok {
		t.Fatal("the kernel does not tell (it does since 5.16)")
	}
	size, err = info.JitedSize()
	if err != nil {
		t.Logf("no size in machine code: %v", err)
	}
	return walked, size
}

// The verifier gives up at a million. Kernels differ by much in what they can
// prune, so a program must stay far below.
func TestVerifierComplexity(t *testing.T) {
	const most = 50000
	k := load(t)
	for name, p := range k.programs() {
		walked, size := complexity(t, p)
		t.Logf("%-12s %6d instructions verified, %5d bytes of machine code", name, walked, size)
		if walked > most {
			t.Errorf("%s: the verifier walks %d instructions, at most %d are ours to spend", name, walked, most)
		}
	}
}

// BenchmarkVerifier loads the programs, and reports the complexity of each in
// the form that benchstat compares.
func BenchmarkVerifier(b *testing.B) {
	k := load(b)
	for name, p := range k.programs() {
		b.Run(name, func(b *testing.B) {
			walked, size := complexity(b, p)
			for b.Loop() {
				complexity(b, p)
			}
			b.ReportMetric(0, "ns/op") // says nothing here
			b.ReportMetric(float64(walked), "verified-insns")
			b.ReportMetric(float64(size), "jited-bytes")
		})
	}
}
