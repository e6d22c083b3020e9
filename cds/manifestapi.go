// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"

	"connectrpc.com/connect"

	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/policy"
)

// manifestAPI is the Manifest service. The manifest is no secret, and its
// signatures speak for it: anybody may read it, and offer a new one.
type manifestAPI Server

var _ api.ManifestHandler = (*manifestAPI)(nil)

func message(s *policy.Signed) *api.SignedManifest { return &api.SignedManifest{Envelope: s.Envelope} }

func (m *manifestAPI) Get(context.Context, *api.GetRequest) (*api.SignedManifest, error) {
	return message(m.manifests.current()), nil
}

func (m *manifestAPI) Publish(_ context.Context, req *api.SignedManifest) (*api.PublishResponse, error) {
	if err := (*Server)(m).Publish(req.GetEnvelope()); err != nil {
		return nil, err
	}
	return &api.PublishResponse{}, nil
}

func (m *manifestAPI) Watch(ctx context.Context, _ *api.WatchRequest, stream *connect.ServerStream[api.SignedManifest]) error {
	for {
		signed, changed := m.manifests.watch()
		if err := stream.Send(message(signed)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
