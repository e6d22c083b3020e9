// SPDX-License-Identifier: Apache-2.0

// Package pebbletest runs Pebble, Let's Encrypt's ACME server for tests, on
// loopback addresses. Every name leads to 127.0.0.1 there. What it issues is
// worth nothing outside the test.
package pebbletest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/c8s-dev/c8s/test/stack/component"
)

// Place is a network that a server may run in: a namespace (package test/lab), or
// a machine that a test has made.
type Place interface {
	Listen(network, addr string) (net.Listener, error)
	ListenPacket(network, addr string) (net.PacketConn, error)
	Dial(ctx context.Context, network, addr string) (net.Conn, error)
	Start(cmd *exec.Cmd) error // has a program run there, until it is waited for
}

// Options of a server.
type Options struct {
	In                Place             // where it runs; nil: here
	HTTPPort, TLSPort int               // where names are visited for challenges
	Life              time.Duration     // of certificates; zero is 90 days
	EAB               map[string][]byte // accounts by key id; not nil: required
	Blocked           []string          // names that are refused
	BadNonces         int               // how many of a hundred nonces are refused although good
	Reuse             int               // how many of a hundred valid authorizations serve again
	Believe           bool              // every answered challenge, without a visit
}

// Server is a running Pebble.
type Server struct {
	Directory string // URL
	Roots     []byte // PEM: for connections to it
	Issuer    []byte // PEM: the root of what it issues

	cmd  *exec.Cmd
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

func (o *Options) listen(addr string) (net.Listener, error) {
	if o.In != nil {
		return o.In.Listen("tcp", addr)
	}
	return net.Listen("tcp", addr)
}

func (o *Options) listenPacket(addr string) (net.PacketConn, error) {
	if o.In != nil {
		return o.In.ListenPacket("udp", addr)
	}
	return net.ListenPacket("udp", addr)
}

func (o *Options) start(cmd *exec.Cmd) error {
	if o.In != nil {
		return o.In.Start(cmd)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also when the test is killed
	return cmd.Start()
}

func (o *Options) dialer() func(context.Context, string, string) (net.Conn, error) {
	if o.In != nil {
		return o.In.Dial
	}
	return new(net.Dialer).DialContext
}

// Start runs a server until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := start(t, o)
	if err != nil {
		t.Fatalf("starting Pebble: %v", err)
	}
	return s
}

func start(t testing.TB, o Options) (*Server, error) {
	resolver, err := loopbackDNS(t, &o)
	if err != nil {
		return nil, err
	}
	// Pebble takes no port 0. One that was free may be taken before it listens.
	for range 5 {
		var s *Server
		if s, err = run(t, o, resolver); err == nil {
			return s, nil
		}
	}
	return nil, err
}

// Program is a Pebble that a test starts itself: in another network namespace,
// for example.
type Program struct {
	Path      string
	Args, Env []string
	Directory string // URL
	IssuerURL string // where it tells the root of what it issues
	Roots     []byte // PEM: for connections to both
}

// Prepare puts what Pebble needs into a folder. It will listen at two addresses
// (IP and port) and ask a DNS server at a third.
func Prepare(ctx context.Context, dir, listen, manage, resolver string, o Options) (*Program, error) {
	folders, err := component.Folders(ctx, component.Pebble)
	if err != nil {
		return nil, fmt.Errorf("%w (or make pebble)", err)
	}
	at, err := netip.ParseAddrPort(listen)
	if err != nil {
		return nil, err
	}
	roots, err := writeIdentity(dir, net.IP(at.Addr().AsSlice()))
	if err != nil {
		return nil, err
	}
	config, err := writeConfig(dir, listen, manage, o)
	if err != nil {
		return nil, err
	}
	believe := ""
	if o.Believe {
		believe = "1"
	}
	return &Program{
		Path: filepath.Join(folders[0], "pebble"), Args: []string{"-config", config, "-dnsserver", resolver},
		Env: []string{
			"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=" + strconv.Itoa(o.BadNonces), "PEBBLE_AUTHZREUSE=" + strconv.Itoa(o.Reuse),
			"PEBBLE_VA_ALWAYS_VALID=" + believe,
		},
		Directory: "https://" + listen + "/dir", IssuerURL: "https://" + manage + "/roots/0", Roots: roots,
	}, nil
}

func run(t testing.TB, o Options, resolver string) (*Server, error) {
	dir := t.TempDir()
	p, err := Prepare(t.Context(), dir, freeAddress(t, &o), freeAddress(t, &o), resolver, o)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close() // it has its own
	s := &Server{Directory: p.Directory, Roots: p.Roots, dial: o.dialer(), cmd: exec.Command(p.Path, p.Args...)}
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Env = log, log, append(os.Environ(), p.Env...)
	if err := o.start(s.cmd); err != nil {
		return nil, err
	}
	exited := make(chan error, 1)
	go func() { exited <- s.cmd.Wait() }()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // or it is gone
		<-exited
		exited <- nil
		if said, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("Pebble said:\n%s", said[max(0, len(said)-4000):])
		}
	})
	if s.Issuer, err = s.issuer(t.Context(), p.IssuerURL, exited); err != nil {
		return nil, err
	}
	return s, s.ready(t.Context())
}

// Stop ends the server, as when it crashes.
func (s *Server) Stop() error { return s.cmd.Process.Kill() }

// Client speaks to the server over TLS.
func (s *Server) Client() *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.Roots)
	return &http.Client{Transport: &http.Transport{DialContext: s.dial, TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
}

// issuer waits until the server tells the root of what it issues.
func (s *Server) issuer(ctx context.Context, url string, exited chan error) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		if body, err := s.get(ctx, url); err == nil {
			return body, nil
		} else if ctx.Err() != nil {
			return nil, err
		}
		select {
		case err := <-exited:
			exited <- err // for who waits for it in the end
			return nil, fmt.Errorf("it ended: %w", errors.Join(err))
		case <-retry.C:
		}
	}
}

func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		_, err := s.get(ctx, s.Directory)
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

func (s *Server) get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := s.Client().Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("getting %s: %s", url, res.Status)
	}
	return io.ReadAll(io.LimitReader(res.Body, 1<<20))
}

func freeAddress(t testing.TB, o *Options) string {
	l, err := o.listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func writeConfig(dir, listen, manage string, o Options) (string, error) {
	if o.Life == 0 {
		o.Life = 90 * 24 * time.Hour
	}
	accounts := map[string]string{}
	for id, key := range o.EAB {
		accounts[id] = base64.RawURLEncoding.EncodeToString(key)
	}
	profile := func(about string) map[string]any {
		return map[string]any{"description": about, "validityPeriod": int(o.Life / time.Second)}
	}
	content, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": listen, "managementListenAddress": manage,
		"certificate": filepath.Join(dir, "cert.pem"), "privateKey": filepath.Join(dir, "key.pem"),
		"httpPort": o.HTTPPort, "tlsPort": o.TLSPort, "keyAlgorithm": "ecdsa",
		"externalAccountBindingRequired": o.EAB != nil, "externalAccountMACKeys": accounts, "domainBlocklist": o.Blocked,
		"retryAfter": map[string]int{"authz": 1, "order": 1},
		"profiles":   map[string]any{"default": profile("for all"), "short": profile("for some")},
	}})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "config.json")
	return path, os.WriteFile(path, content, 0o600)
}

// writeIdentity makes the certificate of the server's own interface.
func writeIdentity(dir string, at net.IP) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{at}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return cert, errors.Join(
		os.WriteFile(filepath.Join(dir, "cert.pem"), cert, 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600),
	)
}

// loopbackDNS answers 127.0.0.1 for every name.
func loopbackDNS(t testing.TB, o *Options) (string, error) {
	conn, listener, err := samePort(o)
	if err != nil {
		return "", err
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if len(q.Question) == 1 && q.Question[0].Qtype == dns.TypeA {
			m.Answer = append(m.Answer, &dns.A{
				Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(127, 0, 0, 1),
			})
		}
		_ = w.WriteMsg(m) // whoever asked asks again
	})
	for _, server := range []*dns.Server{{PacketConn: conn, Handler: handler}, {Listener: listener, Handler: handler}} {
		started, done := make(chan struct{}), make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(done)
			_ = server.ActivateAndServe() // until the cleanup
		}()
		<-started
		t.Cleanup(func() {
			_ = server.Shutdown()
			<-done
		})
	}
	return conn.LocalAddr().String(), nil
}

// samePort listens at a port that is free for both UDP and TCP: one that the
// system gives for one may be taken for the other.
func samePort(o *Options) (conn net.PacketConn, listener net.Listener, err error) {
	for range 20 {
		if conn, err = o.listenPacket("127.0.0.1:0"); err != nil {
			return nil, nil, err
		}
		if listener, err = o.listen(conn.LocalAddr().String()); err == nil {
			return conn, listener, nil
		}
		err = errors.Join(err, conn.Close())
	}
	return nil, nil, err
}
