// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/c8s-dev/c8s/cds/translog"
)

// Contains checks that a checkpoint which the log's own key signed is a part
// of the log. If it is not, the store is older than the checkpoint, or another
// one: that stops this replica like any rollback.
func (l *Ledger) Contains(ctx context.Context, cp translog.Checkpoint) error {
	if err := l.Broken(); err != nil {
		return err
	}
	view := l.View()
	if cp.Size > view.Head.Size {
		// Another replica may have been faster than our watch.
		if err := l.Refresh(ctx); err != nil {
			return err
		}
		if view = l.View(); cp.Size > view.Head.Size {
			return l.breakdown(fmt.Errorf("%w: a caller has a checkpoint of %d entries, the store has %d", ErrRolledBack, cp.Size, view.Head.Size))
		}
	}
	if cp.Size == 0 {
		return nil
	}
	if cp.Size < view.Head.Size {
		proof, err := view.Tree.ProveTree(ctx, l.Storage(), cp.Size)
		if err != nil {
			return unavailable(err)
		}
		if tlog.CheckTree(tlog.TreeProof(proof), view.Head.Size, view.Head.Root, cp.Size, cp.Root) == nil {
			return nil
		}
	} else if cp.Root == view.Head.Root {
		return nil
	}
	return l.breakdown(fmt.Errorf("%w: a caller has another log of %d entries than the store", ErrRolledBack, cp.Size))
}

// Sign makes the log's own signed note of a checkpoint that Contains has found
// to be part of it.
func (l *Ledger) Sign(cp translog.Checkpoint) ([]byte, error) {
	cp.Origin = l.cfg.Origin
	return translog.Sign(cp, l.cfg.Signer)
}

// Refresh has Run read the head now, and waits for it.
func (l *Ledger) Refresh(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case l.refreshes <- done:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.ended:
		return errEnded
	}
	select {
	case err := <-done: // Run answers whom it listened to
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
