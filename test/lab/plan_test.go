// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"testing"
)

// Every pod of a range has an address of its own inside its half.
func TestPlanHasAnAddressForEveryPod(t *testing.T) {
	for _, many := range []bool{false, true} {
		v4, v6 := podCIDRs(3, many)
		seen := map[netip.Addr]bool{}
		for _, kind := range []Kind{Routed, Bridged} {
			for n := 2; n <= maxPods(v4)+1; n++ {
				for _, p := range []netip.Prefix{half(v4, kind), half(v6, kind)} {
					a := nth(p, n)
					if !p.Contains(a) || seen[a] {
						t.Fatalf("%s pod %d of %s has %s: seen before: %t", kind, n, p, a, seen[a])
					}
					seen[a] = true
				}
			}
		}
	}
}
