// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/c8s-dev/c8s/agent/handover"
	"github.com/c8s-dev/c8s/datapath"
)

// Names of sockets in hand-overs. They never change.
const (
	socketPods4    = "pods-4"
	socketPods6    = "pods-6"
	socketPackets4 = "packets-4"
	socketPackets6 = "packets-6"
	socketTunnels  = "tunnels"
	socketMetrics  = "metrics"
)

// run is one life of a daemon: it prepares, owns the node, and drains.
type run struct {
	*Agent
	group *errgroup.Group
	life  context.Context // ends with the process, or when a part fails
	end   context.CancelFunc

	// tenure is while this daemon owns the node, or is about to. It ends when a
	// successor owns it; connections are carried on until life ends.
	tenure  context.Context
	yielded context.CancelFunc

	sockets sockets
	heir    *handover.Server

	publisher *publisher
	passed    chan struct{} // closed when a successor owns the node

	mu    sync.Mutex
	spell *spell // of the parts that only the owner runs; nil while nobody of us does
}

// Run works until ctx ends or a part fails for good. With a predecessor it
// prepares beside it and takes over. When ctx ends, or a successor has taken
// over, it drains what is established. Pods stay locked in any case: with no
// daemon the kernel drops everything they send.
func (a *Agent) Run(ctx context.Context) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	group, life := errgroup.WithContext(life)
	r := &run{Agent: a, group: group, life: life, end: end, passed: make(chan struct{})}
	r.heir = r.newHeir()
	defer func() { r.sockets.close() }()
	r.tenure, r.yielded = context.WithCancel(life)
	defer r.yielded()
	var err error
	a.proxy, err = datapath.New(datapath.Config{
		Mesh: a.mesh, NodeAddr: a.cfg.NodeAddr, NodeName: a.cfg.NodeName, Marks: a.cfg.Marks, Bindings: a.bindings,
		DNS: a.resolver(), DNSService: a.dnsService(), Limits: a.cfg.Limits, Flows: a.flows, Now: a.cfg.Now, Log: a.cfg.Log,
	})
	if err != nil {
		return err
	}
	r.publisher = newPublisher(&r.sockets, a.proxy.Publish)
	a.published.Store(r.publisher)
	r.prepare()
	group.Go(func() error { return r.live(ctx) })
	err = group.Wait()
	a.pending.Wait()
	return err
}

// part runs fn until ctx ends; any other end is the end of the daemon.
func (r *run) part(ctx context.Context, name string, fn func(context.Context) error) {
	r.group.Go(func() error {
		err := fn(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			return fmt.Errorf("%s: it ended without being told to", name)
		}
		return fmt.Errorf("%s: %w", name, err)
	})
}

// prepare starts what touches neither the kernel nor a socket of the node.
func (r *run) prepare() {
	r.part(r.tenure, "node identity", r.keepNodeEnrolled)
	r.part(r.life, "operators' word", r.watchOperators)
	if r.cfg.RoutesFile != "" {
		r.part(r.life, "routes", r.watchRoutes)
	}
	if r.cfg.Cluster != nil {
		r.part(r.life, "cluster", func(ctx context.Context) error { return r.cfg.Cluster.Fill(ctx, r.mesh.table) })
	}
	r.part(r.life, "memory", r.tidy)
}

// live is the course of the daemon's life; told ends when it is to end.
func (r *run) live(told context.Context) error {
	defer r.end()
	handed, err := r.succeed(told)
	if err != nil || told.Err() != nil || r.life.Err() != nil {
		return err
	}
	if err = r.begin(handed); err == nil {
		err = r.own(handed)
	}
	if err != nil {
		r.books.hold() // a predecessor that goes on has the kernel to itself
		return err
	}
	select {
	case <-r.life.Done():
	case <-r.passed:
		r.drainAfter(told)
	case <-told.Done():
		r.drainAlone()
	}
	return nil
}

// begin takes the datapath's sockets and the pods into use: first the daemon
// accepts, then the kernel steers pods to it. Pods that nobody has judged in
// this run are locked: some may be gone from the source.
func (r *run) begin(handed map[string]*os.File) error {
	listeners, err := r.listeners(handed)
	if err != nil {
		return err
	}
	// Without the rule a marked packet would be routed on, not delivered.
	if err := r.cfg.Loader.InstallRouting(); err != nil {
		return err
	}
	if err := r.proxy.Listen(listeners); err != nil {
		return err
	}
	if err := r.publisher.take(handed); err != nil {
		return err
	}
	r.part(r.life, "datapath", r.proxy.Run)
	if err := r.cfg.Loader.ClosePods(r.books.knows); err != nil {
		return fmt.Errorf("locking the pods of an earlier run: %w", err)
	}
	r.takeKernel()
	for _, ln := range listeners.Pods {
		if err := r.cfg.Loader.SetListener(ln); err != nil {
			return fmt.Errorf("steering pods to the transparent listener: %w", err)
		}
	}
	for _, c := range listeners.Packets {
		if err := r.cfg.Loader.SetPacketConn(c); err != nil {
			return fmt.Errorf("steering pods' datagrams to the transparent socket: %w", err)
		}
	}
	return nil
}

// listeners are those that were handed over, or new ones.
func (r *run) listeners(handed map[string]*os.File) (l datapath.Listeners, err error) {
	for _, name := range []string{socketPods4, socketPods6} {
		ln, err := takeListener(handed, name)
		if err != nil {
			return l, err
		}
		if tcp, ok := ln.(*net.TCPListener); ok {
			l.Pods = append(l.Pods, tcp)
		}
	}
	if len(l.Pods) == 0 {
		if l.Pods, err = datapath.ListenTransparent(r.life, r.cfg.Marks); err != nil {
			return l, err
		}
	}
	if l.Packets, err = r.packets(handed); err != nil {
		return l, err
	}
	ln, err := takeListener(handed, socketTunnels)
	if err != nil {
		return l, err
	}
	var ok bool
	if l.Tunnels, ok = ln.(*net.TCPListener); !ok {
		l.Tunnels, err = whenFree(r.life, func() (*net.TCPListener, error) {
			return datapath.ListenTunnels(r.life, netip.AddrPortFrom(r.cfg.NodeAddr, datapath.TunnelPort))
		})
		if err != nil {
			return l, err
		}
	}
	for i, ln := range l.Pods {
		if err := r.sockets.keep([]string{socketPods4, socketPods6}[i], ln); err != nil {
			return l, err
		}
	}
	return l, r.sockets.keep(socketTunnels, l.Tunnels)
}

// packets are the UDP sockets that were handed over, or new ones.
func (r *run) packets(handed map[string]*os.File) (all []*net.UDPConn, err error) {
	names := []string{socketPackets4, socketPackets6}
	for _, name := range names {
		c, err := takePackets(handed, name)
		if err != nil {
			return nil, err
		}
		if c != nil {
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		if all, err = datapath.ListenTransparentUDP(r.life, r.cfg.Marks); err != nil {
			return nil, err
		}
	}
	for i, c := range all {
		if err := r.sockets.keep(names[i], c); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// takeKernel makes the kernel what the pods want. A pod that this fails for is
// begun anew, so that it is tried again and the failure is seen.
func (r *run) takeKernel() {
	failed := r.books.begin()
	for _, m := range r.sortedPods() {
		if err := failed[m.pod.hostIfindex()]; err != nil {
			m.pod.log.Error("taking over a pod; it begins anew", "err", err)
			r.podEvent(r.life, PodEvent{Pod: m.pod.info})
		}
	}
}

// own starts everything that the owner of a node runs. What can fail does so
// before the hand-over is confirmed: then the predecessor goes on.
func (r *run) own(handed map[string]*os.File) error {
	later, err := r.openServices(handed)
	if err != nil {
		return err
	}
	r.part(r.tenure, "policy routing", r.cfg.Loader.Routing)
	r.part(r.tenure, "link watcher", func(ctx context.Context) error { return r.cfg.Loader.WatchLinks(ctx, r.linkEvent) })
	r.part(r.tenure, "kubelet watcher", r.cfg.Loader.WatchKubelet)
	if p := r.cfg.Predecessor; p != nil {
		if err := p.Done(); err != nil {
			return err
		}
		r.cfg.Log.Info("this daemon has taken over the node", "from", p.Release)
		_ = p.Close()
	}
	for _, s := range later {
		ln, err := whenFree(r.life, func() (net.Listener, error) { return s.Listen(r.life, nil) })
		if err := r.keepService(s, ln, err); err != nil {
			return err
		}
	}
	r.part(r.tenure, "kernel events", r.kernelEvents)
	r.beginSpell()
	r.part(r.tenure, "admin socket", func(ctx context.Context) error {
		return (&admin{status: r.Status, flows: r.flows, log: r.cfg.Log}).serve(ctx, r.cfg.RunDir)
	})
	return r.awaitSuccessor()
}

// openServices opens the listeners of all services, which is where clients
// wait while nobody serves. Those whose address the predecessor still has, in
// another form, come later.
func (r *run) openServices(handed map[string]*os.File) (later []Service, err error) {
	for _, s := range r.services() {
		before, err := takeListener(handed, s.Name)
		if err != nil {
			return nil, err
		}
		ln, err := s.Listen(r.life, before)
		if errors.Is(err, syscall.EADDRINUSE) {
			later = append(later, s)
			continue
		}
		if err := r.keepService(s, ln, err); err != nil {
			return nil, err
		}
	}
	for name, f := range handed {
		r.cfg.Log.Warn("a socket of the daemon before is not known", "socket", name)
		_ = f.Close()
	}
	return later, nil
}

// keepService keeps the socket of a service's listener; spells listen on it.
func (r *run) keepService(s Service, ln net.Listener, err error) error {
	if err != nil {
		return fmt.Errorf("opening the listener of %s: %w", s.Name, err)
	}
	defer ln.Close()
	return r.sockets.keep(s.Name, ln)
}

func (a *Agent) services() []Service {
	all := a.cfg.Services
	if a.cfg.Metrics != "" {
		all = append([]Service{a.metrics.service(a.cfg.Metrics)}, all...)
	}
	return all
}

// spell is one run of the parts that only the owner of the node runs.
type spell struct {
	cancel context.CancelFunc
	parts  sync.WaitGroup
}

// beginSpell starts the pod source, the services and the configured parts.
func (r *run) beginSpell() {
	ctx, cancel := context.WithCancel(r.tenure)
	s := &spell{cancel: cancel}
	start := func(name string, fn func(context.Context) error) {
		s.parts.Add(1)
		r.part(ctx, name, func(ctx context.Context) error {
			defer s.parts.Done()
			return fn(ctx)
		})
	}
	start("published ports", r.publish)
	start("pods", func(ctx context.Context) error { return r.watchPods(ctx, r.life) })
	for _, svc := range r.services() {
		start(svc.Name, func(ctx context.Context) error {
			ln, err := r.sockets.listener(svc.Name)
			if err != nil {
				return err
			}
			return svc.Serve(ctx, ln)
		})
	}
	for _, p := range r.cfg.Parts {
		start(p.Name, p.Run)
	}
	r.mu.Lock()
	r.spell = s
	r.mu.Unlock()
}

// endSpell ends them, and reports whether they have ended in time. When they
// have not, they begin again as soon as they have.
func (r *run) endSpell(within time.Duration) bool {
	r.mu.Lock()
	s := r.spell
	r.spell = nil
	r.mu.Unlock()
	if s == nil {
		return false // the last attempt's parts are still ending
	}
	s.cancel()
	ended := make(chan struct{})
	go func() {
		s.parts.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return true
	case <-time.After(within):
	}
	r.part(r.tenure, "parts that ended late", func(ctx context.Context) error {
		select {
		case <-ended:
			r.beginSpell()
			<-ctx.Done()
		case <-ctx.Done():
		}
		return ctx.Err()
	})
	return false
}
