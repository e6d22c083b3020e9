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

// sign adds the signatures. Where they cannot be found there are none: an image
// that is listed by its digest needs none.
func (e *Enforcer) sign(ctx context.Context, i *policy.ImageFacts) {
	if e.cfg.Signatures == nil {
		return
	}
	found, err := e.cfg.Signatures.Of(ctx, *i)
	if err != nil {
		e.log.Warn("signatures not found", "image", i.Digest, "err", err)
		return
	}
	i.Signatures = found
}

func imageUnknown(cause any) error {
	return refusal(CodeImageUnknown, "the container's image", "the image configuration of what the container's root is made from", cause,
		"the node must reach containerd's API, and the image must be in its content store")
}
