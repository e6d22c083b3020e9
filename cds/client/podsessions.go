// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
)

// podSessions keeps one mutual-TLS connection for the pods of a node, so that
// starting many pods costs one handshake.
type podSessions struct {
	turn chan struct{} // holds one token; whoever has it may change the rest
	node *Credential
	open *session
}

func newPodSessions() podSessions { return podSessions{turn: make(chan struct{}, 1)} }

// get returns a session for the node, and whether it was in use before. One
// that was verified under another manifest or deny list than those in force is
// not used again: they may not accept this CDS any more.
func (p *podSessions) get(ctx context.Context, c *Client, node *Credential) (s *session, kept bool, err error) {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, false, fmt.Errorf("waiting for the connection to the CDS: %w", context.Cause(ctx))
	}
	defer func() { <-p.turn }()
	if p.open != nil && p.node == node && p.open.under == c.policy() {
		return p.open, true, nil
	}
	if s, err = c.connect(ctx, node); err != nil {
		return nil, false, err
	}
	if old := p.open; old != nil {
		old.retire()
	}
	p.open, p.node = s, node
	return s, false, nil
}

// leave forgets a session; the next enrolment opens another. What is under way
// on one that is whole finishes.
func (p *podSessions) leave(s *session, whole bool) {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	if p.open != s {
		return
	}
	p.open = nil
	if whole {
		s.retire()
	} else {
		s.close()
	}
}
