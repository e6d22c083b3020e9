// SPDX-License-Identifier: Apache-2.0

// Package measurecmd prints a measurement only if every file and setting that
// hardware measures was given; it fills in nothing that decides about trust.
package measurecmd

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/attest/measure"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

// New returns the command "measure" with its subcommands.
func New() *cobra.Command {
	c := &cobra.Command{
		Use:   "measure",
		Short: "Compute the launch measurement of a machine from its files",
		Long: `Computes, before any machine runs, what its hardware will report: the values
for "measurements" in the manifest. All files must be the ones that the machine
is started with, byte for byte.

  c8s measure snp   AMD SEV-SNP: the launch digest (MEASUREMENT)
  c8s measure tdx   Intel TDX: MRTD, and RTMR1 and RTMR2 for a kernel without boot loader

A measurement covers no more than what went into it: firmware that starts a disk
does not vouch for what is on it.

Exit codes: 0 success, 1 refused or failed, 2 wrong usage.`,
		Example: `  c8s measure snp --ovmf OVMF.fd --kernel vmlinuz --initrd initrd --cmdline 'quiet' --vcpus 2,4 --vcpu-type EPYC-v4
  c8s measure tdx --tdvf OVMF.fd`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.SetFlagErrorFunc(desk.FlagError)
	c.AddCommand(newSNP(), newTDX())
	return c
}

func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return exit.Usage(fmt.Errorf("%q is not expected: inputs are given by flags\nRun '%s --help' for them", args[0], c.CommandPath()))
	}
	return nil
}

// required returns a usage error for the first flag without a value.
func required(c *cobra.Command, names ...string) error {
	for _, name := range names {
		if f := c.Flags().Lookup(name); f.Value.String() == "" || f.Value.String() == "[]" {
			return exit.Usage(fmt.Errorf("--%s is required: %s\nRun '%s --help' for the flags", name, f.Usage, c.CommandPath()))
		}
	}
	return nil
}

// readFirmware reads no more than firmware can have.
func readFirmware(path string) (image []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the firmware: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	image, err = io.ReadAll(io.LimitReader(f, measure.MaxFirmware+1))
	if err != nil {
		return nil, fmt.Errorf("reading the firmware: %w", err)
	}
	return image, nil
}

// kernelFlags are the files of a kernel that starts without boot loader.
type kernelFlags struct{ kernel, initrd, line string }

func (k *kernelFlags) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&k.kernel, "kernel", "", "kernel file that the monitor hands to the firmware (QEMU: -kernel)")
	f.StringVar(&k.initrd, "initrd", "", "initial RAM disk (QEMU: -initrd)")
	f.StringVar(&k.line, "cmdline", "", "kernel command line, exactly (QEMU: -append)")
}

// check refuses what would silently not be measured.
func (k *kernelFlags) check(c *cobra.Command) error {
	if k.kernel == "" && (c.Flags().Changed("initrd") || c.Flags().Changed("cmdline")) {
		return exit.Usage(errors.New("--initrd and --cmdline need --kernel: without a kernel of its own the monitor measures neither"))
	}
	return nil
}

// openInitrd returns nil without an initrd.
func (k *kernelFlags) openInitrd() (io.Reader, func() error, error) {
	if k.initrd == "" {
		return nil, func() error { return nil }, nil
	}
	f, err := os.Open(k.initrd)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the initrd: %w", err)
	}
	return f, f.Close, nil
}
