// SPDX-License-Identifier: Apache-2.0

// Command c8s-cni is the last plugin of a node's network chain. It has the node
// daemon lock a pod's link before any process of the pod exists.
//
// Its invariant: ADD succeeds only if the daemon said that the link is locked.
// No daemon, a silent one and a link that cannot be locked all mean that the
// pod is not made.
package main

import (
	"context"
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/c8s-dev/c8s/nri/gate"
)

// supported starts where plugins began to pass results on.
var supported = version.PluginSupports("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

func main() {
	p := plugin{out: os.Stdout, gate: func(path string) locker {
		return gate.Client{Path: path, Timeout: patience}
	}}
	ctx := context.Background()
	err := skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add:    func(a *skel.CmdArgs) error { return p.add(ctx, a) },
		Check:  func(a *skel.CmdArgs) error { return p.check(ctx, a) },
		Del:    func(*skel.CmdArgs) error { return nil }, // the lock goes with the link
		GC:     func(*skel.CmdArgs) error { return nil },
		Status: func(a *skel.CmdArgs) error { return p.status(ctx, a) },
	}, supported, "c8s-cni locks a pod's network; chained by 'c8s node install'")
	if err != nil {
		if err.Print() != nil {
			os.Exit(2)
		}
		os.Exit(1)
	}
}
