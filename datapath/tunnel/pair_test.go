// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

var testHeader = Header{Proto: ProtoTCP, Src: netip.MustParseAddrPort("10.1.0.1:40000"), Dst: netip.MustParseAddrPort("10.2.0.2:80")}

func testTLS(tb testing.TB) (client, server *tls.Config) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	base := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, RootCAs: roots, ClientCAs: roots, ServerName: "test",
		ClientAuth: tls.RequireAndVerifyClientCert, SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519},
	}
	return base, base.Clone()
}

func listenTCP(tb testing.TB) *net.TCPListener {
	tb.Helper()
	lc := net.ListenConfig{KeepAliveConfig: KeepAlive()}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { ln.Close() })
	return ln.(*net.TCPListener)
}

func dialTCP(tb testing.TB, addr string) *net.TCPConn {
	tb.Helper()
	c, err := tryDial(addr)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func tryDial(addr string) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	d.SetMultipathTCP(false)
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// tcpPair returns both ends of a loopback connection.
func tcpPair(tb testing.TB) (a, b *net.TCPConn) {
	tb.Helper()
	ln := listenTCP(tb)
	done := make(chan *net.TCPConn, 1)
	go func() {
		c, err := ln.AcceptTCP()
		if err != nil {
			tb.Error(err)
		}
		done <- c
	}()
	a = dialTCP(tb, ln.Addr().String())
	b = <-done
	ln.Close()
	return a, b
}

// tunnelPair returns both sides of a tunnel, with TLS if set.
func tunnelPair(tb testing.TB, useTLS bool) (opener, acceptor *Tunnel) {
	tb.Helper()
	return tunnelPairOn(tb, useTLS, new(Buffers))
}

func tunnelPairOn(tb testing.TB, useTLS bool, bufs *Buffers) (opener, acceptor *Tunnel) {
	tb.Helper()
	var client, server *tls.Config
	if useTLS {
		client, server = testTLS(tb)
	}
	a, b := tcpPair(tb)
	var wg sync.WaitGroup
	wg.Go(func() {
		var err error
		if acceptor, err = Accepted(context.Background(), b, server, bufs); err != nil {
			tb.Error(err)
		}
	})
	opener, err := Dialed(context.Background(), a, client, bufs)
	if err != nil {
		tb.Fatal(err)
	}
	wg.Wait()
	tb.Cleanup(func() { opener.Kill(ReasonShutdown); acceptor.Kill(ReasonShutdown) })
	return opener, acceptor
}

func bothWays(t *testing.T, fn func(t *testing.T, useTLS bool)) {
	for _, useTLS := range []bool{false, true} {
		t.Run(map[bool]string{false: "tcp", true: "tls"}[useTLS], func(t *testing.T) { fn(t, useTLS) })
	}
}
