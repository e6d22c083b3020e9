// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// runnerRole makes this program the one that runs the tests, instead of the
// first process.
const runnerRole = "run-tests"

// Main is what the program in the guest does.
func Main() {
	if len(os.Args) > 1 && os.Args[1] == runnerRole {
		if err := runTests(); err != nil {
			fmt.Fprintln(os.Stderr, "guest:", err)
			os.Exit(1)
		}
		return
	}
	if err := boot(); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// boot prepares the machine, starts the tests and, being the first process,
// collects every process that loses its parent.
func boot() error {
	if err := errors.Join(mountAll(), loadModules(), loopbackUp()); err != nil {
		return err
	}
	self := exec.Command("/proc/self/exe", runnerRole)
	self.Stdout, self.Stderr = os.Stdout, os.Stderr
	if err := self.Start(); err != nil {
		return err
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid == self.Process.Pid {
			return err
		}
	}
}

func mountAll() error {
	var errs []error
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"devtmpfs", "/dev"},
		{"devpts", "/dev/pts"},
		{"tmpfs", "/dev/shm"},
		{"tmpfs", "/run"},
		{"cgroup2", "/sys/fs/cgroup"},
		{"bpf", "/sys/fs/bpf"},
		{"securityfs", "/sys/kernel/security"},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, fmt.Errorf("mounting %s: %w", m.at, err))
		}
	}
	// The root is in memory as well, and a test binary there can be linked.
	return errors.Join(append(errs, os.MkdirAll("/tmp", 0o755), os.MkdirAll("/var/tmp", 0o755))...)
}

func readPlan() (p Plan, err error) {
	raw, err := os.ReadFile(PlanFile)
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(raw, &p)
}

func loadModules() error {
	plan, err := readPlan()
	if err != nil {
		return err
	}
	for _, name := range plan.Modules {
		f, err := os.Open(filepath.Join(ModuleDir, name+".ko"))
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		_ = f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("loading the module %s: %w", name, err)
		}
	}
	return nil
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}
