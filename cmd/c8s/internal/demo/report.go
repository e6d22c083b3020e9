// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// proof is one claim with what was seen.
type proof struct {
	act, claim, seen string
	holds            bool
}

type report struct{ proofs []proof }

// add records a claim: it holds when err is nil.
func (r *report) add(act, claim, seen string, err error) {
	if err != nil {
		seen = err.Error()
	}
	r.proofs = append(r.proofs, proof{act, claim, seen, err == nil})
}

func (r *report) failed() (n int) {
	for _, p := range r.proofs {
		if !p.holds {
			n++
		}
	}
	return n
}

func (r *report) print(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	act := ""
	for _, p := range r.proofs {
		if p.act != act {
			act = p.act
			fmt.Fprintf(tw, "\n%s\n", act)
		}
		mark := "ok"
		if !p.holds {
			mark = "FAILED"
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s\n", mark, p.claim, p.seen)
	}
	tw.Flush()
}
