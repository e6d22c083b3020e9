// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/datapath/tunnel"
	"github.com/c8s-dev/c8s/policy"
)

// Published is a port of the node that entries of local pods publish.
type Published struct {
	Listeners []*net.TCPListener // from ListenPublished
	Pods      []*LocalPod        // that may be meant
}

// ListenPublished opens a port of the node on all its addresses of one family,
// tcp4 or tcp6.
func ListenPublished(ctx context.Context, family string, port uint16) (*net.TCPListener, error) {
	lc := net.ListenConfig{KeepAliveConfig: tunnel.KeepAlive(), Control: tunnelSocket}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, family, fmt.Sprintf(":%d", port))
	if err != nil {
		return nil, fmt.Errorf("opening the published port %d (%s): %w", port, family, err)
	}
	return ln.(*net.TCPListener), nil
}

// publications are the published ports that the proxy accepts on.
type publications struct {
	mu     sync.Mutex
	life   context.Context // nil until Run, and after it
	paused bool
	left   bool
	ports  map[uint16]*publication
}

type publication struct {
	port  uint16
	doors map[*net.TCPListener]*door

	mu   sync.Mutex
	pods []*LocalPod
	turn int
}

// Publish has the proxy accept on exactly these ports, and close the others it
// had. Connections that were made go on for as long as they are allowed. The
// listeners are the proxy's from now on.
func (p *Proxy) Publish(ports map[uint16]Published) {
	s := &p.published
	s.mu.Lock()
	defer s.mu.Unlock()
	for port, pub := range s.ports {
		if _, still := ports[port]; !still {
			pub.close()
			delete(s.ports, port)
		}
	}
	for port, want := range ports {
		pub := s.ports[port]
		if pub == nil {
			pub = &publication{port: port, doors: map[*net.TCPListener]*door{}}
			s.ports[port] = pub
		}
		pub.mu.Lock()
		pub.pods = want.Pods
		pub.mu.Unlock()
		for _, ln := range want.Listeners {
			if pub.doors[ln] == nil {
				pub.doors[ln] = newDoor(ln)
				p.openDoor(pub, pub.doors[ln])
			}
		}
	}
}

// openDoor begins to accept, if it is time. Callers hold published.mu.
func (p *Proxy) openDoor(pub *publication, d *door) {
	s := &p.published
	switch {
	case s.left:
		d.leave()
	case s.paused:
		d.pause(false)
	}
	if s.life != nil {
		ctx := s.life
		p.conns.Go(func() { p.acceptClients(ctx, pub, d) })
	}
}

// runPublished accepts on published ports until ctx ends.
func (p *Proxy) runPublished(ctx context.Context) {
	s := &p.published
	s.mu.Lock()
	s.life = ctx
	for _, pub := range s.ports {
		for _, d := range pub.doors {
			p.openDoor(pub, d)
		}
	}
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life = nil
	for port, pub := range s.ports {
		pub.close()
		delete(s.ports, port)
	}
}

// pause, resume and leave are Pause, Resume and Leave for published ports,
// those to come included.
func (s *publications) pause() {
	s.each(func(d *door) { d.pause(s.life != nil) }, func() { s.paused = true })
}

func (s *publications) resume() {
	s.each((*door).resume, func() { s.paused = false })
}

func (s *publications) leave() {
	s.each((*door).leave, func() { s.left = true })
}

func (s *publications) each(fn func(*door), note func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	note()
	for _, pub := range s.ports {
		for _, d := range pub.doors {
			fn(d)
		}
	}
}

func (pub *publication) close() {
	for _, d := range pub.doors {
		_ = d.Close()
	}
}

// candidates are the pods to try, another first each time.
func (pub *publication) candidates() []*LocalPod {
	pub.mu.Lock()
	defer pub.mu.Unlock()
	if len(pub.pods) == 0 {
		return nil
	}
	pub.turn = (pub.turn + 1) % len(pub.pods)
	return slices.Concat(pub.pods[pub.turn:], pub.pods[:pub.turn])
}

func (p *Proxy) acceptClients(ctx context.Context, pub *publication, d *door) {
	for {
		conn, err := d.Accept()
		switch {
		case err == nil:
			p.conns.Go(func() { p.client(ctx, pub, conn.(*net.TCPConn)) })
		case errors.Is(err, net.ErrClosed):
			return
		default: // out of descriptors, or the client gave up in the queue
			p.cfg.Log.Warn("accepting on a published port failed", "port", pub.port, "err", err)
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// client carries one connection from outside the mesh.
func (p *Proxy) client(ctx context.Context, pub *publication, conn *net.TCPConn) {
	rec := flow.Record{
		Direction: flow.Ingress, Rule: fmt.Sprintf("publish/%d", pub.port),
		Src: unmap(conn.RemoteAddr()), Dst: localAddr(conn), Node: p.cfg.NodeName,
	}
	why := p.stranger(rec.Src.Addr())
	if why == nil && p.refusing.Load() {
		why = shuttingDown()
	}
	host := tunnel.HostOf(conn.RemoteAddr()).String()
	if why == nil && !p.clients.take(host) {
		why = refuse(reasonTooMany, "connection limit", "fewer connections", "the limit of the client's address or the node is reached")
	} else if why == nil {
		defer p.clients.give(host)
		why = p.serve(ctx, pub, conn, &rec)
	}
	if why != nil {
		p.refusedStranger(rec, why)
		reset(conn)
	}
}

// stranger refuses clients that are no strangers.
func (p *Proxy) stranger(client netip.Addr) *Refusal {
	const rule, expected = "published port", "a client outside the mesh, at an address that the pod can answer"
	if whose := p.taken(client); whose != "" {
		return refuse(reasonClientAddress, rule, expected, client.String()+whose)
	}
	return nil
}

// taken says whose an address is that a pod must not see as a stranger's. A
// pod's address means an identity to applications, and here nobody proved it;
// the node's loopback address would be the pod's own.
func (p *Proxy) taken(addr netip.Addr) (whose string) {
	if addr.IsLoopback() && !p.loopback.Load() || addr.IsLinkLocalUnicast() || addr.IsUnspecified() || addr.IsMulticast() {
		return ", which is of no other machine"
	}
	if _, ours := p.cfg.Mesh.Pod(addr); ours {
		return ", a pod of this node"
	}
	switch _, verdict := p.cfg.Mesh.Resolve(resolve.Query{Protocol: resolve.TCP, Dst: netip.AddrPortFrom(addr, 1)}); verdict {
	case resolve.Found:
		return ", a pod of the mesh, which can reach pods through it"
	case resolve.NoNode:
		return ", a pod's, of which nobody knows the node"
	}
	return ""
}

// serve tries the pods that publish the port. It returns why none may be
// reached, or nil when one has been.
func (p *Proxy) serve(ctx context.Context, pub *publication, conn *net.TCPConn, rec *flow.Record) *Refusal {
	failed, last := refuse(reasonNoEndpoints, "published port", "an enrolled pod that publishes the port", "none"), *rec
	defer func() { *rec = last }()
	for i, pod := range pub.candidates() {
		if i == attempts {
			break
		}
		t := *rec
		to, rule, why := p.servedBy(pod, pub.port, rec.Src.Addr())
		if why == nil {
			t.Endpoint, t.Pod, t.DstWorkload, t.DstID = netip.AddrPortFrom(to.addr, rule.Port), pod.Name, pod.Workload, to.self.ID
			var made *net.TCPConn
			if made, why = p.dialLocal(ctx, &p.clientPods, t.Src, t.Endpoint, pod); why == nil {
				defer p.clientPods.give(pod.UID)
				last = t
				return p.carryClient(conn, made, pub.port, to, rule, &t)
			}
		}
		failed, last = why, t
	}
	return failed
}

// servedBy says where a client reaches a pod that publishes the port.
func (p *Proxy) servedBy(pod *LocalPod, port uint16, client netip.Addr) (*end, *policy.Publish, *Refusal) {
	manifest, why := p.manifest()
	if why != nil {
		return nil, nil, why
	}
	rule, decision := manifest.PublishAllowed(pod.Workload, port, client)
	if why := decided(decision); why != nil {
		return nil, nil, why
	}
	for _, addr := range pod.Addrs {
		if addr.Is4() != client.Is4() {
			continue
		}
		if now, ok := p.cfg.Mesh.Pod(addr); !ok || now.UID != pod.UID {
			return nil, nil, refuse(reasonDestNotEnrolled, "local pods", "the pod "+pod.Name, "it is gone")
		}
		to, why := p.endOf(pod, addr)
		return to, rule, why
	}
	return nil, nil, refuse(reasonNoEndpoints, "published port", "a pod with an address of the client's family", "it has none")
}

func (p *Proxy) carryClient(conn, made *net.TCPConn, port uint16, to *end, rule *policy.Publish, rec *flow.Record) *Refusal {
	d := &direct{judge: func() *Refusal {
		if why := p.still(to, reasonDestNotEnrolled); why != nil {
			return why
		}
		_, now, why := p.servedBy(to.pod, port, rec.Src.Addr())
		if why == nil && now.Port != rule.Port {
			why = refuse(reasonDestMismatch, "published port", fmt.Sprint(now.Port), fmt.Sprint(rule.Port))
		}
		return why
	}, notAfter: to.self.NotAfter}
	return p.join(to.pod.UID, conn, made, d, func(at time.Time) { p.allow(rec, at) }, func(res tunnel.Result, began time.Time) {
		p.ended(*rec, res, began, res.Sent, res.Received)
	})
}

// refusedStranger records a refusal, within a budget: whoever knocks from
// outside must not wash away what the pods' own records say.
func (p *Proxy) refusedStranger(rec flow.Record, why *Refusal) {
	p.strangers.Add(1)
	suppressed, ok := p.knocks.take(p.cfg.Now())
	if !ok {
		return
	}
	rec.Suppressed = suppressed
	p.refused(rec, why)
}

// budget lets through so many things a second and counts the rest.
type budget struct {
	perSecond, burst float64

	mu         sync.Mutex
	left       float64
	last       time.Time
	suppressed uint32
}

// take returns how many were not let through since the last one that was.
func (b *budget) take(now time.Time) (suppressed uint32, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last.IsZero() {
		b.left = b.burst
	} else if passed := now.Sub(b.last).Seconds(); passed > 0 {
		b.left = min(b.burst, b.left+passed*b.perSecond)
	}
	b.last = now
	if b.left < 1 {
		b.suppressed++
		return 0, false
	}
	b.left--
	suppressed, b.suppressed = b.suppressed, 0
	return suppressed, true
}
