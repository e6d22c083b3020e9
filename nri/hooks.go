// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/c8s-dev/c8s/nri/facts"
	"github.com/c8s-dev/c8s/policy"
)

// announce takes a pod that the runtime has made: its sandbox runs, and no
// container of it does before this returns.
func (e *Enforcer) announce(ctx context.Context, a *api.PodSandbox) (err error) {
	defer e.metrics.measure("RunPodSandbox", &err)()
	e.mu.Lock()
	if e.manifest == nil {
		e.mu.Unlock()
		return noManifest()
	}
	p, ok := e.pods[a.GetId()]
	if !ok {
		p = newPod(a.GetId())
		e.pods[p.id] = p
	}
	p.is(a)
	asked := p.sandbox != nil
	if !asked {
		p.sandbox = &container{id: p.id, pid: p.pid}
	}
	e.notify()
	e.mu.Unlock()
	if asked {
		return nil
	}
	e.log.Warn("the runtime did not ask about a sandbox: it is judged by containerd's record", "pod", a.GetNamespace()+"/"+a.GetName(), "remedy", "install c8s-runtime: 'c8s node check'")
	ctx, cancel := context.WithTimeout(ctx, hookWithin)
	defer cancel()
	if err := e.inspectSandbox(ctx, a.GetId()); err != nil {
		e.gone(a.GetId())
		return err
	}
	return nil
}

// is takes over what NRI tells of a pod.
func (p *pod) is(a *api.PodSandbox) {
	namespaces := namespacesOf(a.GetLinux().GetNamespaces())
	p.namespace, p.name, p.uid = a.GetNamespace(), a.GetName(), a.GetUid()
	p.wants = a.GetAnnotations()[AnnotationEntry]
	p.pid, p.netns, p.addrs = a.GetPid(), facts.Netns(namespaces), addresses(a.GetIps())
	p.hostNamespaces = facts.HostNamespaces(namespaces)
	p.cgroup = podCgroup(a)
}

// podCgroup is the cgroup that the kubelet made for the pod alone: it bears the
// pod's UID, in a systemd slice with underscores.
func podCgroup(a *api.PodSandbox) string {
	parent, uid := a.GetLinux().GetCgroupParent(), a.GetUid()
	last := path.Base(parent)
	if uid != "" && (last == "pod"+uid || strings.HasSuffix(last, "-pod"+strings.ReplaceAll(uid, "-", "_")+".slice")) {
		return parent
	}
	return ""
}

// gone forgets a pod.
func (e *Enforcer) gone(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.pods, id)
	e.notify()
}

// ended forgets a container that does not run any more.
func (e *Enforcer) ended(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p, c := e.find(id); c != nil {
		p.remove(id)
		e.notify()
	}
}

// synchronize takes over all that the runtime has. What is not known yet is
// judged by Run: the runtime waits for this answer with all pods.
func (e *Enforcer) synchronize(pods []*api.PodSandbox, containers []*api.Container) {
	e.mu.Lock()
	defer e.mu.Unlock()
	listed := map[string]bool{}
	for _, a := range pods {
		if a.GetPid() == 0 {
			continue // a sandbox that ended
		}
		listed[a.GetId()] = true
		p, ok := e.pods[a.GetId()]
		if !ok {
			p = newPod(a.GetId())
			e.pods[p.id] = p
		}
		if p.is(a); p.sandbox == nil {
			p.sandbox = &container{id: p.id, pid: p.pid}
		}
	}
	for _, c := range containers {
		listed[c.GetId()] = true
		p, ok := e.pods[c.GetPodSandboxId()]
		if !ok {
			continue // of a sandbox that ended: the runtime ends it too
		}
		if _, ok := p.containers[c.GetId()]; !ok {
			p.containers[c.GetId()] = &container{id: c.GetId(), made: c.GetCreatedAt()}
		}
		p.containers[c.GetId()].pid = c.GetPid()
	}
	for id, p := range e.pods {
		for c := range p.containers {
			if !listed[c] {
				p.remove(c)
			}
		}
		if !listed[id] && p.pid != 0 {
			delete(e.pods, id)
		}
	}
	e.notify()
}

// hookWithin bounds what an NRI hook waits for: after two seconds the runtime
// drops the plugin, and until then no other pod gets on.
const hookWithin = time.Second

// terminalVariable is what containerd adds for a container with a terminal.
const terminalVariable = "TERM=xterm"

// early judges a container by what NRI tells, and returns the socket kinds that
// its rule allows. judged is false where the runtime does not say what the
// container is made from, or a registry is slow to say who signed it: then only
// c8s-runtime judges it. adjusted tells a
// container with every plugin's changes.
func (e *Enforcer) early(ctx context.Context, a *api.PodSandbox, c *api.Container, s *specs.Spec, adjusted bool) (sockets []string, judged bool, err error) {
	digest := policy.Digest(c.GetImage().GetConfigDigest())
	if digest == "" {
		return nil, false, nil
	}
	if !digest.Valid() {
		return nil, false, imageUnknown("no digest of an image configuration")
	}
	ctx, cancel := context.WithTimeout(ctx, hookWithin)
	defer cancel()
	img := policy.ImageFacts{Digest: digest}
	config, err := e.cfg.Runtime.Config(ctx, digest)
	if err != nil {
		return nil, false, imageUnknown(err)
	}
	img.Config = &config
	if _ = e.sign(ctx, &img); ctx.Err() != nil {
		return nil, false, nil // a registry is slow: create has more time
	}
	of, err := e.podFacts(a.GetId(), c.GetId())
	if err != nil {
		return nil, false, err
	}
	f := e.cfg.Node.Early(s, of)
	f.Image = img
	if !adjusted {
		f.Seccomp = nil // it gets another one
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.pods[a.GetId()]
	if !ok {
		return nil, false, podUnknown(a.GetId())
	}
	if p.containers[c.GetId()] != nil && p.containers[c.GetId()].final {
		return nil, false, refusal(CodeContainerUnknown, "the node's containers", "a new one", fmt.Sprintf("the id %.80q of one that runs", c.GetId()), "")
	}
	rule, err := e.admit(p, &container{id: c.GetId(), facts: &f, made: e.cfg.Now().UnixNano()})
	if policy.CodeOf(err) == policy.CodeEnvNotAllowed && slices.Contains(f.Env, terminalVariable) {
		f.Terminal = true // NRI does not tell, the runtime's variable does
		rule, err = e.admit(p, &container{id: c.GetId(), facts: &f, made: e.cfg.Now().UnixNano()})
	}
	if err != nil {
		p.remove(c.GetId())
	}
	e.notify()
	if err != nil || rule.Run == nil {
		return nil, true, err
	}
	return rule.Run.Sockets, true, nil
}

// creating is the first word on a container. The adjustment is the
// seccomp profile that closes what the entry does not open.
func (e *Enforcer) creating(ctx context.Context, a *api.PodSandbox, c *api.Container) (adjust *api.ContainerAdjustment, err error) {
	defer e.metrics.measure("CreateContainer", &err)()
	s := specOf(c)
	sockets, judged, err := e.early(ctx, a, c, s, false)
	if err != nil {
		return nil, err
	}
	if !judged {
		e.log.Info("the image or its signatures are not known in NRI: c8s-runtime alone judges the container", "pod", a.GetNamespace()+"/"+a.GetName(), "container", c.GetName())
	}
	closed := !slices.ContainsFunc(facts.Open(s.Linux.Seccomp), func(kind string) bool { return !slices.Contains(sockets, kind) })
	if closed {
		return nil, nil // by another daemon, too, during a hand-over: NRI takes one plugin's profile
	}
	restricted := facts.Restrict(s.Linux.Seccomp, sockets)
	return &api.ContainerAdjustment{Linux: &api.LinuxContainerAdjustment{SeccompPolicy: api.FromOCILinuxSeccomp(restricted)}}, nil
}

// validate judges a container as all plugins together want it.
func (e *Enforcer) validate(ctx context.Context, r *api.ValidateContainerAdjustmentRequest) (err error) {
	defer e.metrics.measure("ValidateContainerAdjustment", &err)()
	_, _, err = e.early(ctx, r.GetPod(), r.GetContainer(), adjust(r.GetContainer(), r.GetAdjust()), true)
	if err == nil && len(r.GetUpdate()) > 0 {
		for _, u := range r.GetUpdate() {
			if err := checkUpdate(u.GetLinux().GetResources()); err != nil {
				return err
			}
		}
	}
	return err
}

// starting lets a container start that the runtime asked about. One that it
// did not ask about, because it asked another daemon before a hand-over or
// because c8s-runtime is not installed, is judged by containerd's record.
func (e *Enforcer) starting(ctx context.Context, c *api.Container) (err error) {
	defer e.metrics.measure("StartContainer", &err)()
	e.mu.Lock()
	p, ok := e.pods[c.GetPodSandboxId()]
	if !ok {
		e.mu.Unlock()
		return podUnknown(c.GetPodSandboxId())
	}
	known, ok := p.containers[c.GetId()]
	if !ok {
		known = &container{id: c.GetId(), made: e.cfg.Now().UnixNano()}
		p.containers[c.GetId()] = known
	}
	known.pid = c.GetPid()
	final, refuse := known.final, known.refuse
	e.mu.Unlock()
	if final {
		return refuse
	}
	e.log.Warn("the runtime did not ask about a container: it is judged by containerd's record", "container", c.GetName(), "id", c.GetId(), "remedy", "install c8s-runtime: 'c8s node check'")
	ctx, cancel := context.WithTimeout(ctx, hookWithin)
	defer cancel()
	return e.inspectContainer(ctx, c.GetPodSandboxId(), c.GetId())
}

// update allows changes of limits, which can make a container slower or end it,
// and nothing else.
func (e *Enforcer) update(c *api.Container, r *api.LinuxResources) (err error) {
	defer e.metrics.measure("UpdateContainer", &err)()
	e.mu.Lock()
	_, known := e.find(c.GetId())
	e.mu.Unlock()
	if known == nil {
		return containerUnknown(c.GetId())
	}
	return checkUpdate(r)
}

func checkUpdate(r *api.LinuxResources) error {
	const remedy = "only limits of CPU, memory, I/O, processes and huge pages change while a container runs"
	if len(r.GetDevices()) > 0 {
		return refusal(CodeUpdateNotAllowed, "updates of containers", "limits", "access to devices", remedy)
	}
	for key := range r.GetUnified() {
		controller, _, _ := strings.Cut(key, ".")
		if !slices.Contains([]string{"cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma"}, controller) || strings.Contains(key, "/") {
			return refusal(CodeUpdateNotAllowed, "updates of containers", "limits", fmt.Sprintf("the cgroup file %.80q", key), remedy)
		}
	}
	return nil
}
