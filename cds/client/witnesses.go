// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"

	"golang.org/x/mod/sumdb/note"

	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
)

// Cosigned verifies a cosigned checkpoint, which must be of the very log that
// latest is of, and returns the witnesses' cosignatures: those that m names.
func Cosigned(ctx context.Context, a *translog.Auditor, key note.Verifier, signed []byte, latest translog.Checkpoint, m *policy.Manifest) (*translog.Checkpoint, []translog.Cosignature, error) {
	witnesses, err := Witnesses(m)
	if err != nil {
		return nil, nil, err
	}
	c, err := translog.OpenCheckpoint(signed, key.Name(), key)
	if err != nil {
		return nil, nil, err
	}
	older, newer := *c, latest
	if older.Size > newer.Size { // another replica may be ahead
		older, newer = newer, older
	}
	if err := a.Consistent(ctx, older, newer); err != nil {
		return nil, nil, err
	}
	return c, translog.Cosignatures(signed, witnesses), nil
}

// Witnesses are those that m names; none where m is nil.
func Witnesses(m *policy.Manifest) ([]*translog.CosignerVerifier, error) {
	if m == nil {
		return nil, nil
	}
	var all []*translog.CosignerVerifier
	for _, w := range m.Witnesses {
		v, err := translog.NewCosignerVerifier(w.Key)
		if err != nil {
			return nil, fmt.Errorf("witness %s of the manifest: %w", w.Name, err)
		}
		all = append(all, v)
	}
	return all, nil
}
