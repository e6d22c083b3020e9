// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/datapath/tunnel"
	"github.com/c8s-dev/c8s/policy"
)

// DialerConfig is what a Dialer is given. Fields without a default are required.
type DialerConfig struct {
	Word       Word
	Credential func() *Credential // of role ingress; where it returns nil, every Dial is refused
	TunnelPort uint16             // of all nodes; default TunnelPort
	Limits     Limits             // of these: Connections, ConnectionsPerPod, DialTimeout, Buffers, BuffersPerPod
	Now        func() time.Time
	Log        *slog.Logger
}

// Dialer makes connections from a machine with an identity of its own, of role
// ingress, to pods. Tunnels are used again, each for one connection at a time,
// and never with another certificate than the one that made them. Safe for
// concurrent use.
type Dialer struct {
	verifier
	cfg    DialerConfig
	bufs   tunnel.Buffers
	pool   *tunnel.Pool
	conns  limiter
	ports  atomic.Uint32
	counts struct {
		streams        atomic.Uint64
		sent, received atomic.Int64
	}
}

// dialsAtOnce bounds the handshakes that are under way.
const dialsAtOnce = 512

// DialerStats is a snapshot of counters and gauges.
type DialerStats struct {
	Idle, Busy     int // tunnels
	Conns          int
	Handshakes     uint64
	HandshakeFails uint64
	Streams        uint64 // connections so far
	Reused         uint64 // of them, those that needed no handshake
	BytesSent      int64  // to pods
	BytesReceived  int64
	Limits         map[string]uint64 // how often each was reached
}

// NewDialer checks cfg and prepares a dialer. Run keeps it tidy.
func NewDialer(cfg DialerConfig) (*Dialer, error) {
	if cfg.Word == nil || cfg.Credential == nil || cfg.Now == nil || cfg.Log == nil {
		return nil, errors.New("preparing the way into the mesh: the configuration lacks a part")
	}
	cfg.Limits.fill()
	if cfg.TunnelPort == 0 {
		cfg.TunnelPort = TunnelPort
	}
	l := cfg.Limits
	d := &Dialer{verifier: newVerifier(cfg.Word, cfg.Now), cfg: cfg}
	d.bufs.Budget = tunnel.NewBudget(int64(l.Buffers), int64(l.BuffersPerPod))
	d.conns = limiter{total: l.Connections, perPod: l.ConnectionsPerPod, pods: map[string]int{}}
	d.pool = tunnel.NewPool(tunnel.PoolConfig{
		Dial: d.dialTunnel, Now: cfg.Now, DialTimeout: l.DialTimeout,
		OwnerDials: dialsAtOnce, TotalDials: dialsAtOnce, OwnerIdle: l.Connections, // it is the only owner
		Judge: func(_ tunnel.Key, meta tunnel.Meta, t *tunnel.Tunnel) *tunnel.Ending { return d.over(meta, t).ending() },
	})
	return d, nil
}

// Dial connects to the pod at to, which must prove that it is there and of a
// workload that may allows. may is asked after the other end was verified and
// before it hears of the connection, and again by Recheck while the connection
// lives; it must not block or call the Dialer.
//
// Every failure is a *Refusal, and no byte of the application has left then:
// another endpoint may always be tried. A refusal of the other node comes later,
// from Read or Write, and is a *Refusal too: see MeshConn.
func (d *Dialer) Dial(ctx context.Context, to resolve.Target, may func(workload string) policy.Decision) (*MeshConn, error) {
	c, why := d.dial(ctx, to, may)
	if why != nil {
		d.cfg.Log.Debug("no connection into the mesh", "pod", to.Pod, "node", to.Node, "reason", why.Code, "err", why)
		return nil, why
	}
	return c, nil
}

func (d *Dialer) dial(ctx context.Context, to resolve.Target, may func(workload string) policy.Decision) (*MeshConn, *Refusal) {
	if may == nil || !to.Pod.IsValid() || to.Pod.Port() == 0 || !to.Node.IsValid() {
		return nil, refuse(reasonNoRoute, "routes", "a pod, its node and who may answer", to.Pod.String()+" on "+to.Node.String())
	}
	self, why := d.self()
	if why != nil {
		return nil, why
	}
	owner := to.Pod.Addr().String()
	if !d.conns.take(owner) {
		return nil, refuse(reasonTooMany, "connection limit", "fewer connections", "the limit of the pod or of all is reached").aboutPeer()
	}
	c, why := d.connect(ctx, self, to, may)
	if why != nil {
		d.conns.give(owner)
		return nil, why
	}
	return c, nil
}

// self is the ingress's own certificate.
func (d *Dialer) self() (*Credential, *Refusal) {
	const rule = "ingress certificate"
	cred := d.cfg.Credential()
	switch {
	case cred == nil:
		return nil, refuse(reasonNotEnrolled, rule, "a certificate of this ingress", "none yet")
	case cred.Role != policy.RoleIngress:
		return nil, refuse(reasonIngressRole, rule, string(policy.RoleIngress), string(cred.Role))
	}
	return cred, d.inForce(cred, rule)
}

// connect leases a tunnel to the pod, judges it for this connection and opens
// it.
func (d *Dialer) connect(ctx context.Context, self *Credential, to resolve.Target, may func(string) policy.Decision) (*MeshConn, *Refusal) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Limits.DialTimeout)
	defer cancel()
	key := tunnel.Key{Dst: to.Pod.Addr(), Node: to.Node, Owner: self.Holder.Serial}
	lease, err := d.pool.Get(ctx, key)
	if err != nil {
		return nil, dialRefusal(err)
	}
	m := lease.Meta.Peer.(*dialled)
	h := tunnel.Header{Proto: tunnel.ProtoTCP, Src: d.source(lease.Tunnel, to.Pod.Addr()), Dst: to.Pod}
	m.may.Store(&may)
	lease.Tunnel.Reserve(h) // before it is judged, so that Recheck sees it
	why := d.judge(m, h)
	if why == nil && !h.Src.IsValid() {
		why = refuse(reasonNoSource, "address of this host", "one that an IPv4 pod can answer", "the tunnel is over IPv6").aboutPeer()
	}
	if why != nil {
		m.may.Store(nil)
		d.pool.Put(lease)
		return nil, why
	}
	d.counts.streams.Add(1)
	return &MeshConn{peer: m.peer.Peer, Conn: lease.Tunnel.Open(h, func(res tunnel.Result) {
		m.may.Store(nil)
		d.counts.sent.Add(res.Sent)
		d.counts.received.Add(res.Received)
		d.conns.give(to.Pod.Addr().String())
		d.pool.Put(lease)
	})}, nil
}

// source is what a pod is to see: this host, and a port that tells connections
// apart. No socket has it.
func (d *Dialer) source(t *tunnel.Tunnel, pod netip.Addr) netip.AddrPort {
	const first, count = 1024, 1<<16 - 1024
	return netip.AddrPortFrom(hostSource(unmap(t.LocalAddr()).Addr(), pod), uint16(first+d.ports.Add(1)%count))
}

// Recheck closes every tunnel, idle or busy, that the manifest, the deny list,
// the roots, the credential and may, asked again, no longer allow. Call it
// after any of them changed, and when the manifest's answers change with time.
func (d *Dialer) Recheck() {
	n := d.pool.CloseWhere(func(_ tunnel.Key, meta tunnel.Meta, t *tunnel.Tunnel) *tunnel.Ending { return d.over(meta, t).ending() })
	if n > 0 {
		d.cfg.Log.Info("tunnels into the mesh closed: no longer allowed", "tunnels", n)
	}
}

// Run keeps tunnels tidy until ctx ends, then ends what is left.
func (d *Dialer) Run(ctx context.Context) error {
	d.pool.Run(ctx)
	return nil
}

// Stats returns a snapshot.
func (d *Dialer) Stats() DialerStats {
	pool := d.pool.Stats()
	return DialerStats{
		Idle: pool.Idle, Busy: pool.Busy, Conns: d.conns.inUse(),
		Handshakes: pool.Dials - pool.DialErrors, HandshakeFails: pool.DialErrors,
		Streams: d.counts.streams.Load(), Reused: pool.Reused,
		BytesSent: d.counts.sent.Load(), BytesReceived: d.counts.received.Load(),
		Limits: map[string]uint64{"connections": d.conns.refusals(), "dials": pool.Held, "buffers": d.bufs.Budget.Refused()},
	}
}
