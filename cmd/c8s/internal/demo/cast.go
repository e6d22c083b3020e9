// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/cluster"
)

// Ports of the demo's services.
const (
	webPort   = 8080
	redisPort = 6379
	iperfPort = 5201
)

// program is something a pod runs: the digest of its file stands for the
// image digest that a container runtime would report.
type program struct{ path, digest string }

// cast is what this machine can play with. curl is required; Redis and iperf3
// take part when they are installed.
type cast struct {
	curl, web    program
	redis, cli   *program
	iperf        *program
	notInstalled []string
}

func findCast(self string) (*cast, error) {
	var c cast
	required := func(name string, p *program) (err error) {
		if p.path, p.digest, err = cluster.ImageOf(name); err != nil {
			err = fmt.Errorf("the demo needs %s: %w (apt-get install curl)", name, err)
		}
		return err
	}
	optional := func(name string) *program {
		path, digest, err := cluster.ImageOf(name)
		if err != nil {
			c.notInstalled = append(c.notInstalled, name)
			return nil
		}
		return &program{path, digest}
	}
	if err := required("curl", &c.curl); err != nil {
		return nil, err
	}
	if err := required(self, &c.web); err != nil {
		return nil, err
	}
	c.redis, c.cli, c.iperf = optional("redis-server"), optional("redis-cli"), optional("iperf3")
	return &c, nil
}

// workloads is the heart of the demo's manifest: who may run, and who may
// talk to whom. "client" may reach web, redis and iperf; nobody may reach
// "client".
func (c *cast) workloads() []policy.Workload {
	image := func(name string, p *program) []policy.Image {
		if p == nil {
			return nil
		}
		return []policy.Image{{Name: name, Digest: policy.Digest(p.digest)}}
	}
	to := func(name string, port uint16) policy.PeerRule {
		return policy.PeerRule{Workload: name, Ports: []uint16{port}, Protocol: "tcp"}
	}
	client := policy.Workload{Name: "client", Images: image("curl", &c.curl)}
	client.Peers.To = []policy.PeerRule{to("web", webPort)}
	web := policy.Workload{Name: "web", Images: image("web", &c.web)}
	web.Peers.From = []policy.PeerRule{to("client", webPort)}
	all := []policy.Workload{client, web}
	service := func(name string, port uint16, p, user *program) {
		if p == nil || user == nil {
			return
		}
		srv := policy.Workload{Name: name, Images: image(name, p)}
		srv.Peers.From = []policy.PeerRule{to("client", port)}
		all = append(all, srv)
		all[0].Peers.To = append(all[0].Peers.To, to(name, port))
		all[0].Images = append(all[0].Images, image(name+"-client", user)...)
	}
	service("redis", redisPort, c.redis, c.cli)
	service("iperf", iperfPort, c.iperf, c.iperf)
	return all
}
