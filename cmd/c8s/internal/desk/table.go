// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Table prints names, and beside them in a column what is said of each.
type Table struct{ w *tabwriter.Writer }

// NewTable returns an empty table, which is printed by Flush.
func NewTable(out io.Writer) Table { return Table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)} }

// Line adds a line. An empty name says more of the one above.
func (t Table) Line(name, format string, args ...any) {
	_, _ = fmt.Fprintf(t.w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) // Flush has the error
}

// Flush prints the table.
func (t Table) Flush() error { return t.w.Flush() }
