// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab/capture"
)

// talk runs unmodified programs between pods.
func (s *stage) talk(ctx context.Context) {
	const act = "Unmodified programs talk"
	fetch := func(claim string, to *cluster.Pod, addr, src netip.Addr) {
		body, err := curl(ctx, s.client, addr, webPort)
		if err == nil && !strings.Contains(body, canary) {
			err = fmt.Errorf("unexpected answer %q", body)
		}
		if err == nil && !strings.Contains(body, src.String()) {
			err = fmt.Errorf("the server saw another source than %s: %q", src, body)
		}
		s.add(act, claim, fmt.Sprintf("200 from %s; it saw the real source %s", addr, src), err)
	}
	fetch("curl to web on the other node, IPv4", s.web, s.web.Addr4, s.client.Addr4)
	fetch("curl to web on the other node, IPv6", s.web, s.web.Addr6, s.client.Addr6)
	fetch("curl to web on the same node", s.local, s.local.Addr4, s.client.Addr4)
	if s.redis != nil && s.cast.cli != nil {
		out, err := s.client.Command(ctx, "redis-cli", "-h", s.redis.Addr4.String(), "-p", strconv.Itoa(redisPort), "SET", "k", canary).CombinedOutput()
		if err == nil && strings.TrimSpace(string(out)) != "OK" {
			err = fmt.Errorf("redis answered %q", out)
		}
		s.add(act, "redis-cli to redis-server", "SET k → OK", err)
	}
	if s.iperf != nil {
		seen, err := s.iperf3(ctx)
		s.add(act, "iperf3, 2 seconds, one flow", seen, err)
	}
	for _, name := range s.cast.notInstalled {
		s.add(act, name, "not installed here, not played (apt-get install redis-server redis-tools iperf3)", nil)
	}
}

func (s *stage) iperf3(ctx context.Context) (string, error) {
	out, err := s.client.Command(ctx, "iperf3", "-c", s.iperf.Addr4.String(), "-p", strconv.Itoa(iperfPort), "-t", "2", "-J").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("iperf3: %w: %s", err, out)
	}
	var result struct {
		End struct {
			Received struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal(out, &result); err != nil {
		return "", err
	}
	return fmt.Sprintf("%.1f Gbit/s", result.End.Received.BitsPerSecond/1e9), nil
}

// identities shows who talked, from the flow records of both nodes.
func (s *stage) identities(ctx context.Context) {
	const act = "Both ends were identified"
	flows, err := s.Nodes[0].Flows(ctx)
	i := slices.IndexFunc(flows, func(r flow.Record) bool {
		return r.Verdict == flow.Allowed && r.Dst == netip.AddrPortFrom(s.web.Addr4, webPort)
	})
	if err == nil && i < 0 {
		err = errors.New("no flow record of the connection to web")
	}
	if err != nil {
		s.add(act, "flow record of curl to web", "", err)
		return
	}
	r := flows[i]
	s.add(act, "client", r.SrcID, mustEqual(r.SrcWorkload, "client"))
	s.add(act, "server", r.DstID, mustEqual(r.DstWorkload, "web"))
	s.add(act, "launch measurement of the server's node (SIMULATED TEE)", short(r.PeerMeasurement), mustEqual(r.PeerMeasurement, s.Measurement()))
	status, err := s.web.Status(ctx)
	life := time.Until(status.NotAfter)
	if err == nil && (life <= 0 || life > time.Hour) {
		err = fmt.Errorf("certificate is valid for another %s", life)
	}
	s.add(act, "server's certificate is short-lived", fmt.Sprintf("expires in %s", life.Round(time.Second)), err)
}

func mustEqual(got, want string) error {
	if got != want {
		return fmt.Errorf("expected %q, found %q", want, got)
	}
	return nil
}

func short(hex string) string {
	if len(hex) > 24 {
		return hex[:24] + "…"
	}
	return hex
}

// wire judges the capture of everything that crossed between the hosts.
func (s *stage) wire(r capture.Report) {
	const act = "What the wire between the nodes saw"
	err := r.Complete()
	if err == nil && r.Tunnel == 0 {
		err = errors.New("no tunnel packet was captured, so nothing is proven")
	}
	s.add(act, "tunnel packets", fmt.Sprintf("%d packets of %d, none lost by the capture", r.Tunnel, r.Packets), err)
	s.add(act, "the canary string in clear", "0 times", mustBeZero("canary sightings", int(r.CanaryHits)))
	// The host next door does send plain packets to pods; none may come from one.
	fromPods := 0
	for _, p := range r.Plain {
		if s.isPod(p.Src) {
			fromPods++
		}
	}
	s.add(act, "packets from pods outside the tunnel", "0", mustBeZero("plain packets from pods", fromPods))
}

func (s *stage) isPod(a netip.Addr) bool {
	for _, n := range s.Lab.Nodes() {
		if n.PodCIDR4.Contains(a) || n.PodCIDR6.Contains(a) {
			return true
		}
	}
	return false
}

func mustBeZero(what string, n int) error {
	if n != 0 {
		return fmt.Errorf("%d %s", n, what)
	}
	return nil
}

// crash kills the daemon without warning and looks whether anything opened.
func (s *stage) crash(ctx context.Context) error {
	const act = "SIGKILL to the daemon of node-a"
	if err := s.Nodes[0].Kill(); err != nil {
		return err
	}
	_, err := curl(ctx, s.client, s.web.Addr4, webPort)
	seen := ""
	if err != nil {
		seen, err = "curl gets no connection", nil
	} else {
		err = errors.New("curl still got through")
	}
	s.add(act, "pods of node-a are locked", seen, err)
	s.attackAll(ctx, act, false)
	if err := s.Nodes[0].Start(ctx); err != nil {
		return err
	}
	if err := s.client.WaitState(ctx, agent.StateOpen, ""); err != nil {
		return err
	}
	_, err = curl(ctx, s.client, s.web.Addr4, webPort)
	s.add(act, "started again, the pod talks again", "curl → 200", err)
	return nil
}
