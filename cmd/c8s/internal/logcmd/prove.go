// SPDX-License-Identifier: Apache-2.0

package logcmd

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

type proveCommand struct {
	source sourceFlags
	mirror string
	check  string
	out    string
	force  bool
	output desk.Output
}

func newProve() *cobra.Command {
	var p proveCommand
	c := &cobra.Command{
		Use:   "prove CERT.pem (--mirror DIR | --cds ADDR | --check PROOF)",
		Short: "Prove that a certificate is in the log, or check such a proof",
		Long: `Finds the log's entry about a certificate, and with --out writes a proof that others
can check without the log: the entry, its index, the hashes up to the root, and a
checkpoint, a cosigned one where one has the entry. CERT.pem has the certificate
first, and may have its issuer after it.

With --check it checks such a proof, offline: --log-key says whose log it must be, or
the mirror's key; --operators and --manifest, who the witnesses are.

A proof says that whoever reads this log sees the certificate. It does not say that
the certificate was issued to the right machine: the evidence, by its hash at
/v1/evidence/ of the CDS, does.

` + sourceHelp + `

Exit codes: 0 proven; 1 not in the log, or a bad proof; 2 wrong usage; 3 proven, but
the checkpoint is not witnessed as the manifest asks.`,
		Example: `  c8s log prove cert.pem --mirror mirror/ --out proof.json
  c8s log prove cert.pem --cds 10.80.0.100 --operators operators.json --manifest manifest.signed.json --out proof.json
  c8s log prove cert.pem --check proof.json --log-key 'example.org/c8s/log+…' -o json`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return p.run(c, args[0]) },
	}
	p.source.register(c)
	f := c.Flags()
	f.StringVar(&p.mirror, "mirror", "", "mirror to look in, a folder or URL")
	f.StringVar(&p.check, "check", "", "proof to check instead of making one")
	f.StringVar(&p.out, "out", "", "file for the proof")
	f.BoolVar(&p.force, "force", false, "replace the proof's file if it exists")
	_ = c.MarkFlagDirname("mirror")
	_ = c.MarkFlagFilename("check", "json")
	p.output.Register(c)
	return c
}

func (p *proveCommand) run(c *cobra.Command, path string) error {
	raw, err := desk.ReadInput(c, path, maxCertificate)
	if err != nil {
		return fmt.Errorf("reading the certificate: %w", err)
	}
	chain, err := parseChain(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var out *proven
	if p.check != "" {
		out, err = p.verify(chain)
	} else {
		out, err = p.prove(c, chain)
	}
	if err != nil {
		return err
	}
	if err := p.output.Write(c, out, out.print); err != nil {
		return err
	}
	return out.verdict()
}

// verify checks a proof without the log.
func (p *proveCommand) verify(chain []*x509.Certificate) (*proven, error) {
	if p.source.cds.Given() || p.out != "" {
		return nil, exit.Usage(errors.New("--check works offline, and writes nothing: it goes with --log-key or --mirror"))
	}
	text, err := desk.ReadFile(p.check, maxProof)
	if err != nil {
		return nil, fmt.Errorf("reading the proof: %w", err)
	}
	given, err := parseProof(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.check, err)
	}
	s := &source{key: p.source.logKey}
	if s.key == "" && p.mirror != "" {
		if s.bundle, err = readBundle(p.mirror); err != nil {
			return nil, err
		}
		s.key = s.bundle.Log
	}
	if s.key == "" {
		return nil, exit.Usage(errors.New("--log-key or --mirror is required: anybody can make a log of his own, and the proof is of one with the key " + fmt.Sprintf("%.200q", given.Log)))
	}
	if given.Log != s.key {
		return nil, fmt.Errorf("%s is of the log with the key %.200q, expected %s", p.check, given.Log, s.key)
	}
	if err := errors.Join(s.trusted(), p.source.witnesses(s)); err != nil {
		return nil, err
	}
	return given.check(s.verifier, chain, s.manifest)
}

// prove makes a proof, and checks it as others will.
func (p *proveCommand) prove(c *cobra.Command, chain []*x509.Certificate) (*proven, error) {
	if p.out != "" {
		if err := desk.CheckFree(p.force, p.out); err != nil {
			return nil, err
		}
	}
	s, err := p.source.open(c, p.mirror)
	if err != nil {
		return nil, err
	}
	defer s.close()
	made, err := s.proofOf(c.Context(), chain[0], c.ErrOrStderr())
	if err != nil {
		return nil, err
	}
	out, err := made.check(s.verifier, chain, s.manifest)
	if err != nil {
		return nil, err
	}
	if p.out == "" {
		return out, nil
	}
	var text strings.Builder
	if err := desk.WriteJSON(&text, made); err != nil {
		return nil, err
	}
	return out, desk.WriteFile(p.out, []byte(text.String()), desk.ModePublic, p.force)
}

func (s *source) proofOf(ctx context.Context, cert *x509.Certificate, out io.Writer) (*proof, error) {
	latest, signed, err := s.Latest(ctx)
	if err != nil {
		return nil, err
	}
	index, entry, err := s.find(ctx, *latest, cert, out)
	if err != nil {
		return nil, err
	}
	at := *latest
	w, err := s.cosigned(ctx, *latest)
	if err != nil {
		return nil, err
	}
	if w.checkpoint != nil && index < w.checkpoint.Size && w.checkpoint.Size <= latest.Size {
		at, signed = *w.checkpoint, w.signed
	}
	hashes, err := s.Prove(ctx, at, index)
	if err != nil {
		return nil, err
	}
	return newProof(s.key, index, entry, hashes, signed), nil
}

// find looks where the certificate's dates say, since times in the log never
// go back, and then everywhere: the log's word is not taken for it.
func (s *source) find(ctx context.Context, c translog.Checkpoint, cert *x509.Certificate, out io.Writer) (int64, []byte, error) {
	digest := policy.DigestOf(cert.Raw)
	match := func(index int64, raw []byte) bool {
		progress(out, "entry", index+1, c.Size)
		e, err := translog.ParseEntry(raw)
		return err == nil && e.Certificate == digest
	}
	first, err := s.since(ctx, c, cert.NotBefore)
	if err != nil {
		return -1, nil, err
	}
	index, raw, err := s.Find(ctx, c, first, match)
	if errors.Is(err, translog.ErrNotFound) && first > 0 {
		index, raw, err = s.Find(ctx, c, 0, match)
	}
	if errors.Is(err, translog.ErrNotFound) {
		return -1, nil, fmt.Errorf("the certificate %s is not among the log's %d entries: a mirror may be behind; if the CDS itself says so, the certificate was never to be used: %w", digest, c.Size, err)
	}
	return index, raw, err
}

// since is the first entry that is not older, by bisection.
func (s *source) since(ctx context.Context, c translog.Checkpoint, t time.Time) (int64, error) {
	low, high := int64(0), c.Size
	for low < high {
		middle := low + (high-low)/2
		older := false
		err := s.Entries(ctx, c, middle, middle+1, func(_ int64, raw []byte) error {
			e, err := translog.ParseEntry(raw)
			older = err == nil && e.Time.Before(t)
			return nil
		})
		if err != nil {
			return 0, err
		}
		if older {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low, nil
}

// print writes what is proven, for people.
func (o *proven) print(w io.Writer) error {
	what := string(o.Type)
	if o.Role != "" {
		what += ", " + string(o.Role)
	}
	by := &witnessed{Quorum: o.Quorum, Size: o.Size, By: o.by}
	_, err := fmt.Fprintf(w, "proven: %s is entry %d of the log\n  what       %s\n  logged     %s\n  evidence   %s\n  manifest   %s\n  witnessed  %s\n",
		o.Certificate, o.Index, what, stamp(o.Time), o.Evidence, o.Manifest, by)
	return err
}

// verdict is nil for a proof that is witnessed as asked for.
func (o *proven) verdict() error {
	if len(o.by) >= o.Quorum {
		return nil
	}
	return exit.Partly(fmt.Errorf("the checkpoint of the proof is cosigned by %d witnesses where the manifest asks for %d", len(o.by), o.Quorum))
}
