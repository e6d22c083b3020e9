// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// confirmWithin is how long a source may take to name the pods that the daemon
// had before it asked: those that it adopted from its predecessor. Containerd
// tells an NRI plugin of its pods only when no container is being stopped, which
// lasts as long as the grace period of one that does not end.
const confirmWithin = time.Minute

// watchPods follows the source until ctx ends; pods live as long as life.
func (a *Agent) watchPods(ctx, life context.Context) error {
	events := make(chan PodEvent)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.cfg.Source.Watch(ctx, events) })
	g.Go(func() error {
		adopted := a.podInfos()
		late := time.NewTimer(confirmWithin)
		defer late.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case e := <-events:
				delete(adopted, e.Pod.UID)
				if e.Removed || !a.goesOn(e.Pod) {
					a.podEvent(life, e)
				}
			case <-late.C:
				if a.cfg.Lacking != nil && a.cfg.Lacking() != nil {
					late.Reset(confirmWithin) // the source has not been told itself
					continue
				}
				for _, info := range adopted {
					a.cfg.Log.Warn("a pod of the daemon before is unknown to the pod source", "pod", info.Ref(), "uid", info.UID)
					a.podEvent(life, PodEvent{Removed: true, Pod: info})
				}
				clear(adopted)
			}
		}
	})
	return g.Wait()
}

// podInfos returns the present pods by UID.
func (a *Agent) podInfos() map[string]PodInfo {
	a.mu.Lock()
	defer a.mu.Unlock()
	infos := make(map[string]PodInfo, len(a.pods))
	for uid, m := range a.pods {
		infos[uid] = m.pod.described()
	}
	return infos
}

// goesOn reports whether the agent has this pod and may keep it: it is described
// the same, but for what it is made of, which is judged again.
func (a *Agent) goesOn(info PodInfo) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.pods[info.UID]
	if m == nil || !m.pod.info.sameAs(info) {
		return false
	}
	m.pod.consistsOf(info)
	return true
}

// sameAs compares descriptions but for the images: a pod gets containers during
// its life.
func (p PodInfo) sameAs(q PodInfo) bool { return reflect.DeepEqual(p.bare(), q.bare()) }

func (p PodInfo) bare() PodInfo {
	p.Addrs, p.Images, p.Signed = slices.Clone(p.Addrs), nil, nil
	slices.SortFunc(p.Addrs, netip.Addr.Compare)
	return p
}

// sortedPods returns the present members, in the order of their UIDs.
func (a *Agent) sortedPods() []*member {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []*member
	for _, uid := range slices.Sorted(maps.Keys(a.pods)) {
		all = append(all, a.pods[uid])
	}
	return all
}
