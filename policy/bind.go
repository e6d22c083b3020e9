// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Bind finds the one entry that a pod's first container binds the pod to, and
// the rule that the container fits. The pod may name the entry, which only
// narrows.
func (m *Manifest) Bind(pod PodFacts, c ContainerFacts) (*Workload, *Image, Decision) {
	if m == nil || m.index == nil {
		return nil, nil, undecided()
	}
	if pod.Entry != "" {
		w, ok := m.index.workloads[pod.Entry]
		if !ok {
			return nil, nil, unlisted(pod.Entry)
		}
		f := w.fit(&pod, &c)
		return f.result(w)
	}
	var fits []*workloadIndex
	var first, best fit
	for i := range m.Workloads {
		w := m.index.workloads[m.Workloads[i].Name]
		f := w.fit(&pod, &c)
		switch {
		case f.Allowed:
			if fits = append(fits, w); len(fits) == 1 {
				first = f
			}
		case i == 0 || f.passed > best.passed:
			best = f
		}
	}
	switch {
	case len(fits) == 1:
		return first.result(fits[0])
	case len(fits) > 1:
		return nil, nil, ambiguous(fits)
	case best.passed == 0: // no entry knows the image
		best.Decision = imageUnlisted("workloads", &c.Image, "list it in an entry, and sign the manifest")
	}
	return nil, nil, best.Decision
}

func ambiguous(fits []*workloadIndex) Decision {
	names := make([]string, len(fits))
	for i, w := range fits {
		names[i] = w.entry.Name
	}
	return Decision{
		Code: CodeWorkloadAmbiguous, Rule: "workloads", Expected: "a pod of exactly one entry", Actual: "one that fits " + strings.Join(names, ", "),
		Remedy: "have the pod name the entry it wants, or make the entries' images, runs or namespaces differ",
	}
}

// AdmitContainer judges one more container of a pod that is bound to w, or the
// first one again by final facts. The entry is this manifest's of w's name,
// whichever manifest w came from.
func (m *Manifest) AdmitContainer(w *Workload, pod PodFacts, c ContainerFacts) (*Image, Decision) {
	if m == nil || m.index == nil || w == nil {
		return nil, undecided()
	}
	x, ok := m.index.workloads[w.Name]
	if !ok {
		return nil, unlisted(w.Name)
	}
	f := x.fit(&pod, &c)
	return f.image, f.Decision
}

// AdmitSandbox judges the image of a pod's sandbox ("pause").
func (m *Manifest) AdmitSandbox(d Digest) Decision {
	if m == nil || m.index == nil {
		return undecided()
	}
	for i := range m.Sandboxes {
		if m.Sandboxes[i].Digest == d {
			return allow(elementPath("sandboxes", i))
		}
	}
	expected := "a listed image"
	if len(m.Sandboxes) == 0 {
		expected = "a listed image; none is"
	}
	return Decision{
		Code: CodeSandboxUnlisted, Rule: "sandboxes", Expected: expected, Actual: shorten(string(d)),
		Remedy: "list the digest of the pause image's configuration under sandboxes, and sign the manifest",
	}
}

// fit is how far a container came in an entry: the further, the more telling
// is the refusal.
type fit struct {
	Decision
	image  *Image
	passed int // checks; 0: not even the image
}

func (f *fit) result(w *workloadIndex) (*Workload, *Image, Decision) {
	if !f.Allowed {
		return nil, nil, f.Decision
	}
	return w.entry, f.image, f.Decision
}

// fit judges the container by every rule of the entry that is about its
// image. The rule that is refused last explains best.
func (w *workloadIndex) fit(pod *PodFacts, c *ContainerFacts) fit {
	var best fit
	for i := range w.entry.Images {
		image := &w.entry.Images[i]
		if !image.lists(&c.Image) {
			continue
		}
		if best.passed == 0 {
			if best = (fit{Decision: w.suits(pod, c), passed: 1}); !best.Allowed {
				return best
			}
			best.passed = 2
			best.Decision = Decision{}
		}
		s := start{w: w.entry, path: elementPath(w.path+".images", i), run: image.Run, c: c}
		if s.run == nil {
			s.run = &Run{}
		}
		d, passed := s.judge()
		if d.Allowed {
			return fit{Decision: allow(s.path), image: image, passed: 2 + passed}
		}
		if 2+passed > best.passed || best.Code == "" {
			best.Decision, best.passed = d, 2+passed
		}
	}
	if best.passed == 0 {
		best.Decision = imageUnlisted(w.path+".images", &c.Image, "list it in the entry if it is meant to run there")
	}
	return best
}

// lists reports whether the rule is about this image.
func (i *Image) lists(f *ImageFacts) bool {
	if i.Digest != "" {
		return i.Digest == f.Digest
	}
	return slices.ContainsFunc(f.Signatures, func(s SignatureFacts) bool {
		return slices.Contains(i.keys, s.Signer) && s.Signer != "" && (i.Repository == "" || i.Repository == s.Repository)
	})
}

// suits judges the pod rather than the container.
func (w *workloadIndex) suits(pod *PodFacts, c *ContainerFacts) Decision {
	if !w.inNamespace(pod.Namespace) {
		return w.wrongNamespace(pod.Namespace)
	}
	if onHost := slices.Contains(c.HostNamespaces, NamespaceNetwork); onHost != w.entry.HostNetwork {
		is := map[bool]string{true: "a pod in the node's network", false: "a pod with a network of its own"}
		return Decision{
			Code: CodeHostNetwork, Rule: w.path + ".hostNetwork", Expected: is[w.entry.HostNetwork], Actual: is[onHost],
			Remedy: "an entry is for pods of one of the two kinds; those in the node's network are not in the mesh",
		}
	}
	return allow(w.path)
}

func imageUnlisted(rule string, f *ImageFacts, remedy string) Decision {
	actual := shorten(string(f.Digest))
	if f.Digest == "" {
		actual = "an unknown image"
	}
	for _, s := range f.Signatures {
		actual += fmt.Sprintf(", signed by %s as %s", shorten(string(s.Signer)), quote(s.Repository))
	}
	return Decision{Code: CodeImageUnlisted, Rule: rule, Expected: "an image that is listed, by digest or signer", Actual: actual, Remedy: remedy}
}
