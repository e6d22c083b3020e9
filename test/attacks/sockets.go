// SPDX-License-Identifier: Apache-2.0

package attacks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

type runner = func(context.Context, Env) (Result, error)

// connect opens a TCP connection, sends the canary and wants it echoed. That
// the connection opens proves nothing: a daemon may have accepted it.
func (f family) connect(t Target) runner {
	return func(ctx context.Context, e Env) (Result, error) {
		to := netip.AddrPortFrom(f.dst(e, t), VictimPort)
		r := Result{Tried: fmt.Sprintf("TCP connection to %s", to)}
		d := net.Dialer{Timeout: e.Wait}
		d.SetMultipathTCP(false)
		c, err := d.DialContext(ctx, "tcp", to.String())
		if err != nil {
			r.Refused = err
			return r, nil
		}
		defer c.Close()
		converse(c, e, e.Canary, &r)
		return r, nil
	}
}

func (f family) datagram(t Target) runner {
	return func(ctx context.Context, e Env) (Result, error) {
		return f.sendUDP(ctx, e, netip.AddrPortFrom(f.dst(e, t), VictimPort), e.Canary, nil)
	}
}

// dns asks for <canary>.example. IN A (RFC 1035), which a resolver would
// pass on to a server of the attacker's choice.
func (f family) dns(ctx context.Context, e Env) (Result, error) {
	q := []byte{0x0c, 0x85, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, byte(len(e.Canary))}
	q = append(append(q, e.Canary...), "\x07example\x00\x00\x01\x00\x01"...)
	return f.sendUDP(ctx, e, netip.AddrPortFrom(f.dst(e, Node), dnsPort), q, nil)
}

// transparent sends from an address that is not the pod's own.
func (f family) transparent(ctx context.Context, e Env) (Result, error) {
	return f.sendUDP(ctx, e, netip.AddrPortFrom(f.dst(e, Outside), VictimPort), e.Canary, func(fd int) error {
		if f == v4 {
			return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
		}
		return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
	})
}

// sendUDP sends data and wants it echoed. With an option set on the socket it
// binds the forged address, and no answer can come back.
func (f family) sendUDP(ctx context.Context, e Env, to netip.AddrPort, data []byte, option func(fd int) error) (Result, error) {
	r := Result{Tried: fmt.Sprintf("UDP datagram to %s", to)}
	d := net.Dialer{}
	if option != nil {
		r.Tried += fmt.Sprintf(" from %s", f.spoof(e))
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(f.spoof(e), sourcePort))
		d.Control = func(_, _ string, c syscall.RawConn) (err error) {
			return errors.Join(c.Control(func(fd uintptr) { err = option(int(fd)) }), err)
		}
	}
	c, err := d.DialContext(ctx, "udp", to.String())
	if err != nil { // nothing is sent by connecting, so this is a matter of privilege or routes
		return r, err
	}
	defer c.Close()
	if option != nil {
		e.Wait = 0
	}
	converse(c, e, data, &r)
	return r, nil
}

// converse writes data and reads as much back, noting both in r.
func converse(c net.Conn, e Env, data []byte, r *Result) {
	n, err := c.Write(data)
	r.Sent += n
	if err != nil {
		r.Refused = err
		return
	}
	if e.Wait == 0 {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(e.Wait))
	buf := make([]byte, len(data))
	_, err = io.ReadFull(c, buf)
	r.Replied = err == nil && bytes.Equal(buf, data)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err) {
		r.Refused = err
	}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// echo pings through a raw socket and wants the answer.
func (f family) echo(_ context.Context, e Env) (Result, error) {
	dst := f.dst(e, Outside)
	r := Result{Tried: fmt.Sprintf("ICMP echo to %s", dst)}
	domain, proto, reply := unix.AF_INET, protoICMP, byte(0)
	if f == v6 {
		domain, proto, reply = unix.AF_INET6, protoICMPv6, 129
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return r, fmt.Errorf("opening a raw socket: %w", err)
	}
	defer unix.Close(fd)
	request := f.echoRequest(f.src(e), dst, e.Canary)
	if err := unix.Sendto(fd, request, 0, sockaddr(dst)); err != nil {
		r.Refused = err
		return r, nil
	}
	r.Sent = len(request)
	buf := make([]byte, 2048)
	for end := time.Now().Add(e.Wait); ; {
		left := time.Until(end)
		if left <= 0 {
			return r, nil
		}
		tv := unix.NsecToTimeval(max(left, time.Millisecond).Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return r, fmt.Errorf("setting a time limit: %w", err)
		}
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			continue // a timeout or an interrupted call; the loop looks at the clock
		}
		got := buf[:n]
		if f == v4 && n > 20 {
			got = got[20:] // IPv4 raw sockets deliver the IP header too
		}
		if len(got) >= 8 && got[0] == reply && bytes.Equal(got[8:], e.Canary) {
			r.Replied = true
			return r, nil
		}
	}
}

// raw sends packets with IP headers of one's own.
func (f family) raw(words string, build func(Env) []packet) runner {
	return func(_ context.Context, e Env) (Result, error) {
		packets := build(e)
		r := Result{Tried: fmt.Sprintf("%s to %s", words, packets[0].dst)}
		domain := unix.AF_INET
		if f == v6 {
			domain = unix.AF_INET6
		}
		// IPPROTO_RAW implies a header included, for IPv6 too (Linux 4.5).
		fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return r, fmt.Errorf("opening a raw socket: %w", err)
		}
		defer unix.Close(fd)
		for _, p := range packets {
			if err := unix.Sendto(fd, p.data, 0, sockaddr(p.dst)); err != nil {
				r.Refused = err
				return r, nil
			}
			r.Sent += len(p.data)
		}
		return r, nil
	}
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}

// extensionAttacks hide a datagram behind IPv6 extension headers (RFC 8200).
func extensionAttacks() []Attack {
	pad := []byte{protoUDP, 0, 1, 4, 0, 0, 0, 0}       // one PadN option
	routing := []byte{protoUDP, 0, 253, 0, 0, 0, 0, 0} // experimental type, no segments left
	var attacks []Attack
	for _, h := range []struct {
		name, words string
		next        uint8
		header      []byte
	}{
		{"extension-hop-by-hop-", "hop-by-hop options", protoHopByHop, pad},
		{"extension-destination-", "destination options", protoDestOpts, pad},
		{"extension-routing-", "a routing header", protoRouting, routing},
	} {
		attacks = append(attacks, Attack{
			h.name, "hide a datagram behind " + h.words, Outside, ReasonExtensionHeader,
			v6.raw("a datagram behind "+h.words, func(e Env) []packet {
				dst := e.Outside6
				payload := append(append([]byte(nil), h.header...), udpDatagram(e.Src6, dst, e.Canary)...)
				return []packet{{dst, ipv6(e.Src6, dst, h.next, payload)}}
			}),
		})
	}
	return attacks
}
