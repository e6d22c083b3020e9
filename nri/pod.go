// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/c8s-dev/c8s/nri/facts"
	"github.com/c8s-dev/c8s/policy"
)

// pod is one sandbox and what runs in it. The enforcer's mu guards it.
type pod struct {
	id, namespace, name, uid string
	wants                    string // the entry that it asks for
	pid                      uint32 // of the sandbox's process; 0 until NRI announced it
	netns                    string
	addrs                    []netip.Addr
	cgroup                   string // of all of the pod, as the kubelet made it; empty: none that bears its UID
	hostNamespaces           []string
	sysctls                  []string

	entry      *policy.Workload // bound to, as the manifest of that moment has it
	ran        bool             // a container was admitted for good: the binding is for the pod's life
	sandbox    *container
	containers map[string]*container
	refused    map[string]*Refused // by the container's name
}

// container is one that was admitted, or that ran before anybody asked.
type container struct {
	id     string
	facts  *policy.ContainerFacts // nil: not looked at yet
	final  bool                   // admitted by final facts, or by what containerd has on record of a running one
	pid    uint32
	made   int64 // Unix nanoseconds: the order of those that were found running
	refuse error // why the manifest in force does not admit it

	unsigned bool // refused by a manifest under which its signatures were not looked for yet
}

func newPod(id string) *pod {
	return &pod{id: id, containers: map[string]*container{}, refused: map[string]*Refused{}}
}

// facts are what a container's configuration is read against.
func (p *pod) facts(container string) facts.Pod {
	f := facts.Pod{
		ContainerID: container, UID: p.uid, SandboxID: p.id, PID: p.pid, Netns: p.netns,
		HostNamespaces: p.hostNamespaces, Sysctls: p.sysctls, Cgroup: p.cgroup,
	}
	for _, c := range p.containers {
		f.Processes = append(f.Processes, c.pid)
	}
	return f
}

func (p *pod) policyFacts() policy.PodFacts {
	images, signed := p.images()
	return policy.PodFacts{Namespace: p.namespace, Name: p.name, UID: p.uid, Entry: p.wants, Images: images, Signed: signed}
}

// images are those of every container, each once, in a stable order.
func (p *pod) images() (images []policy.Digest, signed []policy.SignedImage) {
	for _, c := range p.containers {
		if c.facts == nil {
			continue
		}
		digest := c.facts.Image.Digest
		images = append(images, digest)
		for _, s := range c.facts.Image.Signatures {
			signed = append(signed, policy.SignedImage{Digest: digest, Signer: s.Signer})
		}
	}
	slices.Sort(images)
	slices.SortFunc(signed, func(a, b policy.SignedImage) int {
		return cmp.Or(cmp.Compare(a.Digest, b.Digest), cmp.Compare(a.Signer, b.Signer))
	})
	return slices.Compact(images), slices.Compact(signed)
}

func (p *pod) hostNetwork() bool { return slices.Contains(p.hostNamespaces, policy.NamespaceNetwork) }

// all lists the sandbox and the containers, the oldest first.
func (p *pod) all() []*container {
	var list []*container
	for _, c := range p.containers {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *container) int { return cmp.Or(cmp.Compare(a.made, b.made), cmp.Compare(a.id, b.id)) })
	if p.sandbox != nil {
		list = slices.Insert(list, 0, p.sandbox)
	}
	return list
}

// unfit is why the pod must not be in the mesh: something in it is not
// admitted, or was not looked at yet.
func (p *pod) unfit() error {
	for _, c := range p.all() {
		if c.refuse != nil {
			return c.refuse
		}
		if c.facts == nil {
			return refusal(CodePodRefused, "the pod's containers", "all judged", "one that was found running and is yet to be judged", "")
		}
	}
	return nil
}

// remove forgets a container. A pod in which nothing ever ran is free to be
// bound again.
func (p *pod) remove(id string) {
	delete(p.containers, id)
	if !p.ran && len(p.containers) == 0 {
		p.entry = nil
	}
}
