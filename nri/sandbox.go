// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/c8s-dev/c8s/nri/facts"
	"github.com/c8s-dev/c8s/nri/image"
	"github.com/c8s-dev/c8s/policy"
)

// unannounced is how long a sandbox that was made may go without the runtime
// announcing it, before it is forgotten.
const unannounced = 10 * time.Minute

// createSandbox judges a pod's sandbox and remembers the pod. Its network and
// addresses come with NRI's announcement.
func (e *Enforcer) createSandbox(spec *specs.Spec, img policy.ImageFacts) error {
	id := spec.Annotations[facts.AnnotationSandboxID]
	f := e.sandboxFacts(id, spec, img)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.admitSandbox(spec, f); err != nil {
		return err
	}
	now := e.cfg.Now().UnixNano()
	for old, p := range e.pods {
		if p.pid == 0 && p.sandbox != nil && now-p.sandbox.made > int64(unannounced) {
			delete(e.pods, old)
		}
	}
	p, ok := e.pods[id]
	if !ok {
		p = newPod(id)
		e.pods[id] = p
	}
	p.name, p.namespace, p.uid = spec.Annotations[facts.AnnotationSandboxName], spec.Annotations[facts.AnnotationSandboxNamespace], spec.Annotations[facts.AnnotationSandboxUID]
	p.isMadeBy(spec, &container{id: id, facts: &f, final: true, made: now})
	return nil
}

// isMadeBy remembers what of the sandbox's configuration its containers share.
func (p *pod) isMadeBy(spec *specs.Spec, c *container) {
	p.hostNamespaces, p.sysctls = facts.HostNamespaces(spec.Linux.Namespaces), nil
	for name := range spec.Linux.Sysctl {
		p.sysctls = append(p.sysctls, name)
	}
	p.sandbox = c
}

func (e *Enforcer) sandboxFacts(id string, spec *specs.Spec, img policy.ImageFacts) policy.ContainerFacts {
	f := e.cfg.Node.Container(spec, facts.Pod{
		ContainerID: id, SandboxID: id, UID: spec.Annotations[facts.AnnotationSandboxUID],
		HostNamespaces: facts.HostNamespaces(spec.Linux.Namespaces), Netns: facts.Netns(spec.Linux.Namespaces),
	})
	f.Image = img
	return f
}

// admitSandbox judges what a sandbox is made from and with. It holds a pod's
// namespaces and does nothing else: its program is the listed image's, so what
// counts is that nothing is added to it, and whose namespaces it holds. The
// caller holds mu.
func (e *Enforcer) admitSandbox(spec *specs.Spec, f policy.ContainerFacts) error {
	if e.manifest == nil {
		return noManifest()
	}
	if d := e.manifest.AdmitSandbox(f.Image.Digest); !d.Allowed {
		return d
	}
	refuse := func(expected, actual string) error {
		return refusal(CodeSandboxSetting, "the pod's sandbox", expected, actual, "a sandbox runs as its image says")
	}
	if expected, actual := facts.BeyondImage(f); expected != "" {
		return refuse(expected, actual)
	}
	if strings.HasPrefix(facts.Netns(spec.Linux.Namespaces), "/proc/") {
		return refuse("a network namespace made for the pod", "that of a process")
	}
	for _, ns := range f.HostNamespaces {
		if !e.someEntryShares(ns) {
			return refusal(CodeSandboxSetting, "workloads", "no namespace of the node: no entry has it", fmt.Sprintf("%q", ns), "list it in the entry that needs it, and sign the manifest")
		}
	}
	return nil
}

// someEntryShares: a sandbox is made before the pod's entry is known. Which
// entry may use the namespace is judged with the first container.
func (e *Enforcer) someEntryShares(ns string) bool {
	return slices.ContainsFunc(e.manifest.Workloads, func(w policy.Workload) bool {
		if w.HostNetwork && (ns == policy.NamespaceNetwork || ns == policy.NamespaceUTS) {
			return true
		}
		return slices.ContainsFunc(w.Images, func(i policy.Image) bool {
			return i.Run != nil && (slices.Contains(i.Run.HostNamespaces, ns) || i.Run.Privileged && ns == policy.NamespaceCgroup)
		})
	})
}

// inspect reads from containerd's records what a container was made from and
// with. What the image's account files say is not known there.
func (e *Enforcer) inspect(ctx context.Context, id string) (*specs.Spec, image.Container, error) {
	running, err := e.image(ctx, id)
	if err != nil {
		return nil, image.Container{}, err
	}
	config, err := e.cfg.Runtime.Spec(ctx, id)
	if err == nil {
		var spec *specs.Spec
		if spec, err = facts.Parse(config); err == nil {
			return spec, running, nil
		}
	}
	return nil, image.Container{}, refusal(CodeConfigUnreadable, "the container's configuration", "containerd's record of it", err, "the node must reach containerd's API")
}

// inspectSandbox judges a sandbox that runs already.
func (e *Enforcer) inspectSandbox(ctx context.Context, id string) error {
	spec, running, err := e.inspect(ctx, id)
	if err != nil {
		return err
	}
	f := e.sandboxFacts(id, spec, running.Image)
	f.Early = true
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.pods[id]
	if !ok {
		return podUnknown(id)
	}
	p.isMadeBy(spec, &container{id: id, facts: &f, final: true, pid: p.pid, refuse: e.admitSandbox(spec, f)})
	return p.sandbox.refuse
}

// inspectContainer judges a container that runs already, or is about to and of
// which the runtime did not ask here.
func (e *Enforcer) inspectContainer(ctx context.Context, sandbox, id string) error {
	spec, running, err := e.inspect(ctx, id)
	if err != nil {
		return err
	}
	unsigned := e.sign(ctx, &running.Image)
	of, err := e.podFacts(sandbox, id)
	if err != nil {
		return err
	}
	f := e.cfg.Node.Container(spec, of)
	f.Image, f.Stdin, f.Early = running.Image, running.Pod.Stdin, true
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.pods[sandbox]
	if !ok {
		return podUnknown(sandbox)
	}
	c, ok := p.containers[id]
	if !ok {
		return containerUnknown(id) // it ended meanwhile
	}
	judged := &container{id: id, facts: &f, final: true, pid: c.pid, made: c.made}
	_, judged.refuse = e.place(p, judged)
	if judged.refuse != nil && unsigned != nil && !p.hostNetwork() {
		return unsigned // out of the mesh, like all that is yet to be judged
	}
	p.containers[id] = judged
	e.notify()
	return judged.refuse
}
