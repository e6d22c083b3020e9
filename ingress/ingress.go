// SPDX-License-Identifier: Apache-2.0

// Package ingress takes requests from outside the cluster to pods, and keeps
// this invariant: a byte of a request leaves for a backend only on a connection
// into the mesh whose other end proved, in its certificate, to be a workload
// that the signed manifest lists for the request's host. Routes are hints;
// connections are never shared between hosts, and are judged again before each
// request. An answer that was cut off never looks complete.
//
// What answers under /.well-known/c8s is the ingress itself, on every host.
package ingress

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/client/receipt"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/ingress/route"
	"github.com/c8s-dev/c8s/policy"
)

// ownPath and all below it are answered by Config.Own.
const ownPath = "/.well-known/c8s"

// Conn is a connection into the mesh.
type Conn interface {
	net.Conn
	CloseWrite() error
	Reset() error      // ends it so that what was sent does not look complete
	Peer() *ratls.Peer // who answers, as its certificate proved it
}

// Mesh makes connections to pods. See Through.
type Mesh interface {
	// Dial asks may about the workload in the certificate of who answers, before a
	// byte is sent. An error that has Elsewhere() bool says whether another
	// endpoint may do better; one without it is taken for a yes.
	Dial(ctx context.Context, to resolve.Target, may func(workload string) policy.Decision) (Conn, error)
	Manifest() *policy.Signed // in force; nil: none, and nothing is forwarded
}

// Certificates are what clients are answered with.
type Certificates interface {
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	HTTPHandler(next http.Handler) http.Handler // answers HTTP-01 challenges
}

// Listeners is where clients come from. The server closes them.
type Listeners struct {
	HTTPS []net.Listener
	HTTP  []net.Listener // redirects and challenges only
	QUIC  net.PacketConn // HTTP/3; nil: none
	// AltPort is the UDP port that browsers are told about; 0: that of QUIC.
	AltPort uint16
	// Proxies are the prefixes of load balancers that speak the PROXY protocol.
	// Connections from there must begin with its header; from elsewhere it is not
	// understood.
	Proxies []netip.Prefix
}

// Config is what a Server needs. All but the parts marked optional are required.
type Config struct {
	Listen  Listeners
	Certs   Certificates
	Mesh    Mesh
	Resolve func(service string, port route.Port, avoid []netip.Addr) (resolve.Target, error)
	Own     http.Handler // everything under /.well-known/c8s

	Receipts *receipt.Signer // optional
	// LogIndex finds the index of a certificate in the CDS's log. It is asked once
	// for each certificate, not while a request waits. Optional.
	LogIndex func(ctx context.Context, leaf policy.Digest) (int64, error)

	Limits     Limits
	TLS13      bool           // refuse TLS 1.2
	TrustedFor []netip.Prefix // clients whose Forwarded and X-Forwarded-* are passed on; optional
	Log        *slog.Logger
	Access     *slog.Logger // one line for each request; optional
	Now        func() time.Time
	Rand       func() uint64 // spreads requests; called by many goroutines
}

// Server is the ingress. Safe for concurrent use.
type Server struct {
	cfg     Config
	routes  atomic.Pointer[routes]
	clients *clients
	tls     *tls.Config
	back    *backends
	proxy   http.Handler // forwards what is in the request's exchange
	logs    *logIndex
	metrics *metrics
	altSvc  string

	running running         // requests, hijacked connections included
	life    context.Context // ends when what still runs must end
	end     context.CancelFunc
	swap    sync.Mutex    // of routes
	budget  *rate.Limiter // of records
}

// New makes a server without routes: every host is unknown to it.
func New(cfg Config) (*Server, error) {
	if cfg.Certs == nil || cfg.Mesh == nil || cfg.Resolve == nil || cfg.Own == nil || cfg.Log == nil || cfg.Now == nil || cfg.Rand == nil ||
		len(cfg.Listen.HTTPS) == 0 {
		return nil, errors.New("making the ingress: the configuration lacks a part")
	}
	if err := cfg.Limits.fill(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, metrics: newMetrics(), budget: rate.NewLimiter(recordsPerSecond, recordsBurst)}
	s.life, s.end = context.WithCancel(context.Background())
	s.clients = newClients(cfg.Limits.Connections, cfg.Limits.PerClient)
	s.logs = newLogIndex(s.life, cfg.LogIndex, cfg.Log, cfg.Now)
	s.back = newBackends(s)
	s.proxy = s.newProxy()
	s.tls = newTLS(&s.cfg)
	s.altSvc = altSvc(&cfg.Listen)
	s.routes.Store(&routes{table: &route.Table{}, hosts: map[string]*hostState{}})
	return s, nil
}

// routes is a table and what is counted for its hosts.
type routes struct {
	table *route.Table
	hosts map[string]*hostState // those with limits, by the name in the table
}

// SetRoutes replaces the routes. Requests that are under way go on as they began.
func (s *Server) SetRoutes(t *route.Table) {
	s.swap.Lock()
	defer s.swap.Unlock()
	before := s.routes.Load()
	now := &routes{table: t, hosts: map[string]*hostState{}}
	for _, name := range t.Hosts() {
		if l := t.LimitsOf(name); l != (route.Limits{}) {
			now.hosts[name] = before.hosts[name].with(l)
		}
	}
	s.routes.Store(now)
	s.back.watch(t)
}
