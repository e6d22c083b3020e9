// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/net/multiplex"
	"github.com/containerd/ttrpc"
)

const (
	// PluginName is what containerd's required_plugins must list.
	PluginName = "c8s"
	// pluginIndex is the last one: what comes after other plugins sees what
	// they did.
	pluginIndex = "99"

	// DefaultSocket is where containerd listens for plugins.
	DefaultSocket = api.DefaultSocketPath

	reconnectMin    = 100 * time.Millisecond
	reconnectMax    = 5 * time.Second
	registerWithin  = 5 * time.Second
	leaveWithin     = 2 * time.Second // for requests that are being answered
	protocolVersion = "v0.12.5"       // of NRI: it has failure policies
)

// Plugin is the connection to one runtime's NRI. It speaks the protocol itself:
// the stub of the NRI module waits for ever when the runtime dies between
// registration and configuration (v0.12.5).
type Plugin struct {
	Enforcer *Enforcer
	Socket   string         // empty: DefaultSocket
	Jitter   func() float64 // in [0, 1)
	Log      *slog.Logger

	connected atomic.Bool
}

// Connected reports whether the runtime has the plugin registered and told it
// about its pods.
func (p *Plugin) Connected() bool { return p.connected.Load() }

// Run keeps the plugin connected until ctx ends. A runtime that is not there,
// or restarts, is tried again with growing pauses.
func (p *Plugin) Run(ctx context.Context) error {
	wait := reconnectMin
	for {
		began := p.Enforcer.cfg.Now()
		err := p.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if p.Enforcer.cfg.Now().Sub(began) > reconnectMax {
			wait = reconnectMin // it worked for a while
		}
		pause := wait/2 + time.Duration(p.Jitter()*float64(wait/2))
		p.Log.Warn("NRI connection", "err", err, "retryIn", pause)
		retry := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			retry.Stop()
			return ctx.Err()
		case <-retry.C:
		}
		wait = min(2*wait, reconnectMax)
	}
}

// session is one connection, from dialling to its end.
func (p *Plugin) session(ctx context.Context) error {
	defer p.connected.Store(false)
	socket := p.Socket
	if socket == "" {
		socket = DefaultSocket
	}
	conn, err := (&net.Dialer{Timeout: registerWithin}).DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("connecting to NRI (containerd must have it enabled): %w", err)
	}
	mux := multiplex.Multiplex(conn)
	defer mux.Close()
	ln, err := mux.Listen(multiplex.PluginServiceConn)
	if err != nil {
		return fmt.Errorf("connecting to NRI: %w", err)
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		return fmt.Errorf("serving NRI: %w", err)
	}
	defer server.Close()
	api.RegisterPluginService(server, &service{p: p, e: p.Enforcer})
	lost := make(chan struct{})
	var once sync.Once
	lose := func() { once.Do(func() { close(lost) }) }
	go func() {
		// Requests outlive ctx: what is being answered when it ends is answered.
		_ = server.Serve(context.WithoutCancel(ctx), ln)
		lose()
	}()
	up, err := mux.Open(multiplex.RuntimeServiceConn)
	if err != nil {
		return fmt.Errorf("connecting to NRI: %w", err)
	}
	client := ttrpc.NewClient(up, ttrpc.WithOnClose(lose))
	defer client.Close()
	if err := p.register(ctx, client); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		p.connected.Store(false)
		leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveWithin)
		defer cancel()
		_ = server.Shutdown(leaving)
		return ctx.Err()
	case <-lost:
		return errors.New("the runtime closed the connection")
	}
}

func (p *Plugin) register(ctx context.Context, client *ttrpc.Client) error {
	ctx, cancel := context.WithTimeout(ctx, registerWithin)
	defer cancel()
	_, err := api.NewRuntimeClient(client).RegisterPlugin(ctx, &api.RegisterPluginRequest{
		PluginName: PluginName, PluginIdx: pluginIndex, NRIVersion: protocolVersion,
	})
	if err != nil {
		return fmt.Errorf("registering with NRI: %w", err)
	}
	return nil
}
