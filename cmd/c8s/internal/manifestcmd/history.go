// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/cdsflag"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
	"github.com/c8s-dev/c8s/policy"
)

// maxHistory bounds the files of a folder that are looked at.
const maxHistory = 10_000

// step is one version in the JSON output of history.
type step struct {
	Version  uint64          `json:"version"`
	Digest   policy.Digest   `json:"digest"`
	Previous policy.Digest   `json:"previous"`
	File     string          `json:"file,omitempty"`
	Signers  []string        `json:"signers"`
	Changes  []policy.Change `json:"changes"`            // against the version before; none for the first
	LogIndex *uint64         `json:"logIndex,omitempty"` // from a CDS: where its log has it
	Since    *time.Time      `json:"since,omitempty"`    // from a CDS: when it was put in force
}

type historyCommand struct {
	trust  operatorkey.Trust
	cds    cdsflag.Flags
	output desk.Output
}

func newHistory() *cobra.Command {
	var h historyCommand
	c := &cobra.Command{
		Use:   "history (DIR | FILE... | --cds ADDR)",
		Short: "Check a chain of signed manifests from its first version on",
		Long: `Reads signed manifests, checks every signature and every link of the chain, and
says what each version changed. Of a folder, the files that are signed manifests
are read, and no others. The order of files does not matter.

The first manifest must be signed by the operators that --operators or --key
names; without them, by those that it names itself, which proves nothing but that
the chain belongs together. Every other one must be signed by the operators of
the one before. A chain that is broken or forked is shown up to there.

With --cds the manifests come from the CDS: the one in force and all before it. The
chain must contain --manifest; each version must be countersigned by the CDS and be
where the countersignature says in the log, which also tells when it came into
force.

` + cdsflag.Help + `

Exit codes: 0 whole, 1 not, 2 wrong usage.`,
		Example: `  c8s manifest history archive/ --operators operators.json
  c8s manifest history v1.signed.json v2.signed.json -o json
  c8s manifest history --cds 10.80.0.100 --operators operators.json --manifest manifest.signed.json`,
		RunE: func(c *cobra.Command, args []string) error { return h.run(c, args) },
	}
	c.Args = func(c *cobra.Command, args []string) error {
		if h.cds.Given() {
			return desk.NoArgs(c, args)
		}
		return desk.UsageArgs(cobra.MinimumNArgs(1))(c, args)
	}
	h.trust.Register(c)
	h.cds.RegisterBeside(c)
	h.output.Register(c)
	return c
}

func (h *historyCommand) run(c *cobra.Command, args []string) (err error) {
	var trusted *policy.Operators
	if h.trust.Given() {
		ring := operatorkey.NewRing(c)
		defer func() { err = errors.Join(err, ring.Close()) }()
		o, err := h.trust.Load(c, ring)
		if err != nil {
			return err
		}
		trusted = &o
	}
	steps, broken, err := h.read(c, args, trusted)
	if err != nil {
		return err
	}
	err = h.output.Write(c, steps, func(w io.Writer) error { return printSteps(w, steps) })
	if err == nil && broken == nil && trusted == nil {
		_, err = fmt.Fprintln(c.ErrOrStderr(), "warning: nothing says that the first manifest's operators are yours: give --operators")
	}
	return errors.Join(err, broken)
}

// read returns the good part of the chain, and why it ends there if it does.
func (h *historyCommand) read(c *cobra.Command, args []string, trusted *policy.Operators) (steps []step, broken, err error) {
	if h.cds.Given() {
		if trusted == nil {
			return nil, nil, exit.Usage(errors.New("--operators is required: who is trusted to sign"))
		}
		return h.fromCDS(c, *trusted)
	}
	files, err := historyFiles(args)
	if err != nil {
		return nil, nil, err
	}
	links, err := readLinks(files)
	if err != nil {
		return nil, nil, err
	}
	steps, broken = follow(links, trusted)
	return steps, broken, nil
}

// historyFiles returns the files to read. A folder must be alone, so that it
// is clear which files may be left out.
func historyFiles(args []string) ([]string, error) {
	info, err := os.Stat(args[0])
	if err != nil {
		return nil, fmt.Errorf("reading the history: %w", err)
	}
	if !info.IsDir() {
		return args, nil
	}
	if len(args) > 1 {
		return nil, exit.Usage(errors.New("name one folder, or files"))
	}
	entries, err := os.ReadDir(args[0])
	if err != nil {
		return nil, fmt.Errorf("reading the history: %w", err)
	}
	if len(entries) > maxHistory {
		return nil, fmt.Errorf("reading the history: %s has more than %d files", args[0], maxHistory)
	}
	var files []string
	for _, e := range entries {
		path := filepath.Join(args[0], e.Name())
		if !e.Type().IsRegular() {
			continue
		}
		raw, err := desk.ReadFile(path, policy.MaxEnvelope)
		if err != nil {
			return nil, fmt.Errorf("reading the history: %w", err)
		}
		if env, err := policy.ParseEnvelope(raw); err == nil && env.PayloadType == policy.PayloadType {
			files = append(files, path)
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("reading the history: %s has no signed manifest", args[0])
	}
	return files, nil
}

// link is one signed manifest whose signatures are yet to be checked.
type link struct {
	file string
	*document
}

// readLinks reads the files in the order of their versions. Copies of one
// manifest stay: they may have different signatures.
func readLinks(files []string) ([]link, error) {
	var links []link
	for _, file := range files {
		raw, err := desk.ReadFile(file, policy.MaxEnvelope)
		if err != nil {
			return nil, fmt.Errorf("reading the history: %w", err)
		}
		if !desk.IsEnvelope(raw) {
			return nil, fmt.Errorf("reading the history: %s is not signed", file)
		}
		d, err := desk.Manifests().Decode(file, raw)
		if err != nil {
			return nil, err
		}
		links = append(links, link{file, d})
	}
	slices.SortStableFunc(links, func(a, b link) int { return cmp.Compare(a.Content.Version, b.Content.Version) })
	return links, nil
}

// follow checks the chain as a node would that saw it grow. It returns what is
// good, and why it ends there if it does.
func follow(links []link, trusted *policy.Operators) ([]step, error) {
	steps := []step{}
	var prev *policy.Signed
	for i := 0; i < len(links); {
		copies := links[i:]
		copies = copies[:countCopies(copies)]
		operators := &links[i].Content.Operators
		switch {
		case prev != nil:
			operators = &prev.Manifest.Operators
		case trusted != nil:
			operators = trusted
		}
		next, file, err := openAny(copies, *operators)
		if err == nil && prev != nil {
			if err = policy.Succeeds(prev, next).Err(); err != nil {
				err = fmt.Errorf("%s: %w", file, err)
			}
		}
		if err != nil {
			return steps, err
		}
		s := step{Version: next.Manifest.Version, Digest: next.Digest, Previous: next.Manifest.Previous, File: file, Signers: next.Signers, Changes: []policy.Change{}}
		if prev != nil {
			s.Changes = policy.Diff(prev.Manifest, next.Manifest)
		}
		steps, prev = append(steps, s), next
		i += len(copies)
	}
	return steps, nil
}

// countCopies returns how many of the links from the first on are the same
// manifest.
func countCopies(links []link) int {
	n := 1
	for n < len(links) && links[n].Content.Digest() == links[0].Content.Digest() {
		n++
	}
	return n
}

// openAny returns the first copy with enough signatures.
func openAny(copies []link, operators policy.Operators) (*policy.Signed, string, error) {
	var errs []error
	for _, l := range copies {
		signed, err := policy.Open(l.Raw, operators)
		if err == nil {
			return signed, l.file, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", l.file, err))
	}
	return nil, "", errors.Join(errs...)
}

func printSteps(out io.Writer, steps []step) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "VERSION\tDIGEST\tSIGNERS\tWIDENS\tNARROWS\tCHANGES\tFROM")
	for _, s := range steps {
		count := map[policy.Effect]int{}
		for _, c := range s.Changes {
			if c.Path != "version" && c.Path != "previous" { // always
				count[c.Effect]++
			}
		}
		from := s.File
		if s.Since != nil {
			from = fmt.Sprintf("log entry %d, in force since %s", *s.LogIndex, s.Since.Format(time.RFC3339))
		}
		_, _ = fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%d\t%d\t%s\n", s.Version, s.Digest, strings.Join(s.Signers, ", "),
			count[policy.Widens], count[policy.Narrows], count[policy.Changes], from)
	}
	return w.Flush()
}
