// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/c8s-dev/c8s/test/kernels/console"
)

// Accelerators of qemu.
const (
	accelAuto = "auto"
	accelKVM  = "kvm"
	accelTCG  = "tcg"
)

// kvmBoot is how long a kernel may take to its first line under KVM before
// the machine counts as one whose nested KVM does not work.
const kvmBoot = 10 * time.Second

// accelArgs: without "-cx16" the slab allocator of 6.12 panics under TCG of
// qemu 7.2, an emulation fault.
var accelArgs = map[string][]string{
	accelKVM: {"-accel", "kvm", "-cpu", "host"},
	accelTCG: {"-accel", "tcg,thread=multi", "-cpu", "max,-cx16"},
}

// machine is one run of qemu.
type machine struct {
	kernel, initrd string
	accel          string
	memory         int // MiB
	log            string
}

func (m machine) args() []string {
	return append([]string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none",
		"-m", strconv.Itoa(m.memory), "-smp", "2", "-kernel", m.kernel, "-initrd", m.initrd,
		"-append", "console=ttyS0 quiet panic=-1 random.trust_cpu=on",
		"-serial", "file:" + m.log, "-serial", "stdio",
	}, accelArgs[m.accel]...)
}

// errNoBoot: the kernel did not come up.
var errNoBoot = errors.New("the kernel said nothing")

// run boots the machine and hands on each line of its results until it is off.
// A limit on the boot is cancelled by the first line.
func (m machine) run(ctx context.Context, boot time.Duration, line func(string)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := exec.CommandContext(ctx, "qemu-system-x86_64", m.args()...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr := &tail{}
	c.Stderr = stderr
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	slow := time.AfterFunc(boot, func() { cancel(errNoBoot) })
	lines := bufio.NewScanner(out)
	lines.Buffer(make([]byte, 64<<10), 8<<20)
	for lines.Scan() {
		slow.Stop()
		line(lines.Text())
	}
	_, _ = io.Copy(io.Discard, out)
	err = c.Wait()
	slow.Stop()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return fmt.Errorf("qemu: %w: %s", err, stderr.text)
	}
	return lines.Err()
}

// tail keeps the end of what is written.
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-2000):]
	return len(p), nil
}

// guestRun boots a kernel, and falls back from KVM to emulation where KVM does
// not get it going. It returns which one was used.
func guestRun(ctx context.Context, m machine, accel string, line func(console.Line, string)) (string, error) {
	hand := func(s string) {
		l, _ := console.Parse(s)
		line(l, s)
	}
	if accel == accelAuto {
		accel = accelTCG
		if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
			_ = f.Close()
			m.accel = accelKVM
			err := m.run(ctx, kvmBoot, hand)
			if !errors.Is(err, errNoBoot) && ctx.Err() == nil && !bootFailed(err) {
				return accelKVM, err
			}
		}
	}
	m.accel = accel
	return accel, m.run(ctx, time.Hour, hand)
}

// bootFailed tells whether qemu ended by itself: /dev/kvm opens on machines
// that cannot use it.
func bootFailed(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit)
}

// consoleTail is the end of what a guest's kernel printed.
func consoleTail(file string) string {
	raw, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-4000):])
}
