// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/agent/handover"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/envflag"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/nodecmd"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/version"
	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/host"
	"github.com/c8s-dev/c8s/internal/memlimit"
	"github.com/c8s-dev/c8s/loader"
)

// nodeFlags are the flags of `c8s node`.
type nodeFlags struct {
	machineFlags
	kernel   kernelFlags
	runtime  runtimeFlags
	dns      dnsFlags
	name     string
	podsDir  string
	linger   bool
	instance string

	podEvidence bool
}

func newNode() *cobra.Command {
	var f nodeFlags
	c := &cobra.Command{
		Use:   "node",
		Short: "Hold this node's pods locked and carry their traffic through attested TLS",
		Long: `Run the node daemon.

It loads the kernel programs, locks every pod link at birth, attests this node
to the CDS, and opens a pod once the signed manifest lists it and the CDS has
certified it. Through NRI and c8s-runtime it decides which containers may start
at all ('c8s node install' puts these on the node). When the daemon stops or is
killed, pods stay locked: the kernel keeps dropping what they send. Only 'c8s
node uninstall' removes the lock.

Started beside a running daemon, it prepares everything and takes over without
a new connection failing; the old one lets established connections end in
their own time, up to --drain. So does one that is told to end by SIGTERM; it
refuses new ones, and a second signal ends it at once.

` + envflag.Note("node-address") + `

Exit codes: 0 told to end, or another daemon has taken over; 1 failed; 2 wrong
usage.`,
		Example: `  # on a Kubernetes node
  c8s node --node-address 10.80.0.1 --cds 10.80.0.100:15009 \
    --operators operators.json --manifest manifest.signed.json --kubeconfig node.kubeconfig

  # without Kubernetes and containerd
  c8s node --node-address 10.80.0.1 --cds 10.80.0.100:15009 \
    --operators operators.json --manifest manifest.signed.json \
    --pods-dir /run/c8s/pods --no-kubernetes --routes /run/c8s/routes.json`,
		Args: desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	f.machineFlags.register(c, "node-address", host.StateDir, "127.0.0.1:15020")
	f.kernel.register(c)
	f.runtime.register(c)
	f.dns.register(c)
	hostname, _ := os.Hostname()
	fl := c.Flags()
	fl.StringVar(&f.name, "node-name", hostname, "name of this node, as in Kubernetes")
	fl.StringVar(&f.podsDir, "pods-dir", "", "for development: folder with one JSON description per pod, instead of containerd; what runs in them is not judged")
	fl.BoolVar(&f.podEvidence, "pod-evidence", false, "have the TEE make fresh evidence for each certificate of a pod, not only for the node's (slow on hardware)")
	fl.BoolVar(&f.linger, "linger", false, "after a new daemon has taken over, stay until told to end (Kubernetes would start the container again)")
	fl.StringVar(&f.instance, "instance", "", "name of this process in status, to tell it from another one on the same node")
	c.AddCommand(nodecmd.New(func() nodecmd.Kernel {
		k := new(kernelFlags)
		return nodecmd.Kernel{Register: k.register, Config: k.config}
	})...)
	c.AddCommand(newNodeReady())
	return c
}

func (f *nodeFlags) run(c *cobra.Command) error {
	if err := envflag.Apply(c, os.Environ()); err != nil {
		return err
	}
	addr, err := f.check()
	if err != nil {
		return err
	}
	log := f.log.logger().With("node", f.name)
	cluster, err := f.places.cluster(addr, "c8s-node", log)
	if err != nil {
		return err
	}
	names, err := f.dns.config(f.runtime.process, log)
	if err != nil {
		return err
	}
	trust, err := f.trust.load()
	if err != nil {
		return err
	}
	attester, simulated, err := f.attester(c.Context(), f.name, trust, log)
	if err != nil {
		return err
	}
	if len(f.kernel.uplinks) == 0 {
		uplink, err := uplinkOf(addr)
		if err != nil {
			return err
		}
		f.kernel.uplinks = []string{uplink}
	}
	terms := f.terms(trust.manifest.Manifest.TrustDomain)
	predecessor, err := agent.FindPredecessor(c.Context(), f.runDir, version.String(), terms)
	if err != nil {
		return err
	}
	if predecessor != nil {
		defer predecessor.Close()
	}
	kernel := f.kernel.config(log)
	kernel.DatagramRate = f.dns.datagramRate()
	ld, err := loader.Open(kernel)
	if err != nil {
		return err
	}
	defer ld.Close()
	cds, err := f.client(trust, log)
	if err != nil {
		return err
	}
	config := agent.Config{
		NodeName: f.name, NodeAddr: addr, Version: version.String(), RunDir: f.runDir,
		RoutesFile: f.places.file, Cluster: cluster, DNS: names, Metrics: f.metrics, Marks: f.kernel.marks(),
		Manifest: cds.Manifest(), Attester: attester, Simulated: simulated, PodEvidence: f.podEvidence, CDS: cds, Loader: ld,
		Predecessor: predecessor, Terms: terms, Drain: f.drain, Linger: f.linger, Instance: f.instance,
		Limits: memoryLimits(), Now: time.Now, Log: log,
	}
	a, err := f.newAgent(config, ld)
	if err != nil {
		return err
	}
	log.Info("node daemon starting", "version", version.String(), "manifest", cds.Manifest().Manifest.Version)
	return a.Run(c.Context())
}

// newAgent makes the agent with the source of its pods: containerd's, judged by
// the manifest, or a folder's.
func (f *nodeFlags) newAgent(config agent.Config, ld *loader.Loader) (*agent.Agent, error) {
	if f.podsDir != "" {
		if err := os.MkdirAll(f.podsDir, 0o700); err != nil {
			return nil, fmt.Errorf("making the pod folder: %w", err)
		}
		config.Source = &agent.DirSource{Dir: f.podsDir, Log: config.Log}
		return agent.New(config)
	}
	e, err := newEnforcement(f.runtime, ld, config.Log)
	if err != nil {
		return nil, err
	}
	config.Source, config.Adopted = source{e.Enforcer}, e.adopt
	config.Parts, config.Services = e.parts(), []agent.Service{e.gate(f.runDir)}
	config.Refused = e.Refused
	config.Lacking, config.Collectors = e.lacking, []prometheus.Collector{e.Collector()}
	a, err := agent.New(config)
	if err != nil {
		return nil, err
	}
	e.opener.agent.Store(a)
	return a, nil
}

// terms are the settings that a daemon and its successor must share, because
// both are in force while one takes over from the other.
func (f *nodeFlags) terms(trustDomain string) handover.Terms {
	k := f.kernel
	return handover.Terms{
		"the trust domain": trustDomain, "--node-name": f.name, "--node-address": f.address, "--bpffs": k.bpffs,
		"--capture-mark": fmt.Sprintf("%#x", k.captureMark), "--daemon-mark": fmt.Sprintf("%#x", k.daemonMark), "--mark-mask": fmt.Sprintf("%#x", k.markMask),
		"--route-table": strconv.Itoa(k.table), "--rule-priority": strconv.Itoa(k.rulePref),
	}
}

// kernelFlags configure what the loader puts into the kernel.
type kernelFlags struct {
	bpffs       string
	uplinks     []string
	exclude     []string
	kubelet     string
	lsm         string
	captureMark uint32
	daemonMark  uint32
	markMask    uint32
	table       int
	rulePref    int
}

func (k *kernelFlags) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&k.bpffs, "bpffs", "/sys/fs/bpf", "mounted bpf file system that holds the pins")
	f.StringSliceVar(&k.uplinks, "uplink", nil, "links that lead out of the node (repeatable); nothing is ever forwarded to them; none: the one with the node's address")
	f.StringSliceVar(&k.exclude, "exclude-link", nil, "veth links that are not pods (repeatable); every other veth is locked")
	f.StringVar(&k.kubelet, "kubelet-cgroup", loader.KubeletAuto, "path of the kubelet's cgroup in the cgroup2 hierarchy, from which pods may be probed; auto finds the process, empty refuses all probes")
	f.StringVar(&k.lsm, "lsm", loader.LSMAuto, "hardening by the kernel's security hooks, beside pods' seccomp filters: auto (where the kernel has it), off, or require (do not start without)")
	completeWith(c, "lsm", loader.LSMAuto, loader.LSMOff, loader.LSMRequire)
	f.Uint32Var(&k.captureMark, "capture-mark", loader.DefaultCaptureMark, "firewall mark of captured pod packets")
	f.Uint32Var(&k.daemonMark, "daemon-mark", loader.DefaultDaemonMark, "firewall mark of the daemon's own packets to pods")
	f.Uint32Var(&k.markMask, "mark-mask", loader.DefaultMarkMask, "bits of the firewall mark that belong to c8s")
	f.IntVar(&k.table, "route-table", loader.DefaultTable, "routing table for captured packets")
	f.IntVar(&k.rulePref, "rule-priority", loader.DefaultRulePref, "priority of the policy rule, before the CNI's own")
}

func (k *kernelFlags) config(log *slog.Logger) loader.Config {
	return loader.Config{
		PinDir: filepath.Join(k.bpffs, "c8s"), CaptureMark: k.captureMark, DaemonMark: k.daemonMark, MarkMask: k.markMask,
		Table: k.table, RulePref: k.rulePref, Uplinks: k.uplinks, ExcludeLinks: k.exclude, KubeletCgroup: k.kubelet, LSM: k.lsm, Log: log,
	}
}

func (k *kernelFlags) marks() datapath.Marks {
	return datapath.Marks{Capture: k.captureMark, Daemon: k.daemonMark, Mask: k.markMask}
}

// memoryLimits leaves three quarters of the memory that the daemon may have to
// everything but buffers of connections.
func memoryLimits() datapath.Limits {
	limit := memlimit.Of(os.DirFS("/"), debug.SetMemoryLimit(-1))
	return datapath.Limits{Buffers: int(min(limit/4, 1<<30))}
}
