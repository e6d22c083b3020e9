// SPDX-License-Identifier: Apache-2.0

package measurecmd

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/attest/measure"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

type tdxCommand struct {
	kernelFlags
	output  desk.Output
	tdvf    string
	monitor string
	token   string
}

func newTDX() *cobra.Command {
	var t tdxCommand
	c := &cobra.Command{
		Use:   "tdx",
		Short: "Compute MRTD, and with a kernel RTMR1 and RTMR2, of an Intel TDX machine",
		Long: `Prints MRTD, the measurement of the initial memory of an Intel TDX machine. It
covers the firmware's code, and neither its UEFI variables nor anything that the
firmware starts; vCPUs do not matter.

With --kernel, also prints RTMR1 (the kernel) and RTMR2 (command line, initrd)
for QEMU 10.0 or newer, started with -kernel, and EDK II from 2025 on. Older ones
show the kernel with changes that depend on the machine's memory; boot loaders,
shim and unified kernel images measure more. Take RTMRs from an event log there.

Values for --vmm:
  qemu         QEMU 10.1 or newer, on Linux 6.16 or newer: each page is added and
               measured before the next
  qemu-legacy  QEMU and Linux with Intel's patches from before: all pages of a
               section are added, then measured

Not computed: RTMR0, which holds ACPI tables and the memory map that the monitor
makes at start, and RTMR3, which belongs to the guest. Judge them by replaying
the machine's event log: 'c8s attest verify'. Not known: the order of monitors
of clouds, which publish their MRTD signed.`,
		Example: `  c8s measure tdx --tdvf OVMF.fd
  c8s measure tdx --tdvf OVMF.fd --kernel vmlinuz --initrd initrd.img --cmdline 'console=ttyS0' -o json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return t.run(c) },
	}
	f := c.Flags()
	f.StringVar(&t.tdvf, "tdvf", "", "firmware image (QEMU: -bios)")
	t.kernelFlags.register(c)
	f.StringVar(&t.monitor, "vmm", "qemu", "monitor that starts the machine: qemu or qemu-legacy")
	f.StringVar(&t.token, "initrd-token", "before", "where the firmware puts initrd=initrd on the command line: before (EDK II from 2025 on), after or none")
	t.output.Register(c)
	return c
}

// tdxResult is the JSON output. Registers that were not computed are absent.
type tdxResult struct {
	MRTD  string `json:"mrtd"`
	RTMR1 string `json:"rtmr1,omitempty"`
	RTMR2 string `json:"rtmr2,omitempty"`
	Note  string `json:"note"`
}

const tdxNote = "RTMR0 is made by the monitor when the machine starts and cannot be computed from files: replay the event log, see 'c8s attest verify'"

func (t *tdxCommand) run(c *cobra.Command) error {
	if err := errors.Join(required(c, "tdvf"), t.kernelFlags.check(c)); err != nil {
		return err
	}
	order, err := parseOrder(t.monitor)
	if err != nil {
		return err
	}
	token, err := measure.ParseInitrdToken(t.token)
	if err != nil {
		return exit.Usage(fmt.Errorf("--initrd-token: %w", err))
	}
	r := tdxResult{Note: tdxNote}
	if r.MRTD, err = t.mrtd(order); err != nil {
		return err
	}
	if t.kernel != "" {
		if r.RTMR1, err = t.rtmr1(); err != nil {
			return err
		}
		if r.RTMR2, err = t.rtmr2(token); err != nil {
			return err
		}
	}
	return t.print(c, r)
}

func parseOrder(monitor string) (measure.PageOrder, error) {
	switch monitor {
	case "qemu":
		return measure.PageByPage, nil
	case "qemu-legacy":
		return measure.SectionBySection, nil
	}
	return 0, exit.Usage(fmt.Errorf("--vmm must be qemu or qemu-legacy, not %q; clouds publish the MRTD of their firmware", monitor))
}

func (t *tdxCommand) mrtd(order measure.PageOrder) (string, error) {
	image, err := readFirmware(t.tdvf)
	if err != nil {
		return "", err
	}
	firmware, err := measure.ParseTDVF(image)
	if err != nil {
		return "", fmt.Errorf("%s: %w", t.tdvf, err)
	}
	d, err := firmware.MRTD(order)
	return d.String(), err
}

func (t *tdxCommand) rtmr1() (_ string, err error) {
	f, err := os.Open(t.kernel)
	if err != nil {
		return "", fmt.Errorf("reading the kernel: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("reading the kernel: %w", err)
	}
	d, err := measure.Authenticode(f, info.Size())
	if err != nil {
		return "", fmt.Errorf("%s: %w", t.kernel, err)
	}
	return measure.RTMR1(d).String(), nil
}

func (t *tdxCommand) rtmr2(token measure.InitrdToken) (_ string, err error) {
	initrd, closeInitrd, err := t.openInitrd()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, closeInitrd()) }()
	d, err := measure.RTMR2(t.line, initrd, token)
	if err != nil {
		return "", err
	}
	return d.String(), nil
}

// print writes MRTD bare where it is alone, as snp does its digest; the note
// goes to standard error then.
func (t *tdxCommand) print(c *cobra.Command, r tdxResult) error {
	out := c.OutOrStdout()
	if t.output.JSON() {
		return desk.WriteJSON(out, r)
	}
	text := r.MRTD + "\n"
	if r.RTMR1 != "" {
		text = fmt.Sprintf("MRTD   %s\nRTMR1  %s\nRTMR2  %s\n", r.MRTD, r.RTMR1, r.RTMR2)
	}
	if _, err := fmt.Fprint(out, text); err != nil {
		return err
	}
	_, err := fmt.Fprintln(c.ErrOrStderr(), "note:", r.Note)
	return err
}
