// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/c8s-dev/c8s/policy"
)

// runLocal compares the ways between two pods of one node: routed, raTLS, and
// the manifest's "sameNode": "local", which verifies both and encrypts nothing.
func runLocal(ctx context.Context, o options) (part, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the labs
	say("building three nodes")
	routed, err := newRouted(ctx, "node-a")
	if err != nil {
		return nil, err
	}
	defer routed.close()
	mesh, _, err := newMesh(ctx, o.Binary, "bench-one-node", "node-a")
	if err != nil {
		return nil, err
	}
	defer mesh.close()
	local, c, err := newMesh(ctx, o.Binary, "bench-local", "node-a")
	if err != nil {
		return nil, err
	}
	defer local.close()
	local.name = "local"
	if err := c.Publish(ctx, func(m *policy.Manifest) { m.SameNode = policy.SameNodeLocal }); err != nil {
		return nil, err
	}
	return newGrid(ctx, o, []*site{routed, mesh, local}, streams())
}
