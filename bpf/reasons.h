/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef C8S_REASONS_H
#define C8S_REASONS_H

/*
 * Why a packet, or a socket, was refused. The comment above each value is its description in
 * Go and in docs/drop-reasons.md (internal/genreasons). The numbers key a
 * pinned map: append only.
 */
enum c8s_reason {
	/* Not a refusal. */
	C8S_ALLOWED = 0,
	/* The link is locked but the node daemon has not described its pod yet. */
	C8S_POD_UNKNOWN,
	/* The pod is known and not admitted: nothing passes in either direction. */
	C8S_POD_LOCKED,
	/* The headers are cut short, inconsistent, or longer than an honest packet of this kind. */
	C8S_MALFORMED,
	/* The frame carries a VLAN tag. */
	C8S_VLAN,
	/* The frame is neither IPv4, IPv6 nor ARP. */
	C8S_ETHERTYPE,
	/* An ARP or neighbour discovery message speaks for an address that is not the pod's, or poses as a router. */
	C8S_NEIGHBOUR_SPOOF,
	/* The source address is not the pod's. */
	C8S_SPOOFED_SOURCE,
	/* The IPv4 header carries options. */
	C8S_IP_OPTIONS,
	/* The IPv6 header is followed by an extension header. */
	C8S_EXTENSION_HEADER,
	/* The packet is a fragment of something other than UDP. */
	C8S_FRAGMENT,
	/* No longer given: earlier releases refused all UDP. */
	C8S_UDP,
	/* The packet is ICMP or ICMPv6 other than neighbour discovery. */
	C8S_ICMP,
	/* The transport protocol is neither TCP, UDP nor ICMP. */
	C8S_PROTOCOL,
	/* The node daemon does not listen; without it the packet could reach a listener of the host. */
	C8S_NO_LISTENER,
	/* A packet that the node did not originate was on its way to a pod. */
	C8S_FORWARDED_TO_POD,
	/* A process of the node sent to a pod: neither the daemon, nor the kubelet to a port that the pod's entry lists for probes. */
	C8S_NOT_FROM_DAEMON,
	/* A packet arrived in the pod's namespace without passing the host side of its link. */
	C8S_GUARD_BYPASS,
	/* A packet that the node did not originate was leaving through an uplink. */
	C8S_FORWARDED,
	/* A pod's address was the source of a packet that came in over another link. */
	C8S_STEER_SPOOFED,
	/* A new flow from a pod found no listener of the node daemon. */
	C8S_STEER_NO_LISTENER,
	/* A process outside a pod tried to make an IP socket in the pod's network namespace; no packet is involved. */
	C8S_FOREIGN_SOCKET,
	/* The destination is a multicast or broadcast address, where the kernel would deliver to every socket of the node that wants it. */
	C8S_MULTICAST,
	/* A socket of the node that is not the daemon's would have received the packet. */
	C8S_HOST_SOCKET,
	/* The pod opens more TCP connections than its link's budget admits. */
	C8S_SYN_RATE,
	/* The packet is for another address than the pod's: a bridge that does not know where that is sends it to every port. */
	C8S_NOT_FOR_POD,
	/* A process of a pod tried to make a vsock, packet, XDP or raw socket that the pod's entry does not list; no packet is involved. */
	C8S_POD_SOCKET,
	/* A process of a pod called bpf(2), which the pod's entry does not list; no packet is involved. */
	C8S_POD_BPF,
	/* A packet of the node daemon to a pod was leaving through an uplink: the way to the pod is gone. */
	C8S_ASTRAY,
	/* An ICMP error of the node that quotes a packet which was not sent to the node, but by it, as one of the daemon's to a pod that is gone. */
	C8S_ICMP_QUOTE,
	/* The pod sends datagrams that belong to no flow yet faster than its link's budget admits. */
	C8S_DATAGRAM_RATE,
	C8S_REASON_COUNT,
};
#endif
