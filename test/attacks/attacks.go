// SPDX-License-Identifier: Apache-2.0

// Package attacks tries, from inside a pod, to get bytes out of it.
//
// Invariant: every attack works. Against a plain lab each one delivers its
// canary to its victim, and the tests of this package prove it, so that an
// attack which fails against a locked pod was stopped by the lock and not by
// a mistake of its own.
package attacks

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"time"
)

// Target says who receives the canary when nothing stops the attack.
type Target int

const (
	// Outside is the host at Env.Outside4 and Env.Outside6.
	Outside Target = iota
	// Peer is the pod at Env.Peer4 and Env.Peer6.
	Peer
	// Node is the attacker's own node, reached by a socket on it.
	Node
	// Segment is every neighbour on the pod's link layer: other pods on the
	// bridge, or only the node where the pod is routed.
	Segment
)

// String returns the target's name.
func (t Target) String() string {
	return [...]string{"outside", "peer", "node", "segment"}[t]
}

// Reasons for which the kernel drops the attacks' packets.
const (
	ReasonSpoofedSource   = "spoofed-source"
	ReasonNoListener      = "no-listener" // where the daemon takes no UDP
	ReasonICMP            = "icmp"
	ReasonProtocol        = "protocol"
	ReasonEtherType       = "ethertype"
	ReasonFragment        = "fragment"
	ReasonExtensionHeader = "extension-header"
	ReasonVLAN            = "vlan"
	ReasonNeighbourSpoof  = "neighbour-spoof"
)

// Ports the victims listen on.
const (
	// VictimPort answers TCP and UDP with what it was sent.
	VictimPort = 7007
	dnsPort    = 53
	sourcePort = 47001 // of forged packets
)

// Env is what an attack knows. All addresses are needed.
type Env struct {
	// Interface is the pod's link, eth0 when empty.
	Interface          string
	Src4, Src6         netip.Addr // the attacker's own
	Spoof4, Spoof6     netip.Addr // claimed by attacks with a forged source
	Outside4, Outside6 netip.Addr
	Peer4, Peer6       netip.Addr
	Node4, Node6       netip.Addr
	// Canary is what has to get out; 8 to 63 bytes that are valid in a DNS label.
	Canary []byte
	// Wait bounds waiting for connections and answers, 500 ms when zero.
	Wait time.Duration
}

// Result is what the attacker itself noticed. Only the victim knows whether
// the canary arrived; a full socket buffer looks like success from here.
type Result struct {
	// Tried is the attempt in words.
	Tried string
	// Sent is the number of bytes the pod's kernel accepted.
	Sent int
	// Replied says that the victim's answer came back.
	Replied bool
	// Refused is the error with which sending or connecting failed, if any.
	Refused error
}

// Attack is one way to get the canary out.
type Attack struct {
	// Name is stable, kebab-case and ends in the IP version where it has one.
	Name        string
	Description string
	Target      Target
	// ExpectReason is the drop reason that a locked pod's kernel counts.
	// Empty means that the packets are TCP from the right address, which the
	// kernel hands to the node daemon; the daemon refuses them.
	ExpectReason string
	// Run carries the attack out on the calling goroutine, whose thread must
	// be locked and inside the pod (lab.NS.Do). The error says that the
	// attack could not be attempted at all; being stopped is no error.
	Run func(ctx context.Context, e Env) (Result, error)
}

// family chooses between the two IP versions.
type family int

const (
	v4 family = 4
	v6 family = 6
)

func (f family) pick(four, six netip.Addr) netip.Addr {
	if f == v4 {
		return four
	}
	return six
}

func (f family) src(e Env) netip.Addr   { return f.pick(e.Src4, e.Src6) }
func (f family) spoof(e Env) netip.Addr { return f.pick(e.Spoof4, e.Spoof6) }

func (f family) dst(e Env, t Target) netip.Addr {
	switch t {
	case Peer:
		return f.pick(e.Peer4, e.Peer6)
	case Node:
		return f.pick(e.Node4, e.Node6)
	default:
		return f.pick(e.Outside4, e.Outside6)
	}
}

// All returns every attack, in a stable order.
func All() []Attack {
	var all []Attack
	for _, f := range []family{v4, v6} {
		for _, a := range ofFamily(f) {
			a.Name = fmt.Sprintf("%s%d", a.Name, f)
			a.Description = fmt.Sprintf("%s (IPv%d)", a.Description, f)
			all = append(all, a)
		}
	}
	all = append(all, linkAttacks()...)
	for i := range all {
		run := all[i].Run
		all[i].Run = func(ctx context.Context, e Env) (Result, error) {
			e.Interface = cmp.Or(e.Interface, "eth0")
			e.Wait = cmp.Or(e.Wait, 500*time.Millisecond)
			if err := e.check(); err != nil {
				return Result{}, fmt.Errorf("attacking by %s: %w", all[i].Name, err)
			}
			r, err := run(ctx, e)
			if err != nil {
				return r, fmt.Errorf("attacking by %s: %w", all[i].Name, err)
			}
			return r, nil
		}
	}
	return all
}

func (e Env) check() error {
	for name, pair := range map[string][2]netip.Addr{
		"source": {e.Src4, e.Src6}, "spoofed": {e.Spoof4, e.Spoof6}, "outside": {e.Outside4, e.Outside6},
		"peer": {e.Peer4, e.Peer6}, "node": {e.Node4, e.Node6},
	} {
		if !pair[0].Is4() || !pair[1].Is6() {
			return fmt.Errorf("the %s addresses are missing or of the wrong version: %s, %s", name, pair[0], pair[1])
		}
	}
	if n := len(e.Canary); n < 8 || n > 63 {
		return fmt.Errorf("the canary has %d bytes, want 8 to 63", n)
	}
	return nil
}

func ofFamily(f family) []Attack {
	attacks := []Attack{
		{"tcp-outside-", "connect to a host outside the cluster", Outside, "", f.connect(Outside)},
		{"tcp-peer-", "connect straight to another pod's address", Peer, "", f.connect(Peer)},
		{"udp-outside-", "send a datagram to a host outside the cluster", Outside, ReasonNoListener, f.datagram(Outside)},
		{"udp-peer-", "send a datagram to another pod", Peer, ReasonNoListener, f.datagram(Peer)},
		{"dns-node-", "ask the node's DNS port for a name that carries the data", Node, ReasonNoListener, f.dns},
		{"icmp-echo-", "ping with the data as payload", Outside, ReasonICMP, f.echo},
		{"transparent-", "bind another pod's address (IP_TRANSPARENT) and send a datagram", Outside, ReasonSpoofedSource, f.transparent},
		{"spoof-udp-", "send a datagram with a forged source through a raw socket", Outside, ReasonSpoofedSource, f.raw("a datagram from a forged source", func(e Env) []packet {
			return []packet{f.udp(f.spoof(e), f.dst(e, Outside), e.Canary)}
		})},
		{"spoof-tcp-", "send a TCP segment with a forged source through a raw socket", Outside, ReasonSpoofedSource, f.raw("a TCP segment from a forged source", func(e Env) []packet {
			return []packet{f.tcp(f.spoof(e), f.dst(e, Outside), e.Canary)}
		})},
		{"fragment-", "send a datagram in fragments", Outside, ReasonNoListener, f.raw("a fragmented datagram", func(e Env) []packet {
			return f.fragments(protoUDP, f.src(e), f.dst(e, Outside), e.Canary)
		})},
		{"segment-fragment-", "send a TCP segment in fragments", Outside, ReasonFragment, f.raw("a fragmented segment", func(e Env) []packet {
			return f.fragments(protoTCP, f.src(e), f.dst(e, Outside), e.Canary)
		})},
		{"segment-", "send a TCP segment that belongs to no connection", Outside, "", f.raw("a stray TCP segment", func(e Env) []packet {
			return []packet{f.tcp(f.src(e), f.dst(e, Outside), e.Canary)}
		})},
		{"packet-udp-outside-", "send a datagram in an Ethernet frame of one's own", Outside, ReasonNoListener, f.frame(Outside, f.udp)},
		{"packet-tcp-outside-", "send a TCP segment in an Ethernet frame of one's own", Outside, "", f.frame(Outside, f.tcp)},
		{"packet-udp-peer-", "send a datagram in an Ethernet frame to another pod", Peer, ReasonNoListener, f.frame(Peer, f.udp)},
		{"packet-spoof-", "send an Ethernet frame with a forged IP source", Outside, ReasonSpoofedSource, f.forgedFrame},
	}
	for _, p := range []struct {
		name, words string
		number      uint8
		header      []byte
	}{
		{"protocol-253-", "an experimental protocol number (253)", 253, nil},
		{"gre-", "GRE (47)", 47, []byte{0, 0, 0x88, 0xb5}},
		{"sctp-", "SCTP (132)", 132, []byte{0xb7, 0x99, 0x1b, 0x5f, 0, 0, 0, 0, 0, 0, 0, 0}},
		{"esp-", "ESP (50)", 50, []byte{0, 0, 1, 1, 0, 0, 0, 1}},
		{"udplite-", "UDP-Lite (136)", 136, []byte{0xb7, 0x99, 0x1b, 0x5f, 0, 8, 0, 0}},
		{"ipip-", "IPv4 inside IP (4)", 4, nil},
	} {
		attacks = append(attacks, Attack{
			p.name, "send " + p.words + " through a raw socket", Outside, ReasonProtocol,
			f.raw(p.words, func(e Env) []packet {
				return []packet{f.ip(f.src(e), f.dst(e, Outside), p.number, append(append([]byte(nil), p.header...), e.Canary...))}
			}),
		})
	}
	if f == v6 {
		attacks = append(attacks, extensionAttacks()...)
	}
	return attacks
}
