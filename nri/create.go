// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"context"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/c8s-dev/c8s/nri/facts"
	"github.com/c8s-dev/c8s/nri/image"
)

// CreateRequest is what the OCI runtime is about to make.
type CreateRequest struct {
	ID            string // in containerd
	Namespace     string // of containerd
	Config        []byte // config.json as the runtime will read it
	Passwd, Group []byte // the image's own account files; nil: it has none
}

// ExecRequest is a process that is about to be added to a container.
type ExecRequest struct {
	ID        string
	Namespace string
	Process   []byte // process.json as the runtime will read it
	Config    []byte // config.json of the running container
}

// Create judges a container or a sandbox by its final configuration, and waits
// until its pod is in the mesh. The error is a policy.Decision.
func (e *Enforcer) Create(ctx context.Context, r CreateRequest) error {
	uid, err := e.create(ctx, r)
	if err != nil || uid == "" {
		return err
	}
	if err := e.waitOpen(ctx, uid); err != nil {
		return err
	}
	return e.stillAdmitted(r.ID) // the manifest may have changed meanwhile
}

// create returns the UID of the pod that has to be open first, if there is one.
func (e *Enforcer) create(ctx context.Context, r CreateRequest) (uid string, err error) {
	defer e.metrics.measure("create", &err)()
	if r.Namespace != image.Namespace {
		return "", refusal(CodeForeignContainer, "the runtime", "a container of a Kubernetes pod", fmt.Sprintf("one in containerd's namespace %.80q", r.Namespace), "this runtime starts nothing else")
	}
	spec, err := facts.Parse(r.Config)
	if err != nil {
		return "", refusal(CodeConfigUnreadable, "the container's configuration", "one of the OCI runtime specification", err, "the node daemon and the runtime may be of different ages")
	}
	kind := spec.Annotations[facts.AnnotationType]
	if kind != facts.TypeSandbox && kind != facts.TypeContainer {
		return "", refusal(CodeForeignContainer, "the runtime", "a container of a Kubernetes pod", fmt.Sprintf("one of the type %.40q", kind), "this runtime starts nothing else")
	}
	running, err := e.image(ctx, r.ID)
	if err != nil {
		return "", err
	}
	if running.Pod.SandboxID != spec.Annotations[facts.AnnotationSandboxID] || kind == facts.TypeSandbox && running.Pod.SandboxID != r.ID {
		return "", refusal(CodeForeignContainer, "the container's annotations", fmt.Sprintf("the pod on containerd's record, %.80q", running.Pod.SandboxID), fmt.Sprintf("%.80q", spec.Annotations[facts.AnnotationSandboxID]), "")
	}
	running.Image.Account = facts.Account(running.Image.Config.User, r.Passwd, r.Group)
	if kind == facts.TypeSandbox {
		return "", e.createSandbox(spec, running.Image)
	}
	_ = e.sign(ctx, &running.Image)
	return e.createContainer(r.ID, spec, running)
}

func (e *Enforcer) createContainer(id string, spec *specs.Spec, running image.Container) (uid string, err error) {
	of, err := e.podFacts(running.Pod.SandboxID, id)
	if err != nil {
		return "", err
	}
	f := e.cfg.Node.Container(spec, of)
	f.Image, f.Stdin = running.Image, running.Pod.Stdin

	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.pods[running.Pod.SandboxID]
	if !ok {
		return "", podUnknown(running.Pod.SandboxID)
	}
	c := &container{id: id, facts: &f, final: true, made: e.cfg.Now().UnixNano()}
	if _, err := e.admit(p, c); err != nil {
		p.remove(id) // NRI may have admitted it early
		e.notify()
		return "", err
	}
	e.notify()
	if p.hostNetwork() {
		return "", nil
	}
	return p.uid, nil
}

// podFacts are what is known of an announced pod.
func (e *Enforcer) podFacts(sandbox, container string) (facts.Pod, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.pods[sandbox]
	if !ok || p.pid == 0 {
		return facts.Pod{}, podUnknown(sandbox)
	}
	return p.facts(container), nil
}

func (e *Enforcer) waitOpen(ctx context.Context, uid string) (err error) {
	defer e.metrics.measure("open", &err)()
	ctx, cancel := context.WithTimeout(ctx, e.cfg.OpenWithin)
	defer cancel()
	if cause := e.cfg.Opener.WaitOpen(ctx, uid); cause != nil {
		return refusal(CodePodNotOpen, "the mesh", fmt.Sprintf("the pod enrolled and its link open within %s", e.cfg.OpenWithin), cause, "'c8s status' on the node says where it stands; the kubelet tries again")
	}
	return nil
}

func (e *Enforcer) stillAdmitted(id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, c := e.find(id)
	if c == nil {
		return containerUnknown(id)
	}
	return c.refuse
}

// find returns a container by its id. The caller holds mu.
func (e *Enforcer) find(id string) (*pod, *container) {
	for _, p := range e.pods {
		if c, ok := p.containers[id]; ok {
			return p, c
		}
	}
	return nil, nil
}

// Exec judges a process that is about to be added to a container.
func (e *Enforcer) Exec(_ context.Context, r ExecRequest) (err error) {
	defer e.metrics.measure("exec", &err)()
	if r.Namespace != image.Namespace {
		return containerUnknown(r.ID)
	}
	f, err := facts.Exec(r.Process, r.Config)
	if err != nil {
		return refusal(CodeConfigUnreadable, "the added process", "one of the OCI runtime specification", err, "")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p, c := e.find(r.ID)
	switch {
	case e.manifest == nil:
		return noManifest()
	case c == nil || p.entry == nil:
		return containerUnknown(r.ID)
	case c.refuse != nil:
		return c.refuse
	}
	entry, ok := e.manifest.Workload(p.entry.Name)
	if !ok {
		return containerUnknown(r.ID)
	}
	return entry.AdmitExec(f).Err()
}
