// SPDX-License-Identifier: Apache-2.0

package clock_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/c8s-dev/c8s/cds/clock"
)

const sevStatus = 0xC0010131

// guest writes the files that Source reads; status 1<<63 makes no MSR device.
func guest(t *testing.T, source, flags string, status uint64) string {
	t.Helper()
	root := t.TempDir()
	write := func(path string, b []byte, at int64) {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt(b, at); err != nil { // a hole before it
			t.Fatal(err)
		}
	}
	write("/sys/devices/system/clocksource/clocksource0/current_clocksource", []byte(source+"\n"), 0)
	write("/proc/cpuinfo", []byte("processor\t: 0\nmodel name\t: x tdx_guest\nflags\t\t: fpu "+flags+" sse\n\nprocessor\t: 1\n"), 0)
	if status>>63 == 0 {
		write("/dev/cpu/0/msr", binary.LittleEndian.AppendUint64(nil, status), sevStatus)
	}
	return root
}

func TestSourceIsTheHostUnlessTheTEEKeepsTheTSC(t *testing.T) {
	const none = 1 << 63
	for name, c := range map[string]struct {
		source, flags string
		status        uint64
		want          string
	}{
		"TDX":                            {"tsc", "tdx_guest", none, clock.SourceTDX},
		"TDX with a paravirtual clock":   {"kvm-clock", "tdx_guest", none, clock.SourceHost},
		"SNP with Secure TSC":            {"tsc", "sev_snp", 1<<0 | 1<<1 | 1<<2 | 1<<11, clock.SourceSecureTSC},
		"that, with a paravirtual clock": {"kvm-clock", "sev_snp", 1<<2 | 1<<11, clock.SourceHost},
		"SNP without":                    {"tsc", "sev_snp", 1<<0 | 1<<1 | 1<<2, clock.SourceHost},
		"no SNP":                         {"tsc", "", 1 << 11, clock.SourceHost},
		"no MSR":                         {"tsc", "sev_snp", none, clock.SourceHost},
		"a flag that only looks like it": {"tsc", "not_tdx_guest tdx_guest_x", none, clock.SourceHost},
		"an ordinary machine":            {"tsc", "", 0, clock.SourceHost},
	} {
		if got := clock.Source(guest(t, c.source, c.flags, c.status)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if got := clock.Source(t.TempDir()); got != clock.SourceHost {
		t.Errorf("without any file: %s", got)
	}
}
