// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/c8s-dev/c8s/test/bench/fleet"
	"github.com/c8s-dev/c8s/test/bench/load"
)

const (
	// cdsWorkers is how many nodes are busy at once.
	cdsWorkers = 16
	// podsPerNode is what a node enrols with one certificate of its own, in the
	// mixed load.
	podsPerNode = 10
	// sampleEvery issuances one is verified, after the measurement.
	sampleEvery = 32
)

// cdsLoad is what callers do in one measurement.
type cdsLoad struct {
	f    *benchFleet
	site *cdsSite

	mu      sync.Mutex
	samples []fleet.Issued
	slots   [cdsWorkers]slot
}

// slot holds a node's connection with its certificate. One that is replaced
// is closed when the last call on it has ended.
type slot struct {
	mu   sync.Mutex
	open *kept
}

type kept struct {
	*fleet.Session
	users int
	stale bool
}

func (s *slot) take() *kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open.users++
	return s.open
}

func (s *slot) give(k *kept) {
	s.mu.Lock()
	k.users--
	closing := k.stale && k.users == 0
	s.mu.Unlock()
	if closing {
		k.Close()
	}
}

func (s *slot) replace(with *fleet.Session) {
	s.mu.Lock()
	old := s.open
	s.open = &kept{Session: with}
	closing := old != nil && old.users == 0
	if old != nil {
		old.stale = true
	}
	s.mu.Unlock()
	if closing {
		old.Close()
	}
}

// newCDSLoad enrols a node for every worker.
func newCDSLoad(ctx context.Context, f *benchFleet, site *cdsSite) (*cdsLoad, error) {
	l := &cdsLoad{f: f, site: site}
	for w := range cdsWorkers {
		if _, err := l.node(ctx, w); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, nil
}

func (l *cdsLoad) close() {
	for i := range l.slots {
		if k := l.slots[i].open; k != nil {
			k.Close()
		}
	}
}

func (l *cdsLoad) keep(i fleet.Issued) {
	if rand.N(sampleEvery) != 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.samples = append(l.samples, i)
}

// check verifies the samples.
func (l *cdsLoad) check() error {
	if l.site.judge == nil {
		return nil
	}
	for _, i := range l.samples {
		if err := l.site.judge.Check(i); err != nil {
			return fmt.Errorf("checking what was issued: %w", err)
		}
	}
	return nil
}

// alone enrols a node on a connection of its own.
func (l *cdsLoad) alone(ctx context.Context, _ int) (int, error) {
	s, err := l.f.Dial(ctx, l.site.addr, nil)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	node, err := s.EnrolNode(ctx, rand.N(l.f.Machines()))
	if err != nil {
		return 0, err
	}
	l.keep(node.Issued)
	return 1, nil
}

// newNode enrols a node and connects again, with its certificate.
func newNode(ctx context.Context, f *benchFleet, site *cdsSite, machine int) (*fleet.Node, *fleet.Session, error) {
	s, err := f.Dial(ctx, site.addr, nil)
	if err != nil {
		return nil, nil, err
	}
	node, err := s.EnrolNode(ctx, machine)
	s.Close()
	if err != nil {
		return nil, nil, err
	}
	if site.as != nil {
		node = site.as
	}
	s, err = f.Dial(ctx, site.addr, node)
	return node, s, err
}

// node enrols a node as a node daemon does it: what it asks for later it asks
// for on a new connection, with the new certificate.
func (l *cdsLoad) node(ctx context.Context, worker int) (int, error) {
	node, session, err := newNode(ctx, l.f, l.site, rand.N(l.f.Machines()))
	if err != nil {
		return 0, err
	}
	l.keep(node.Issued)
	l.slots[worker].replace(session)
	return 1, nil
}

// pod enrols a pod over the node's connection.
func (l *cdsLoad) pod(ctx context.Context, worker int) (int, error) {
	k := l.slots[worker].take()
	defer l.slots[worker].give(k)
	issued, err := k.EnrolPod(ctx, rand.N(1<<16))
	if err != nil {
		return 0, err
	}
	l.keep(issued)
	return 1, nil
}

// renew renews the node's own certificate over its connection.
func (l *cdsLoad) renew(ctx context.Context, worker int) (int, error) {
	k := l.slots[worker].take()
	defer l.slots[worker].give(k)
	node, err := k.Renew(ctx)
	if err != nil {
		return 0, err
	}
	l.keep(node.Issued)
	return 1, nil
}

// mixed is a node and its pods.
func (l *cdsLoad) mixed(ctx context.Context, worker int) (int, error) {
	total, err := l.node(ctx, worker)
	for range podsPerNode {
		if err != nil {
			return 0, err
		}
		var n int
		n, err = l.pod(ctx, worker)
		total += n
	}
	return total, err
}

// oneOfMixed is the same mix, a certificate at a time.
func (l *cdsLoad) oneOfMixed() load.Call {
	var turn atomic.Uint64
	return func(ctx context.Context, worker int) (int, error) {
		if turn.Add(1)%(podsPerNode+1) == 0 {
			return l.node(ctx, worker)
		}
		return l.pod(ctx, worker)
	}
}
