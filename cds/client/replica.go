// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"

	"github.com/c8s-dev/c8s/cds/api"
)

// Given is what a replica answered to Join, and what it is bound to.
type Given struct {
	*api.JoinResponse
	Nonce, Exporter []byte
}

// Join asks a replica for the seed. prove makes the evidence for the nonce and
// the session.
func (c *Client) Join(ctx context.Context, prove func(nonce, exporter []byte) (*api.JoinRequest, error)) (*Given, error) {
	var given *Given
	err := c.onAny(ctx, nil, func(s *session) error {
		nonce, exporter, err := c.challenge(ctx, s)
		if err != nil {
			return err
		}
		req, err := prove(nonce, exporter)
		if err != nil {
			return err
		}
		req.Nonce = nonce
		resp, err := s.replica().Join(ctx, req)
		if err != nil {
			return explain(err)
		}
		given = &Given{resp, nonce, exporter}
		return nil
	})
	return given, err
}

// Restore gives a recovery share, of a document that the operators signed, to a CDS that waits for them, and returns how
// many it has and needs. The CDS has no keys yet to say who it is: its
// evidence does.
func (c *Client) Restore(ctx context.Context, addr string, kit, share []byte) (have, need int, err error) {
	s, err := c.handshake(ctx, addr, nil)
	if err != nil {
		return 0, 0, err
	}
	defer s.close()
	resp, err := s.recovery().Restore(ctx, &api.RestoreRequest{Kit: kit, Share: share})
	if err != nil {
		return 0, 0, explain(err)
	}
	return int(resp.GetHave()), int(resp.GetNeed()), nil
}

// Cosign hands a witness's cosignatures to the CDS, and returns the witnesses
// it took them of.
func (c *Client) Cosign(ctx context.Context, checkpoint []byte) ([]string, error) {
	var accepted []string
	err := c.onAny(ctx, nil, func(s *session) error {
		resp, err := s.witness().Cosign(ctx, &api.CosignRequest{Checkpoint: checkpoint})
		if err != nil {
			return explain(err)
		}
		accepted = resp.GetAccepted()
		return nil
	})
	return accepted, err
}
