// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// Digest identifies what may bear the workload's name and how it may run: the
// name, the images with their signers and runs, namespaces, exec and
// hostNetwork; lists without an order in any order. Peers, HostAccess and
// Probes are not part of it: they are judged by the current manifest at every
// connection, so changing them must not void certificates.
//
// An entry that only lists digests has the short form, others the long one;
// docs/policy.md gives both. Signers count by their keys, so only an entry that
// came from Parse has the digest of one with signers.
func (w *Workload) Digest() Digest {
	namespaces := filled(slices.Sorted(slices.Values(w.Namespaces)))
	if w.plain() {
		images := make([]Digest, len(w.Images))
		for i := range w.Images {
			images[i] = w.Images[i].Digest
		}
		slices.Sort(images)
		return DigestOf([]byte(canonical([]any{"c8s/workload/v1", w.Name, images, namespaces})))
	}
	entry := map[string]any{"name": w.Name, "namespaces": namespaces, "images": sortedRules(w.Images, (*Image).canonical)}
	if w.HostNetwork {
		entry["hostNetwork"] = true
	}
	if len(w.Exec) > 0 {
		entry["exec"] = sortedRules(w.Exec, func(e *Exec) any { return e })
	}
	return DigestOf([]byte(canonical([]any{"c8s/workload/v2", entry})))
}

// plain reports whether the entry only lists digests.
func (w *Workload) plain() bool {
	return !w.HostNetwork && len(w.Exec) == 0 && !slices.ContainsFunc(w.Images, func(i Image) bool { return len(i.Signers) > 0 || !i.Run.empty() })
}

// canonical is the rule without the name and with the signers' keys.
func (i *Image) canonical() any {
	rule := map[string]any{}
	if i.Digest != "" {
		rule["digest"] = i.Digest
	}
	if len(i.Signers) > 0 {
		rule["signers"] = slices.Sorted(slices.Values(i.keys))
		if len(i.keys) == 0 { // not from Parse
			rule["signers"] = slices.Sorted(slices.Values(i.Signers))
		}
	}
	if i.Repository != "" {
		rule["repository"] = i.Repository
	}
	if !i.Run.empty() {
		rule["run"] = i.Run.sorted()
	}
	return rule
}

// empty reports whether r allows what no Run allows.
func (r *Run) empty() bool { return r == nil || canonical(r) == "{}" }

// sorted has every list in ascending order, but for Args.
func (r *Run) sorted() Run {
	s := *r
	s.Env = slices.SortedFunc(slices.Values(r.Env), func(a, b EnvRule) int { return strings.Compare(a.Name, b.Name) })
	s.Mounts = slices.SortedFunc(slices.Values(r.Mounts), func(a, b MountRule) int { return strings.Compare(a.Destination, b.Destination) })
	s.Groups = slices.Sorted(slices.Values(r.Groups))
	for _, list := range []*[]string{&s.Devices, &s.Capabilities, &s.HostNamespaces, &s.Sockets, &s.Rlimits, &s.Sysctls} {
		*list = slices.Sorted(slices.Values(*list))
	}
	return s
}

func sortedRules[T any](list []T, form func(*T) any) []json.RawMessage {
	texts := make([]string, len(list))
	for i := range list {
		texts[i] = canonical(form(&list[i]))
	}
	slices.Sort(texts)
	rules := make([]json.RawMessage, len(texts))
	for i, text := range texts {
		rules[i] = json.RawMessage(text)
	}
	return rules
}

// canonical writes v as RFC 8785 does. Parse refuses the texts that Go's
// encoder writes otherwise.
func canonical(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "" // strings, numbers and booleans always can be
	}
	var sorted any // maps have their keys in order, structs do not
	dec := json.NewDecoder(bytes.NewReader(b.Bytes()))
	dec.UseNumber()
	if err := dec.Decode(&sorted); err != nil {
		return ""
	}
	b.Reset()
	if err := enc.Encode(sorted); err != nil {
		return ""
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// resolveSigners finds the keys behind the images' signers.
func (m *Manifest) resolveSigners() {
	ids := make(map[string]Digest, len(m.Signers))
	for _, s := range m.Signers {
		if id, err := s.ID(); err == nil {
			ids[s.Name] = id
		}
	}
	for i := range m.Workloads {
		for j := range m.Workloads[i].Images {
			image := &m.Workloads[i].Images[j]
			for _, name := range image.Signers {
				image.keys = append(image.keys, ids[name])
			}
		}
	}
}

// source names what the rule lists.
func (i *Image) source() string {
	if i.Digest != "" {
		return string(i.Digest)
	}
	text := "signed by " + strings.Join(i.Signers, " or ")
	if i.Repository != "" {
		text += " as " + i.Repository
	}
	return text
}
