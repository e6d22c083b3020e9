// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/c8s-dev/c8s/test/lab"
)

// QUIC brings its own congestion control, path probing and large datagrams.
func TestQUICPassesThroughTheMesh(t *testing.T) {
	c := newCluster(t, withUDP)
	client, server := openPod(t, c.Nodes[0], "client", lab.Bridged), openPod(t, c.Nodes[1], "server", lab.Routed)
	for _, addr := range [][2]netip.Addr{{client.Addr4, server.Addr4}, {client.Addr6, server.Addr6}} {
		t.Run(addr[1].String(), func(t *testing.T) {
			to := netip.AddrPortFrom(addr[1], echoPort)
			pc, err := server.ListenPacket("udp", to.String())
			if err != nil {
				t.Fatal(err)
			}
			serverTLS, clientTLS := quicTLS(t)
			ln, err := quic.Listen(pc, serverTLS, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go serveQUIC(t.Context(), ln)
			own, err := client.ListenPacket("udp", netip.AddrPortFrom(addr[0], 0).String())
			if err != nil {
				t.Fatal(err)
			}
			defer own.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			conn, err := quic.Dial(ctx, own, net.UDPAddrFromAddrPort(to), clientTLS, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.CloseWithError(0, "")
			stream, err := conn.OpenStreamSync(ctx)
			if err != nil {
				t.Fatal(err)
			}
			const size = 8 << 20
			data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
			began := time.Now()
			go func() {
				_, _ = stream.Write(data)
				_ = stream.Close()
			}()
			back, err := io.ReadAll(stream)
			if err != nil || !bytes.Equal(back, data) {
				t.Fatalf("%d of %d bytes came back: %v", len(back), size, err)
			}
			t.Logf("%d MiB there and back in %s", size>>20, time.Since(began).Round(time.Millisecond))
		})
	}
}

func serveQUIC(ctx context.Context, ln *quic.Listener) {
	for {
		conn, err := ln.Accept(ctx)
		if err != nil {
			return
		}
		go func() {
			stream, err := conn.AcceptStream(ctx)
			if err != nil {
				return
			}
			_, _ = io.Copy(stream, stream)
			_ = stream.Close()
		}()
	}
}

func quicTLS(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"quic"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"echo"}, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"echo"}, RootCAs: roots, ServerName: "quic"}
}
