// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/privileged"
)

// TestKubernetes runs everything on one cluster, in this order: making one takes
// longer than most of it.
func TestKubernetes(t *testing.T) {
	privileged.Require(t)
	s := New(t, workloads)
	for _, part := range []struct {
		name string
		run  func(t *testing.T, s *Site)
	}{
		{"traffic", testTraffic},
		{"life", testLife},
		{"probes", testProbes},
		{"without API server", testWithoutAPI},
		{"daemon killed", testDaemonKilled},
		{"restarts", testRestarts},
		{"without CDS", testWithoutCDS},
		{"node check", testNodeCheck},
		{"upgrade", testUpgrade},
		{"attacks", testAttacks},
		{"uninstall", testUninstall},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, s) })
	}
}

// workloads are the operators' entries: a web server that only the client may
// reach, and a stranger, who is listed too.
func workloads(s *Site) []policy.Workload {
	app := policy.Image{Name: s.App.Ref, Digest: policy.Digest(s.App.Config)}
	runs := func(args ...string) []policy.Image {
		image := app
		image.Run = &policy.Run{Args: args, ServiceEnv: true}
		return []policy.Image{image}
	}
	return []policy.Workload{
		{
			Name: "web", Images: []policy.Image{{Name: s.Nginx.Ref, Digest: policy.Digest(s.Nginx.Config), Run: &policy.Run{ServiceEnv: true}}},
			Probes: []uint16{80},
			Peers:  policy.Peers{From: []policy.PeerRule{{Workload: "client", Ports: []uint16{80}, Protocol: policy.ProtocolTCP}}},
		},
		{
			Name: "client", Images: runs("/app", "sleep"), Exec: []policy.Exec{{Args: []string{policy.Any}}},
			Peers: policy.Peers{To: []policy.PeerRule{{Workload: "web", Ports: []uint16{80}, Protocol: policy.ProtocolTCP}}},
		},
		{Name: "stranger", Images: runs("/app", "serve", "-name", "stranger"), Exec: []policy.Exec{{Args: []string{policy.Any}}}},
	}
}
