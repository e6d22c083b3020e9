// SPDX-License-Identifier: Apache-2.0

package attacks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/capture"
)

// Victim waits in a namespace for the canary: it captures on a link and
// echoes TCP and UDP on VictimPort and DNS.
type Victim struct {
	capture *capture.Capture
	closers []io.Closer
	canary  []byte
	sockets atomic.Uint64
}

// NewVictim starts a victim on the given addresses. What arrives on iface
// counts as frames; with an empty iface (a node, whose capture would see
// packets before its own lock does) only what reaches a socket counts.
func NewVictim(ns *lab.NS, iface string, canary []byte, addrs ...netip.Addr) (*Victim, error) {
	v := &Victim{canary: canary}
	if iface != "" {
		c, err := capture.Start(ns, iface, capture.Options{Canary: canary})
		if err != nil {
			return nil, fmt.Errorf("starting a victim: %w", err)
		}
		v.capture = c
	}
	for _, a := range addrs {
		if err := v.listen(ns, a); err != nil {
			return nil, fmt.Errorf("starting a victim: %w", errors.Join(err, v.Close()))
		}
	}
	return v, nil
}

func (v *Victim) listen(ns *lab.NS, a netip.Addr) error {
	ln, err := ns.Listen("tcp", netip.AddrPortFrom(a, VictimPort).String())
	if err != nil {
		return err
	}
	v.closers = append(v.closers, ln)
	go v.serveTCP(ln)
	for _, port := range []uint16{VictimPort, dnsPort} {
		pc, err := ns.ListenPacket("udp", netip.AddrPortFrom(a, port).String())
		if err != nil {
			return err
		}
		v.closers = append(v.closers, pc)
		go v.serveUDP(pc)
	}
	return nil
}

func (v *Victim) serveTCP(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			buf := make([]byte, len(v.canary))
			if n, err := io.ReadFull(c, buf); err == nil {
				v.seen(buf[:n])
				_, _ = c.Write(buf[:n])
			}
		}()
	}
}

func (v *Victim) serveUDP(pc net.PacketConn) {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := pc.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error about an earlier answer
		}
		v.seen(buf[:n])
		_, _ = pc.WriteTo(buf[:n], from)
	}
}

func (v *Victim) seen(b []byte) {
	if bytes.Contains(b, v.canary) {
		v.sockets.Add(1)
	}
}

// Hits is the number of packets with the canary that arrived so far, on the
// link where that is watched, else at a socket.
func (v *Victim) Hits() uint64 {
	if v.capture == nil {
		return v.sockets.Load()
	}
	return v.capture.Report().CanaryHits
}

// Report describes what arrived on the link; it is empty for a victim without one.
func (v *Victim) Report() capture.Report {
	if v.capture == nil {
		return capture.Report{CanaryHits: v.sockets.Load()}
	}
	return v.capture.Report()
}

// Close ends the victim. It returns an error when its link could not be
// watched without gaps, because then Hits proves nothing.
func (v *Victim) Close() error {
	var err error
	for _, c := range v.closers {
		if closeErr := c.Close(); closeErr != nil && !errors.Is(closeErr, net.ErrClosed) {
			err = errors.Join(err, closeErr)
		}
	}
	if v.capture != nil {
		err = errors.Join(err, v.capture.Stop().Complete())
	}
	return err
}
