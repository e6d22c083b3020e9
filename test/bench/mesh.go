// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

// bothNodes are the nodes where a part needs two.
func bothNodes() []string { return []string{"node-a", "node-b"} }

// newMesh is C8s itself: real daemons, certificates and policy. The client is
// on the first node and the server on the last.
func newMesh(ctx context.Context, binary, name string, nodes ...string) (*site, *cluster.Cluster, error) {
	client, server := workload("client"), workload("server")
	allow(&client, &server, policy.ProtocolTCP, streamPorts()...)
	allow(&client, &server, policy.ProtocolUDP, datagramPort)
	c, err := startCluster(ctx, cluster.Options{Binary: binary, Name: name, Nodes: nodes, Workloads: []policy.Workload{client, server}})
	if err != nil {
		return nil, nil, err
	}
	s, err := meshSite(ctx, c)
	if err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	return s, c, nil
}

func meshSite(ctx context.Context, c *cluster.Cluster) (*site, error) {
	s := &site{name: "raTLS", close: c.Close}
	client, err := openPod(ctx, c.Nodes[0], "client")
	if err != nil {
		return nil, err
	}
	server, err := openPod(ctx, c.Nodes[len(c.Nodes)-1], "server")
	if err != nil {
		return nil, err
	}
	s.client, s.server, s.addr = client.Pod, server.NS, server.Addr4
	for _, n := range c.Nodes {
		s.pids = append(s.pids, n.PID())
	}
	return s, s.serve(ctx)
}

func startCluster(ctx context.Context, o cluster.Options) (*cluster.Cluster, error) {
	o.NodeFlags = append(o.NodeFlags, "--log-level", "warn")
	return cluster.New(ctx, o)
}

// openPod adds a pod of a workload, of the same name, and waits until it is
// open.
func openPod(ctx context.Context, n *cluster.Node, name string) (*cluster.Pod, error) {
	p, err := n.AddPod(ctx, name, lab.PodSpec{Name: name, Images: []string{string(image(name))}})
	if err != nil {
		return nil, err
	}
	return p, p.WaitState(ctx, agent.StateOpen, "")
}

func image(name string) policy.Digest { return policy.DigestOf([]byte("bench image " + name)) }

func workload(name string) policy.Workload {
	return policy.Workload{Name: name, Images: []policy.Image{{Name: name, Digest: image(name)}}}
}

// allow lets one workload reach ports of another.
func allow(from, to *policy.Workload, protocol string, ports ...uint16) {
	from.Peers.To = append(from.Peers.To, policy.PeerRule{Workload: to.Name, Ports: ports, Protocol: protocol})
	to.Peers.From = append(to.Peers.From, policy.PeerRule{Workload: from.Name, Ports: ports, Protocol: protocol})
}
