// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// The PROXY protocol, versions 1 and 2 (haproxy.org, doc/proxy-protocol.txt,
// 2020/03/05). Its header comes before everything else, TLS included.
const (
	proxyV1 = "PROXY "
	proxyV2 = "\r\n\r\n\x00\r\nQUIT\n"

	maxV1 = 107  // section 2.1, with CRLF
	maxV2 = 2048 // of addresses and TLVs together; more than any balancer sends
)

var errProxyHeader = errors.New("not a header of the PROXY protocol")

// readProxyHeader returns the client that a load balancer names; none where it
// speaks for itself. It reads no byte beyond the header.
func readProxyHeader(r io.Reader) (netip.AddrPort, error) {
	start := make([]byte, len(proxyV2))
	if _, err := io.ReadFull(r, start); err != nil {
		return netip.AddrPort{}, fmt.Errorf("reading the PROXY header: %w", err)
	}
	var src netip.AddrPort
	var err error
	switch {
	case string(start) == proxyV2:
		src, err = readV2(r)
	case strings.HasPrefix(string(start), proxyV1):
		src, err = readV1(r, start)
	default:
		err = errProxyHeader
	}
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("reading the PROXY header: %w", err)
	}
	return src, nil
}

// readV1 reads byte by byte up to CRLF: what follows is the client's.
func readV1(r io.Reader, line []byte) (netip.AddrPort, error) {
	one := make([]byte, 1)
	for !strings.HasSuffix(string(line), "\r\n") {
		if len(line) == maxV1 {
			return netip.AddrPort{}, errProxyHeader
		}
		if _, err := io.ReadFull(r, one); err != nil {
			return netip.AddrPort{}, err
		}
		line = append(line, one[0])
	}
	f := strings.Split(strings.TrimSuffix(string(line), "\r\n"), " ")
	if len(f) >= 2 && f[1] == "UNKNOWN" {
		return netip.AddrPort{}, nil
	}
	if len(f) != 6 {
		return netip.AddrPort{}, errProxyHeader
	}
	src, ok := textAddr(f[2], f[4])
	dst, good := textAddr(f[3], f[5])
	family := map[string]bool{"TCP4": true, "TCP6": false}
	v4, known := family[f[1]]
	if !ok || !good || !known || src.Addr().Is4() != v4 || dst.Addr().Is4() != v4 {
		return netip.AddrPort{}, errProxyHeader
	}
	return unmapped(src), nil
}

func textAddr(addr, port string) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(addr)
	p, perr := strconv.ParseUint(port, 10, 16)
	return netip.AddrPortFrom(a, uint16(p)), err == nil && perr == nil && a.Zone() == "" && strconv.FormatUint(p, 10) == port
}

// readV2 reads what follows the signature.
func readV2(r io.Reader) (netip.AddrPort, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return netip.AddrPort{}, err
	}
	n := int(binary.BigEndian.Uint16(head[2:]))
	if head[0]>>4 != 2 || n > maxV2 {
		return netip.AddrPort{}, errProxyHeader
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return netip.AddrPort{}, err
	}
	switch head[0] & 0xf {
	case 0: // LOCAL: whatever the addresses say is not meant
		return netip.AddrPort{}, nil
	case 1: // PROXY
	default:
		return netip.AddrPort{}, errProxyHeader
	}
	switch head[1] {
	case 0x11: // TCP over IPv4
		if n >= 12 {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte(body[:4])), binary.BigEndian.Uint16(body[8:])), nil
		}
	case 0x21: // TCP over IPv6
		if n >= 36 {
			return unmapped(netip.AddrPortFrom(netip.AddrFrom16([16]byte(body[:16])), binary.BigEndian.Uint16(body[32:]))), nil
		}
	case 0x00: // UNSPEC
		return netip.AddrPort{}, nil
	}
	return netip.AddrPort{}, errProxyHeader
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
