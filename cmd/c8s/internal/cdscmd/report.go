// SPDX-License-Identifier: Apache-2.0

package cdscmd

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

// State is what became of one layer. The zero value is none of them.
type State string

// The states.
const (
	Proven  State = "proven"
	Missing State = "missing" // nothing speaks against it, and it is not proven
	Refuted State = "refuted"
)

// Layer is one thing that a CDS has to prove.
type Layer struct {
	Name   string `json:"layer"`
	State  State  `json:"state"`
	Found  string `json:"found"`
	Remedy string `json:"remedy,omitempty"`
}

// Report is what a CDS proved, layer by layer: each rests on those before.
type Report struct {
	Addr    string  `json:"addr"`
	Verdict State   `json:"verdict"` // missing: partly proven
	Layers  []Layer `json:"layers"`
	// Evidence has every check of the evidence on the connection.
	Evidence *attest.Verdict `json:"evidence,omitempty"`
}

func (r *Report) add(name string, state State, found, remedy string) {
	r.Layers = append(r.Layers, Layer{name, state, found, remedy})
}

func (r *Report) proven(name, format string, args ...any) {
	r.add(name, Proven, fmt.Sprintf(format, args...), "")
}

// conclude needs all layers: one that nobody looked at is none.
func (r *Report) conclude() {
	r.Verdict = Proven
	for _, l := range r.Layers {
		switch {
		case l.State == Refuted || l.State != Proven && l.State != Missing:
			r.Verdict = Refuted
			return
		case l.State == Missing:
			r.Verdict = Missing
		}
	}
	if len(r.Layers) == 0 {
		r.Verdict = Refuted
	}
}

// refuted reports whether anything was.
func (r *Report) refuted() bool {
	for _, l := range r.Layers {
		if l.State == Refuted {
			return true
		}
	}
	return false
}

// named returns the names of the layers in a state.
func (r *Report) named(state State) string {
	var names []string
	for _, l := range r.Layers {
		if l.State == state {
			names = append(names, l.Name)
		}
	}
	return strings.Join(names, ", ")
}

// err has the exit code of the verdict.
func (r *Report) err() error {
	switch r.Verdict {
	case Proven:
		return nil
	case Missing:
		return exit.Partly(fmt.Errorf("partly proven: nothing speaks against %s, and it does not prove: %s", r.Addr, r.named(Missing)))
	}
	return errors.New("refuted: " + r.named(Refuted) + ": do not use the CDS at " + r.Addr)
}

// print shows the layers, and of the evidence what failed or, with all, every
// check.
func (r *Report) print(out io.Writer, all bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, l := range r.Layers {
		state := string(l.State)
		if l.State != Proven {
			state = strings.ToUpper(state)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", state, l.Name, clean(l.Found)) // Flush has the error
		if l.Remedy != "" {
			_, _ = fmt.Fprintf(w, "\t\t%s\n", clean(l.Remedy))
		}
	}
	if err := w.Flush(); err != nil || r.Evidence == nil {
		return err
	}
	if all {
		_, err := fmt.Fprintf(out, "\n%s", r.Evidence)
		return err
	}
	for _, c := range r.Evidence.Checks {
		if c.Status != attest.Fail {
			continue
		}
		if _, err := fmt.Fprintf(out, "\ncheck %s (c8s attest explain %s)\n  expected %s\n  found    %s\n", c.ID, c.ID, clean(c.Expected), clean(c.Actual)); err != nil {
			return err
		}
	}
	return nil
}

// clean takes out what is not seen as written: parts of the texts come from a
// CDS that is not trusted.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
