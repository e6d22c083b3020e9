// SPDX-License-Identifier: Apache-2.0

package logcmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/cdsflag"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

type watchCommand struct {
	cds      cdsflag.Flags
	dir      string
	interval time.Duration
	grace    time.Duration
	once     bool
	witness  witnessFlags
	output   desk.Output
}

func newWatch() *cobra.Command {
	var w watchCommand
	c := &cobra.Command{
		Use:   "watch --cds ADDR --mirror DIR",
		Short: "Follow the log, keep a copy, and notice when it is changed",
		Long: `Copies the log into a folder, which can be served as it is, and prints every new
entry. A checkpoint is taken only if the log extends the last one in the folder. If
the log forked, or is shorter than the folder for longer than --grace (a replica may
be a moment behind), the command ends with exit code 1 and both signed checkpoints
are kept: DIR/checkpoint, and DIR/checkpoint.forked or DIR/checkpoint.older. Show
them to others: they are the proof.

With --cosign it is a witness (C2SP tlog-cosignature): it cosigns each checkpoint
once it is verified and on the disk, and with --submit hands the cosignature to the
CDS, which takes it if the manifest names the witness ('c8s log witness-key'). The
folder is the witness's memory: do not lose it, and never run two with one key.

` + cdsflag.Help + `

Exit codes: 0 ended by a signal, or after --once; 1 the log forked or shrank, or
failed with --once; 2 wrong usage.`,
		Example: `  c8s log watch --cds 10.80.0.100 --operators operators.json --manifest manifest.signed.json --mirror mirror/

  # from a timer, for programs
  c8s log watch --cds cds-1,cds-2 --operators operators.json --manifest manifest.signed.json --mirror mirror/ --once -o json

  # a witness
  c8s log watch --cds cds-1,cds-2 --operators operators.json --manifest manifest.signed.json --mirror mirror/ \
    --cosign witness.pem --name witness.example.org --submit`,
		Args: desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return w.run(c) },
	}
	w.cds.Register(c)
	f := c.Flags()
	f.StringVar(&w.dir, "mirror", "", "folder for the copy (required)")
	f.DurationVar(&w.interval, "interval", 10*time.Second, "how often to look")
	f.DurationVar(&w.grace, "grace", 15*time.Second, "for how long a shorter log may be a replica that is behind")
	f.BoolVar(&w.once, "once", false, "look once")
	_ = c.MarkFlagDirname("mirror")
	w.witness.register(c)
	w.output.Register(c)
	return c
}

func (w *watchCommand) run(c *cobra.Command) error {
	if err := w.witness.check(); err != nil {
		return err
	}
	if w.dir == "" || w.interval <= 0 {
		return exit.Usage(errors.New("--mirror is required, and --interval must be above 0"))
	}
	cosigner, err := w.witness.open(c)
	if err != nil {
		return err
	}
	cl, err := w.cds.Client(c, "")
	if err != nil {
		return err
	}
	f := &follower{
		cl: cl, mirror: mirror{dir: w.dir}, cosigner: cosigner, submit: w.witness.submit,
		print: w.printer(c.OutOrStdout()), out: c.ErrOrStderr(), now: time.Now,
	}
	return w.loop(c.Context(), f)
}

// loop looks again and again. What may be over the next time is told and
// waited for; what the log cannot take back ends it.
func (w *watchCommand) loop(ctx context.Context, f *follower) error {
	var behind time.Time
	for {
		err := f.round(ctx)
		switch older := errors.Is(err, translog.ErrOlder); {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && w.once:
			return nil
		case err == nil:
			behind = time.Time{}
		case errors.Is(err, translog.ErrForked), errors.Is(err, errOtherLog), w.once && !older:
			return err
		case older && behind.IsZero():
			behind = f.now()
		}
		if err != nil {
			if !behind.IsZero() && f.now().Sub(behind) >= w.grace {
				return fmt.Errorf("%w: both signed checkpoints are in %s: checkpoint and %s", err, w.dir, olderFile)
			}
			_, _ = fmt.Fprintf(f.out, "warning: %v; looking again in %s\n", err, w.interval)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(w.interval):
		}
	}
}

// printer prints entries as they come.
func (w *watchCommand) printer(out io.Writer) func(int64, []byte) error {
	if !w.output.JSON() {
		return func(index int64, raw []byte) error { return printEntry(out, index, raw) }
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return func(index int64, raw []byte) error {
		line := struct {
			Index      int64           `json:"index"`
			Entry      json.RawMessage `json:"entry,omitempty"`
			Unreadable []byte          `json:"unreadable,omitempty"`
		}{Index: index, Entry: raw}
		if _, err := translog.ParseEntry(raw); err != nil {
			line.Entry, line.Unreadable = nil, raw
		}
		return enc.Encode(line)
	}
}

// follower brings a mirror up to date.
type follower struct {
	cl       *client.Client
	mirror   mirror
	cosigner *translog.Cosigner // nil: not a witness
	submit   bool
	signed   int64 // size of the checkpoint cosigned last
	print    func(index int64, raw []byte) error
	out      io.Writer
	now      func() time.Time
}

// round connects anew, so that the CDS proves itself each time, also after the
// operators have changed what it must be.
func (f *follower) round(ctx context.Context) error {
	d, err := f.cl.Documents(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := f.mirror.belongsTo(d.Bundle(), f.out); err != nil {
		return err
	}
	log, err := newLog(ctx, d)
	if err != nil {
		return err
	}
	from, err := f.mirror.size(log)
	if err != nil {
		return err
	}
	latest, err := log.Mirror(ctx, f.mirror.dir)
	if err != nil {
		return errors.Join(err, f.mirror.keepContradiction(err, log.signed))
	}
	own := translog.NewAuditor(log.origin, log.verifier, translog.DirFetcher(f.mirror.dir))
	if err := own.Entries(ctx, *latest, from, latest.Size, f.print); err != nil {
		return err
	}
	if err := f.cosign(ctx, d, log, *latest); err != nil {
		return err
	}
	_, err = d.InForce(ctx) // the CDS is verified under it the next time
	return err
}
