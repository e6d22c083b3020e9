// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/c8s-dev/c8s/policy"
)

// PrintChanges writes one line for each difference of two documents.
func PrintChanges(out io.Writer, changes []policy.Change) error {
	if len(changes) == 0 {
		_, err := fmt.Fprintln(out, "no difference")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, c := range changes {
		text := c.Before + " -> " + c.After
		switch {
		case c.Before == "" && c.After == "":
		case c.Before == "":
			text = "+ " + c.After
		case c.After == "":
			text = "- " + c.Before
		}
		if _, err := fmt.Fprintf(w, "%s\t%s\t%s\n", c.Effect, c.Path, text); err != nil {
			return err
		}
	}
	return w.Flush()
}
