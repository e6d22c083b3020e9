// SPDX-License-Identifier: Apache-2.0

// Package capture watches the packets of a network namespace and looks for
// what must not be on the wire: a canary, or plain traffic of pods.
//
// Invariant: a report never claims more than was looked at. Packets that the
// kernel dropped or that did not fit are counted, and Report.Complete fails
// when there was a single one.
package capture

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// DefaultTunnelPort is the port whose TCP packets count as tunnel traffic.
	DefaultTunnelPort = 15008
	defaultKeep       = 16
	// maxFrame exceeds the largest segment the kernel hands over unsplit (64
	// KiB; BIG TCP must be enabled by hand to exceed it).
	maxFrame = 256 << 10
	// receiveBuffer lets the reader fall about 50 ms behind at 10 Gbit/s.
	receiveBuffer = 64 << 20
	// settle is how long packets already sent may take through softirqs.
	settle = 20 * time.Millisecond
)

// Namespace runs a function on a thread inside a network namespace; *lab.NS is one.
type Namespace interface {
	Do(func() error) error
}

// Options says what to look for.
type Options struct {
	// Canary is searched in every packet and across the packets of a flow.
	// Empty searches nothing.
	Canary []byte
	// Pods are the pods' address ranges. A packet with such an address is
	// plain unless it is TCP from or to TunnelPort, ARP or neighbour discovery.
	Pods []netip.Prefix
	// TunnelPort is 15008 when zero.
	TunnelPort uint16
	// Keep bounds the packets described in each list of the report, 16 when zero.
	Keep int
	// Pcap receives all packets in pcap format (Ethernet, nanoseconds).
	Pcap io.Writer
}

// Packet describes one packet.
type Packet struct {
	Time      time.Time
	Ifindex   int
	Length    int // on the wire, or of the unsplit segment
	EtherType uint16
	VLAN      bool
	Src, Dst  netip.Addr // invalid unless EtherType is IPv4 or IPv6
	Proto     uint8      // after IPv6 extension headers
	SrcPort   uint16     // TCP and UDP only
	DstPort   uint16
	Fragment  bool
}

// String is the packet in one line.
func (p Packet) String() string {
	s := fmt.Sprintf("ethertype %#04x", p.EtherType)
	if p.Src.IsValid() {
		s = fmt.Sprintf("protocol %d %s > %s", p.Proto, netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort))
	}
	if p.Fragment {
		s += " fragment"
	}
	if p.VLAN {
		s += " vlan"
	}
	return fmt.Sprintf("%s, %d bytes", s, p.Length)
}

// Report is what was seen. The lists hold the first Options.Keep packets of
// each kind, the numbers count all.
type Report struct {
	Packets, Bytes uint64
	Tunnel         uint64 // TCP packets from or to the tunnel port
	CanaryHits     uint64
	Canaries       []Packet
	PlainPackets   uint64
	Plain          []Packet
	// Unknown are frames that are neither ARP nor well-formed IP.
	UnknownPackets uint64
	Unknown        []Packet
	// Drops are packets the kernel could not queue, Truncated packets longer
	// than the buffer (only their beginning was searched).
	Drops, Truncated uint64
	// Err is why the capture or its pcap output broke off, if it did.
	Err error
}

// Complete returns nil when every packet was looked at as a whole.
func (r Report) Complete() error {
	if r.Err != nil {
		return fmt.Errorf("capturing packets: %w", r.Err)
	}
	if r.Drops+r.Truncated > 0 {
		return fmt.Errorf("capturing packets: %d were dropped by the kernel and %d truncated, so the report proves nothing; capture less at a time", r.Drops, r.Truncated)
	}
	return nil
}

// Capture is a running capture.
type Capture struct {
	opts Options
	file *os.File
	raw  syscall.RawConn
	done chan struct{}

	mu     sync.Mutex
	report Report
	tails  map[flow][]byte
	pcap   *pcapWriter

	stopOnce sync.Once
}

// NewCanary returns a random string that occurs nowhere by chance.
func NewCanary() []byte {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails since Go 1.24
	return []byte("c8s-canary-" + hex.EncodeToString(b))
}

// Start captures on one interface of the namespace, or on all when iface is
// empty (a bridged frame then counts once per interface it passes). On a
// bridge the interface is made promiscuous for as long as the capture runs,
// so that it also sees what the bridge only forwards, each frame once.
func Start(ns Namespace, iface string, o Options) (*Capture, error) {
	if o.TunnelPort == 0 {
		o.TunnelPort = DefaultTunnelPort
	}
	if o.Keep == 0 {
		o.Keep = defaultKeep
	}
	c := &Capture{opts: o, done: make(chan struct{}), tails: map[flow][]byte{}}
	if o.Pcap != nil {
		var err error
		if c.pcap, err = newPcapWriter(o.Pcap); err != nil {
			return nil, fmt.Errorf("starting a capture: %w", err)
		}
	}
	err := ns.Do(func() (err error) {
		c.file, err = open(iface)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("starting a capture on %q: %w", iface, err)
	}
	if c.raw, err = c.file.SyscallConn(); err != nil {
		_ = c.file.Close()
		return nil, fmt.Errorf("starting a capture on %q: %w", iface, err)
	}
	go c.read()
	return c, nil
}

// open makes the packet socket. It is bound last: before, with protocol 0, it
// receives nothing, so no packet of another interface gets in.
func open(iface string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a packet socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "capture")
	fail := func(what string, err error) (*os.File, error) {
		_ = file.Close()
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	index := 0
	if iface != "" {
		link, err := net.InterfaceByName(iface)
		if err != nil {
			return fail("finding the interface", err)
		}
		index = link.Index
		mreq := unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}
		if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &mreq); err != nil {
			return fail("making the interface promiscuous", err)
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer); err != nil {
		return fail("enlarging the receive buffer", err)
	}
	// Without auxiliary data the kernel hides VLAN tags.
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		return fail("asking for auxiliary data", err)
	}
	all := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}); err != nil {
		return fail("binding the packet socket", err)
	}
	return file, nil
}

// Report returns what was seen so far. Only Stop's report knows about drops.
func (c *Capture) Report() Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.report
	r.Canaries = append([]Packet(nil), r.Canaries...)
	r.Plain = append([]Packet(nil), r.Plain...)
	r.Unknown = append([]Packet(nil), r.Unknown...)
	return r
}

// Stop waits for packets under way, ends the capture and returns the report.
// Stopping again returns the same report.
func (c *Capture) Stop() Report {
	c.stopOnce.Do(func() {
		time.Sleep(settle)
		c.finish()
	})
	return c.Report()
}

func (c *Capture) finish() {
	// A filter that rejects everything fixes the end of the capture; what is
	// queued by then is still read.
	filter := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	var stats *unix.TpacketStats
	err := c.raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &filter})
	})
	_ = c.file.SetReadDeadline(time.Unix(1, 0))
	<-c.done
	buf, oob := make([]byte, maxFrame), make([]byte, 128)
	err = errors.Join(err, c.raw.Control(func(fd uintptr) {
		for c.receive(int(fd), buf, oob) == nil {
		}
		var statErr error
		if stats, statErr = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); statErr != nil {
			c.fail(fmt.Errorf("reading drop counters: %w", statErr))
		}
	}), c.file.Close())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Err = errors.Join(c.report.Err, err)
	if stats != nil {
		c.report.Drops = uint64(stats.Drops)
		if want := uint64(stats.Packets - stats.Drops); want != c.report.Packets {
			c.report.Err = errors.Join(c.report.Err, fmt.Errorf("the kernel queued %d packets but %d were read", want, c.report.Packets))
		}
	}
}

func (c *Capture) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Err = errors.Join(c.report.Err, err)
}

// read runs until the deadline set by finish.
func (c *Capture) read() {
	defer close(c.done)
	buf, oob := make([]byte, maxFrame), make([]byte, 128)
	for {
		var recvErr error
		err := c.raw.Read(func(fd uintptr) bool {
			recvErr = c.receive(int(fd), buf, oob)
			return !errors.Is(recvErr, unix.EAGAIN)
		})
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		case err != nil:
			c.fail(err)
			return
		// An interface that goes down or away reports it once; the packets
		// queued before are still there, and others may still send.
		case recvErr != nil && !errors.Is(recvErr, unix.ENETDOWN) && !errors.Is(recvErr, unix.EINTR):
			c.fail(recvErr)
			return
		}
	}
}

// receive takes one packet from the socket's queue.
func (c *Capture) receive(fd int, buf, oob []byte) error {
	n, oobn, _, from, err := unix.Recvmsg(fd, buf, oob, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
	if err != nil {
		return err
	}
	frame := buf[:min(n, len(buf))]
	if tag, ok := vlanTag(oob[:oobn]); ok && len(frame) >= 12 {
		frame = append(append(append(make([]byte, 0, len(frame)+4), frame[:12]...), tag[:]...), frame[12:]...)
		n += 4
	}
	ifindex := 0
	if ll, ok := from.(*unix.SockaddrLinklayer); ok {
		ifindex = ll.Ifindex
	}
	c.add(frame, n, ifindex, time.Now())
	return nil
}

// vlanTag returns the tag the kernel moved from the frame into struct
// tpacket_auxdata (linux/if_packet.h).
func vlanTag(oob []byte) (tag [4]byte, ok bool) {
	const statusVLAN, statusTPID = 0x10, 0x40
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return tag, false
		}
		oob = rest
		if h.Level != unix.SOL_PACKET || h.Type != unix.PACKET_AUXDATA || len(data) < 20 {
			continue
		}
		status := binary.NativeEndian.Uint32(data)
		if status&statusVLAN == 0 {
			return tag, false
		}
		tpid := uint16(etherVLAN)
		if status&statusTPID != 0 {
			tpid = binary.NativeEndian.Uint16(data[18:])
		}
		binary.BigEndian.PutUint16(tag[:], tpid)
		binary.BigEndian.PutUint16(tag[2:], binary.NativeEndian.Uint16(data[16:]))
		return tag, true
	}
	return tag, false
}
