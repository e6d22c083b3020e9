// SPDX-License-Identifier: Apache-2.0

// Package cds is the certificate distribution service: it gives a certificate
// to nobody whose evidence it has not appraised, under the operator-signed
// manifest in force, on the very connection that asks, and hands it out only
// once it is in the log.
//
// Several replicas share one secret and one store (package ledger). What they
// keep outside the TEE is sealed, and a store that is rolled back stops them.
package cds

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/ca"
	"github.com/c8s-dev/c8s/cds/clock"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/policy"
)

const (
	maxRequest = 256 << 10 // bytes of one message; a signed document may be larger, see maxPublish
	maxPublish = 16 << 20

	readHeaderTimeout = 5 * time.Second
	idleTimeout       = 2 * time.Minute
	shutdownGrace     = 5 * time.Second
	// callTimeout bounds reading a request and writing its answer. Appraising
	// takes milliseconds; clients allow 30 s for an enrolment as a whole.
	callTimeout = 15 * time.Second
	// maxStreams is how many calls may be under way on one connection.
	maxStreams = 128
	// evidenceLife is how often the service's own evidence is made anew, and
	// evidenceRetry how soon again when that failed.
	evidenceLife, evidenceRetry = 30 * time.Minute, time.Minute
)

// Config is what the service is given; required unless said otherwise.
type Config struct {
	Attester  attest.Attester // its optional interface attest.Sealer is used
	Manifest  *policy.Signed  // to start from; a newer one in the store wins
	Operators policy.Operators
	Store     store.Store // outside the trust boundary; closed by its owner
	Registry  prometheus.Registerer

	Name        string   // of this replica; for people
	Join        []string // addresses of other replicas; may be empty
	ReBootstrap bool     // make a new CA although the store is in use
	// CertificateLife is how long certificates are valid; zero, and at most,
	// ca.MaxLife.
	CertificateLife time.Duration
	Limits          Limits // zero fields get defaults

	Dial func(ctx context.Context, network, addr string) (net.Conn, error) // to other replicas; may be nil
	Wall func() time.Time
	Mono func() time.Duration // of the monotonic clock; the process's own when nil
	Log  *slog.Logger
}

// Limits bound what callers can make the service do.
type Limits struct {
	Connections    int     // at once; 4096, and half of them of one remote host
	CallsPerSecond float64 // of one remote host, steadily; 500
	CallBurst      float64 // of one remote host; 2000
	// LivePerMachine is how many certificates of one machine, for itself, may
	// be valid at once; 64. Machines of one provider's VLEK share a name, and
	// 1024 times as much.
	LivePerMachine int
}

func (l *Limits) fill() {
	if l.Connections <= 0 {
		l.Connections = 4096
	}
	if l.CallsPerSecond <= 0 {
		l.CallsPerSecond = 500
	}
	if l.CallBurst <= 0 {
		l.CallBurst = 2000
	}
	if l.LivePerMachine <= 0 {
		l.LivePerMachine = 64
	}
}

// Server is one replica of the CDS.
type Server struct {
	cfg       Config
	key       crypto.Signer // of its own TLS certificate
	tlsCert   atomic.Pointer[tls.Certificate]
	core      atomic.Pointer[core] // nil until the secret is here
	shares    *shares
	before    earlier
	admission *admission
	closing   chan struct{} // closed when the service ends
	gate      *gate
	sending   *semaphore.Weighted // of bytes to watchers
	callTime  time.Duration       // callTimeout
	metrics   *metrics
	starting  atomic.Pointer[string] // what is being waited for
}

// New checks cfg and prepares a replica: its TLS key is born here.
func New(cfg Config) (*Server, error) {
	if cfg.Attester == nil || cfg.Manifest == nil || cfg.Store == nil || cfg.Registry == nil || cfg.Wall == nil || cfg.Log == nil {
		return nil, errors.New("preparing the CDS: the configuration lacks a part")
	}
	if cfg.CertificateLife < 0 || cfg.CertificateLife > ca.MaxLife {
		return nil, fmt.Errorf("preparing the CDS: a certificate life of %s, must be at most %s", cfg.CertificateLife, ca.MaxLife)
	}
	if cfg.CertificateLife == 0 {
		cfg.CertificateLife = ca.MaxLife
	}
	if cfg.Mono == nil {
		cfg.Mono = clock.Monotonic()
	}
	cfg.Limits.fill()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the CDS's TLS key: %w", err)
	}
	s := &Server{cfg: cfg, key: key, shares: newShares(), admission: newAdmission(cfg.Limits), closing: make(chan struct{}), gate: newGate(), sending: semaphore.NewWeighted(maxSending), callTime: callTimeout}
	s.metrics = newMetrics(cfg.Registry, s)
	s.wait("its own evidence")
	return s, nil
}

// wait says what the service is waiting for.
func (s *Server) wait(what string) { s.starting.Store(&what) }

// now is the service's clock, or the machine's while there is none yet.
func (s *Server) now() time.Time {
	if c := s.core.Load(); c != nil {
		return c.clock.Now()
	}
	return s.cfg.Wall()
}

// Serve answers on ln until ctx ends, then lets running calls finish for a
// few seconds; a watch ends at once. It listens at once, and issues when Ready.
// It is called once.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	if err := s.refreshEvidence(ctx); err != nil {
		ln.Close()
		return err
	}
	// What calls need goes on until they are finished.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	srv := s.httpServer(work)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.keepEvidenceFresh(ctx) })
	g.Go(func() error { return s.live(work) })
	g.Go(func() error {
		if err := srv.ServeTLS(limitConns(ln, s.admission.conns), "", ""); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving the CDS: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		defer stop()
		close(s.closing)
		grace, cancel := context.WithTimeout(work, shutdownGrace)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
		return ctx.Err()
	})
	return g.Wait()
}

func (s *Server) httpServer(work context.Context) *http.Server {
	return &http.Server{
		Handler:           s.handler(),
		TLSConfig:         s.tlsConfig(),
		ReadHeaderTimeout: readHeaderTimeout,
		// Of one answer, or one stream of HTTP/2; Watch takes it back.
		WriteTimeout:   s.callTime,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: 16 << 10,
		HTTP2:          &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:       slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		BaseContext:    func(net.Listener) context.Context { return work },
	}
}

// live obtains the secret and works with it.
func (s *Server) live(ctx context.Context) error {
	core, err := s.start(ctx)
	if err != nil {
		return err
	}
	return core.run(ctx)
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	options := func(limit int) connect.HandlerOption {
		return connect.WithHandlerOptions(
			connect.WithReadMaxBytes(limit), connect.WithInterceptors(s.guard()),
			// Nonces, hashes and certificates do not get smaller, and what nobody
			// has to decompress cannot be a bomb.
			connect.WithCompression("gzip", nil, nil),
		)
	}
	mux.Handle(api.NewAttestationHandler((*attestation)(s), options(maxRequest)))
	mux.Handle(api.NewPolicyHandler((*policyAPI)(s), options(maxPublish)))
	mux.Handle(api.NewWitnessHandler((*witnessAPI)(s), options(maxRequest)))
	mux.Handle(api.NewReplicaHandler((*replicaAPI)(s), options(maxRequest)))
	mux.Handle(api.NewRecoveryHandler((*recoveryAPI)(s), options(maxRequest)))
	s.handleDocuments(mux)
	return s.limited(mux)
}

// tlsConfig asks for a certificate without demanding one: a node that has
// none yet proves itself by evidence. One that is shown must be of this mesh.
func (s *Server) tlsConfig() *tls.Config {
	cfg := ratls.ServerConfig(s.certificate, func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return nil
		}
		err := s.verifyCaller(cs)
		if err != nil {
			s.metrics.refused.WithLabelValues(codeOf(err)).Inc()
			s.cfg.Log.Warn("connection refused", "code", codeOf(err), "err", err)
		}
		return err
	})
	cfg.NextProtos = []string{"h2", "http/1.1"} // the latter for auditors' simple tools
	cfg.ClientAuth = tls.RequestClientCert
	return cfg
}

func (s *Server) verifyCaller(cs tls.ConnectionState) error {
	c, err := s.ready()
	if err != nil {
		return err
	}
	_, err = c.peers.verify(c, cs.PeerCertificates)
	return err
}

func (s *Server) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if cert := s.tlsCert.Load(); cert != nil {
		return cert, nil
	}
	return nil, errors.New("the CDS has no evidence yet")
}

func (s *Server) refreshEvidence(ctx context.Context) error {
	cert, err := ratls.NativeCertificate(ctx, s.key, s.cfg.Attester, api.PurposeServer, s.now())
	if err != nil {
		return fmt.Errorf("attesting the CDS: %w", err)
	}
	s.tlsCert.Store(&cert)
	return nil
}

func (s *Server) keepEvidenceFresh(ctx context.Context) error {
	pause := evidenceLife
	for {
		if err := pauseFor(ctx, pause); err != nil {
			return err
		}
		pause = evidenceLife
		if err := s.refreshEvidence(ctx); err != nil && ctx.Err() == nil {
			// The old evidence stays until it is too old for callers.
			pause = evidenceRetry
			s.cfg.Log.Error("evidence not refreshed", "err", err, "retryIn", pause)
		}
	}
}

// newClock returns the service's clock, which is never earlier than floor.
func (s *Server) newClock(floor time.Time) (*clock.Clock, error) {
	return clock.New(clock.Config{Wall: s.cfg.Wall, Mono: s.cfg.Mono, Floor: floor, Log: s.cfg.Log})
}
