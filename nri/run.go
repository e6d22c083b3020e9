// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"context"
	"errors"
	"time"

	"github.com/c8s-dev/c8s/nri/image"
	"github.com/c8s-dev/c8s/policy"
)

const (
	retryMin = 200 * time.Millisecond
	retryMax = 30 * time.Second

	inspectWithin = 10 * time.Second // one container's records
)

// Run judges what was found running, and stops what the manifest in force does
// not admit, until ctx ends. A container is stopped again until nothing of it
// runs, or the runtime reports that it is gone.
func (e *Enforcer) Run(ctx context.Context) error {
	wait := retryMin
	for ctx.Err() == nil {
		left := e.inspectFound(ctx)
		left = e.stopRefused(ctx) || left
		retry := time.NewTimer(wait)
		if !left {
			retry.Stop()
		}
		select {
		case <-ctx.Done():
		case <-e.work:
			wait = retryMin
		case <-retry.C:
			wait = min(2*wait, retryMax)
		}
		retry.Stop()
	}
	return ctx.Err()
}

// found names a container of which nothing is known yet, or not who signed it.
type found struct {
	sandbox, id string
	of          string // "namespace/name" of its pod
	unsigned    bool
}

// inspectFound looks at what was found running, sandboxes first and containers
// in the order in which they were made, so that the first one binds its pod. It
// reports whether something is left.
func (e *Enforcer) inspectFound(ctx context.Context) (left bool) {
	for _, f := range e.found() {
		ctx, cancel := context.WithTimeout(ctx, inspectWithin)
		var err error
		switch {
		case f.id == f.sandbox:
			err = e.inspectSandbox(ctx, f.id)
		case f.unsigned:
			err = e.signAgain(ctx, f.sandbox, f.id)
		default:
			err = e.inspectContainer(ctx, f.sandbox, f.id)
		}
		cancel()
		if err != nil {
			e.log.Warn("container found running", "pod", f.of, "id", f.id, "err", err)
		}
	}
	return len(e.found()) > 0
}

// found lists what is yet to be looked at. Without a manifest nothing is
// judged, and so nothing is in the mesh.
func (e *Enforcer) found() []found {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.manifest == nil {
		return nil
	}
	var list []found
	for _, p := range e.pods {
		for _, c := range p.all() {
			if c.facts == nil || c.unsigned {
				list = append(list, found{p.id, c.id, p.namespace + "/" + p.name, c.unsigned})
			}
		}
	}
	return list
}

// stopRefused ends what is not admitted, where the manifest does not have it
// cut off from the network instead. There is no cutting off from the node's
// network. It reports whether something is left to be seen gone.
func (e *Enforcer) stopRefused(ctx context.Context) (left bool) {
	for _, f := range e.toStop() {
		left = true
		ctx, cancel := context.WithTimeout(ctx, inspectWithin)
		err := e.cfg.Runtime.Stop(ctx, f.id)
		cancel()
		if errors.Is(err, image.ErrNotFound) {
			// NRI tells of a dead container only when the kubelet removes it,
			// which waits for the one that would replace it: for us.
			e.ended(f.id)
			continue
		}
		e.metrics.stopped(err)
		if err != nil {
			e.log.Error("stopping a container that is not admitted", "pod", f.of, "id", f.id, "err", err)
			continue
		}
		e.log.Warn("stopped a container that is not admitted", "pod", f.of, "id", f.id)
	}
	return left
}

func (e *Enforcer) toStop() []found {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.manifest == nil {
		return nil
	}
	var list []found
	for _, p := range e.pods {
		if e.manifest.Unlisted == policy.UnlistedCut && !p.hostNetwork() {
			continue
		}
		for _, c := range p.all() {
			if c.refuse != nil && c.facts != nil && !c.unsigned {
				list = append(list, found{sandbox: p.id, id: c.id, of: p.namespace + "/" + p.name})
			}
		}
	}
	return list
}
