// SPDX-License-Identifier: Apache-2.0

package logcmd

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

// audited is the JSON output of verify.
type audited struct {
	Log       string                  `json:"log"` // its key
	Entries   int64                   `json:"entries"`
	Root      string                  `json:"root"`
	Types     map[translog.Type]int64 `json:"types"`
	Manifest  *ref                    `json:"manifest"` // in force
	DenyList  *ref                    `json:"denyList"`
	Witnessed *witnessed              `json:"witnessed"`
	Breaches  int64                   `json:"breaches"`
	Findings  []finding               `json:"findings"`
	Unknown   []string                `json:"unknown"` // what nobody said, and therefore was not compared
}

type verifyCommand struct {
	source sourceFlags
	output desk.Output
}

func newVerify() *cobra.Command {
	var v verifyCommand
	c := &cobra.Command{
		Use:   "verify (DIR | URL | --cds ADDR)",
		Short: "Check a whole log: its hashes, and that it obeys its rules",
		Long: `Reads every entry and every tile, proves each to be part of the signed tree, and
holds each entry against those before it:

  the first entry has the CDS's keys; times never go back
  versions of manifests and deny lists rise, each names the one before
  no manifest comes into force before its time lock ends
  issuing keys are of the one root; certificates are of an issuing key that was
  logged before and is valid, and do not outlive it, nor an hour
  every certificate was issued under the manifest that was in force just then

Entries have hashes: whether a manifest was signed is for 'c8s manifest history'.
With a CDS, or with --operators and --manifest, it counts the witnesses' cosignatures
on the newest cosigned checkpoint, which must be of this very log.

` + sourceHelp + `

Exit codes: 0 whole, 1 not, 2 wrong usage, 3 whole, but not witnessed as the manifest
asks.`,
		Example: `  c8s log verify mirror/
  c8s log verify mirror/ --operators operators.json --manifest manifest.signed.json -o json
  c8s log verify https://mirror.example.org/c8s --log-key 'example.org/c8s/log+…'
  c8s log verify --cds 10.80.0.100 --operators operators.json --manifest manifest.signed.json`,
		Args: desk.UsageArgs(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return v.run(c, strings.Join(args, "")) },
	}
	v.source.register(c)
	v.output.Register(c)
	return c
}

func (v *verifyCommand) run(c *cobra.Command, where string) error {
	s, err := v.source.open(c, where)
	if err != nil {
		return err
	}
	defer s.close()
	result, err := s.audit(c.Context(), c.ErrOrStderr())
	if err != nil {
		return err
	}
	if err := v.output.Write(c, result, result.print); err != nil {
		return err
	}
	return result.verdict()
}

// audit reads the whole log.
func (s *source) audit(ctx context.Context, out io.Writer) (*audited, error) {
	checkpoint, _, err := s.Latest(ctx)
	if err != nil {
		return nil, err
	}
	r := newRules(s.bundle)
	err = s.Entries(ctx, *checkpoint, 0, checkpoint.Size, func(index int64, raw []byte) error {
		r.entry(index, raw)
		progress(out, "entry", index+1, checkpoint.Size)
		return nil
	})
	if err != nil {
		return nil, err
	}
	r.end(checkpoint.Size)
	if err := s.Tiles(ctx, *checkpoint, func(done, all int) error {
		progress(out, "tile", int64(done), int64(all))
		return nil
	}); err != nil {
		return nil, err
	}
	w, err := s.cosigned(ctx, *checkpoint)
	if err != nil {
		return nil, err
	}
	a := &audited{
		Log: s.key, Entries: checkpoint.Size, Root: checkpoint.Root.String(), Types: r.counts,
		Witnessed: w, Breaches: r.breaches, Findings: r.found, Unknown: []string{},
	}
	if r.manifest.Version > 0 {
		a.Manifest = &r.manifest
	}
	if r.denyList.Version > 0 {
		a.DenyList = &r.denyList
	}
	if s.bundle == nil {
		a.Unknown = append(a.Unknown, "whether the first entry has the right keys: give a mirror with "+bundleFile+", or --cds")
	}
	if s.manifest == nil {
		a.Unknown = append(a.Unknown, "the witnesses: give --operators and --manifest")
	}
	return a, nil
}

// verdict is nil for a log that is whole and witnessed as asked for.
func (a *audited) verdict() error {
	switch {
	case a.Breaches > 0:
		f := a.Findings[0]
		return fmt.Errorf("the log breaks its rules %d times, first with entry %d: %s: expected %s, got %s; keep a copy (c8s log watch) and ask the operators", a.Breaches, f.Index, f.Rule, f.Expected, f.Actual)
	case !a.Witnessed.enough():
		return exit.Partly(fmt.Errorf("the log is whole, and cosigned by %d witnesses where the manifest asks for %d: it may be shown to you alone; run witnesses with 'c8s log watch --cosign'", len(a.Witnessed.By), a.Witnessed.Quorum))
	}
	return nil
}

func (a *audited) print(out io.Writer) error {
	table := desk.NewTable(out)
	table.Line("log", "%s", a.Log)
	table.Line("entries", "%d, all of them part of the tree", a.Entries)
	table.Line("root", "%s", a.Root)
	for _, t := range []translog.Type{
		translog.TypeManifest, translog.TypePending, translog.TypeDenylist, translog.TypeIntermediate, translog.TypeIssuance, translog.TypeJoin, translog.TypeRecovery,
	} {
		table.Line("  "+string(t), "%d", a.Types[t])
	}
	if m := a.Manifest; m != nil {
		table.Line("manifest", "%d, in force since %s (entry %d), %s", m.Version, stamp(m.Since), m.Index, m.Digest)
	}
	if l := a.DenyList; l != nil {
		table.Line("deny list", "%d, in force since %s (entry %d), %s", l.Version, stamp(l.Since), l.Index, l.Digest)
	}
	table.Line("witnessed", "%s", a.Witnessed)
	for _, f := range a.Findings {
		table.Line("BREACH", "entry %d: %s: expected %s, got %.200q", f.Index, f.Rule, f.Expected, f.Actual)
	}
	if a.Breaches == 0 {
		table.Line("rules", "all kept")
	}
	for _, u := range a.Unknown {
		table.Line("not known", "%s", u)
	}
	return table.Flush()
}

// String is for people.
func (w *witnessed) String() string {
	asked := fmt.Sprintf("the manifest asks for %d", w.Quorum)
	if w.Quorum == 0 {
		asked = "no manifest asks for it"
	}
	if len(w.By) == 0 {
		return "by nobody; " + asked
	}
	var by []string
	for _, c := range w.By {
		by = append(by, c.Name+" at "+stamp(c.Time))
	}
	return fmt.Sprintf("the first %d entries, by %s; %s", w.Size, strings.Join(by, ", "), asked)
}
