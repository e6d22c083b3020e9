// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
)

// print says what would change, what would stop, and what to think about.
func (p *Plan) print(w io.Writer) error {
	replaces := "the first"
	if p.Replaces > 0 {
		replaces = fmt.Sprintf("replaces version %d", p.Replaces)
	}
	if _, err := fmt.Fprintf(w, "%s %d, %s\n%s\nsigned by %s\n\nchanges:\n", p.Document, p.Version, replaces, p.Digest, strings.Join(p.Signers, ", ")); err != nil {
		return err
	}
	if err := desk.PrintChanges(w, p.Changes); err != nil {
		return err
	}
	if err := p.printAffected(w); err != nil {
		return err
	}
	for _, warning := range p.Warnings {
		if _, err := fmt.Fprintf(w, "\nWARNING: %s\n", warning); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plan) printAffected(w io.Writer) error {
	if len(p.Affected) == 0 {
		_, err := fmt.Fprintln(w, "\nnothing that works now stops")
		return err
	}
	if _, err := fmt.Fprintln(w, "\nwhat works now and will not:"); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, i := range p.Affected {
		text := i.Before
		if i.After != "" {
			text += " -> " + i.After
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", i.Outcome, i.Path, text, i.Why) // Flush has the error
	}
	return t.Flush()
}

// print says what became of the document.
func (o *outcome) print(w io.Writer) error {
	var err error
	switch {
	case o.InForce:
		already := ""
		if !o.Published {
			already = " already"
		}
		_, err = fmt.Fprintf(w, "%s %d is%s in force since %s\ndigest:    %s\nlog index: %d\n", o.Document, o.Version, already, o.Since.Format(time.RFC3339), o.Digest, *o.LogIndex)
	case o.Published:
		_, err = fmt.Fprintf(w, "%s %d is accepted and locked until %s\ndigest:    %s\nlog index: %d\n", o.Document, o.Version, o.NotBefore.Format(time.RFC3339), o.Digest, *o.LogIndex)
	default:
		_, err = fmt.Fprintf(w, "%s %d was not published\n", o.Document, o.Version)
	}
	return err
}

// locate finds the log's entry about a manifest that waits for its time: there
// is no countersignature yet that would name it.
func locate(ctx context.Context, cl *client.Client, o *outcome) error {
	d, err := cl.Documents(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	auditor, err := d.Auditor()
	if err != nil {
		return err
	}
	checkpoint, _, err := auditor.Latest(ctx)
	if err != nil {
		return err
	}
	index, _, err := auditor.FindLast(ctx, *checkpoint, func(_ int64, raw []byte) bool {
		e, err := translog.ParseEntry(raw)
		return err == nil && e.Type == translog.TypePending && e.Digest == o.Digest
	})
	if err != nil {
		return fmt.Errorf("%s %d is accepted and locked until %s, but the log does not say so: %w", o.Document, o.Version, o.NotBefore.Format(time.RFC3339), err)
	}
	o.LogIndex = &index
	return nil
}
