// SPDX-License-Identifier: Apache-2.0

package measurecmd

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/attest/measure"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

type snpCommand struct {
	kernelFlags
	output   desk.Output
	ovmf     string
	given    string
	vcpus    []int
	vcpuType string
	monitor  string
	features string
}

func newSNP() *cobra.Command {
	var s snpCommand
	c := &cobra.Command{
		Use:   "snp",
		Short: "Compute the launch digest of an AMD SEV-SNP machine",
		Long: `Prints the launch digest that an AMD SEV-SNP machine reports as MEASUREMENT, one
for each number of vCPUs, since the registers of each vCPU are measured.

With --kernel, the hashes of kernel, initrd and command line are measured, and
the firmware starts nothing else. That needs firmware built from EDK II's
AmdSevX64, and kernel-hashes=on in QEMU.

The vCPU type is QEMU's -cpu model: a name like EPYC-v4, family/model/stepping
like 25/1/1, or the signature of CPUID function 1 like 0x00a00f11. Other
monitors do not measure it. Guest features are SEV_FEATURES: 0x1 on Linux hosts
from 6.8 on; hosts with debug swap give 0x21.`,
		Example: `  # a machine with 2 and one with 4 vCPUs
  c8s measure snp --ovmf OVMF.fd --kernel vmlinuz --initrd initrd.img \
    --cmdline 'console=ttyS0' --vcpus 2,4 --vcpu-type EPYC-v4

  # a machine on Amazon EC2, which publishes its firmware
  c8s measure snp --ovmf ovmf_img.fd --vcpus 2 --vmm ec2`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return s.run(c) },
	}
	f := c.Flags()
	f.StringVar(&s.ovmf, "ovmf", "", "firmware image (QEMU: -bios)")
	f.StringVar(&s.given, "ovmf-digest", "", "digest of the whole firmware, if --ovmf is only its end")
	s.kernelFlags.register(c)
	f.IntSliceVar(&s.vcpus, "vcpus", nil, "number of vCPUs, or several numbers with commas")
	f.StringVar(&s.vcpuType, "vcpu-type", "", "type of the vCPUs, for QEMU")
	f.StringVar(&s.monitor, "vmm", "qemu", "monitor that starts the machine: qemu, ec2 or gce")
	f.StringVar(&s.features, "guest-features", "0x1", "SEV_FEATURES that the host sets")
	s.output.Register(c)
	return c
}

// snpResult is one line of the JSON output.
type snpResult struct {
	VCPUs       int    `json:"vcpus"`
	Measurement string `json:"measurement"`
}

func (s *snpCommand) run(c *cobra.Command) error {
	if err := errors.Join(required(c, "ovmf", "vcpus"), s.kernelFlags.check(c)); err != nil {
		return err
	}
	in, err := s.input()
	if err != nil {
		return err
	}
	results := make([]snpResult, 0, len(s.vcpus))
	for _, n := range s.vcpus {
		in.VCPUs = n
		d, err := measure.SNP(in)
		if err != nil {
			return err
		}
		results = append(results, snpResult{n, d.String()})
	}
	if s.output.JSON() {
		return desk.WriteJSON(c.OutOrStdout(), results)
	}
	for _, r := range results { // bare digests: they are meant to be copied
		if _, err := fmt.Fprintln(c.OutOrStdout(), r.Measurement); err != nil {
			return err
		}
	}
	return nil
}

func (s *snpCommand) input() (measure.SNPInput, error) {
	var in measure.SNPInput
	var err error
	if in.Monitor, err = measure.ParseMonitor(s.monitor); err != nil {
		return in, exit.Usage(fmt.Errorf("--vmm: %w", err))
	}
	if in.Features, err = strconv.ParseUint(s.features, 0, 64); err != nil {
		return in, exit.Usage(fmt.Errorf("--guest-features must be a number like 0x1, not %q", s.features))
	}
	if s.vcpuType != "" {
		if in.Signature, err = measure.ParseVCPUType(s.vcpuType); err != nil {
			return in, exit.Usage(fmt.Errorf("--vcpu-type: %w", err))
		}
	}
	if in.Monitor == measure.QEMU && s.vcpuType == "" {
		return in, exit.Usage(errors.New("--vcpu-type is required with --vmm qemu: QEMU puts it into a measured register"))
	}
	if s.given != "" {
		d, err := measure.ParseDigest(s.given)
		if err != nil {
			return in, exit.Usage(fmt.Errorf("--ovmf-digest: %w", err))
		}
		in.OVMFDigest = &d
	}
	image, err := readFirmware(s.ovmf)
	if err != nil {
		return in, err
	}
	if in.OVMF, err = measure.ParseOVMF(image); err != nil {
		return in, fmt.Errorf("%s: %w", s.ovmf, err)
	}
	in.Kernel, err = s.hashKernel()
	return in, err
}

// hashKernel returns nil without a kernel.
func (s *snpCommand) hashKernel() (_ *measure.KernelHashes, err error) {
	if s.kernel == "" {
		return nil, nil
	}
	kernel, err := os.Open(s.kernel)
	if err != nil {
		return nil, fmt.Errorf("reading the kernel: %w", err)
	}
	defer func() { err = errors.Join(err, kernel.Close()) }()
	initrd, closeInitrd, err := s.openInitrd()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeInitrd()) }()
	return measure.HashKernel(kernel, initrd, s.line)
}
