// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest/ratls"
)

// handshakeFlood announces a handshake message of n bytes and sends it, as
// long as the other side takes it.
func handshakeFlood(t *testing.T, to netip.AddrPort, messageType byte, n int) {
	t.Helper()
	c, err := net.Dial("tcp", to.String())
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	message := make([]byte, 4+n)
	binary.BigEndian.PutUint32(message, uint32(n))
	message[0] = messageType
	for len(message) > 0 {
		part := message[:min(len(message), 1<<14)]
		record := append([]byte{22, 3, 3, byte(len(part) >> 8), byte(len(part))}, part...)
		if _, err := c.Write(record); err != nil {
			return
		}
		message = message[len(part):]
	}
	_, _ = io.Copy(io.Discard, c) // until the other side has had enough
}

func TestOversizeHandshakesAreRefusedAndTheNodeGoesOn(t *testing.T) {
	w, a, b := pair(t)
	node := netip.AddrPortFrom(b.addr, w.port)
	const huge = 1<<24 - 1
	before := b.proxy.Stats().HandshakeFails
	handshakeFlood(t, node, 1 /* client_hello */, huge)
	for b.proxy.Stats().HandshakeFails == before {
		time.Sleep(time.Millisecond)
	}

	// A certificate chain of a megabyte, from a client that is otherwise honest.
	pod, _ := a.Pod(netip.MustParseAddr(webAddr))
	chain := *pod.Credential().TLS
	for range 2000 {
		chain.Certificate = append(chain.Certificate, chain.Certificate[0])
	}
	show := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &chain, nil }
	cfg := ratls.ClientConfig(show, func(tls.ConnectionState) error { return nil })
	cfg.NextProtos, cfg.ServerName = []string{alpn}, serverName(netip.MustParseAddr(dbAddr))
	before = b.proxy.Stats().HandshakeFails
	if c, err := tls.Dial("tcp", node.String(), cfg); err == nil {
		must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a chain of 2,001 certificates was accepted")
		}
		c.Close()
	}
	for b.proxy.Stats().HandshakeFails == before {
		time.Sleep(time.Millisecond)
	}
	echo(t, dbApp)
	talk(t, a.dial(webAddr, dbApp))
}
