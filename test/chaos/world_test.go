// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/capture"
)

const (
	echoPort = 7000
	healTime = time.Minute // within which everything works again, whatever it was
)

// The entries of the manifest. Clients may reach servers, strangers nobody.
const (
	client   = "client"
	server   = "server"
	stranger = "stranger"
)

// world is two nodes with pods of every shape on both.
type world struct {
	*cluster.Cluster
	canary  []byte // in every byte stream of a pod
	clients []*slot
	servers []*slot
	raiders []*slot
	raids   *raids
}

// slot is a place for a pod: one that is removed is followed by another of the
// same kind, which often has its addresses.
type slot struct {
	entry string
	kind  lab.Kind
	node  *cluster.Node

	mu   sync.Mutex
	pod  *cluster.Pod
	stop func() // its server
	gone int    // pods before this one
}

func (s *slot) String() string { return fmt.Sprintf("%s on %s (%s)", s.entry, s.node.Lab.Name, s.kind) }

// now is the pod that is there; nil between two.
func (s *slot) now() *cluster.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pod
}

func newWorld(t *testing.T) *world {
	t.Helper()
	entry := func(name string) policy.Workload {
		return policy.Workload{Name: name, Images: []policy.Image{{Name: name, Digest: image(name)}}}
	}
	rules := func(peer string) []policy.PeerRule {
		return []policy.PeerRule{
			{Workload: peer, Ports: []uint16{echoPort}, Protocol: policy.ProtocolTCP},
			{Workload: peer, Ports: []uint16{echoPort}, Protocol: policy.ProtocolUDP},
		}
	}
	from, to := entry(client), entry(server)
	from.Peers.To, to.Peers.From = rules(server), rules(client)
	c, err := cluster.New(context.WithoutCancel(t.Context()), cluster.Options{
		Binary: binary, Name: "chaos", Nodes: []string{"node-a", "node-b"}, Outside: []string{"outside"},
		Workloads: []policy.Workload{from, to, entry(stranger)},
	})
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			for name, log := range c.Logs() {
				t.Logf("log of %s:\n%s", name, log)
			}
		}
		for name, log := range c.Saying("DATA RACE") {
			t.Errorf("the race detector spoke in %s:\n%s", name, log)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{Cluster: c, canary: capture.NewCanary()}
	for i, n := range c.Nodes {
		kinds := []lab.Kind{lab.Routed, lab.Bridged}
		if i == 1 {
			kinds = []lab.Kind{lab.Bridged, lab.Routed}
		}
		w.clients = append(w.clients, w.place(t, n, client, kinds[0]))
		w.servers = append(w.servers, w.place(t, n, server, kinds[0]), w.place(t, n, server, kinds[1]))
		w.raiders = append(w.raiders, w.place(t, n, stranger, kinds[1]))
	}
	return w
}

func image(name string) policy.Digest { return policy.DigestOf([]byte("image " + name)) }

func (w *world) place(t *testing.T, n *cluster.Node, entry string, kind lab.Kind) *slot {
	t.Helper()
	s := &slot{entry: entry, kind: kind, node: n}
	must(t, w.fill(t.Context(), s))
	must(t, s.now().WaitState(t.Context(), agent.StateOpen, ""))
	return s
}

// fill puts a pod into an empty slot. It does not wait for it to open.
func (w *world) fill(ctx context.Context, s *slot) error {
	p, err := w.make(ctx, s)
	if err != nil {
		return err
	}
	return s.put(p)
}

// make makes the next pod of a slot, which nobody uses yet.
func (w *world) make(ctx context.Context, s *slot) (*cluster.Pod, error) {
	name := fmt.Sprintf("%s-%s-%d", s.entry, s.kind, s.gone)
	return s.node.AddPod(ctx, s.entry, lab.PodSpec{Name: name, Kind: s.kind, Images: []string{string(image(s.entry))}})
}

// put has the pod used.
func (s *slot) put(p *cluster.Pod) (err error) {
	stop := func() {}
	if s.entry == server {
		if stop, err = serve(p); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pod, s.stop = p, stop
	return nil
}

// empty takes the pod out of the slot.
func (s *slot) empty() error { return s.node.RemovePod(s.take()) }

// take has the pod used no more.
func (s *slot) take() *cluster.Pod {
	s.mu.Lock()
	p, stop := s.pod, s.stop
	s.pod, s.gone = nil, s.gone+1
	s.mu.Unlock()
	stop()
	return p
}

// serve echoes on a pod's addresses until it is stopped.
func serve(p *cluster.Pod) (stop func(), err error) {
	var open []io.Closer
	stop = func() {
		for _, c := range open {
			c.Close()
		}
	}
	for _, addr := range p.Addrs() {
		ln, err := p.Listen("tcp", netip.AddrPortFrom(addr, echoPort).String())
		if err != nil {
			stop()
			return nil, err
		}
		open = append(open, ln)
		pc, err := p.ListenPacket("udp", netip.AddrPortFrom(addr, echoPort).String())
		if err != nil {
			stop()
			return nil, err
		}
		open = append(open, pc)
		go echoDatagrams(pc)
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				go echo(conn)
			}
		}()
	}
	return stop, nil
}

func echo(conn net.Conn) {
	defer conn.Close()
	_, _ = io.Copy(conn, conn)
}

func echoDatagrams(pc net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = pc.WriteTo(buf[:n], from)
	}
}

func (w *world) podPrefixes() (all []netip.Prefix) {
	for _, n := range w.Lab.Nodes() {
		all = append(all, n.PodCIDR4, n.PodCIDR6)
	}
	return all
}

// allOpen waits until every pod that is there is open and every client reaches
// every server, twice in a row: then nothing is broken any more.
func (w *world) allOpen(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healTime)
	defer cancel()
	var last error
	for good := 0; good < 2; {
		if last = w.tryAll(ctx); last == nil {
			good++
			continue
		}
		good = 0
		select {
		case <-ctx.Done():
			return fmt.Errorf("not healed within %s: %w", healTime, last)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

func (w *world) tryAll(ctx context.Context) error {
	for _, from := range w.clients {
		for _, to := range w.servers {
			for _, v6 := range []bool{false, true} {
				p := pair{from, to, v6}
				if err := p.exchange(ctx, w.canary); err != nil {
					return err
				}
				if err := p.ask(ctx, w.canary); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
