// SPDX-License-Identifier: Apache-2.0

// Package devtee gives development machines simulated TEEs that behave like a
// measured launch: the measurement is that of the program that runs, and
// HOST_DATA names the operators, so that a changed program or other operators
// are refused as on real hardware. It proves nothing: see package sim.
package devtee

import (
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/attest/tsm"
	"github.com/c8s-dev/c8s/policy"
)

// SubstrateName is the name of the entry that Substrate returns.
const SubstrateName = "sim-milan"

// Options name a simulated machine.
type Options struct {
	Dir       string           // holds the simulated vendor, shared by all machines
	Machine   string           // decides the chip id; the host's name when empty
	Binary    string           // is measured; the running program when empty
	Operators policy.Operators // whose digest is in HOST_DATA
}

// Open starts the machine and returns its attester.
func Open(o Options) (*tsm.Attester, error) {
	tee, err := start(o)
	if err != nil {
		return nil, err
	}
	return tsm.New(tee), nil
}

// Substrate returns the manifest entry for all machines that share the folder,
// the program and the operators. They may be nodes, CDS and ingress.
func Substrate(o Options) (policy.Substrate, error) {
	tee, err := start(o)
	if err != nil {
		return policy.Substrate{}, err
	}
	s := tee.Substrate(SubstrateName, policy.RoleNode, policy.RoleCDS, policy.RoleIngress)
	s.Machines = []string{policy.Any}
	return s, nil
}

func start(o Options) (*sim.TEE, error) {
	if o.Dir == "" {
		return nil, errors.New("starting a simulated machine: no folder for the vendor given")
	}
	if o.Machine == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("naming the simulated machine: %w", err)
		}
		o.Machine = name
	}
	measurement, err := measure(o.Binary)
	if err != nil {
		return nil, fmt.Errorf("measuring the program: %w", err)
	}
	return sim.New(o.Dir, sim.Options{
		Product: snp.Milan, Measurement: measurement, HostData: o.Operators.Digest(),
		ChipID: sha512.Sum512([]byte("c8s/devtee/machine/v1\x00" + o.Machine)),
		TCB:    policy.TCB{BootLoader: 4, TEE: 0, SNP: 24, Microcode: 219},
	})
}

// measure stands in for the launch digest, which has the same size.
func measure(binary string) (sum [48]byte, err error) {
	if binary == "" {
		if binary, err = os.Executable(); err != nil {
			return sum, err
		}
	}
	f, err := os.Open(binary)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha512.New384()
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	return [48]byte(h.Sum(nil)), nil
}
