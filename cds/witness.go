// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"io/fs"
	"sync"

	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/ledger"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/translog"
)

// cosignedKey keeps the largest checkpoint that witnesses cosigned. It may be
// replaced by an older one: every checkpoint speaks for itself.
const cosignedKey = "cosigned"

// cosigned keeps the largest checkpoint that witnesses cosigned.
type cosigned struct {
	mu   sync.Mutex
	last []byte
	size int64
}

// latest returns that checkpoint.
func (k *cosigned) latest(ctx context.Context, c *core) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.load(ctx, c); err != nil {
		return nil, err
	}
	if k.last == nil {
		return nil, fs.ErrNotExist
	}
	return k.last, nil
}

// load reads what another replica may have kept.
func (k *cosigned) load(ctx context.Context, c *core) error {
	v, err := c.sealed.Get(ctx, cosignedKey)
	if isGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	cp, err := translog.OpenCheckpoint(v.Data, c.checkpoints.origin, c.checkpoints.verifier)
	if err == nil && cp.Size > k.size {
		k.last, k.size = v.Data, cp.Size
	}
	return err
}

// witnessAPI is the Witness service.
type witnessAPI Server

var _ api.WitnessHandler = (*witnessAPI)(nil)

// Cosign takes cosignatures, of witnesses that the manifest names, of a
// checkpoint of this log.
func (w *witnessAPI) Cosign(ctx context.Context, req *api.CosignRequest) (*api.CosignResponse, error) {
	c, err := (*Server)(w).ready()
	if err != nil {
		return nil, err
	}
	cp, err := translog.OpenCheckpoint(req.GetCheckpoint(), c.checkpoints.origin, c.checkpoints.verifier)
	if err != nil {
		return nil, refuse(codeCheckpoint, "%v", err)
	}
	witnesses, err := c.witnesses()
	if err != nil {
		return nil, err
	}
	signatures := translog.Cosignatures(req.GetCheckpoint(), witnesses)
	if len(signatures) == 0 {
		return nil, refuse(codeCheckpoint, "it has no cosignature of a witness that the manifest names (%d do)", len(witnesses))
	}
	if err := c.observe(ctx, req.GetCheckpoint()); err != nil {
		return nil, err
	}
	if err := c.cosigned.take(ctx, c, cp.Size, req.GetCheckpoint(), witnesses); err != nil {
		return nil, err
	}
	out := &api.CosignResponse{}
	for _, s := range signatures {
		out.Accepted = append(out.Accepted, s.Name)
	}
	return out, nil
}

// witnesses are those the manifest in force names.
func (c *core) witnesses() ([]*translog.CosignerVerifier, error) {
	var all []*translog.CosignerVerifier
	for _, w := range c.policies.current().manifest.Manifest.Witnesses {
		v, err := translog.NewCosignerVerifier(w.Key)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// take keeps the checkpoint, with the cosignatures that others made of the
// same one.
func (k *cosigned) take(ctx context.Context, c *core, size int64, signed []byte, witnesses []*translog.CosignerVerifier) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.load(ctx, c); err != nil {
		return err
	}
	if size < k.size {
		return nil
	}
	if size == k.size {
		merged, err := translog.MergeCosignatures(k.last, signed, c.checkpoints.origin, c.checkpoints.verifier, witnesses)
		if err != nil {
			return refuse(codeCheckpoint, "%v", err)
		}
		signed = merged
	}
	if _, err := c.sealed.Commit(ctx, store.Txn{Put: []store.Item{{Key: cosignedKey, Data: signed}}}); err != nil {
		return ledger.ErrUnavailable
	}
	k.last, k.size = signed, size
	return nil
}
