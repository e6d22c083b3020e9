// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/datapath"
)

// publishRetry is how often a port that could not be opened is tried again.
const publishRetry = 2 * time.Second

// publishPrefix begins the names of published ports' sockets in hand-overs.
const publishPrefix = "publish-"

// publisher opens the ports of the node that entries of open pods publish,
// while this daemon owns the node, and closes them when the last such pod goes.
type publisher struct {
	sockets *sockets
	serve   func(map[uint16]datapath.Published) // of the proxy

	mu    sync.Mutex
	ports map[uint16]*publishedPort
}

type publishedPort struct {
	listeners map[string]*net.TCPListener // by family; the proxy's once published
	pods      int
	failed    error
}

func newPublisher(s *sockets, serve func(map[uint16]datapath.Published)) *publisher {
	return &publisher{sockets: s, serve: serve, ports: map[uint16]*publishedPort{}}
}

var publishFamilies = map[string]string{"4": "tcp4", "6": "tcp6"}

func publishName(port uint16, family string) string {
	return fmt.Sprintf("%s%d-%s", publishPrefix, port, family)
}

// take makes the predecessor's published ports this daemon's.
func (p *publisher) take(handed map[string]*os.File) error {
	for _, name := range slices.Sorted(maps.Keys(handed)) {
		number, family, _ := strings.Cut(strings.TrimPrefix(name, publishPrefix), "-")
		port, err := strconv.ParseUint(number, 10, 16)
		if !strings.HasPrefix(name, publishPrefix) || err != nil || publishFamilies[family] == "" {
			continue
		}
		ln, err := takeListener(handed, name)
		if err != nil {
			return err
		}
		tcp, ok := ln.(*net.TCPListener)
		if !ok {
			_ = ln.Close()
			continue
		}
		if err := p.adopt(uint16(port), family, tcp); err != nil {
			return err
		}
	}
	return nil
}

func (p *publisher) adopt(port uint16, family string, ln *net.TCPListener) error {
	if err := p.sockets.keep(publishName(port, family), ln); err != nil {
		_ = ln.Close()
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ports[port] == nil {
		p.ports[port] = &publishedPort{listeners: map[string]*net.TCPListener{}}
	}
	p.ports[port].listeners[family] = ln
	return nil
}

// sync opens what is wanted and has the proxy serve it. It reports whether
// every port is open.
func (p *publisher) sync(ctx context.Context, wanted map[uint16][]*datapath.LocalPod) (complete bool) {
	complete = true
	next := map[uint16]datapath.Published{}
	for port, pods := range wanted {
		err := p.open(ctx, port)
		complete = complete && err == nil
		p.mu.Lock()
		at := p.ports[port]
		at.pods, at.failed = len(pods), err
		next[port] = datapath.Published{Listeners: slices.Collect(maps.Values(at.listeners)), Pods: pods}
		p.mu.Unlock()
	}
	p.serve(next) // closes the listeners of the others
	p.mu.Lock()
	defer p.mu.Unlock()
	for port, at := range p.ports {
		if _, still := wanted[port]; still {
			continue
		}
		for family, ln := range at.listeners {
			_ = ln.Close() // one that was handed over and never served
			p.sockets.drop(publishName(port, family))
		}
		delete(p.ports, port)
	}
	return complete
}

// open opens what is missing of a port: a family that the node lacks is not.
func (p *publisher) open(ctx context.Context, port uint16) error {
	p.mu.Lock()
	at := p.ports[port]
	if at == nil {
		at = &publishedPort{listeners: map[string]*net.TCPListener{}}
		p.ports[port] = at
	}
	p.mu.Unlock()
	var failed error
	for family, network := range publishFamilies {
		if at.listeners[family] != nil {
			continue
		}
		ln, err := datapath.ListenPublished(ctx, network, port)
		if err == nil {
			err = p.adopt(port, family, ln)
		}
		if err != nil && !(errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

func (p *publisher) status() (all []PublishedStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for port, at := range p.ports {
		s := PublishedStatus{HostPort: port, Pods: at.pods}
		if at.failed != nil {
			s.Error = at.failed.Error()
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b PublishedStatus) int { return cmp.Compare(a.HostPort, b.HostPort) })
	return all
}

// publish follows the open pods and the manifest.
func (r *run) publish(ctx context.Context) error {
	for {
		changed := r.changed.heard()
		complete := r.publisher.sync(ctx, r.wantPublished())
		var retry <-chan time.Time
		if !complete {
			retry = time.After(publishRetry)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-retry:
		}
	}
}

// wantPublished are the ports that entries of open pods publish.
func (a *Agent) wantPublished() map[uint16][]*datapath.LocalPod {
	m := a.manifest.Load().Manifest
	wanted := map[uint16][]*datapath.LocalPod{}
	for _, pod := range a.mesh.list() {
		entry, ok := m.Workload(pod.Workload)
		if !ok {
			continue
		}
		for _, rule := range entry.Publish {
			wanted[rule.HostPort] = append(wanted[rule.HostPort], pod)
		}
	}
	return wanted
}
