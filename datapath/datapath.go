// SPDX-License-Identifier: Apache-2.0

// Package datapath is the user-space half of the mesh, and keeps this
// invariant: no byte passes between two pods unless both ends' certificates
// were verified under the manifest in force, its peer rules allow exactly this
// pair and port, and the deny list denies neither. Every connection is judged,
// on both nodes; a tunnel that was once allowed is closed when it no longer is.
// The same holds between an ingress and a pod, with ingress rules for peer rules.
//
// Where a pod's packets come from, how identities are obtained and what the
// cluster believes about addresses are not its business: Mesh answers those
// questions, and a wrong route can only make a connection fail.
package datapath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/c8s-dev/c8s/datapath/external"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/relay"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/datapath/tunnel"
	"github.com/c8s-dev/c8s/policy"
)

// TunnelPort is where node daemons listen for tunnels.
const TunnelPort = policy.TunnelPort

// LocalPod is an enrolled pod of this node.
type LocalPod struct {
	Addrs    []netip.Addr
	Workload string // entry of the manifest
	Name     string // namespace/name, for people
	UID      string // never used again, unlike addresses
	// Credential returns the pod's current certificate, nil while it has none.
	Credential func() *Credential
}

// Mesh is what the datapath is told. Its methods are called for every
// connection, by many goroutines: they must not block.
type Mesh interface {
	Word
	Pod(addr netip.Addr) (*LocalPod, bool)
	// Resolve says which pod a connection means and which node carries it. Trust
	// never rests on it.
	Resolve(q resolve.Query) (resolve.Target, resolve.Verdict)
	// Node says whether other nodes' tunnels come from the address. It decides
	// in what order handshakes are served, never whether.
	Node(addr netip.Addr) bool
}

// Limits bound what pods and peers can make the daemon hold. Zero fields get
// the default.
type Limits struct {
	Connections       int           // at once, of all pods, each direction; 65536
	ConnectionsPerPod int           // at once, each direction; 8192
	DialTimeout       time.Duration // to a node with its handshake, or to a local pod; 5 s
	HandshakeTimeout  time.Duration // of an incoming tunnel; 5 s
	Handshakes        int           // incoming, at once; 256
	Tunnels           int           // incoming, at once; 65536
	Clients           int           // connections from outside the mesh, at once; 32768
	ClientsPerAddress int           // of one address (IPv6: of one /64); 1024
	Idle              time.Duration // a connection that moves nothing for so long is reset; 2 h
	NameConns         int           // TCP connections with DNS queries at once, of all pods; 4096
	NameConnsPerPod   int           // 64
	NamesIdle         time.Duration // one that asks nothing for so long is closed; 10 s
	ExternalDial      time.Duration // to an endpoint outside of the mesh; 10 s
	HelloTimeout      time.Duration // for a ClientHello where an external rule asks for one; 10 s
	NameQueries       int           // DNS queries in datagrams that are answered at once, of all pods; 4096
	NameQueriesPerPod int           // 256
	Buffers           int           // bytes that connections hold in buffers of more than 4 KiB, of all pods; 1 GiB
	BuffersPerPod     int           // 64 MiB, and never more than is left for all
	Flows             int           // of UDP, at once, of all pods, each direction; 65536
	FlowsPerPod       int           // at once, each direction; 4096
	FlowRate          int           // new ones of a pod, a second; 500
	FlowBurst         int           // and so many at once; 2048
	FlowIdle          time.Duration // a flow that carries nothing for so long ends; 3 min
	FlowIdleShort     time.Duration // one of which there was no more than a question and an answer; 30 s
	FlowIdleNames     time.Duration // one to port 53; 10 s
}

// Config is what a Proxy is given. Fields without a default are required.
type Config struct {
	Mesh       Mesh
	NodeAddr   netip.Addr         // tunnels are accepted here
	NodeName   string             // for flow records; may be empty
	TunnelPort uint16             // of all nodes; default TunnelPort
	Marks      Marks              // of packets from and to local pods
	DNS        Resolver           // nil: port 53 is a port like any other
	Bindings   *external.Bindings // what pods were answered for names outside of the cluster; nil: external rules by name allow nothing
	DNSService string             // namespace/name of the Service that the cluster's pods ask, which the node answers for; may be empty
	Limits     Limits
	Flows      *flow.Ring
	Now        func() time.Time
	Log        *slog.Logger
}

// Stats is a snapshot of counters and gauges.
type Stats struct {
	Idle, Busy     int // tunnels this node dialled
	Inbound        int // tunnels this node accepted
	Outgoing       int // connections of local pods
	Incoming       int // connections to local pods
	Handshakes     uint64
	HandshakeFails uint64
	Streams        uint64
	Reused         uint64 // connections that needed no handshake
	BytesSent      int64  // by local pods through tunnels
	BytesReceived  int64
	Avoided        []Avoided         // endpoints and nodes that Services pass over
	Direct         int               // connections without a tunnel
	BytesLocal     int64             // between pods of this node, without encryption
	Clients        int               // connections from outside the mesh, to published ports
	Strangers      uint64            // refused: published ports and handshakes
	Limits         map[string]uint64 // how often each was reached
	// External are connections of local pods to endpoints outside of the mesh so
	// far, with the bytes that pods sent and received there.
	External, ExternalSent, ExternalReceived int64
	FlowsOut                                 int // UDP flows of local pods
	FlowsIn                                  int // UDP flows to local pods
	// Datagrams that local pods sent through tunnels and received from them, and
	// that were dropped: of flows that were allowed, because they were too big or
	// came faster than they went on; or refused.
	DatagramsSent, DatagramsReceived, DatagramsDropped, DatagramsRefused uint64
}

// Proxy carries the connections of one node's pods.
type Proxy struct {
	verifier
	cfg    Config
	bufs   tunnel.Buffers
	budget *tunnel.Budget // of bufs and relays
	pool   *tunnel.Pool
	server *tunnel.Server
	avoid  *avoided // endpoints of Services

	out, in limiter
	names   limiter // connections with DNS queries
	origDst func(*net.TCPConn) netip.AddrPort

	flows         flowTable // of UDP
	udpOut, udpIn limiter   // flows
	births        births    // of flows, per pod
	queries       limiter   // DNS queries in datagrams
	notes         notes
	raw           rawSender
	origDstUDP    func(oob []byte) netip.AddrPort
	datagrams     struct{ sent, received, dropped, refused atomic.Uint64 }

	pods     []*door   // set by Listen
	packets  []*firsts // likewise
	tunnels  *door
	refusing atomic.Bool
	paused   atomic.Bool

	streams        atomic.Uint64
	sent, received atomic.Int64
	activeMu       sync.Mutex
	active         map[*carried]struct{}
	conns          sync.WaitGroup
	relays         relay.Pool
	localBytes     atomic.Int64

	outside     struct{ conns, sent, received atomic.Int64 } // what left the mesh
	ownAddr     func(netip.Addr) bool
	dialOutside func(ctx context.Context, network string, dst netip.AddrPort) (net.Conn, error)

	published  publications
	loopback   atomic.Bool // tests: clients may have loopback addresses
	clients    limiter     // of published ports, by address
	clientPods limiter     // the same by pod: outsiders take no place of peers
	knocks     budget      // of records about strangers
	strangers  atomic.Uint64
}

// Listeners are the sockets a Proxy accepts from.
type Listeners struct {
	Pods    []*net.TCPListener // transparent, from ListenTransparent
	Tunnels *net.TCPListener   // from ListenTunnels
	Packets []*net.UDPConn     // transparent, from ListenTransparentUDP; none: pods have no UDP
}

// New checks cfg and prepares a proxy. Nothing runs until Run.
func New(cfg Config) (*Proxy, error) {
	if cfg.Mesh == nil || cfg.Flows == nil || cfg.Now == nil || cfg.Log == nil || !cfg.NodeAddr.IsValid() {
		return nil, errors.New("preparing the datapath: the configuration lacks a part")
	}
	if err := cfg.Marks.check(); err != nil {
		return nil, fmt.Errorf("preparing the datapath: %w", err)
	}
	cfg.Limits.fill()
	if cfg.TunnelPort == 0 {
		cfg.TunnelPort = TunnelPort
	}
	p := &Proxy{verifier: newVerifier(cfg.Mesh, cfg.Now), cfg: cfg, origDst: localAddr, ownAddr: ownAddr, dialOutside: dialOutside, active: map[*carried]struct{}{}}
	l := cfg.Limits
	p.budget = tunnel.NewBudget(int64(l.Buffers), int64(l.BuffersPerPod))
	p.bufs.Budget, p.relays.Budget = p.budget, p.budget
	p.avoid = newAvoided(cfg.NodeAddr, cfg.Now, l.DialTimeout)
	p.out = limiter{total: l.Connections, perPod: l.ConnectionsPerPod, pods: map[string]int{}}
	p.in = limiter{total: l.Connections, perPod: l.ConnectionsPerPod, pods: map[string]int{}}
	p.prepareUDP()
	p.names = limiter{total: l.NameConns, perPod: l.NameConnsPerPod, pods: map[string]int{}}
	p.clients = limiter{total: l.Clients, perPod: l.ClientsPerAddress, pods: map[string]int{}}
	p.clientPods = limiter{total: l.Clients, perPod: l.ConnectionsPerPod, pods: map[string]int{}}
	p.published.ports = map[uint16]*publication{}
	p.knocks = budget{perSecond: strangerRecords, burst: strangerBurst}
	dialled := func(key tunnel.Key, meta tunnel.Meta, t *tunnel.Tunnel) *tunnel.Ending {
		return p.outboundGone(key, meta, t).ending()
	}
	accepted := func(t *tunnel.Tunnel) *tunnel.Ending { return p.inboundGone(t).ending() }
	p.pool = tunnel.NewPool(tunnel.PoolConfig{Dial: p.dialTunnel, Judge: dialled, Now: cfg.Now, DialTimeout: l.DialTimeout})
	p.server = tunnel.NewServer(tunnel.ServerConfig{
		Buffers: &p.bufs, Session: p.session, Owner: ownerOf, Accept: p.accept, Judge: accepted, Refused: p.handshakeRefused, Known: cfg.Mesh.Node,
		HandshakeTimeout: l.HandshakeTimeout, MaxHandshakes: l.Handshakes, MaxTunnels: l.Tunnels, Log: cfg.Log,
	})
	return p, nil
}

func (l *Limits) fill() {
	ints := func(p *int, v int) {
		if *p <= 0 {
			*p = v
		}
	}
	times := func(p *time.Duration, v time.Duration) {
		if *p <= 0 {
			*p = v
		}
	}
	ints(&l.Connections, 65536)
	ints(&l.ConnectionsPerPod, 8192)
	ints(&l.Handshakes, 256)
	ints(&l.Tunnels, 65536)
	ints(&l.Clients, 32768)
	ints(&l.ClientsPerAddress, 1024)
	ints(&l.NameConns, 4096)
	ints(&l.NameConnsPerPod, 64)
	ints(&l.NameQueries, 4096)
	ints(&l.NameQueriesPerPod, 256)
	ints(&l.Buffers, 1<<30)
	ints(&l.BuffersPerPod, 64<<20)
	ints(&l.Flows, 65536)
	ints(&l.FlowsPerPod, 4096)
	ints(&l.FlowRate, 500)
	ints(&l.FlowBurst, 2048)
	times(&l.DialTimeout, 5*time.Second)
	times(&l.HandshakeTimeout, 5*time.Second)
	times(&l.Idle, 2*time.Hour)
	times(&l.NamesIdle, 10*time.Second)
	times(&l.ExternalDial, 10*time.Second)
	times(&l.HelloTimeout, 10*time.Second)
	times(&l.FlowIdle, 3*time.Minute)
	times(&l.FlowIdleShort, 30*time.Second)
	times(&l.FlowIdleNames, 10*time.Second)
}

// Listen gives the proxy its sockets, once and before Run, which closes them.
func (p *Proxy) Listen(l Listeners) error {
	if err := l.takeCaptured(p.cfg.Marks); err != nil {
		return fmt.Errorf("taking the sockets of the datapath into use: %w", err)
	}
	for _, c := range l.Packets {
		f, err := newFirsts(c)
		if err != nil {
			return fmt.Errorf("taking the sockets of the datapath into use: %w", err)
		}
		p.packets = append(p.packets, f)
	}
	for _, ln := range l.Pods {
		p.pods = append(p.pods, newDoor(ln))
	}
	p.tunnels = newDoor(l.Tunnels)
	return nil
}

// Run carries connections until ctx ends, then resets what is left.
func (p *Proxy) Run(ctx context.Context) error {
	if p.tunnels == nil {
		return errors.New("running the datapath: it has no listeners")
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.server.Serve(ctx, p.tunnels) })
	g.Go(func() error { p.pool.Run(ctx); return nil })
	g.Go(func() error { p.watchIdle(ctx); return nil })
	g.Go(func() error { p.runPublished(ctx); return nil })
	for _, d := range p.pods {
		g.Go(func() error { return p.acceptPods(ctx, d) })
		g.Go(func() error { <-ctx.Done(); _ = d.Close(); return nil })
	}
	if len(p.packets) > 0 {
		g.Go(func() error { p.watchFlows(ctx); return nil })
	}
	for _, l := range p.packets {
		g.Go(func() error { return p.takeDatagrams(ctx, l) })
		g.Go(func() error { <-ctx.Done(); _ = l.close(); return nil })
	}
	err := g.Wait()
	p.endDirect(func(*direct) *tunnel.Ending { return &tunnel.Ending{Reason: tunnel.ReasonShutdown} })
	p.conns.Wait()
	p.relays.Close()
	p.raw.close()
	return err
}

// acceptPods takes the connections that the kernel steered here.
func (p *Proxy) acceptPods(ctx context.Context, d *door) error {
	self := d.Addr().(*net.TCPAddr).AddrPort()
	for {
		conn, err := d.Accept()
		switch {
		case err == nil:
			p.conns.Go(func() { p.outbound(ctx, conn.(*net.TCPConn), self) })
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accepting connections of pods: %w", err)
		default: // out of descriptors, or the pod gave up in the queue
			p.cfg.Log.Warn("accepting a pod's connection failed", "err", err)
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// Recheck closes every tunnel, idle or busy, and ends every connection without
// one, that the manifest, the deny list,
// the roots and the pods of this moment no longer allow. Call it after any of
// them changed, and when the manifest's answers change with time.
func (p *Proxy) Recheck() {
	p.avoid.rejudge()
	out := p.pool.CloseWhere(func(key tunnel.Key, meta tunnel.Meta, t *tunnel.Tunnel) *tunnel.Ending {
		return p.outboundGone(key, meta, t).ending()
	})
	in := p.server.CloseWhere(func(t *tunnel.Tunnel) *tunnel.Ending { return p.inboundGone(t).ending() })
	direct := p.endDirect(func(d *direct) *tunnel.Ending { return d.judge().ending() })
	if out+in+direct > 0 {
		p.cfg.Log.Info("tunnels closed: no longer allowed", "dialled", out, "accepted", in, "withoutTunnel", direct)
	}
}

// Stats returns a snapshot.
func (p *Proxy) Stats() Stats {
	pool, srv := p.pool.Stats(), p.server.Stats()
	return Stats{
		Idle: pool.Idle, Busy: pool.Busy, Inbound: srv.Tunnels, Outgoing: p.out.inUse(), Incoming: p.in.inUse(),
		Handshakes:     pool.Dials - pool.DialErrors + srv.Handshakes,
		HandshakeFails: pool.DialErrors + srv.HandshakeErrors + srv.Shed,
		Streams:        p.streams.Load(), Reused: pool.Reused,
		BytesSent: p.sent.Load(), BytesReceived: p.received.Load(), Avoided: p.avoid.list(),
		Direct: p.directs(), BytesLocal: p.localBytes.Load(), Clients: p.clients.inUse(), Strangers: p.strangers.Load(), Limits: p.limitHits(pool, srv),
		External: p.outside.conns.Load(), ExternalSent: p.outside.sent.Load(), ExternalReceived: p.outside.received.Load(),
		FlowsOut: p.udpOut.inUse(), FlowsIn: p.udpIn.inUse(),
		DatagramsSent: p.datagrams.sent.Load(), DatagramsReceived: p.datagrams.received.Load(),
		DatagramsDropped: p.datagrams.dropped.Load(), DatagramsRefused: p.datagrams.refused.Load(),
	}
}
