// SPDX-License-Identifier: Apache-2.0

package logcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/note"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
)

// olderFile keeps a checkpoint of a shorter log than the mirror's.
const olderFile = "checkpoint.older"

// errOtherLog says that the CDS has another log than the mirror's.
var errOtherLog = errors.New("the CDS has other keys than the one this mirror is of")

// liveLog is the log of a CDS at the one checkpoint that was asked for: what is
// compared, copied, cosigned and kept as a proof is the same.
type liveLog struct {
	*translog.Auditor
	origin   string
	verifier note.Verifier
	signed   []byte
}

func newLog(ctx context.Context, d *client.Documents) (*liveLog, error) {
	verifier, err := d.Bundle().LogVerifier()
	if err != nil {
		return nil, err
	}
	const checkpoint = "checkpoint"
	fetch := d.Log()
	signed, err := fetch(ctx, checkpoint)
	if err != nil {
		return nil, err
	}
	l := &liveLog{origin: trust.LogOrigin(d.Bundle().TrustDomain), verifier: verifier, signed: signed}
	l.Auditor = translog.NewAuditor(l.origin, verifier, func(ctx context.Context, path string) ([]byte, error) {
		if path == checkpoint {
			return signed, nil
		}
		return fetch(ctx, path)
	})
	return l, nil
}

// mirror is a folder with a copy of the log, and what is kept beside it.
type mirror struct{ dir string }

func (m mirror) path(name string) string { return filepath.Join(m.dir, name) }

// belongsTo remembers whose log this is, at the first time.
func (m mirror) belongsTo(b *trust.Bundle, out io.Writer) error {
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return fmt.Errorf("making the mirror: %w", err)
	}
	known, err := readBundle(m.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		raw, err := b.Encode()
		if err != nil {
			return err
		}
		if err := desk.WriteFile(m.path(bundleFile), raw, desk.ModePublic, false); err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "new mirror of the log with the key %s\n", b.Log)
		return err
	case err != nil:
		return err
	case known.Digest() != b.Digest():
		return fmt.Errorf("%w: its log's key is %s, the mirror's %s: if the operators made their CDS anew, mirror its log into another folder; if not, somebody put up another CDS: keep this folder", errOtherLog, b.Log, known.Log)
	}
	return nil
}

// size is how many entries the mirror has.
func (m mirror) size(l *liveLog) (int64, error) {
	signed, err := desk.ReadFile(m.path("checkpoint"), translog.MaxNote)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading the mirror: %w", err)
	}
	c, err := translog.OpenCheckpoint(signed, l.origin, l.verifier)
	if err != nil {
		return 0, fmt.Errorf("reading the mirror: %s: %w", m.path("checkpoint"), err)
	}
	return c.Size, nil
}

// keepContradiction keeps a checkpoint of a shorter log. That of a fork was kept
// by the one who found it.
func (m mirror) keepContradiction(found error, signed []byte) error {
	switch {
	case errors.Is(found, translog.ErrForked):
		return fmt.Errorf("both signed checkpoints are in %s: checkpoint and %s", m.dir, translog.ForkedCheckpoint)
	case errors.Is(found, translog.ErrOlder):
		return desk.WriteFile(m.path(olderFile), signed, desk.ModePublic, true)
	}
	return nil
}
