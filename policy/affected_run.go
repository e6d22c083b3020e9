// SPDX-License-Identifier: Apache-2.0

package policy

import "slices"

// sandboxes: the image of a pod's sandbox is judged before its first container.
func (a *impacts) sandboxes(prev, next *Manifest) {
	d := &differ{}
	d.images("sandboxes", prev.Sandboxes, next.Sandboxes)
	a.narrower(d, "pods with this sandbox cannot start any more")
}

// host: what the node may do to the entry's pods.
func (a *impacts) host(path string, was, is *Workload) {
	if was.HostAccess && !is.HostAccess {
		a.add(Impact{Path: path + ".hostAccess", Outcome: Stops, Before: "true", After: "false", Why: "processes on the node are refused, but for the kubelet on the ports of probes"})
	}
	d := &differ{}
	if !is.HostAccess {
		values(d, path+".probes", was.Probes, is.Probes)
	}
	a.narrower(d, "the kubelet's probes of it are refused")
	d = &differ{}
	d.exec(path+".exec", was.Exec, is.Exec)
	a.narrower(d, "the command cannot be added to running containers any more")
	d = &differ{}
	d.allowed(path+".bootstrap", was.Bootstrap, is.Bootstrap)
	a.narrower(d, "its pods cannot start without the node daemon any more")
}

func (a *impacts) narrower(d *differ, why string) {
	for _, c := range d.changes {
		if c.Effect == Narrows {
			a.add(Impact{Path: c.Path, Outcome: Stops, Before: c.Before, After: c.After, Why: why})
		}
	}
}

// pods names those that cannot enrol again, or are not admitted any more. What
// only changes stops those that are as they were.
func (a *impacts) pods(path string, was, is *Workload) {
	const why = "pods with it do not fit the entry any more"
	d := &differ{}
	keyed(d, path+".images", named(was.Images), named(is.Images), func(i namedImage) string { return i.key }, func(i namedImage) string { return i.Name },
		func(path string, a, b namedImage) { d.run(path+".run", a.Run, b.Run) })
	d.namespaces(path+".namespaces", was.Namespaces, is.Namespaces)
	d.value(path+".hostNetwork", was.HostNetwork, is.HostNetwork, Narrows)
	for i := range d.changes {
		if d.changes[i].Effect == Changes {
			d.changes[i].Effect = Narrows
		}
	}
	a.narrower(d, why)
	for i, key := range imageKeys(was.Images) {
		j := slices.Index(imageKeys(is.Images), key)
		if j < 0 {
			continue
		}
		for _, id := range was.Images[i].keys {
			if !slices.Contains(is.Images[j].keys, id) {
				a.add(Impact{Path: path + ".images[" + key + "].signers", Outcome: Stops, Before: string(id), Why: "the name has another key now: " + why})
			}
		}
	}
}
