// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"encoding/json"
	"net/netip"
)

// How pods are connected, NodeConfig.CNI.
const (
	CNIBridge = "bridge" // to a bridge of the node's
	CNIPTP    = "ptp"    // each by a veth pair that is routed
	CNINone   = "none"   // no configuration: no pod but host-network ones starts
)

// CNIConfig is where a node's network configuration lies.
const CNIConfig = "/etc/cni/net.d/10-pods.conflist"

// conflist is a node's network configuration, without any plugin of ours.
func conflist(kind string, pods []netip.Prefix) ([]byte, error) {
	type object = map[string]any
	var ranges [][]object
	var routes []object
	for _, p := range pods {
		ranges = append(ranges, []object{{"subnet": p.String()}})
		everywhere := "0.0.0.0/0"
		if p.Addr().Is6() {
			everywhere = "::/0"
		}
		routes = append(routes, object{"dst": everywhere})
	}
	first := object{
		"type": kind,
		"ipam": object{"type": "host-local", "ranges": ranges, "routes": routes},
	}
	if kind == CNIBridge {
		first["bridge"] = "cni0"
		first["isGateway"] = true
		first["hairpinMode"] = true
	}
	return json.MarshalIndent(object{
		"cniVersion": "1.0.0",
		"name":       "pods",
		"plugins": []object{
			first,
			{"type": "portmap", "capabilities": object{"portMappings": true}},
		},
	}, "", "\t")
}
