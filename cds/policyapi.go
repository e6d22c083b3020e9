// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/c8s-dev/c8s/cds/api"
)

// maxSending bounds the bytes of documents on their way to watchers.
const maxSending = 256 << 20

// policyAPI is the Policy service. What the operators signed is no secret, and
// their signatures speak for it: anybody may read it, and offer a new one.
type policyAPI Server

var _ api.PolicyHandler = (*policyAPI)(nil)

func (p *policyAPI) PublishManifest(ctx context.Context, req *api.Document) (*api.Published, error) {
	return p.publish(ctx, req, (*policies).publishManifest)
}

func (p *policyAPI) PublishDenyList(ctx context.Context, req *api.Document) (*api.Published, error) {
	return p.publish(ctx, req, (*policies).publishDenyList)
}

func (p *policyAPI) publish(ctx context.Context, req *api.Document, how func(*policies, context.Context, []byte) (*published, error)) (*api.Published, error) {
	c, err := (*Server)(p).ready()
	if err != nil {
		return nil, err
	}
	done, err := how(c.policies, ctx, req.GetEnvelope())
	if err != nil {
		return nil, err
	}
	out := &api.Published{Version: done.version, InForce: done.notBefore.IsZero()}
	if !out.InForce {
		out.NotBefore = timestamppb.New(done.notBefore)
	}
	return out, nil
}

// Watch sends the policy in force and every later one. A watcher that is slow
// misses what is no longer in force, never what is. The watch ends when this
// replica is out of touch with the store: the news is at another.
func (p *policyAPI) Watch(ctx context.Context, _ *api.WatchRequest, stream *connect.ServerStream[api.State]) error {
	c, err := (*Server)(p).ready()
	if err != nil {
		return err
	}
	p.metrics.watchers.Inc()
	defer p.metrics.watchers.Dec()
	var sent *inForce
	for {
		now, changed := c.policies.watch()
		if msg := c.news(sent, now); msg != nil {
			if err := (*Server)(p).send(ctx, stream, msg); err != nil {
				return err
			}
		}
		sent = now
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.closing:
			return nil
		case <-changed:
		case <-c.touch.lost():
			if err := c.touch.why(); err != nil {
				return err
			}
		}
	}
}

// send sends to a watcher, who must take it in time: what is on its way is held
// in memory, for everybody together at most maxSending.
func (s *Server) send(ctx context.Context, stream *connect.ServerStream[api.State], msg *api.State) error {
	weight := min(int64(proto.Size(msg)), maxSending)
	if err := s.sending.Acquire(ctx, weight); err != nil {
		return err
	}
	defer s.sending.Release(weight)
	if answer := sessionOf(ctx).answer; answer != nil {
		_ = answer.SetWriteDeadline(time.Now().Add(s.callTime))
		defer func() { _ = answer.SetWriteDeadline(time.Time{}) }()
	}
	return stream.Send(msg)
}

// news is what a watcher that was sent one policy must be told about another.
func (c *core) news(sent, now *inForce) *api.State {
	msg := &api.State{Checkpoint: c.ledger.View().Checkpoint}
	manifest := sent == nil || sent.manifest != now.manifest
	deny := now.deny != nil && (sent == nil || sent.deny != now.deny)
	if manifest {
		msg.Manifest, msg.ManifestCountersignature = now.manifest.Envelope, now.manifestProof
	}
	if deny {
		msg.DenyList, msg.DenyListCountersignature = now.deny.Envelope, now.denyProof
	}
	if !manifest && !deny {
		return nil
	}
	return msg
}
