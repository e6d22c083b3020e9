// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/host"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/nri"
	"github.com/c8s-dev/c8s/nri/cosign"
	"github.com/c8s-dev/c8s/nri/facts"
	"github.com/c8s-dev/c8s/nri/gate"
	"github.com/c8s-dev/c8s/nri/image"
	"github.com/c8s-dev/c8s/policy"
)

// runtimeFlags say where the container runtime is.
type runtimeFlags struct {
	containerd string
	nri        string
	kubelet    string
	process    string
}

func (f *runtimeFlags) register(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.containerd, "containerd", "/run/containerd/containerd.sock", "containerd's socket; its pods are this node's")
	fl.StringVar(&f.nri, "nri", nri.DefaultSocket, "socket at which containerd listens for NRI plugins")
	fl.StringVar(&f.kubelet, "kubelet-dir", facts.DefaultKubelet, "the kubelet's folder, by which volumes are told from other mounts")
	fl.StringVar(&f.process, "host-process", "/proc/self", "a process in the node's own mount namespace: /proc/1 for a daemon in a container that shares the node's process ids")
}

// enforcement is what decides what may start on the node, with its connections.
type enforcement struct {
	*nri.Enforcer
	images *image.Resolver
	signed *cosign.Finder
	plugin *nri.Plugin
	links  agent.LinkLock
	opener lateOpener
	log    *slog.Logger
}

// newEnforcement connects nothing yet: containerd may start later.
func newEnforcement(f runtimeFlags, ld *loader.Loader, log *slog.Logger) (*enforcement, error) {
	images, err := image.Open(f.containerd)
	if err != nil {
		return nil, err
	}
	store := cosign.NodeImages{Resolver: images}
	verifier := cosign.NewVerifier(time.Now, &cosign.Local{Contents: store}, &cosign.Registry{Keychain: authn.DefaultKeychain})
	e := &enforcement{images: images, signed: cosign.NewFinder(verifier, store.Of), links: agent.LinkLock{Kernel: ld}, log: log}
	e.Enforcer, err = nri.New(nri.Config{
		Node: facts.Local(f.process, f.kubelet, facts.DefaultContainerd()), Runtime: images, Signatures: e.signed,
		Opener: &e.opener, Log: log, Now: time.Now,
	})
	if err != nil {
		return nil, errors.Join(err, images.Close())
	}
	e.plugin = &nri.Plugin{Enforcer: e.Enforcer, Socket: f.nri, Jitter: rand.Float64, Log: log}
	return e, nil
}

// adopt puts a manifest in force for what may start.
func (e *enforcement) adopt(s *policy.Signed) {
	if err := e.signed.Manifest(s.Manifest); err != nil {
		e.log.Error("images listed by signer are refused", "err", err)
	}
	e.Manifest(s)
}

// lacking is why the node cannot take pods.
func (e *enforcement) lacking() error {
	if !e.plugin.Connected() {
		return errors.New("the node daemon is not connected to containerd's NRI")
	}
	return nil
}

// parts run while this daemon owns its node.
func (e *enforcement) parts() []agent.Part {
	return []agent.Part{
		{Name: "enforcer", Run: e.Run},
		{Name: "NRI plugin", Run: e.plugin.Run},
		{Name: "network configuration", Run: e.keepChained},
	}
}

// keepChained has c8s-cni stay in the CNI's configuration, if it was installed.
func (e *enforcement) keepChained(ctx context.Context) error {
	node, err := host.Open(host.DefaultLayout())
	if err == nil {
		err = node.WatchConflist(ctx, e.log)
	}
	if ctx.Err() == nil && err != nil {
		// Pods that come without it are locked by the link watcher, a moment later.
		e.log.Warn("the network configuration is not watched", "err", err)
	}
	<-ctx.Done()
	return ctx.Err()
}

// gate is where c8s-runtime and c8s-cni ask.
func (e *enforcement) gate(runDir string) agent.Service {
	return agent.Service{
		Name: "gate",
		Listen: func(_ context.Context, handed net.Listener) (net.Listener, error) {
			if handed != nil {
				return handed, nil
			}
			return gate.Listen(runDir)
		},
		Serve: (&gate.Server{Judge: judge{e}, Log: e.log}).Serve,
	}
}

// judge answers at the gate.
type judge struct{ e *enforcement }

func (j judge) Create(ctx context.Context, r gate.CreateRequest) error {
	return j.e.Create(ctx, nri.CreateRequest(r))
}

func (j judge) Exec(ctx context.Context, r gate.ExecRequest) error {
	return j.e.Exec(ctx, nri.ExecRequest(r))
}

func (j judge) Lock(ctx context.Context, r gate.LockRequest) error { return j.e.links.Lock(ctx, r) }

// podLink is the name of a pod's link in its own namespace: containerd's CRI
// plugin knows no other.
const podLink = "eth0"

// source tells the agent of the pods that the enforcer has bound to an entry.
type source struct{ *nri.Enforcer }

// Watch implements agent.Source.
func (s source) Watch(ctx context.Context, out chan<- agent.PodEvent) error {
	events := make(chan nri.PodEvent)
	ended := make(chan error, 1)
	go func() { ended <- s.Enforcer.Watch(ctx, events) }()
	for {
		select {
		case e := <-events:
			p := e.Pod
			select {
			case out <- agent.PodEvent{Removed: e.Removed, Pod: agent.PodInfo{
				Namespace: p.Namespace, Name: p.Name, UID: p.UID, Netns: p.Netns, Interface: podLink, Cgroup: p.Cgroup,
				Addrs: p.Addrs, Images: p.Images, Signed: p.Signed, Entry: p.Entry,
			}}:
			case <-ctx.Done():
				return <-ended
			}
		case err := <-ended:
			return err
		}
	}
}

// lateOpener is the agent, which is made after the enforcer that waits for it.
type lateOpener struct{ agent atomic.Pointer[agent.Agent] }

// WaitOpen implements nri.Opener.
func (l *lateOpener) WaitOpen(ctx context.Context, podUID string) error {
	a := l.agent.Load()
	if a == nil {
		return errors.New("the daemon is starting")
	}
	return a.WaitOpen(ctx, podUID)
}
