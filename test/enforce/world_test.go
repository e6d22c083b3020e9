// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/nri/gate"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/privileged"
	"github.com/c8s-dev/c8s/test/stack"
	"github.com/c8s-dev/c8s/test/stack/image"
)

const (
	trustDomain = "enforce.c8s.example"
	runDir      = "/run/c8s"
	stateDir    = "/var/lib/c8s"
	cdsPort     = 15009
)

// world is an operator, a CDS and nodes on one network.
type world struct {
	t          testing.TB
	desk       *desk
	fabric     *stack.Fabric
	cdsOn      *stack.Node
	cds        *stack.Process
	nodes      []*node
	app, pause *image.Image
}

// newWorld makes nodes of these names, all enrolled, under a manifest that
// edits have changed.
func newWorld(t testing.TB, names []string, edits ...func(*world, *policy.Manifest)) *world {
	t.Helper()
	privileged.Require(t)
	if t, ok := t.(*testing.T); ok {
		t.Parallel() // some wait for half a minute
	}
	w := &world{t: t, fabric: stack.TestFabric(t), app: must(image.App(t.Context())), pause: must(image.Pause(t.Context()))}
	m := w.manifest()
	for _, edit := range edits {
		edit(w, m)
	}
	w.desk = newDesk(t, m)
	w.cdsOn = stack.NewNode(t, stack.NodeConfig{Name: "cds", Fabric: w.fabric, NoContainerd: true})
	w.startCDS()
	for _, name := range names {
		w.nodes = append(w.nodes, w.newNode(name))
	}
	w.routes()
	for _, n := range w.nodes {
		n.startDaemon()
	}
	return w
}

// digest is an image's identity in manifests.
func digest(i *image.Image) policy.Digest { return policy.Digest(i.Config) }

// rule is one about the test program with these arguments.
func (w *world) rule(args ...string) policy.Image {
	return policy.Image{Name: "app", Digest: digest(w.app), Run: &policy.Run{Args: append([]string{"/app"}, args...)}}
}

func (w *world) entry(name string, images ...policy.Image) policy.Workload {
	return policy.Workload{Name: name, Images: images}
}

func peer(name string) []policy.PeerRule {
	return []policy.PeerRule{{Workload: name, Ports: []uint16{9000}, Protocol: policy.ProtocolTCP}}
}

// manifest lists a server, its client, in which anything may be run, and an
// entry that allows as little as there can be.
func (w *world) manifest() *policy.Manifest {
	web, client := w.entry("web", w.rule("serve")), w.entry("client", w.rule("sleep"))
	web.Peers.From, client.Peers.To = peer("client"), peer("web")
	client.Exec = []policy.Exec{{Args: []string{policy.Any}}}
	strict := w.entry("strict", w.rule("sleep"), w.rule("sockets"))
	daemon := policy.Workload{Name: "c8s-node", HostNetwork: true, Bootstrap: true, Images: []policy.Image{w.rule("sleep")}}
	daemon.Images[0].Run.Sockets = policy.SocketKinds() // no daemon, no filter
	return &policy.Manifest{
		Sandboxes: []policy.Image{{Name: "pause", Digest: digest(w.pause)}},
		Workloads: []policy.Workload{web, client, strict, daemon},
	}
}

func (w *world) cdsAddr() string { return netip.AddrPortFrom(w.cdsOn.Addr(), cdsPort).String() }

func (w *world) startCDS() {
	w.t.Helper()
	args := []string{
		programs.c8s, "cds", "--name", "cds", "--listen", w.cdsAddr(), "--operators", w.desk.path("operators.json"),
		"--manifest", w.desk.path("manifest.json"), "--tee", "sim", "--sim-dir", programs.vendor, "--sim-machine", "cds", "--state-dir", stateDir,
	}
	var err error
	w.cds, err = w.cdsOn.Start(w.t.Context(), stack.Daemon{Name: "cds", Args: args, Ready: func(ctx context.Context) error {
		conn, err := w.cdsOn.Dial(ctx, "tcp", w.cdsAddr())
		if err == nil {
			conn.Close()
		}
		return err
	}})
	if err != nil {
		w.t.Fatal(err)
	}
}

// node is one whose containerd starts everything through c8s-runtime, and whose
// pods' network is made with c8s-cni.
type node struct {
	*stack.Node
	w      *world
	cri    *stack.CRI
	admin  *agent.Client
	daemon *stack.Process
}

// dropIn is the part of containerd's configuration that 'c8s node install'
// writes.
const dropIn = `version = 4
[plugins.'io.containerd.nri.v1.nri'.default_validator]
  enable = true
  required_plugins = ['c8s']
  tolerate_missing_plugins_annotation = 'c8s.dev/tolerate-missing-plugin'
  reject_oci_hook_adjustment = true
  reject_namespace_adjustment = true
`

func (w *world) newNode(name string) *node {
	w.t.Helper()
	return w.install(w.plainNode(name, stack.NodeConfig{RuntimeBinary: programs.runtime, ExtraConfig: map[string]string{"c8s.toml": dropIn}}))
}

// plainNode has no part of C8s unless cfg says so.
func (w *world) plainNode(name string, cfg stack.NodeConfig) *node {
	w.t.Helper()
	cfg.Name, cfg.Fabric = name, w.fabric
	n := &node{Node: stack.NewNode(w.t, cfg), w: w}
	n.cri, n.admin = must(n.CRI()), agent.NewClient(n.Path(runDir))
	n.load(w.app)
	return n
}

// install puts on a node what does not need containerd to start again.
func (w *world) install(n *node) *node {
	w.t.Helper()
	n.write("/etc/c8s/runtime.json", must(json.Marshal(map[string]string{
		"runtime": "/usr/local/sbin/runc", "gate": gatePath(), "operators": "/etc/c8s/operators.json",
		"manifest": "/etc/c8s/manifest.json", "stateDir": stateDir, "containerd": stack.ContainerdSocket,
	})))
	n.write("/etc/c8s/operators.json", must(json.Marshal(w.desk.operators)))
	n.write("/etc/c8s/manifest.json", w.desk.signed.Envelope)
	must(n.Run(w.t.Context(), "ln", "-s", programs.cni, "/opt/cni/bin/c8s-cni"))
	raw := must(n.Run(w.t.Context(), "cat", stack.CNIConfig))
	var conf map[string]any
	if err := json.Unmarshal([]byte(raw), &conf); err != nil {
		w.t.Fatal(err)
	}
	conf["plugins"] = append(conf["plugins"].([]any), map[string]string{"type": "c8s-cni", "gate": gatePath()})
	n.write(stack.CNIConfig, must(json.Marshal(conf)))
	return n
}

func gatePath() string { return filepath.Join(runDir, gate.SocketName) }

func (n *node) write(file string, b []byte) {
	n.w.t.Helper()
	if err := n.WriteFile(file, b, 0o600); err != nil {
		n.w.t.Fatal(err)
	}
}

func (n *node) load(images ...*image.Image) {
	n.w.t.Helper()
	if err := n.Import(n.w.t.Context(), images...); err != nil {
		n.w.t.Fatal(err)
	}
}

// routes tells every node where the others' pods are.
func (w *world) routes() {
	routes := map[netip.Prefix]netip.Addr{}
	for _, n := range w.nodes {
		for _, p := range n.PodCIDRs() {
			routes[p] = n.Addr()
		}
	}
	write(w.t, w.desk.path("routes.json"), must(json.Marshal(routes)))
}

// startDaemon starts the node's daemon and waits until it takes pods.
func (n *node) startDaemon() {
	n.w.t.Helper()
	args := []string{
		programs.c8s, "node", "--node-name", n.Name(), "--node-address", n.Addr().String(), "--uplink", stack.Uplink,
		"--cds", n.w.cdsAddr(), "--operators", n.w.desk.path("operators.json"), "--manifest", n.w.desk.path("manifest.json"),
		"--state-dir", stateDir, "--run-dir", runDir, "--no-kubernetes", "--routes", n.w.desk.path("routes.json"), "--kubelet-cgroup", "",
		"--drain", "1s", "--tee", "sim", "--sim-dir", programs.vendor, "--sim-machine", n.Name(),
	}
	var err error
	n.daemon, err = n.Start(n.w.t.Context(), stack.Daemon{Name: "c8s-node", Args: args, Ready: n.ready})
	if err != nil {
		n.w.t.Fatal(err)
	}
}

func (n *node) ready(ctx context.Context) error {
	s, err := n.admin.Status(ctx)
	switch {
	case err != nil:
		return err
	case s.Node.ID == "":
		return errors.New("not enrolled: " + s.Node.Error)
	case s.Node.NotReady != "":
		return errors.New(s.Node.NotReady)
	}
	return nil
}

// kill ends the daemon as the kernel does when memory is short.
func (n *node) kill() {
	n.w.t.Helper()
	if err := n.daemon.Kill(); err != nil {
		n.w.t.Fatal(err)
	}
}

func (n *node) signal(sig syscall.Signal) {
	n.w.t.Helper()
	if err := n.daemon.Signal(sig); err != nil {
		n.w.t.Fatal(err)
	}
}

// status is what the daemon says of a pod.
func (n *node) status(ctx context.Context, p *stack.Pod) (agent.PodStatus, error) {
	s, err := n.admin.Status(ctx)
	if err != nil {
		return agent.PodStatus{}, err
	}
	for _, ps := range s.Pods {
		if ps.UID == p.Config.Metadata.Uid {
			return ps, nil
		}
	}
	return agent.PodStatus{}, fmt.Errorf("%s does not know pod %s", n.Name(), p.Config.Metadata.Name)
}

// refused wants the reasons in an error that the kubelet would show.
func refused(t testing.TB, what string, err error, reasons ...string) {
	t.Helper()
	for _, reason := range append([]string{""}, reasons...) {
		if err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v, want a refusal with %q", what, err, reason)
		}
	}
}
