// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"context"

	"github.com/c8s-dev/c8s/nri/image"
	"github.com/c8s-dev/c8s/policy"
)

// admit judges a container that is about to be made. The caller holds mu.
func (e *Enforcer) admit(p *pod, c *container) (*policy.Image, error) {
	rule, err := e.mayAdd(p, c)
	p.remember(c.facts.Name, err, e.cfg.Now())
	return rule, err
}

func (e *Enforcer) mayAdd(p *pod, c *container) (*policy.Image, error) {
	for id, other := range p.containers {
		if id != c.id && other.refuse != nil {
			return nil, refusal(CodePodRefused, "the pod's containers", "all admitted by the manifest in force", other.refuse, "delete the pod: what runs in it is not listed any more")
		}
	}
	if p.sandbox != nil && p.sandbox.refuse != nil {
		return nil, p.sandbox.refuse
	}
	return e.place(p, c)
}

// place judges a container and, if it is admitted, makes it the pod's. The
// first one binds the pod. The caller holds mu.
func (e *Enforcer) place(p *pod, c *container) (*policy.Image, error) {
	if e.manifest == nil {
		return nil, noManifest()
	}
	var rule *policy.Image
	var d policy.Decision
	entry := p.entry
	if entry == nil {
		entry, rule, d = e.manifest.Bind(p.policyFacts(), *c.facts)
	} else {
		rule, d = e.manifest.AdmitContainer(entry, p.policyFacts(), *c.facts)
	}
	if !d.Allowed {
		return nil, d
	}
	if p.entry == nil {
		e.log.Info("pod bound", "pod", p.namespace+"/"+p.name, "uid", p.uid, "workload", entry.Name, "container", c.facts.Name)
	}
	p.entry, p.containers[c.id] = entry, c
	p.ran = p.ran || c.final
	return rule, nil
}

// judgeAgain asks the manifest in force about everything in a pod. The caller
// holds mu.
func (e *Enforcer) judgeAgain(p *pod) {
	for _, c := range p.all() {
		if c.facts == nil {
			continue
		}
		before := c.refuse
		c.refuse = e.judge(p, c)
		c.unsigned = c.refuse != nil && c != p.sandbox && e.manifest != nil && len(e.manifest.Signers) > 0
		p.remember(c.facts.Name, c.refuse, e.cfg.Now())
		if c.refuse != nil && before == nil {
			e.log.Warn("running container not admitted", "pod", p.namespace+"/"+p.name, "uid", p.uid, "container", c.facts.Name, "id", c.id, "err", c.refuse)
		}
	}
}

func (e *Enforcer) judge(p *pod, c *container) error {
	if e.manifest == nil {
		return noManifest()
	}
	if c == p.sandbox {
		return e.manifest.AdmitSandbox(c.facts.Image.Digest).Err()
	}
	_, err := e.place(p, c)
	return err
}

// image is what containerd knows of a container. Its signatures come with sign:
// sandboxes are listed by digest.
func (e *Enforcer) image(ctx context.Context, id string) (image.Container, error) {
	r, err := e.cfg.Runtime.Container(ctx, id)
	if err != nil {
		return image.Container{}, imageUnknown(err)
	}
	if !r.Image.Digest.Valid() || r.Image.Config == nil {
		return image.Container{}, imageUnknown("no digest of an image configuration")
	}
	return r, nil
}

// sign adds the signatures. After an error there are none, which an image that
// is listed by its digest does not need either.
func (e *Enforcer) sign(ctx context.Context, i *policy.ImageFacts) error {
	i.Signatures = nil
	if e.cfg.Signatures == nil {
		return nil
	}
	found, err := e.cfg.Signatures.Of(ctx, *i)
	if err != nil {
		e.log.Warn("signatures not found", "image", i.Digest, "err", err)
		return err
	}
	i.Signatures = found
	return nil
}

// signAgain looks for signatures of a container that another manifest refuses:
// it may list by their signer images that were listed by their digest before,
// whose signatures nobody looked for. Without an answer it stays refused.
func (e *Enforcer) signAgain(ctx context.Context, sandbox, id string) error {
	e.mu.Lock()
	p, c := e.find(id)
	if c == nil || c.facts == nil {
		e.mu.Unlock()
		return containerUnknown(id)
	}
	f, asked := *c.facts, e.manifest
	e.mu.Unlock()
	_ = e.sign(ctx, &f.Image)
	e.mu.Lock()
	defer e.mu.Unlock()
	if now, ok := e.pods[sandbox]; !ok || now != p || p.containers[id] != c {
		return containerUnknown(id) // it ended meanwhile
	}
	if e.manifest != asked {
		return c.refuse // it has other publishers, perhaps: once more
	}
	c.facts, c.unsigned = &f, false
	c.refuse = e.judge(p, c)
	e.notify()
	return c.refuse
}

func imageUnknown(cause any) error {
	return refusal(CodeImageUnknown, "the container's image", "the image configuration of what the container's root is made from", cause,
		"the node must reach containerd's API, and the image must be in its content store")
}
