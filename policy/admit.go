// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
)

// PodFacts say what a pod is, as its node sees it.
type PodFacts struct {
	Namespace, Name, UID string
	Images               []Digest      // of every container, init containers included
	Signed               []SignedImage // signatures that the node verified, of images that are listed by signer
	Entry                string        // the entry the pod asks for: narrows, never widens; empty when it does not ask
}

// Admit finds the one entry that a pod of the mesh belongs to. All of its
// images must be in that entry; a pod that fits several must say which it wants.
// What the containers were started with, and which repository a signature
// names, was the node's to judge: AdmitContainer.
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
		if w := m.index.workloads[m.Workloads[i].Name]; w.listsAll(&p) && w.inNamespace(p.Namespace) && !w.entry.HostNetwork {
			fits = append(fits, w)
		}
	}
	switch len(fits) {
	case 0:
		return nil, m.whyNone(p)
	case 1:
		return fits[0].entry, allow(fits[0].path)
	}
	return nil, ambiguous(fits)
}

// lists reports whether a rule of the entry names the image by its digest, or
// the key of a signature that it bears.
func (w *workloadIndex) lists(image Digest, signed []SignedImage) bool {
	if _, ok := w.images[image]; ok {
		return image != ""
	}
	return slices.ContainsFunc(signed, func(s SignedImage) bool {
		_, ok := w.signers[s.Signer]
		return ok && s.Digest == image && image.Valid()
	})
}

func (w *workloadIndex) listsAll(p *PodFacts) bool {
	for _, image := range p.Images {
		if !w.lists(image, p.Signed) {
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
		if !w.lists(image, p.Signed) {
			return Decision{Code: CodeImageUnlisted, Rule: w.path + ".images", Expected: "a listed image digest", Actual: shorten(string(image)), Remedy: "list the digest in the entry if the image is meant to run there"}
		}
	}
	if !w.inNamespace(p.Namespace) {
		return w.wrongNamespace(p.Namespace)
	}
	if w.entry.HostNetwork {
		return Decision{Code: CodeHostNetwork, Rule: w.path + ".hostNetwork", Expected: "an entry of the mesh", Actual: "one of pods in the node's network", Remedy: "such pods get no certificate; list the image in an entry without hostNetwork"}
	}
	return Decision{Allowed: true, Code: CodeAllowed, Rule: w.path}
}

// whyNone explains a pod that fits no entry by its worst fault: an image
// nobody lists, then images that no single entry lists, then the namespace.
func (m *Manifest) whyNone(p PodFacts) Decision {
	for _, image := range p.Images {
		if !slices.ContainsFunc(m.Workloads, func(w Workload) bool {
			return m.index.workloads[w.Name].lists(image, p.Signed)
		}) {
			return Decision{Code: CodeImageUnlisted, Rule: "workloads", Expected: "an image digest that some entry lists", Actual: shorten(string(image)), Remedy: "list the digest in an entry, and sign the manifest"}
		}
	}
	for i := range m.Workloads {
		if w := m.index.workloads[m.Workloads[i].Name]; w.listsAll(&p) {
			return w.admits(p)
		}
	}
	return Decision{
		Code: CodeImagesSpan, Rule: "workloads", Expected: "one entry that lists all images of the pod",
		Actual: fmt.Sprintf("%d images that only several entries list together", len(p.Images)), Remedy: "list all of the pod's images, sidecars too, in one entry",
	}
}

func (w *workloadIndex) wrongNamespace(namespace string) Decision {
	return Decision{Code: CodeNamespaceNotAllowed, Rule: w.path + ".namespaces", Expected: oneOf(w.entry.Namespaces), Actual: shorten(namespace), Remedy: "run the pod in a listed namespace, or list this one"}
}
