// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"strings"
	"testing"
)

func TestUplinkIsTheLinkWithTheNodesAddress(t *testing.T) {
	if name, err := uplinkOf(netip.MustParseAddr("127.0.0.1")); err != nil || name != "lo" {
		t.Errorf("127.0.0.1 is of %q, %v", name, err)
	}
	if name, err := uplinkOf(netip.MustParseAddr("192.0.2.1")); err == nil || !strings.Contains(err.Error(), "--uplink") {
		t.Errorf("an address that nobody has is of %q, %v", name, err)
	}
}
