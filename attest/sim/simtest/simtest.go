// SPDX-License-Identifier: Apache-2.0

// Package simtest gives tests simulated TEEs that share one vendor root, kept
// in the user's cache folder so that not every package makes its own.
package simtest

import (
	"crypto/sha512"
	"os"
	"path/filepath"
	"testing"

	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/attest/tsm"
	"github.com/c8s-dev/c8s/policy"
)

// Dir returns the folder of the shared vendor.
func Dir(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		return t.TempDir()
	}
	return filepath.Join(cache, "c8s-simtest-2") // the version of the vendor's file
}

// Options returns a machine that appraisal accepts: every field it looks at
// has a value, and the chip id follows from the name.
func Options(machine string) sim.Options {
	o := sim.Options{
		Product: snp.Milan, ChipID: sha512.Sum512([]byte(machine)),
		TCB: policy.TCB{BootLoader: 4, TEE: 0, SNP: 24, Microcode: 219},
	}
	for i := range o.Measurement {
		o.Measurement[i] = 0xaa
	}
	for i := range o.HostData {
		o.HostData[i] = 0xbb
	}
	return o
}

// New starts the machine that Options describes, after edits.
func New(t testing.TB, machine string, edits ...func(*sim.Options)) *sim.TEE {
	t.Helper()
	o := Options(machine)
	for _, edit := range edits {
		edit(&o)
	}
	tee, err := sim.New(Dir(t), o)
	if err != nil {
		t.Fatal(err)
	}
	return tee
}

// Attester starts a machine and returns its attester.
func Attester(t testing.TB, machine string, edits ...func(*sim.Options)) *tsm.Attester {
	t.Helper()
	return tsm.New(New(t, machine, edits...))
}

// Accept returns an edit for policytest.With that replaces the substrates of a
// manifest by those of the machines, for the roles node and cds.
func Accept(tees ...*sim.TEE) func(*policy.Manifest) {
	return func(m *policy.Manifest) {
		m.Substrates = nil
		for i, tee := range tees {
			m.Substrates = append(m.Substrates, tee.Substrate("sim-"+string(rune('a'+i)), policy.RoleNode, policy.RoleCDS))
		}
	}
}
