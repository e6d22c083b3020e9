// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/capture"
)

// canary is in everything the pods say to each other. It must never be seen
// on the wire.
const canary = "CANARY-4d1f0b7e-plaintext-must-not-leave"

// attackCanary is what the attacks try to get out.
const attackCanary = "CANARY-9a3c55e2-stolen"

// stage is the running cluster with its pods.
type stage struct {
	*cluster.Cluster
	*report
	cast *cast
	step func(format string, args ...any)

	client, local, web, redis, iperf, unlisted *cluster.Pod
	ingress                                    *cluster.Ingress
}

// play runs every act. It returns an error only when the play cannot go on;
// a claim that does not hold is in the report.
func (s *stage) play(ctx context.Context) error {
	s.step("starting pods and waiting for their certificates")
	if err := s.enter(ctx); err != nil {
		return err
	}
	var pods []netip.Prefix
	for _, n := range s.Lab.Nodes() {
		pods = append(pods, n.PodCIDR4, n.PodCIDR6)
	}
	wire, err := capture.Start(s.Lab.Wire, lab.WireBridge, capture.Options{Canary: []byte(canary), Pods: pods, Keep: 4096})
	if err != nil {
		return fmt.Errorf("listening on the wire: %w", err)
	}
	s.step("unmodified programs talk")
	s.talk(ctx)
	s.identities(ctx)
	s.step("an end user outside verifies, and then asks")
	if err := s.user(ctx); err != nil {
		return err
	}
	s.step("forbidden traffic is tried")
	s.refusals(ctx)
	s.step("the daemon of node-a is killed with SIGKILL, and started again")
	if err := s.crash(ctx); err != nil {
		return err
	}
	s.step("the operators deny a workload, and the CDS is killed")
	if err := s.authority(ctx); err != nil {
		return err
	}
	s.wire(wire.Stop())
	return ctx.Err()
}

// enter starts the pods: routed and bridged, on both nodes.
func (s *stage) enter(ctx context.Context) error {
	if err := s.startIngress(); err != nil {
		return err
	}
	a, b := s.Nodes[0], s.Nodes[1]
	var pods []*cluster.Pod
	add := func(n *cluster.Node, dst **cluster.Pod, entry string, kind lab.Kind, images ...*program) error {
		spec := lab.PodSpec{Name: entry, Kind: kind}
		if *dst != nil {
			return fmt.Errorf("pod %s is on stage already", entry)
		}
		for _, image := range images {
			if image == nil {
				return nil // not installed: this part is not played
			}
			spec.Images = append(spec.Images, image.digest)
		}
		p, err := n.AddPod(ctx, entry, spec)
		if err != nil {
			return fmt.Errorf("starting pod %s: %w", entry, err)
		}
		*dst = p
		pods = append(pods, p)
		return nil
	}
	clientImages := []*program{&s.cast.curl}
	for _, p := range []*program{s.cast.cli, s.cast.iperf} {
		if p != nil {
			clientImages = append(clientImages, p)
		}
	}
	err := errors.Join(
		add(a, &s.client, "client", lab.Routed, clientImages...),
		add(b, &s.web, "web", lab.Bridged, &s.cast.web),
		add(a, &s.local, "web", lab.Bridged, &s.cast.web),
		add(b, &s.redis, "redis", lab.Routed, s.cast.redis),
		add(b, &s.iperf, "iperf", lab.Routed, s.cast.iperf),
	)
	if err != nil {
		return err
	}
	for _, p := range pods {
		if err := p.WaitState(ctx, agent.StateOpen, ""); err != nil {
			return err
		}
	}
	if s.unlisted, err = b.AddPod(ctx, "", lab.PodSpec{
		Name: "intruder", Images: []string{"sha256:" + strings.Repeat("0", 64)},
	}); err != nil {
		return err
	}
	return s.startServers(ctx)
}

func (s *stage) startServers(ctx context.Context) error {
	start := func(p *cluster.Pod, port int, name string, args ...string) error {
		if p == nil {
			return nil
		}
		cmd := p.Command(ctx, name, args...)
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("starting %s in pod %s: %w", name, p.Name, err)
		}
		return waitListening(ctx, p, port)
	}
	web := []string{"demo", "serve", "--listen", ":" + strconv.Itoa(webPort), "--body", canary}
	return errors.Join(
		start(s.web, webPort, s.cast.web.path, web...),
		start(s.local, webPort, s.cast.web.path, web...),
		start(s.redis, redisPort, "redis-server", "--bind", "*", "-::*", "--protected-mode", "no", "--save", "", "--port", strconv.Itoa(redisPort)),
		start(s.iperf, iperfPort, "iperf3", "-s", "-p", strconv.Itoa(iperfPort)),
	)
}

// waitListening dials the pod's own loopback until its server answers.
func waitListening(ctx context.Context, p *cluster.Pod, port int) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		conn, err := p.Dial(ctx, "tcp", netip.AddrPortFrom(p.Addr4, uint16(port)).String())
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the server in pod %s: %w", p.Name, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// curl fetches a URL from within a pod.
func curl(ctx context.Context, from *cluster.Pod, addr netip.Addr, port uint16) (string, error) {
	url := "http://" + netip.AddrPortFrom(addr, port).String() + "/"
	out, err := from.Command(ctx, "curl", "-sS", "--noproxy", "*", "--max-time", "5", url).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return "", fmt.Errorf("%s (%w)", text, err)
	}
	return text, nil
}
