// SPDX-License-Identifier: Apache-2.0

// Package publish puts an operator-signed document in force at a CDS, and never
// one that its operator has not seen the consequences of: what changes, what
// stops, and whether the CDS itself would still be accepted.
package publish

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/cdsflag"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/policy"
)

const (
	// settleTime is how long other replicas may take to follow.
	settleTime = 20 * time.Second
	// settlePause is how often they are asked.
	settlePause = 200 * time.Millisecond
)

// Flags are those of a command that publishes.
type Flags struct {
	cds    cdsflag.Flags
	yes    bool
	dryRun bool
	output desk.Output
}

// Register adds the flags to c.
func (f *Flags) Register(c *cobra.Command) {
	f.cds.Register(c)
	c.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would happen, and stop")
	f.output.Register(c)
}

// Document is a signed document and its way to the CDS.
type Document interface {
	// Judge compares the document with what is in force.
	Judge(now *client.InForce) (*Plan, error)
	// Send offers it to the CDS.
	Send(ctx context.Context, c *client.Client) (*client.Published, error)
	// Proof is the CDS's word that the document is in force; nil if it is not.
	Proof(now *client.InForce) *trust.Countersignature
}

// Plan is what publishing would do. Its fields are part of the JSON output.
type Plan struct {
	Document string          `json:"document"` // manifest or denylist
	Version  uint64          `json:"version"`
	Digest   policy.Digest   `json:"digest"`
	Replaces uint64          `json:"replaces"` // version in force; 0 for none
	Signers  []string        `json:"signers"`
	Changes  []policy.Change `json:"changes"`
	Affected []policy.Impact `json:"affected"`
	Warnings []string        `json:"warnings"`
	// nextCDS judges the CDS under the document; nil where that changes nothing.
	nextCDS *policy.Manifest
}

// outcome is the JSON output.
type outcome struct {
	*Plan
	Published bool       `json:"published"`
	InForce   bool       `json:"inForce"`
	NotBefore *time.Time `json:"notBefore,omitempty"` // when it will be
	Since     *time.Time `json:"since,omitempty"`     // in force
	LogIndex  *int64     `json:"logIndex,omitempty"`
}

// Run publishes a document: it reads what is in force, shows what would
// change, asks, offers the document and waits until it is in force.
func (f *Flags) Run(c *cobra.Command, doc Document) error {
	cl, err := f.cds.Client(c, "")
	if err != nil {
		return err
	}
	plan, out, err := f.prepare(c, cl, doc)
	if err != nil {
		return err
	}
	if out.InForce { // published before
		return f.output.Write(c, out, out.print)
	}
	if err := plan.print(c.ErrOrStderr()); err != nil {
		return err
	}
	if f.dryRun {
		return f.output.Write(c, out, out.print)
	}
	if !f.yes {
		if err := desk.Confirm(c, fmt.Sprintf("Publish %s %d?", plan.Document, plan.Version)); err != nil {
			return err
		}
	}
	if err := send(c.Context(), cl, doc, out); err != nil {
		return err
	}
	return f.output.Write(c, out, out.print)
}

func (f *Flags) prepare(c *cobra.Command, cl *client.Client, doc Document) (*Plan, *outcome, error) {
	d, err := cl.Documents(c.Context())
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	now, err := d.InForce(c.Context())
	if err != nil {
		return nil, nil, err
	}
	plan, err := doc.Judge(now)
	if err != nil {
		return nil, nil, err
	}
	out := &outcome{Plan: plan}
	if proof := doc.Proof(now); proof != nil {
		out.inForce(proof)
		return plan, out, nil
	}
	return plan, out, f.judgeCDS(c.Context(), d, plan)
}

// judgeCDS warns before operators lock themselves out: nobody talks to a CDS
// that the manifest in force refuses.
func (f *Flags) judgeCDS(ctx context.Context, d *client.Documents, plan *Plan) error {
	if plan.nextCDS == nil {
		return nil
	}
	raw, err := d.Get(ctx, "/v1/endorsement")
	if err != nil {
		return err
	}
	endorsement, err := trust.ParseEndorsement(raw)
	if err != nil {
		return err
	}
	operators, err := f.cds.Operators()
	if err != nil {
		return err
	}
	if _, err := endorsement.Verify(plan.nextCDS, operators, time.Now()); err != nil {
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("this manifest refuses the CDS at %s itself, so that nobody can enrol there any more: %v", d.Addr(), err))
	}
	return nil
}

// send offers the document. An answer that was lost is no reason to despair:
// what is in force decides.
func send(ctx context.Context, cl *client.Client, doc Document, out *outcome) error {
	done, err := doc.Send(ctx, cl)
	if err == nil && !done.InForce {
		out.Published, out.NotBefore = true, &done.NotBefore
		return locate(ctx, cl, out)
	}
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for {
		proof, readErr := read(ctx, cl, doc)
		switch {
		case proof != nil:
			out.Published = true
			out.inForce(proof)
			return nil
		case err != nil:
			return fmt.Errorf("publishing %s %d: %w", out.Document, out.Version, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("publishing %s %d: the CDS accepted it, and it is not seen in force after %s: %w", out.Document, out.Version, settleTime, errors.Join(readErr, ctx.Err()))
		case <-time.After(settlePause):
		}
	}
}

func read(ctx context.Context, cl *client.Client, doc Document) (*trust.Countersignature, error) {
	d, err := cl.Documents(ctx)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	now, err := d.InForce(ctx)
	if err != nil {
		return nil, err
	}
	return doc.Proof(now), nil
}

func (o *outcome) inForce(proof *trust.Countersignature) {
	since, index := time.Unix(proof.Time, 0).UTC(), int64(proof.LogIndex) //nolint:gosec // verified; far below
	o.InForce, o.Since, o.LogIndex = true, &since, &index
}
