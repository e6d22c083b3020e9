// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/test/kernels/console"
)

func reportOf(lacks []string, lines ...string) *report {
	r := &report{row: row{name: "x", lacks: lacks}, verified: map[string]string{}}
	for _, s := range lines {
		l, _ := console.Parse(s)
		r.take(l)
	}
	return r
}

const (
	loaded = "KERNEL VERIFIED steer 460"
	passed = "KERNEL PASS loader TestX 1.00"
	end    = "KERNEL END"
)

func TestRunIsGoodOnlyWhenAllOfItSaidSo(t *testing.T) {
	for name, c := range map[string]struct {
		lacks []string
		lines []string
		bad   string // part of the one reason; empty: it is good
	}{
		"good":                     {nil, []string{loaded, passed, end}, ""},
		"failed":                   {nil, []string{loaded, "KERNEL FAIL loader TestX 1.00", end}, "loader TestX"},
		"no end":                   {nil, []string{loaded, passed}, "ended before"},
		"nothing loaded":           {nil, []string{passed, end}, "not loaded"},
		"skip of a known lack":     {[]string{"tcx"}, []string{loaded, "KERNEL SKIP loader TestX 0.00 this kernel lacks tcx (since 6.6): no", end}, ""},
		"skip of another lack":     {[]string{"tcx"}, []string{loaded, "KERNEL SKIP loader TestX 0.00 this kernel lacks tcxx (since 9)", end}, "was skipped"},
		"skip without that reason": {[]string{"tcx"}, []string{loaded, "KERNEL SKIP loader TestX 0.00 tcx is missing", end}, "was skipped"},
		"silent skip":              {[]string{"tcx"}, []string{loaded, "KERNEL SKIP loader TestX 0.00", end}, "was skipped"},
		"skip where all is there":  {nil, []string{loaded, "KERNEL SKIP loader TestX 0.00 this kernel lacks tcx (since 6.6)", end}, "was skipped"},
	} {
		bad := reportOf(c.lacks, c.lines...).bad()
		if c.bad == "" && len(bad) != 0 || c.bad != "" && (len(bad) != 1 || !strings.Contains(bad[0], c.bad)) {
			t.Errorf("%s: %q, want %q", name, bad, c.bad)
		}
	}
	r := reportOf(nil, loaded, passed, end)
	r.err = errors.New("qemu died")
	if bad := r.bad(); len(bad) != 1 || bad[0] != "qemu died" {
		t.Errorf("with an error: %q", bad)
	}
}

func TestSummaryNamesEveryKernelAndProgram(t *testing.T) {
	old := reportOf([]string{"tcx"}, "KERNEL BOOT 6.1.0", "KERNEL INFO tcx missing (since 6.6)", "KERNEL INFO security-hooks-(lsm) there", loaded, passed, passed, end)
	newer := reportOf(nil, "KERNEL BOOT 7.3.4", "KERNEL INFO tcx there", loaded, "KERNEL VERIFIED pod_socket 99", passed, end)
	var out strings.Builder
	summary(&out, []*report{old, newer})
	for _, want := range []string{"6.1.0   clsact  there  2", "7.3.4   tcx            1", "steer                  460    460", "pod_socket                    99"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}

func TestOnlyKnownKernelsAndSuitesAreRun(t *testing.T) {
	if rows, err := pick(nil); err != nil || len(rows) != len(matrix) {
		t.Errorf("%v, %v", rows, err)
	}
	if rows, err := pick([]string{"6.12", "6.1"}); err != nil || len(rows) != 2 || rows[0].suite != "bookworm-backports" {
		t.Errorf("%v, %v", rows, err)
	}
	if _, err := pick([]string{"5.4"}); err == nil || !strings.Contains(err.Error(), "6.12") {
		t.Errorf("an unknown kernel: %v", err)
	}
	if all, err := (options{suites: "bpf,loader"}).binaries(); err != nil || len(all) != 2 {
		t.Errorf("%v, %v", all, err)
	}
	all, err := (options{short: true}).binaries()
	if err != nil || len(all) != 2 || all[1].pkg != "loader" || !strings.Contains(all[1].run, "TestNoAttackReachesItsVictim") {
		t.Errorf("short: %v, %v", all, err)
	}
	if _, err := (options{suites: "none"}).binaries(); err == nil {
		t.Error("an unknown suite is no error")
	}
	if _, err := parse([]string{"-accel", "warp"}); err == nil {
		t.Error("an unknown accelerator is no error")
	}
}
