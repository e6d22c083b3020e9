// SPDX-License-Identifier: Apache-2.0

// Package freeport finds ports for tests that must know one before they listen,
// or listen at it again.
//
// Invariant: the kernel gives none of them to a connection, which would hold
// it just when the test listens.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
)

// Ports below are the well-known ones of the services that tests start.
const lowest = 10_000

// Find returns a port at which nobody listens with TCP, on any address of
// the calling thread's network.
func Find() (uint16, error) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0, fmt.Errorf("asking which ports connections get: %w", err)
	}
	var first int
	if _, err := fmt.Sscan(string(text), &first); err != nil || first <= lowest {
		return 0, fmt.Errorf("connections get ports from %q: too few are left below, of those from %d on", text, lowest)
	}
	for range 100 {
		p := lowest + rand.IntN(first-lowest)
		ln, err := net.Listen("tcp", fmt.Sprintf(":%d", p))
		if err == nil {
			return uint16(p), ln.Close()
		}
	}
	return 0, errors.New("of a hundred ports none was free")
}
