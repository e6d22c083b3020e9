// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
)

// What all callers, and those of one host, may hold at once. A host never gets
// everything: the others are served.
const (
	// maxCalls are being read, worked on or answered; a body takes up to
	// maxRequest of memory.
	maxCalls = 2048
	// maxPublishing bodies may be as large as maxPublish, and come from anybody.
	maxPublishing, maxPublishingPerHost = 8, 2
)

// quota counts what is held, in all and by each host.
type quota struct {
	what          string
	most, perHost int

	mu    sync.Mutex
	held  int
	hosts map[string]int
}

func newQuota(what string, most, perHost int) *quota {
	return &quota{what: what, most: most, perHost: max(1, perHost), hosts: map[string]int{}}
}

// take takes one place for the host, or says when there may be one.
func (q *quota) take(host string) (release func(), err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held >= q.most || q.hosts[host] >= q.perHost {
		return nil, &refusal{
			code: codeBusy, detail: fmt.Sprintf("%d %s at once, %d of this host; at most %d and %d are allowed", q.held, q.what, q.hosts[host], q.most, q.perHost),
			retryAfter: retryAtLeast + rand.N(retrySpread),
		}
	}
	q.held++
	q.hosts[host]++
	return oneTime(func() { q.giveBack(host) }), nil
}

func (q *quota) giveBack(host string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held--
	if q.hosts[host]--; q.hosts[host] <= 0 {
		delete(q.hosts, host)
	}
}

// hostOf is what limits are counted by: the address without the port, and of
// IPv6 the network alone, since one host has as many addresses in it as it
// likes.
func hostOf(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if addr = addr.Unmap().WithZone(""); addr.Is4() {
		return addr.String()
	}
	network, err := addr.Prefix(64)
	if err != nil {
		return host
	}
	return network.String()
}
