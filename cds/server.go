// SPDX-License-Identifier: Apache-2.0

// Package cds is the certificate distribution service: it gives a certificate
// to nobody whose evidence it has not appraised, under the operator-signed
// manifest in force, on the very connection that asks.
//
// It holds the mesh CA's key in memory only. A restarted CDS is a new CA;
// nodes notice and enrol again.
package cds

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/ca"
	"github.com/c8s-dev/c8s/policy"
)

const (
	maxRequest     = 256 << 10 // bytes of one message; a manifest may be larger, see maxPublish
	maxPublish     = 2 << 20
	maxConnections = 4096

	machinesRemembered = 1024 // whose verified certificates are not verified again, about 20 KB each
	readHeaderTimeout  = 5 * time.Second
	idleTimeout        = 2 * time.Minute
	shutdownGrace      = 5 * time.Second
	// callTimeout bounds reading a request and writing its answer. Appraising
	// takes milliseconds; clients allow 30 s for an enrolment as a whole.
	callTimeout = 15 * time.Second
	// evidenceLife is how often the service's own evidence is made anew.
	evidenceLife = 30 * time.Minute
)

// Config is what the service is given; required unless said otherwise.
type Config struct {
	Attester  attest.Attester
	Manifest  *policy.Signed // to start from; a newer one in StateDir wins
	Operators policy.Operators
	StateDir  string // keeps the manifest in force across restarts
	Registry  prometheus.Registerer
	// CertificateLife is how long certificates are valid; zero, and at most,
	// ca.MaxLife.
	CertificateLife time.Duration

	Now func() time.Time
	Log *slog.Logger
}

// Server is one CDS.
type Server struct {
	cfg        Config
	ca         *ca.CA
	roots      *x509.CertPool
	manifests  *manifests
	challenges *challenges
	evidence   *evidenceStore
	verified   *appraise.Cache
	callers    *callers
	metrics    *metrics
	tlsCert    atomic.Pointer[tls.Certificate]
	key        crypto.Signer
}

// New prepares a service: its CA and its TLS key are born here.
func New(cfg Config) (*Server, error) {
	if cfg.Attester == nil || cfg.Manifest == nil || cfg.StateDir == "" || cfg.Registry == nil || cfg.Now == nil || cfg.Log == nil {
		return nil, errors.New("preparing the CDS: the configuration lacks a part")
	}
	store, err := openManifests(cfg.StateDir, cfg.Manifest, cfg.Operators)
	if err != nil {
		return nil, err
	}
	authority, err := ca.New(store.current().Manifest.TrustDomain, cfg.CertificateLife, cfg.Now)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the CDS's TLS key: %w", err)
	}
	s := &Server{
		cfg: cfg, ca: authority, roots: x509.NewCertPool(), manifests: store, key: key,
		challenges: newChallenges(cfg.Now), evidence: newEvidenceStore(cfg.Now), verified: appraise.NewCache(machinesRemembered), callers: newCallers(cfg.Now),
	}
	s.roots.AddCert(authority.Root())
	s.metrics = newMetrics(cfg.Registry, s.challenges.outstanding)
	return s, nil
}

// Manifest returns the manifest in force.
func (s *Server) Manifest() *policy.Signed { return s.manifests.current() }

// Publish puts a new operator-signed manifest in force, after the same checks
// as a publication over the network.
func (s *Server) Publish(envelope []byte) error {
	signed, err := s.manifests.publish(envelope)
	if err != nil {
		s.metrics.refused.WithLabelValues(codeOf(err)).Inc()
		s.cfg.Log.Warn("manifest refused", "code", codeOf(err), "err", err)
		return err
	}
	s.cfg.Log.Info("manifest in force", "version", signed.Manifest.Version, "digest", signed.Digest, "signers", signed.Signers)
	return nil
}

// Serve answers on ln until ctx ends, then lets running calls finish for a
// few seconds.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	if err := s.refreshEvidence(ctx); err != nil {
		ln.Close()
		return err
	}
	srv := &http.Server{
		Handler:           s.handler(),
		TLSConfig:         s.tlsConfig(),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		// A stream (Watch) ends with the service.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.keepEvidenceFresh(ctx) })
	g.Go(func() error {
		if err := srv.ServeTLS(limitConns(ln, maxConnections), "", ""); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving the CDS: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
		return ctx.Err()
	})
	return g.Wait()
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(api.NewAttestationHandler((*attestation)(s), connect.WithReadMaxBytes(maxRequest), connect.WithInterceptors(s.guard())))
	mux.Handle(api.NewManifestHandler((*manifestAPI)(s), connect.WithReadMaxBytes(maxPublish), connect.WithInterceptors(s.guard())))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Handlers need the TLS session: evidence binds to it.
		r = r.WithContext(withSession(r.Context(), r.TLS, r.RemoteAddr))
		if r.URL.Path != api.ManifestWatchProcedure { // lasts as long as both sides want
			limitCall(w, r, callTimeout)
		}
		mux.ServeHTTP(w, r)
	})
}

// limitCall ends a call whose body or answer does not get through in time, so
// that a slow caller holds nothing for long.
func limitCall(w http.ResponseWriter, r *http.Request, d time.Duration) {
	c, end := http.NewResponseController(w), time.Now().Add(d)
	_ = c.SetReadDeadline(end) // both are supported by every net/http server
	if r.ProtoMajor == 2 {     // of the stream; in HTTP/1 it would stay on the connection
		_ = c.SetWriteDeadline(end)
	}
}

// tlsConfig asks for a certificate without demanding one: a node that has
// none yet proves itself by evidence. One that is shown must be of this mesh.
func (s *Server) tlsConfig() *tls.Config {
	cfg := ratls.ServerConfig(s.certificate, func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return nil
		}
		_, err := ratls.VerifyPeer(cs.PeerCertificates, s.roots, s.Manifest().Manifest.TrustDomain, s.cfg.Now())
		if err != nil {
			s.metrics.refused.WithLabelValues(codeOf(err)).Inc()
			s.cfg.Log.Warn("connection refused", "code", codeOf(err), "err", err)
		}
		return err
	})
	cfg.NextProtos = []string{"h2"}
	cfg.ClientAuth = tls.RequestClientCert
	return cfg
}

func (s *Server) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if cert := s.tlsCert.Load(); cert != nil {
		return cert, nil
	}
	return nil, errors.New("the CDS has no evidence yet")
}

func (s *Server) refreshEvidence(ctx context.Context) error {
	cert, err := ratls.NativeCertificate(ctx, s.key, s.cfg.Attester, api.PurposeServer, s.cfg.Now())
	if err != nil {
		return fmt.Errorf("attesting the CDS: %w", err)
	}
	s.tlsCert.Store(&cert)
	return nil
}

func (s *Server) keepEvidenceFresh(ctx context.Context) error {
	tick := time.NewTicker(evidenceLife)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if err := s.refreshEvidence(ctx); err != nil {
				// The old evidence stays until it is too old for callers.
				s.cfg.Log.Error("evidence not refreshed", "err", err)
			}
		}
	}
}

// limitConns bounds the connections open at once.
func limitConns(ln net.Listener, n int) net.Listener {
	return &limitListener{Listener: ln, slots: make(chan struct{}, n)}
}

type limitListener struct {
	net.Listener
	slots chan struct{}
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.slots <- struct{}{}:
			return &limitedConn{Conn: conn, release: func() { <-l.slots }}, nil
		default:
			conn.Close() // full: better refused at once than left waiting
		}
	}
}

type limitedConn struct {
	net.Conn
	once    sync.Once
	release func()
}

func (c *limitedConn) Close() error {
	c.once.Do(c.release)
	return c.Conn.Close()
}
