// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of ServerConfig.
const (
	defaultHandshakeTimeout = 5 * time.Second
	defaultMaxHandshakes    = 256
	defaultMaxTunnels       = 65536
	defaultServerIdle       = 5 * time.Minute
)

// ServerConfig configures a Server. Accept and Buffers are required.
type ServerConfig struct {
	Buffers *Buffers
	// Session is called for each connection: its TLS configuration, and a
	// value that Tunnel.Session returns later. nil, or a nil configuration:
	// no TLS.
	Session func() (cfg *tls.Config, value any)
	// Owner says against whose part of the budget a tunnel counts, from the
	// value that Session made. May be nil.
	Owner func(value any) string
	// Accept answers an OPEN; see Accept for what it returns.
	Accept func(ctx context.Context, t *Tunnel, h Header) (app App, end func(Result), refuse Reason)
	// Judge says whether a tunnel whose handshake is over must end at once:
	// CloseWhere did not see it, and what its session was made by may have
	// changed meanwhile. It must not call the Server; may be nil.
	Judge func(t *Tunnel) *Ending
	// Refused is told of handshakes that failed; may be nil.
	Refused func(remote net.Addr, err error)
	// Known says whether an address is one that peers come from. It decides in
	// what order connections are served and never which; that of an open tunnel
	// is known already. It must not block; nil knows none.
	Known func(addr netip.Addr) bool

	HandshakeTimeout time.Duration
	IdleTimeout      time.Duration // of a tunnel without a stream, one to two of them; above the pool's
	MaxHandshakes    int           // at once, one host no more than an eighth; more wait
	MaxTunnels       int           // open at once, of one host no more than half; more are closed
	Log              *slog.Logger
}

// ServerStats is a snapshot.
type ServerStats struct {
	Tunnels                           int
	Handshakes, HandshakeErrors, Shed uint64
	Guests                            int    // connections whose handshake is not over
	Crowded                           uint64 // connections closed without one: too many of one host, or to make room
}

// Server accepts tunnels. Safe for concurrent use.
type Server struct {
	cfg     ServerConfig
	mu      sync.Mutex
	open    map[*Tunnel]struct{}
	hosts   map[netip.Addr]int // of open
	addrs   map[netip.Addr]int // likewise
	retired bool
	guests  *guests

	telling                           sync.WaitGroup // other sides that the server retires
	handshakes, handshakeErrors, shed atomic.Uint64
	crowded                           atomic.Uint64
}

// NewServer makes a server.
func NewServer(cfg ServerConfig) *Server {
	if cfg.HandshakeTimeout <= 0 {
		cfg.HandshakeTimeout = defaultHandshakeTimeout
	}
	if cfg.IdleTimeout <= 0 {
		cfg.IdleTimeout = defaultServerIdle
	}
	if cfg.MaxHandshakes <= 0 {
		cfg.MaxHandshakes = defaultMaxHandshakes
	}
	if cfg.MaxTunnels <= 0 {
		cfg.MaxTunnels = defaultMaxTunnels
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{
		cfg: cfg, open: map[*Tunnel]struct{}{}, hosts: map[netip.Addr]int{}, addrs: map[netip.Addr]int{},
		guests: newGuests(cfg.MaxHandshakes, cfg.HandshakeTimeout),
	}
}

// Serve accepts tunnels from ln until ctx ends, and returns when all are
// closed.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	var wg sync.WaitGroup
	defer s.telling.Wait()
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	wg.Go(func() { s.sweep(ctx) })
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accepting tunnels: %w", err)
			}
			// Out of descriptors or a connection that died in the queue.
			s.cfg.Log.Warn("accepting a tunnel failed", "err", err)
			time.Sleep(50 * time.Millisecond)
			continue
		}
		addr := addrOf(conn.RemoteAddr())
		guest := s.guests.enter(ctx, addr, s.known(addr))
		if guest == nil {
			s.turnAway(conn)
			continue
		}
		wg.Go(func() {
			if t := s.receive(conn, guest); t != nil {
				// A handshake needs a deep stack; what stays for the
				// tunnel's life begins on a fresh one.
				wg.Go(func() { s.serve(ctx, t) })
			}
		})
	}
}

// known reports whether peers come from the address: they have tunnels from
// there, which they proved who they are for, or Known says so.
func (s *Server) known(addr netip.Addr) bool {
	s.mu.Lock()
	proved := s.addrs[addr] > 0
	s.mu.Unlock()
	return proved || s.cfg.Known != nil && s.cfg.Known(addr)
}

func (s *Server) serve(ctx context.Context, t *Tunnel) {
	defer s.remove(t)
	if e := s.add(t); e != nil {
		t.End(*e)
		return
	}
	err := t.Serve(ctx, func(ctx context.Context, h Header) (App, func(Result), Reason) {
		return s.cfg.Accept(ctx, t, h)
	})
	if err != nil && ctx.Err() == nil {
		s.cfg.Log.Debug("tunnel ended", "remote", t.RemoteAddr(), "err", err)
	}
}

// receive waits for the guest's turn and shakes hands.
func (s *Server) receive(conn net.Conn, guest *guest) *Tunnel {
	defer s.guests.leave(guest)
	if !s.guests.await(guest, s.cfg.HandshakeTimeout) {
		s.turnAway(conn)
		return nil
	}
	return s.handshake(guest.ctx, conn)
}

// turnAway closes a connection at no cost.
func (s *Server) turnAway(conn net.Conn) {
	s.crowded.Add(1)
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// handshake runs for as long as guest lasts.
func (s *Server) handshake(guest context.Context, conn net.Conn) *Tunnel {
	ctx, cancel := context.WithTimeout(guest, s.cfg.HandshakeTimeout)
	defer cancel()
	var cfg *tls.Config
	var value any
	if s.cfg.Session != nil {
		cfg, value = s.cfg.Session()
	}
	t, err := Accepted(ctx, conn, cfg, s.cfg.Buffers)
	if err == nil && ctx.Err() != nil { // too late to undo the deadline
		t.Close()
		err = context.Cause(ctx)
	}
	if err != nil && errors.Is(context.Cause(guest), errCrowded) {
		s.crowded.Add(1)
		return nil
	}
	if err != nil {
		s.handshakeErrors.Add(1)
		if s.cfg.Refused != nil {
			s.cfg.Refused(conn.RemoteAddr(), err)
		}
		return nil
	}
	t.session = value
	if s.cfg.Owner != nil {
		t.Charge(s.cfg.Owner(value))
	}
	s.handshakes.Add(1)
	return t
}

// add lets the tunnel be seen by CloseWhere, unless it must end.
func (s *Server) add(t *Tunnel) *Ending {
	s.mu.Lock()
	defer s.mu.Unlock()
	host := HostOf(t.RemoteAddr())
	if len(s.open) >= s.cfg.MaxTunnels || s.hosts[host] >= max(1, s.cfg.MaxTunnels/2) {
		s.shed.Add(1)
		return &Ending{Reason: ReasonTooMany}
	}
	if s.cfg.Judge != nil {
		if e := s.cfg.Judge(t); e != nil {
			return e
		}
	}
	s.open[t] = struct{}{}
	s.hosts[host]++
	s.addrs[addrOf(t.RemoteAddr())]++
	if s.retired {
		s.telling.Go(t.retire)
	}
	return nil
}

func (s *Server) remove(t *Tunnel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.open[t]; !ok {
		return
	}
	delete(s.open, t)
	less(s.hosts, HostOf(t.RemoteAddr()))
	less(s.addrs, addrOf(t.RemoteAddr()))
}

func less(counts map[netip.Addr]int, addr netip.Addr) {
	if counts[addr]--; counts[addr] == 0 {
		delete(counts, addr)
	}
}

// sweep closes tunnels that carried nothing for one to two idle limits.
func (s *Server) sweep(ctx context.Context) {
	tick := time.NewTicker(s.cfg.IdleTimeout)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.CloseWhere(func(t *Tunnel) *Ending {
			t.mu.Lock()
			defer t.mu.Unlock()
			idle := t.state.over() && t.swept == t.state.seq+1
			t.swept = t.state.seq + 1 // 0: never swept
			if !idle {
				return nil
			}
			return &Ending{Reason: ReasonIdle}
		})
	}
}

// CloseWhere closes every tunnel, idle or busy, that judge gives an ending,
// and returns how many. Connections on them are reset.
func (s *Server) CloseWhere(judge func(*Tunnel) *Ending) int {
	s.mu.Lock()
	kill := map[*Tunnel]*Ending{}
	for t := range s.open {
		if e := judge(t); e != nil {
			kill[t] = e
		}
	}
	s.mu.Unlock()
	for t, e := range kill {
		t.End(*e)
	}
	return len(kill)
}

// Retire asks the other side of every tunnel, and of those still to come, to
// open no further stream on it. Streams that were opened before, or cross the
// request, go on. It does not wait for anybody; call it while Serve runs.
func (s *Server) Retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retired {
		return
	}
	s.retired = true
	for t := range s.open {
		s.telling.Go(t.retire)
	}
}

// Stats returns a snapshot.
func (s *Server) Stats() ServerStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ServerStats{
		Tunnels: len(s.open), Handshakes: s.handshakes.Load(),
		HandshakeErrors: s.handshakeErrors.Load(), Shed: s.shed.Load(),
		Guests: s.guests.count(), Crowded: s.crowded.Load(),
	}
}
