// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
)

func (l *linter) workload(w *Workload) {
	path := workloadPath(w.Name)
	for i, key := range imageKeys(w.Images) {
		at := fmt.Sprintf("%s.images[%s]", path, key)
		l.image(at+".name", w.Images[i])
		l.signed(at, &w.Images[i])
		l.run(at+".run", w.Images[i].Run)
	}
	if len(w.Namespaces) == 0 {
		l.add(LintEveryNamespace, path+".namespaces", SeverityInfo, "pods of every namespace may have this name", "list the namespaces it is deployed to")
	}
	if w.HostAccess {
		l.add(LintHostAccess, path+".hostAccess", SeverityInfo, "processes on the node may connect to the pod without a certificate", "for the kubelet list the ports that it probes, under probes")
	}
	l.exec(path+".exec", w.Exec)
	l.nodeNetwork(path+".hostNetwork", w)
	l.outside(path, w)
	for _, rule := range w.Peers.To {
		l.deadRule(path+".peers.to["+ruleKey(rule)+"]", w.Name, rule.Workload, rule, "peers.from")
	}
	for _, rule := range w.Peers.From {
		l.deadRule(path+".peers.from["+ruleKey(rule)+"]", rule.Workload, w.Name, rule, "peers.to")
	}
	if !w.HostNetwork && !l.reachable(w.Name) {
		l.add(LintUnreachable, path+".peers.from", SeverityInfo, "no workload and no ingress may connect to it", "fine for one that only connects to others; else allow the connection in both entries")
	}
}

func (l *linter) image(path string, i Image) {
	tag, digest := tagOf(i.Name)
	switch {
	case i.Digest == "": // the signature says what it is
	case digest != "" && digest != i.Digest:
		l.add(LintImageName, path, SeverityInfo, "the name has another digest than the one that counts, which is that of the image's configuration", "fine where it is that of the image's manifest")
	case digest == "" && tag == "latest":
		l.add(LintImageTag, path, SeverityWarning, fmt.Sprintf("%s moves, and the digest does not: the entry may not be what runs by that name", i.Name), "name the version, or write name@digest")
	case digest == "" && tag != "":
		l.add(LintImageTag, path, SeverityInfo, fmt.Sprintf("the tag %q can be moved to another image; only the digest counts", tag), "write name@digest")
	}
}

// tagOf splits an image's name ("registry:5000/repo:tag@digest").
func tagOf(name string) (tag string, digest Digest) {
	name, at, _ := strings.Cut(name, "@")
	_, tag, _ = strings.Cut(name[strings.LastIndexByte(name, '/')+1:], ":")
	return tag, Digest(at)
}

// deadRule finds ports that the other side's entry does not allow.
func (l *linter) deadRule(path, from, to string, rule PeerRule, other string) {
	var dead []uint16
	for _, port := range rule.Ports {
		if _, ok := l.m.index.edges[edge{from, to, rule.Protocol, port}]; !ok {
			dead = append(dead, port)
		}
	}
	if len(dead) == 0 {
		return
	}
	l.add(LintDeadRule, path, SeverityWarning, fmt.Sprintf("it allows nothing on %s: %s has no such rule under %s", joinPorts(dead), rule.Workload, other),
		"add the rule on the other side, or remove this one")
}

func (l *linter) reachable(name string) bool {
	for e := range l.m.index.edges {
		if e.to == name {
			return true
		}
	}
	return len(l.m.ingressPorts(name)) > 0
}

// sharedImages: a pod whose images fit several entries must say which it is,
// and may then be any of them.
func (l *linter) sharedImages() {
	entries := map[Digest][]*Workload{}
	var order []Digest
	for i := range l.m.Workloads {
		w := &l.m.Workloads[i]
		for _, image := range w.Images {
			if image.Digest == "" || slices.Contains(entries[image.Digest], w) {
				continue
			}
			if len(entries[image.Digest]) == 1 {
				order = append(order, image.Digest)
			}
			entries[image.Digest] = append(entries[image.Digest], w)
		}
	}
	for _, digest := range order {
		sharing := entries[digest]
		names := make([]string, len(sharing))
		for i, w := range sharing {
			names[i] = w.Name
		}
		severity, message := SeverityInfo, "in namespaces that differ"
		if slices.ContainsFunc(sharing[1:], func(w *Workload) bool { return meets(w, sharing) }) {
			severity, message = SeverityWarning, "a pod with only this image must name its entry, and may name any of them"
		}
		l.add(LintSharedImage, fmt.Sprintf("%s.images[%s]", workloadPath(names[0]), digest), severity,
			fmt.Sprintf("the image is in several entries (%s): %s", strings.Join(names, ", "), message), "give entries that must not be taken for each other different images or namespaces")
	}
}

// meets reports whether w shares a namespace with another of the entries.
func meets(w *Workload, entries []*Workload) bool {
	return slices.ContainsFunc(entries, func(o *Workload) bool {
		return o != w && (len(o.Namespaces) == 0 || len(w.Namespaces) == 0 || common(o.Namespaces, w.Namespaces))
	})
}
