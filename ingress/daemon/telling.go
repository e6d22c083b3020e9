// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"

	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/ingress"
	"github.com/c8s-dev/c8s/policy"
)

// telling is a mesh that says what came of each connection, so that the owners
// of routes read in their objects why requests are refused.
type telling struct {
	ingress.Mesh
	tell func(service string, err error)
}

func (t telling) Dial(ctx context.Context, to resolve.Target, may func(workload string) policy.Decision) (ingress.Conn, error) {
	conn, err := t.Mesh.Dial(ctx, to, may)
	if to.Service != "" && ctx.Err() == nil { // whoever gave up says nothing about the pod
		t.tell(to.Service, err)
	}
	return conn, err
}

// tried hands on what came of a connection; routes of a file have no objects.
func (d *Daemon) tried(service string, err error) {
	if d.watcher != nil {
		d.watcher.Tried(service, err)
	}
}
