// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"time"
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
// that was verified under another manifest than the one in force is not used
// again: that manifest may not accept this CDS any more.
func (p *podSessions) get(ctx context.Context, c *Client, node *Credential) (s *session, kept bool, err error) {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, false, fmt.Errorf("waiting for the connection to the CDS: %w", context.Cause(ctx))
	}
	defer func() { <-p.turn }()
	if p.open != nil && p.node == node && p.open.under == c.Manifest().Digest {
		return p.open, true, nil
	}
	if s, err = c.connect(ctx, node); err != nil {
		return nil, false, err
	}
	if old := p.open; old != nil {
		time.AfterFunc(enrolTimeout, old.close) // enrolments under way finish on it
	}
	p.open, p.node = s, node
	return s, false, nil
}

// drop forgets a session that broke; the next enrolment opens another. A
// refusal breaks nothing: the other pods go on using the connection.
func (p *podSessions) drop(s *session) {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	if p.open == s {
		p.open = nil
		s.close()
	}
}
