// SPDX-License-Identifier: Apache-2.0

package clock

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What keeps the monotonic clock. Only with the first two is it out of the
// host's reach.
const (
	SourceTDX       = "tdx"        // the TDX module virtualises the TSC
	SourceSecureTSC = "secure-tsc" // SEV-SNP's Secure TSC
	SourceHost      = "host"
)

const (
	clocksourcePath = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
	cpuinfoPath     = "/proc/cpuinfo"
	msrPath         = "/dev/cpu/0/msr"

	// SEV_STATUS, which the hardware answers itself in an SNP guest (AMD 24593,
	// section 15.34.10).
	sevStatusMSR    = 0xC0010131
	sevStatusSNP    = 1 << 2
	sevStatusSecTSC = 1 << 11
)

// Source says who keeps this machine's monotonic clock. What cannot be read
// counts as the host's, and so does any clock source but the TSC: a
// paravirtual clock is a page that the host writes.
func Source(root string) string {
	path := func(p string) string { return filepath.Join("/", root, p) }
	current, err := os.ReadFile(path(clocksourcePath))
	if err != nil || strings.TrimSpace(string(current)) != "tsc" {
		return SourceHost
	}
	if isTDXGuest(path(cpuinfoPath)) {
		return SourceTDX
	}
	const both = sevStatusSNP | sevStatusSecTSC
	if status, ok := readMSR(path(msrPath), sevStatusMSR); ok && status&both == both {
		return SourceSecureTSC
	}
	return SourceHost
}

// isTDXGuest looks for the flag that Linux sets after it has asked the CPU.
func isTDXGuest(path string) bool {
	text, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if name, flags, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "flags" {
			return slices.Contains(strings.Fields(flags), "tdx_guest")
		}
	}
	return false
}

func readMSR(path string, number int64) (uint64, bool) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	var b [8]byte
	if _, err := f.ReadAt(b[:], number); err != nil {
		return 0, false
	}
	return binary.LittleEndian.Uint64(b[:]), true
}
