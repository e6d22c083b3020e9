// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/c8s-dev/c8s/test/kernels/console"
)

// report is what is known of one kernel's run.
type report struct {
	row      row
	release  string
	accel    string
	tcx      bool
	lsm      string
	passed   int
	skipped  int
	failed   []string
	verified map[string]string
	took     time.Duration
	ended    bool
	err      error
}

// missingFeature begins the reason of an admissible skip; the feature's name
// follows, a blank and what there is to say.
const missingFeature = "this kernel lacks "

// take notes one line.
func (r *report) take(l console.Line) {
	switch l.Verb {
	case console.Boot:
		r.release = l.Text
	case console.Info:
		r.info(l)
	case console.Verified:
		r.verified[l.Name] = l.Text
	case console.Pass:
		if l.Name != "(all)" {
			r.passed++
		}
	case console.Fail:
		r.failed = append(r.failed, l.Suite+" "+l.Name)
	case console.Skip:
		r.skipped++
		if !r.admissible(l.Text) {
			r.failed = append(r.failed, fmt.Sprintf("%s %s was skipped: %q", l.Suite, l.Name, l.Text))
		}
	case console.End:
		r.ended = true
	}
}

func (r *report) info(l console.Line) {
	there := l.Text == "there"
	switch {
	case l.Name == "tcx":
		r.tcx = there
	case strings.HasPrefix(l.Name, "security-hooks"):
		r.lsm = "missing"
		if there {
			r.lsm = "there"
		}
	}
}

// admissible tells whether a test may have been skipped for the reason.
func (r *report) admissible(reason string) bool {
	feature, ok := strings.CutPrefix(reason, missingFeature)
	return ok && slices.ContainsFunc(r.row.lacks, func(known string) bool { return strings.HasPrefix(feature, known+" ") })
}

// bad says why the kernel's run has failed; empty if it has not.
func (r *report) bad() []string {
	bad := slices.Clone(r.failed)
	if r.err != nil {
		bad = append(bad, r.err.Error())
	}
	if !r.ended {
		bad = append(bad, "the guest ended before its tests did")
	}
	if r.ended && len(r.verified) == 0 {
		bad = append(bad, "the programs were not loaded")
	}
	return bad
}

func (r *report) attach() string {
	if r.tcx {
		return "tcx"
	}
	return "clsact"
}

func summary(w io.Writer, all []*report) {
	t := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	fmt.Fprintln(t, "kernel\tattach\tlsm\tpassed\tskipped\tfailed\ttime\tby")
	for _, r := range all {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%d\t%.0f s\t%s\n", r.release, r.attach(), r.lsm, r.passed, r.skipped, len(r.bad()), r.took.Seconds(), r.accel)
	}
	fmt.Fprintln(t)
	fmt.Fprint(t, "verified instructions")
	programs := map[string]bool{}
	for _, r := range all {
		fmt.Fprint(t, "\t", r.release)
		for name := range r.verified {
			programs[name] = true
		}
	}
	fmt.Fprintln(t)
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		fmt.Fprint(t, name)
		for _, r := range all {
			fmt.Fprint(t, "\t", r.verified[name])
		}
		fmt.Fprintln(t)
	}
	_ = t.Flush() // to standard output
}
