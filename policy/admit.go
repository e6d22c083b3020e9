// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// PodFacts say what a pod is, as its node sees it.
type PodFacts struct {
	Namespace, Name, UID string
	Images               []Digest // of every container, init containers included
	Entry                string   // the entry the pod asks for: narrows, never widens; empty when it does not ask
}

// Admit finds the one entry a pod belongs to. All of its images must be in
// that entry; a pod that fits several must say which it wants.
func (m *Manifest) Admit(p PodFacts) (*Workload, Decision) {
	if m == nil || m.index == nil {
		return nil, undecided()
	}
	if len(p.Images) == 0 {
		return nil, Decision{Code: CodeNoImages, Rule: "workloads", Expected: "the image digest of every container", Actual: "no image", Remedy: "the runtime must report the digests of the pod's images"}
	}
	if p.Entry != "" {
		w, ok := m.index.workloads[p.Entry]
		if !ok {
			return nil, unlisted(p.Entry)
		}
		if d := w.admits(p); !d.Allowed {
			return nil, d
		}
		return w.entry, allow(w.path)
	}
	var fits []*workloadIndex
	for i := range m.Workloads {
		if w := m.index.workloads[m.Workloads[i].Name]; w.listsAll(p.Images) && w.inNamespace(p.Namespace) {
			fits = append(fits, w)
		}
	}
	switch len(fits) {
	case 0:
		return nil, m.whyNone(p)
	case 1:
		return fits[0].entry, allow(fits[0].path)
	}
	names := make([]string, len(fits))
	for i, w := range fits {
		names[i] = w.entry.Name
	}
	return nil, Decision{
		Code: CodeWorkloadAmbiguous, Rule: "workloads", Expected: "images of exactly one entry", Actual: "images that fit " + strings.Join(names, ", "),
		Remedy: "have the pod name the entry it wants, or make the entries' images or namespaces differ",
	}
}

func (w *workloadIndex) lists(image Digest) bool {
	_, ok := w.images[image]
	return ok
}

func (w *workloadIndex) listsAll(images []Digest) bool {
	for _, image := range images {
		if !w.lists(image) {
			return false
		}
	}
	return true
}

func (w *workloadIndex) inNamespace(namespace string) bool {
	return len(w.entry.Namespaces) == 0 || slices.Contains(w.entry.Namespaces, namespace)
}

func (w *workloadIndex) admits(p PodFacts) Decision {
	for _, image := range p.Images {
		if !w.lists(image) {
			return Decision{Code: CodeImageUnlisted, Rule: w.path + ".images", Expected: "a listed image digest", Actual: shorten(string(image)), Remedy: "list the digest in the entry if the image is meant to run there"}
		}
	}
	if !w.inNamespace(p.Namespace) {
		return Decision{Code: CodeNamespaceNotAllowed, Rule: w.path + ".namespaces", Expected: oneOf(w.entry.Namespaces), Actual: shorten(p.Namespace), Remedy: "run the pod in a listed namespace, or list this one"}
	}
	return Decision{Allowed: true, Code: CodeAllowed, Rule: w.path}
}

// whyNone explains a pod that fits no entry by its worst fault: an image
// nobody lists, then images that no single entry lists, then the namespace.
func (m *Manifest) whyNone(p PodFacts) Decision {
	for _, image := range p.Images {
		if !slices.ContainsFunc(m.Workloads, func(w Workload) bool {
			return m.index.workloads[w.Name].lists(image)
		}) {
			return Decision{Code: CodeImageUnlisted, Rule: "workloads", Expected: "an image digest that some entry lists", Actual: shorten(string(image)), Remedy: "list the digest in an entry, and sign the manifest"}
		}
	}
	for i := range m.Workloads {
		if w := m.index.workloads[m.Workloads[i].Name]; w.listsAll(p.Images) {
			return w.admits(p)
		}
	}
	return Decision{
		Code: CodeImagesSpan, Rule: "workloads", Expected: "one entry that lists all images of the pod",
		Actual: fmt.Sprintf("%d images that only several entries list together", len(p.Images)), Remedy: "list all of the pod's images, sidecars too, in one entry",
	}
}

// Digest identifies what may bear the workload's name: the name itself, the
// image digests and the namespaces, in any order. Peers and HostAccess are
// not part of it: they are judged by the current manifest at every
// connection, so changing them must not void certificates.
func (w *Workload) Digest() Digest {
	images := make([]Digest, len(w.Images))
	for i, image := range w.Images {
		images[i] = image.Digest
	}
	slices.Sort(images)
	namespaces := slices.Sorted(slices.Values(w.Namespaces))
	// JSON of strings is unambiguous and cannot fail.
	text, _ := json.Marshal([]any{"c8s/workload/v1", w.Name, images, filled(namespaces)})
	return DigestOf(text)
}
