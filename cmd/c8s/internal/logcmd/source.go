// SPDX-License-Identifier: Apache-2.0

package logcmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/cdsflag"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

const (
	// bundleFile has the CDS's public keys, in a mirror.
	bundleFile = "bundle.json"
	// cosignedFile has the newest checkpoint with cosignatures, of a CDS and in
	// a mirror.
	cosignedFile = "checkpoint.cosigned"

	maxBundle   = 64 << 10
	httpTimeout = 30 * time.Second
)

// sourceFlags say which log is read, and whose it must be.
type sourceFlags struct {
	cds    cdsflag.Flags
	logKey string
}

func (f *sourceFlags) register(c *cobra.Command) {
	f.cds.Register(c)
	c.Flags().StringVar(&f.logKey, "log-key", "", "public key of the log, as 'c8s log watch' and 'c8s cds verify' print it")
	_ = c.RegisterFlagCompletionFunc("log-key", cobra.NoFileCompletions)
}

const sourceHelp = `The log is that of a CDS (--cds), which proves itself and so says what the log's key
is; or a mirror, a folder or an http(s) URL. The key of a mirror is --log-key; a
folder that 'c8s log watch' filled on this machine has it beside the log, which is
no proof if the folder came from others.`

// source is a log that can be read, with its key.
type source struct {
	*translog.Auditor
	dir       string // of a mirror; empty where it is none
	key       string // C2SP verifier key
	verifier  note.Verifier
	origin    string
	bundle    *trust.Bundle // nil: not known
	fetch     translog.Fetcher
	manifest  *policy.Manifest // says who the witnesses are; nil: not known
	documents *client.Documents
}

// open finds the log that the flags, or where is one, name.
func (f *sourceFlags) open(c *cobra.Command, where string) (*source, error) {
	if (where != "") == f.cds.Given() {
		return nil, exit.Usage(errors.New("name either a mirror, or a CDS with --cds"))
	}
	if f.cds.Given() {
		return f.live(c)
	}
	s := &source{key: f.logKey}
	if strings.HasPrefix(where, "https://") || strings.HasPrefix(where, "http://") {
		s.fetch = translog.HTTPFetcher(&http.Client{Timeout: httpTimeout}, where)
	} else {
		if _, err := os.Stat(where); err != nil {
			return nil, exit.Usage(fmt.Errorf("opening the mirror: %w", err))
		}
		var err error
		s.dir, s.fetch = where, translog.DirFetcher(where)
		if s.bundle, err = readBundle(where); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	switch {
	case s.key == "" && s.bundle == nil:
		return nil, exit.Usage(errors.New("--log-key is required: nothing else says whose log this is"))
	case s.key == "":
		s.key = s.bundle.Log
	case s.bundle != nil && s.bundle.Log != s.key:
		return nil, fmt.Errorf("%s is a mirror of the log with the key %s, not --log-key", where, s.bundle.Log)
	}
	if err := s.trusted(); err != nil {
		return nil, err
	}
	return s, f.witnesses(s)
}

// witnesses reads who they are, if the caller says.
func (f *sourceFlags) witnesses(s *source) error {
	if !f.cds.Named() {
		return nil
	}
	operators, err := f.cds.Operators()
	if err != nil {
		return err
	}
	signed, err := f.cds.Manifest(operators)
	if signed != nil {
		s.manifest = signed.Manifest
	}
	return err
}

func (f *sourceFlags) live(c *cobra.Command) (*source, error) {
	cl, err := f.cds.Client(c, "")
	if err != nil {
		return nil, err
	}
	d, err := cl.Documents(c.Context())
	if err != nil {
		return nil, err
	}
	now, err := d.InForce(c.Context())
	if err != nil {
		d.Close()
		return nil, err
	}
	s := &source{key: d.Bundle().Log, bundle: d.Bundle(), fetch: d.Log(), manifest: now.Manifest.Manifest, documents: d}
	if f.logKey != "" && f.logKey != s.key {
		d.Close()
		return nil, fmt.Errorf("the log of %s has the key %s, not --log-key", d.Addr(), s.key)
	}
	return s, s.trusted()
}

// trusted makes the auditor for the key.
func (s *source) trusted() error {
	verifier, err := translog.NewVerifier(s.key)
	if err != nil {
		return err
	}
	s.verifier, s.origin = verifier, verifier.Name()
	s.Auditor = translog.NewAuditor(s.origin, verifier, s.fetch)
	return nil
}

func (s *source) close() {
	if s.documents != nil {
		s.documents.Close()
	}
}

// witnessed is what is known of a log's witnesses.
type witnessed struct {
	Quorum     int                    `json:"quorum"`         // that the manifest asks for
	Size       int64                  `json:"size,omitempty"` // of the cosigned checkpoint
	By         []translog.Cosignature `json:"-"`
	Names      []string               `json:"by"`
	checkpoint *translog.Checkpoint
	signed     []byte
}

func (w *witnessed) enough() bool { return len(w.By) >= w.Quorum }

// cosigned reads the newest cosigned checkpoint, which must not contradict c.
func (s *source) cosigned(ctx context.Context, c translog.Checkpoint) (*witnessed, error) {
	w := &witnessed{Names: []string{}}
	if s.manifest != nil {
		w.Quorum = s.manifest.WitnessQuorum
	}
	signed, err := s.readCosigned(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil
	}
	if err != nil {
		return nil, err
	}
	if w.checkpoint, w.By, err = client.Cosigned(ctx, s.Auditor, s.verifier, signed, c, s.manifest); err != nil {
		return nil, fmt.Errorf("reading the cosigned checkpoint: %w", err)
	}
	w.signed, w.Size = signed, w.checkpoint.Size
	for _, by := range w.By {
		w.Names = append(w.Names, by.Name)
	}
	return w, nil
}

// readCosigned gets a file that is beside the log and not of it.
func (s *source) readCosigned(ctx context.Context) ([]byte, error) {
	if s.dir != "" {
		return desk.ReadFile(filepath.Join(s.dir, cosignedFile), translog.MaxNote)
	}
	return s.fetch(ctx, cosignedFile)
}

func readBundle(dir string) (*trust.Bundle, error) {
	raw, err := desk.ReadFile(filepath.Join(dir, bundleFile), maxBundle)
	if err != nil {
		return nil, err
	}
	b, err := trust.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, bundleFile), err)
	}
	return b, nil
}
