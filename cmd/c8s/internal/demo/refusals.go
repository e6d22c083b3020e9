// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/test/attacks"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

// refusals tries what must not work, and shows who refused it and why.
func (s *stage) refusals(ctx context.Context) {
	const inside = "Refused to root inside the pod, over IPv4 and IPv6"
	s.attackAll(ctx, inside, true)
	s.outsider(ctx)

	const manifest = "Refused by the signed manifest"
	err := s.unlisted.WaitState(ctx, agent.StateLocked, "")
	status, statusErr := s.unlisted.Status(ctx)
	s.add(manifest, "a pod whose image is not listed", "stays locked: "+status.Reason, errors.Join(err, statusErr))
	seen, err := s.counted(ctx, s.Nodes[1], "pod-locked", func() error {
		return mustFail(dial(ctx, s.unlisted, netip.AddrPortFrom(s.web.Addr4, webPort), time.Second))
	})
	s.add(manifest, "what it sends", seen, err)

	began := time.Now()
	_, err = curl(ctx, s.client, s.web.Addr4, 9)
	seen, err = s.refusedFlow(ctx, s.Nodes[0], netip.AddrPortFrom(s.web.Addr4, 9), err)
	s.add(manifest, "client to a port of web that is not listed", fmt.Sprintf("%s, reset after %s", seen, time.Since(began).Round(time.Millisecond)), err)
	began = time.Now()
	err = dial2(ctx, s.web, netip.AddrPortFrom(s.client.Addr4, 80))
	seen, err = s.refusedFlow(ctx, s.Nodes[1], netip.AddrPortFrom(s.client.Addr4, 80), err)
	s.add(manifest, "web to client, which accepts nobody", fmt.Sprintf("%s, reset after %s", seen, time.Since(began).Round(time.Millisecond)), err)
}

// attackAll runs every attack from inside the client pod. While the daemon
// lives, the kernel's counter for the expected reason must move; either way
// not one packet may reach a victim.
func (s *stage) attackAll(ctx context.Context, act string, counted bool) {
	next, node := s.Lab.Outside("next-door"), s.client.On.Lab
	env := attacks.Env{
		Src4: s.client.Addr4, Src6: s.client.Addr6, Interface: s.client.Interface,
		Spoof4: s.local.Addr4, Spoof6: s.local.Addr6, Outside4: next.Addr4, Outside6: next.Addr6,
		Peer4: s.web.Addr4, Peer6: s.web.Addr6, Node4: node.Addr4, Node6: node.Addr6,
		Canary: []byte(attackCanary), Wait: 200 * time.Millisecond,
	}
	outside, err := attacks.NewVictim(next.NS, lab.Uplink, env.Canary, next.Addr4, next.Addr6)
	if err != nil {
		s.add(act, "attacks", "", err)
		return
	}
	host, err := attacks.NewVictim(node.NS, "", env.Canary, node.Addr4, node.Addr6)
	if err != nil {
		s.add(act, "attacks", "", errors.Join(err, outside.Close()))
		return
	}
	rows := families{}
	for _, attack := range attacks.All() {
		hits := outside.Hits() + host.Hits()
		run := func() error {
			return s.client.Do(func() error { _, err := attack.Run(ctx, env); return err })
		}
		seen := "refused by the daemon"
		if counted && attack.ExpectReason != "" && attack.ExpectReason != attacks.ReasonNoListener { // the daemon takes datagrams
			seen, err = s.counted(ctx, s.Nodes[0], attack.ExpectReason, run)
		} else {
			err = run()
		}
		if arrived := outside.Hits() + host.Hits() - hits; err == nil && arrived > 0 {
			err = fmt.Errorf("%d packets reached a victim", arrived)
		}
		rows.add(attack.Description, seen, err)
	}
	for _, row := range rows.list {
		if counted || row.err != nil {
			s.add(act, row.claim, row.seen, row.err)
		}
	}
	total := outside.Hits() + host.Hits()
	err = errors.Join(mustBeZero("packets reached a victim", int(total)), outside.Close(), host.Close())
	s.add(act, fmt.Sprintf("all %d attacks together", len(attacks.All())), "not one packet reached the host next door or the node", err)
}

// families folds the IPv4 and the IPv6 form of an attack into one row.
type families struct{ list []*family }

type family struct {
	claim, seen string
	err         error
}

func (f *families) add(description, seen string, err error) {
	claim, version, _ := strings.Cut(description, " (IPv")
	if err != nil && version != "" {
		err = fmt.Errorf("IPv%s: %w", strings.TrimSuffix(version, ")"), err)
	}
	for _, row := range f.list {
		if row.claim == claim {
			row.err = errors.Join(row.err, err)
			return
		}
	}
	f.list = append(f.list, &family{claim, seen, err})
}

// counted runs an attack and requires that the kernel's counter of reason
// moved on node n.
func (s *stage) counted(ctx context.Context, n *cluster.Node, reason string, attack func() error) (string, error) {
	before, err := n.Status(ctx)
	if err != nil {
		return "", err
	}
	if err := attack(); err != nil {
		return "", err
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		after, err := n.Status(ctx)
		if err != nil {
			return "", err
		}
		if after.Drops[reason] > before.Drops[reason] {
			return "dropped: " + reason, nil
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("the kernel counted no %s", reason)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// outsider tries to reach a pod from the host next door, which has routes to
// the pods and no credential.
func (s *stage) outsider(ctx context.Context) {
	const act = "Refused from outside"
	next := s.Lab.Outside("next-door")
	seen, err := s.counted(ctx, s.Nodes[1], "forwarded-to-pod", func() error {
		dctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		conn, err := next.Dial(dctx, "tcp", netip.AddrPortFrom(s.web.Addr4, webPort).String())
		return mustFail(conn, err)
	})
	s.add(act, "plain TCP to a pod's address", seen, err)
	tunnel := netip.AddrPortFrom(s.Nodes[1].Lab.Addr4, datapath.TunnelPort)
	err = datapath.ProbeTunnel(ctx, next.Dial, tunnel, s.web.Addr4)
	if err == nil {
		err = errors.New("the tunnel accepted a peer without a certificate")
	} else {
		seen, err = "handshake refused: "+err.Error(), nil
	}
	s.add(act, "the tunnel port without a certificate", seen, err)
}

// refusedFlow finds the record of a refused connection to dst.
func (s *stage) refusedFlow(ctx context.Context, n *cluster.Node, dst netip.AddrPort, attempt error) (string, error) {
	if attempt == nil {
		return "", errors.New("the connection was not refused")
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		flows, err := n.Flows(ctx)
		if err != nil {
			return "", err
		}
		for _, r := range flows {
			if r.Verdict == flow.Refused && r.Dst == dst {
				return r.Reason, nil
			}
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("no flow record says why (the program saw: %w)", attempt)
		}
	}
}

func dial(ctx context.Context, from *cluster.Pod, to netip.AddrPort, limit time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return from.Dial(ctx, "tcp", to.String())
}

// dial2 connects and waits for a byte: a refusal by the daemon arrives as a
// reset after the connection was taken.
func dial2(ctx context.Context, from *cluster.Pod, to netip.AddrPort) error {
	conn, err := dial(ctx, from, to, 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

func mustFail(conn net.Conn, err error) error {
	if err == nil {
		conn.Close()
		return errors.New("the connection was made")
	}
	return nil
}
