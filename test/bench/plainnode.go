// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/datapath/tunnel"
	"github.com/c8s-dev/c8s/loader"
)

// plainNode is what a node daemon without TLS is told on standard input. It
// steers, pools, frames and relays with the product's own code and leaves out
// TLS, certificates and policy: the yardstick for what those cost.
type plainNode struct {
	PinDir  string
	Uplinks []string
	Addr    netip.Addr
	Routes  map[netip.Prefix]netip.Addr
	Pods    []plainPod
}

type plainPod struct {
	Netns    string
	HostLink string
	Addrs    []netip.Addr
}

const dialTimeout = 5 * time.Second

func plainMarks() datapath.Marks {
	return datapath.Marks{Capture: loader.DefaultCaptureMark, Daemon: loader.DefaultDaemonMark, Mask: loader.DefaultMarkMask}
}

func runPlainNode(ctx context.Context, config io.Reader) error {
	var n plainNode
	if err := json.NewDecoder(config).Decode(&n); err != nil {
		return fmt.Errorf("reading the plain node's configuration: %w", err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ld, err := loader.Open(loader.Config{
		PinDir: n.PinDir, Uplinks: n.Uplinks, Log: log,
		CaptureMark: loader.DefaultCaptureMark, DaemonMark: loader.DefaultDaemonMark, MarkMask: loader.DefaultMarkMask,
		Table: loader.DefaultTable, RulePref: loader.DefaultRulePref,
	})
	if err != nil {
		return err
	}
	defer ld.Close()
	listeners, err := datapath.ListenTransparent(ctx, plainMarks())
	if err != nil {
		return err
	}
	for _, ln := range listeners {
		if err := ld.SetListener(ln); err != nil {
			return err
		}
	}
	for _, p := range n.Pods {
		if err := n.open(ctx, ld, p); err != nil {
			return err
		}
	}
	tunnels, err := net.Listen("tcp", netip.AddrPortFrom(n.Addr, datapath.TunnelPort).String())
	if err != nil {
		return err
	}
	var bufs tunnel.Buffers
	server := tunnel.NewServer(tunnel.ServerConfig{Buffers: &bufs, Accept: acceptPlain})
	pool := tunnel.NewPool(tunnel.PoolConfig{Dial: n.dialer(&bufs), Now: time.Now, DialTimeout: dialTimeout})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return ld.Routing(ctx) })
	g.Go(func() error { return server.Serve(ctx, tunnels) })
	g.Go(func() error { pool.Run(ctx); return nil })
	for _, ln := range listeners {
		g.Go(func() error { return relayPods(ctx, ln, pool) })
	}
	fmt.Println("ready")
	return g.Wait()
}

func (n *plainNode) open(ctx context.Context, ld *loader.Loader, p plainPod) error {
	link, err := netlink.LinkByName(p.HostLink)
	if err != nil {
		return err
	}
	ifindex := link.Attrs().Index
	if err := ld.LockLink(ctx, ifindex); err != nil {
		return err
	}
	return ld.SetPod(loader.Pod{Ifindex: ifindex, NetnsPath: p.Netns, GuestInterface: "eth0", Addrs: p.Addrs, Open: true})
}

func (n *plainNode) dialer(bufs *tunnel.Buffers) func(context.Context, tunnel.Key) (*tunnel.Tunnel, tunnel.Meta, error) {
	return func(ctx context.Context, key tunnel.Key) (*tunnel.Tunnel, tunnel.Meta, error) {
		for prefix, node := range n.Routes {
			if !prefix.Contains(key.Dst) {
				continue
			}
			d := net.Dialer{Timeout: dialTimeout}
			d.SetMultipathTCP(false)
			conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(node, datapath.TunnelPort).String())
			if err != nil {
				return nil, tunnel.Meta{}, err
			}
			t, err := tunnel.Dialed(ctx, conn, nil, bufs)
			return t, tunnel.Meta{NotAfter: time.Now().Add(time.Hour)}, err
		}
		return nil, tunnel.Meta{}, errors.New("no route")
	}
}

func acceptPlain(ctx context.Context, _ *tunnel.Tunnel, h tunnel.Header) (tunnel.App, func(tunnel.Result), tunnel.Reason) {
	app, err := datapath.DialPod(ctx, h.Src, h.Dst, plainMarks(), dialTimeout)
	if err != nil {
		return nil, nil, tunnel.ReasonNotAllowed
	}
	return app, func(tunnel.Result) {}, tunnel.ReasonNone
}

func relayPods(ctx context.Context, ln *net.TCPListener, pool *tunnel.Pool) error {
	for {
		app, err := ln.AcceptTCP()
		if err != nil {
			return err
		}
		go func() {
			src, dst := addrPort(app.RemoteAddr()), addrPort(app.LocalAddr())
			lease, err := pool.Get(ctx, tunnel.Key{Src: src.Addr(), Dst: dst.Addr()})
			if err != nil {
				app.Close()
				return
			}
			defer pool.Put(lease)
			lease.Tunnel.Relay(app, tunnel.Header{Proto: tunnel.ProtoTCP, Src: src, Dst: dst})
		}()
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
