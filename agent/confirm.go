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
// had before it asked: those that it adopted from its predecessor.
const confirmWithin = time.Minute

// watchPods follows the source until ctx ends; pods live as long as life. A
// pod that is described as before goes on as it is.
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
				if e.Removed || !a.has(e.Pod) {
					a.podEvent(life, e)
				}
			case <-late.C:
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
		infos[uid] = m.pod.info
	}
	return infos
}

// has reports whether the agent has this pod, described the same.
func (a *Agent) has(info PodInfo) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.pods[info.UID]
	return m != nil && m.pod.info.sameAs(info)
}

// sameAs compares descriptions. The order of addresses and images says nothing.
func (p PodInfo) sameAs(q PodInfo) bool { return reflect.DeepEqual(p.ordered(), q.ordered()) }

func (p PodInfo) ordered() PodInfo {
	p.Addrs, p.Images = slices.Clone(p.Addrs), slices.Clone(p.Images)
	slices.SortFunc(p.Addrs, netip.Addr.Compare)
	slices.Sort(p.Images)
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
