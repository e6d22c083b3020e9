// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ticksPerSecond is USER_HZ, the unit of times in /proc. It is 100 on every
// architecture Go supports on Linux.
const ticksPerSecond = 100

// Proc reads processor time and memory of processes.
type Proc struct{ root string }

// NewProc reads from /proc.
func NewProc() Proc { return Proc{"/proc"} }

// CPUSeconds is the processor time that the given processes used so far, user
// and system together, to 10 ms.
//
// It contains what the kernel does on their behalf in system calls, and
// mostly the receive path that runs at the end of their sends. It does not
// contain interrupts and ksoftirqd; take Machine for those.
func (p Proc) CPUSeconds(pids ...int) (float64, error) {
	var ticks uint64
	for _, pid := range pids {
		raw, err := os.ReadFile(p.path(pid, "stat"))
		if err != nil {
			return 0, fmt.Errorf("reading the processor time of process %d: %w", pid, err)
		}
		t, err := statTicks(raw)
		if err != nil {
			return 0, fmt.Errorf("reading the processor time of process %d: %w", pid, err)
		}
		ticks += t
	}
	return float64(ticks) / ticksPerSecond, nil
}

// statTicks returns utime + stime, fields 14 and 15 of proc_pid_stat(5).
func statTicks(stat []byte) (uint64, error) {
	// The name in field 2 may hold blanks and parentheses; field 3 follows
	// the last one.
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, fmt.Errorf("no process name in %q", stat)
	}
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("%d fields after the name, want at least 13", len(fields))
	}
	user, err := strconv.ParseUint(fields[11], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("utime: %w", err)
	}
	system, err := strconv.ParseUint(fields[12], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("stime: %w", err)
	}
	return user + system, nil
}

// MachineCPU is the processor time of the whole machine in seconds.
type MachineCPU struct {
	Busy    float64 // everything but idle and waiting for I/O
	SoftIRQ float64 // part of Busy: network processing outside of processes
}

// Machine reads the processor time of the whole machine. The difference of
// two readings contains the load generators and whatever else ran.
func (p Proc) Machine() (MachineCPU, error) {
	raw, err := os.ReadFile(filepath.Join(p.root, "stat"))
	if err != nil {
		return MachineCPU{}, fmt.Errorf("reading the machine's processor time: %w", err)
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	fields := strings.Fields(line)
	// cpu user nice system idle iowait irq softirq steal guest guest_nice;
	// guest times are contained in user and nice.
	if len(fields) < 9 || fields[0] != "cpu" {
		return MachineCPU{}, fmt.Errorf("reading the machine's processor time: unexpected line %q", line)
	}
	var t [8]float64
	for i := range t {
		n, err := strconv.ParseUint(fields[i+1], 10, 64)
		if err != nil {
			return MachineCPU{}, fmt.Errorf("reading the machine's processor time: %w", err)
		}
		t[i] = float64(n) / ticksPerSecond
	}
	return MachineCPU{Busy: t[0] + t[1] + t[2] + t[5] + t[6], SoftIRQ: t[6]}, nil
}

// Memory is main memory in bytes.
type Memory struct {
	RSS uint64 // resident pages
	PSS uint64 // the same, pages shared by n processes counted 1/n
}

// Memory adds up the memory of the given processes. It does not contain the
// kernel's socket buffers.
func (p Proc) Memory(pids ...int) (Memory, error) {
	var sum Memory
	for _, pid := range pids {
		raw, err := os.ReadFile(p.path(pid, "smaps_rollup"))
		if err != nil {
			return Memory{}, fmt.Errorf("reading the memory of process %d: %w", pid, err)
		}
		m, err := rollup(raw)
		if err != nil {
			return Memory{}, fmt.Errorf("reading the memory of process %d: %w", pid, err)
		}
		sum.RSS += m.RSS
		sum.PSS += m.PSS
	}
	return sum, nil
}

// rollup parses proc_pid_smaps_rollup(5): lines such as "Rss:  123 kB".
func rollup(raw []byte) (Memory, error) {
	values := map[string]uint64{}
	for s := bufio.NewScanner(bytes.NewReader(raw)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) != 3 || f[2] != "kB" || (f[0] != "Rss:" && f[0] != "Pss:") {
			continue
		}
		n, err := strconv.ParseUint(f[1], 10, 54)
		if err != nil {
			return Memory{}, fmt.Errorf("%s %w", f[0], err)
		}
		values[f[0]] = n * 1024
	}
	if len(values) != 2 {
		return Memory{}, fmt.Errorf("no Rss and Pss in %d bytes", len(raw))
	}
	return Memory{RSS: values["Rss:"], PSS: values["Pss:"]}, nil
}

func (p Proc) path(pid int, file string) string {
	return filepath.Join(p.root, strconv.Itoa(pid), file)
}
