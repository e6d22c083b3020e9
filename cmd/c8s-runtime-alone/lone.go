// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/c8s-dev/c8s/cmd/internal/front"
	"github.com/c8s-dev/c8s/nri/facts"
	"github.com/c8s-dev/c8s/nri/gate"
	"github.com/c8s-dev/c8s/nri/image"
	"github.com/c8s-dev/c8s/policy"
)

// codeNoDaemon refuses what has to wait for the node daemon.
const codeNoDaemon policy.Code = "daemon-not-running"

// aloneWithin bounds what is asked of containerd.
const aloneWithin = 20 * time.Second

// containerd is what is asked of it; *image.Resolver.
type containerd interface {
	Container(ctx context.Context, id string) (image.Container, error)
	Spec(ctx context.Context, id string) ([]byte, error)
	Process(ctx context.Context, id string) (uint32, error)
}

// lone judges while nobody listens at the gate, so that the daemon itself and
// what the operators put beside it can start. It knows only what it is asked
// about: whether the containers of a pod belong together is judged by the daemon
// when it comes.
type lone struct {
	cfg        front.Config
	node       *facts.Node
	containerd containerd
	now        func() time.Time
}

func newLone(cfg front.Config, now func() time.Time) (lone, func(), error) {
	r, err := image.Open(cfg.Containerd)
	if err != nil {
		return lone{}, nil, err
	}
	l := lone{cfg: cfg, node: facts.Local("/proc/self", cfg.Kubelet, cfg.CRI), containerd: r, now: now}
	return l, func() { r.Close() }, nil
}

// Exec refuses: added processes are judged by the daemon, which knows the pod.
func (l lone) Exec(context.Context, gate.ExecRequest) error {
	return notRunning("a process that is added to a container")
}

func notRunning(actual string) error {
	return policy.Decision{
		Code: codeNoDaemon, Rule: "c8s-runtime", Expected: "the node daemon, or a container that may start without it", Actual: actual,
		Remedy: "start the daemon, or mark its own entry as bootstrap; the kubelet tries again by itself",
	}
}

// Create admits the containers of bootstrap entries, and the sandboxes they
// need.
func (l lone) Create(ctx context.Context, r gate.CreateRequest) error {
	err := l.create(ctx, r)
	if d := (policy.Decision{}); err == nil || errors.As(err, &d) && d.Code == codeNoDaemon {
		return err
	}
	return notRunning(err.Error())
}

func (l lone) create(ctx context.Context, r gate.CreateRequest) error {
	ctx, cancel := context.WithTimeout(ctx, aloneWithin)
	defer cancel()
	m, err := l.manifest()
	if err != nil {
		return err
	}
	spec, err := facts.Parse(r.Config)
	if err != nil {
		return err
	}
	c, err := l.containerd.Container(ctx, r.ID)
	if err != nil {
		return err
	}
	if c.Image.Config == nil {
		return errors.New("the image's configuration is not known")
	}
	sandboxID := spec.Annotations[facts.AnnotationSandboxID]
	if sandboxID == "" || sandboxID != c.Pod.SandboxID {
		return fmt.Errorf("a container of the pod %.80q, of which containerd's record says %.80q", sandboxID, c.Pod.SandboxID)
	}
	c.Image.Account = facts.Account(c.Image.Config.User, r.Passwd, r.Group)
	switch kind := spec.Annotations[facts.AnnotationType]; {
	case kind == facts.TypeSandbox && c.Pod.Sandbox:
		return l.sandbox(m, spec, c)
	case kind == facts.TypeContainer && !c.Pod.Sandbox:
		return l.container(ctx, m, r.ID, spec, c)
	default:
		return fmt.Errorf("a container of the type %.40q", kind)
	}
}

// container admits one that some bootstrap entry lists.
func (l lone) container(ctx context.Context, m *policy.Manifest, id string, spec *specs.Spec, c image.Container) error {
	sandbox, pod, err := l.pod(ctx, c.Pod.SandboxID)
	if err != nil {
		return err
	}
	pod.ContainerID = id
	f := l.node.Container(spec, pod)
	f.Image, f.Stdin = c.Image, c.Pod.Stdin
	var refused error = notRunning("one of an ordinary entry; the manifest has no bootstrap entry")
	for _, w := range m.Workloads {
		if !w.Bootstrap {
			continue
		}
		_, _, d := m.Bind(policy.PodFacts{
			Namespace: sandbox.Annotations[facts.AnnotationSandboxNamespace], Name: sandbox.Annotations[facts.AnnotationSandboxName], UID: pod.UID,
			Entry: w.Name, Images: []policy.Digest{c.Image.Digest},
		}, f)
		if d.Allowed {
			return nil
		}
		// Which entry was meant is not known: one that lists the image, if any.
		if refused == nil || policy.CodeOf(refused) == codeNoDaemon || policy.CodeOf(refused) == policy.CodeImageUnlisted {
			refused = d
		}
	}
	return refused
}

// pod reads of containerd what the daemon would have been told.
func (l lone) pod(ctx context.Context, sandbox string) (*specs.Spec, facts.Pod, error) {
	text, err := l.containerd.Spec(ctx, sandbox)
	if err != nil {
		return nil, facts.Pod{}, err
	}
	spec, err := facts.Parse(text)
	if err != nil {
		return nil, facts.Pod{}, fmt.Errorf("the pod's sandbox: %w", err)
	}
	pid, err := l.containerd.Process(ctx, sandbox)
	if err != nil {
		return nil, facts.Pod{}, err
	}
	return spec, facts.Pod{
		UID: spec.Annotations[facts.AnnotationSandboxUID], SandboxID: sandbox, PID: pid,
		Netns: facts.Netns(spec.Linux.Namespaces), HostNamespaces: facts.HostNamespaces(spec.Linux.Namespaces),
		Sysctls: slices.Sorted(maps.Keys(spec.Linux.Sysctl)),
	}, nil
}
