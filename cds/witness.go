// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/ledger"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/translog"
)

// cosignedKey keeps the largest checkpoint that witnesses cosigned. The host may
// put an older one back: every checkpoint speaks for itself.
const cosignedKey = "cosigned"

// maxCosignRaces is how often other replicas may be faster.
const maxCosignRaces = 16

// cosigned returns the largest checkpoint that witnesses cosigned, by whichever
// replica it was taken, and its version in the store. One that cannot be opened
// counts as none.
func (c *core) cosigned(ctx context.Context) (signed []byte, size int64, version store.Version, err error) {
	v, err := c.sealed.Get(ctx, cosignedKey)
	if errors.Is(err, store.ErrSealed) {
		raw, err := c.s.cfg.Store.Get(ctx, cosignedKey)
		return nil, 0, raw.Version, err
	}
	if isGone(err) {
		return nil, 0, 0, nil
	}
	if err != nil {
		return nil, 0, 0, err
	}
	cp, err := translog.OpenCheckpoint(v.Data, c.checkpoints.origin, c.checkpoints.verifier)
	if err != nil {
		return nil, 0, v.Version, nil //nolint:nilerr // replaced by the next
	}
	return v.Data, cp.Size, v.Version, nil
}

// latestCosigned is the public document.
func (c *core) latestCosigned(ctx context.Context) ([]byte, error) {
	signed, _, _, err := c.cosigned(ctx)
	if err == nil && signed == nil {
		err = fs.ErrNotExist
	}
	return signed, err
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
	if err := c.ledger.Err(); err != nil {
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
	if err := c.keepCosigned(ctx, cp, req.GetCheckpoint(), witnesses); err != nil {
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

// keepCosigned keeps a checkpoint unless a larger one is kept, with the
// cosignatures that others made of the same one, and nothing else that may
// stand below it.
func (c *core) keepCosigned(ctx context.Context, cp *translog.Checkpoint, given []byte, witnesses []*translog.CosignerVerifier) error {
	origin, verifier := c.checkpoints.origin, c.checkpoints.verifier
	for range maxCosignRaces {
		last, size, version, err := c.cosigned(ctx)
		if err != nil {
			return err
		}
		if size > cp.Size {
			return nil
		}
		into := last
		if size < cp.Size {
			if into, err = c.ledger.Sign(*cp); err != nil {
				return err
			}
		}
		signed, err := translog.MergeCosignatures(into, given, origin, verifier, witnesses)
		if err != nil {
			return refuse(codeCheckpoint, "%v", err)
		}
		_, err = c.sealed.Commit(ctx, store.Txn{
			If: []store.Condition{{Key: cosignedKey, Version: version}}, Put: []store.Item{{Key: cosignedKey, Data: signed}},
		})
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("%w: others keep cosigned checkpoints all the time", ledger.ErrUnavailable)
}
