// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"cmp"
	"slices"
	"time"

	"github.com/c8s-dev/c8s/policy"
)

// Refused is a container that may not start, or that runs and must not.
type Refused struct {
	Pod       string      `json:"pod"` // namespace/name
	UID       string      `json:"uid"`
	Container string      `json:"container"`
	Code      policy.Code `json:"code"`
	Detail    string      `json:"detail"`
	Last      time.Time   `json:"last"`
	Times     int         `json:"times"` // the kubelet tries again
}

// Refused lists the containers that were refused last in the pods that the node
// has, by pod.
func (e *Enforcer) Refused() []Refused {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := []Refused{}
	for _, p := range e.pods {
		for _, r := range p.refused {
			list = append(list, *r)
		}
	}
	slices.SortFunc(list, func(a, b Refused) int {
		return cmp.Or(cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Container, b.Container))
	})
	return list
}

// maxRefused bounds what is remembered of one pod: names are the control plane's.
const maxRefused = 32

// remember keeps why a container of a pod was refused, and forgets it once it was
// not. The caller holds the enforcer's mu.
func (p *pod) remember(container string, err error, now time.Time) {
	container = cmp.Or(container, "(sandbox)")
	if err == nil {
		delete(p.refused, container)
		return
	}
	r := p.refused[container]
	if r == nil {
		if len(p.refused) >= maxRefused {
			return
		}
		r = &Refused{Pod: p.namespace + "/" + p.name, UID: p.uid, Container: container}
		p.refused[container] = r
	}
	r.Code, r.Detail, r.Last = policy.CodeOf(err), err.Error(), now
	r.Times++
}
