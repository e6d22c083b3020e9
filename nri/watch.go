// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"context"
	"net/netip"
	"slices"

	"github.com/c8s-dev/c8s/policy"
)

// PodInfo is a pod that is bound to an entry and has a network of its own.
type PodInfo struct {
	Namespace, Name, UID string
	Netns                string // path of its network namespace
	Addrs                []netip.Addr
	Cgroup               string               // the pod's own, as the kubelet names it: a path or a systemd slice; empty: not known
	Images               []policy.Digest      // configurations of its containers' images so far
	Signed               []policy.SignedImage // their verified signatures
	Entry                string
}

// PodEvent is one change in the set of pods that may be in the mesh.
type PodEvent struct {
	Removed bool
	Reason  string // why it was removed, where it still runs: it is cut off
	Pod     PodInfo
}

// Watch sends the pods that are bound now, then every change, until ctx ends.
// A pod is sent once, when it is bound: containers that it gets later belong to
// the same entry. It never closes out.
func (e *Enforcer) Watch(ctx context.Context, out chan<- PodEvent) error {
	known := map[string]PodInfo{} // by UID
	for {
		pods, cut, changed := e.meshPods()
		for _, event := range changes(known, pods, cut) {
			select {
			case out <- event:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// changes compares what was sent with what is, and remembers it as sent.
// Removals come first, so that an address is free before it is used again.
func changes(known, pods map[string]PodInfo, cut map[string]string) []PodEvent {
	var events []PodEvent
	for uid, was := range known {
		if is, ok := pods[uid]; ok && samePod(was, is) {
			continue
		}
		delete(known, uid)
		events = append(events, PodEvent{Removed: true, Reason: cut[uid], Pod: was})
	}
	for uid, is := range pods {
		if _, ok := known[uid]; !ok {
			known[uid] = is
			events = append(events, PodEvent{Pod: is})
		}
	}
	return events
}

// samePod: a pod whose sandbox was made anew has another network namespace.
func samePod(a, b PodInfo) bool {
	return a.Netns == b.Netns && a.Entry == b.Entry && slices.Equal(a.Addrs, b.Addrs)
}

// meshPods returns the pods that may be in the mesh, why others may not, and a
// channel that is closed when that changes.
func (e *Enforcer) meshPods() (pods map[string]PodInfo, cut map[string]string, changed <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	pods, cut = map[string]PodInfo{}, map[string]string{}
	for _, p := range e.pods {
		if p.entry == nil || p.pid == 0 || p.netns == "" || p.hostNetwork() || len(p.addrs) == 0 {
			continue
		}
		if err := p.unfit(); err != nil {
			cut[p.uid] = err.Error()
			continue
		}
		images, signed := p.images()
		pods[p.uid] = PodInfo{
			Namespace: p.namespace, Name: p.name, UID: p.uid, Netns: p.netns, Addrs: slices.Clone(p.addrs), Cgroup: p.cgroup,
			Images: images, Signed: signed, Entry: p.entry.Name,
		}
	}
	return pods, cut, e.changed
}
