// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
)

type workload struct {
	Name        string
	Images      []image
	Namespaces  []string
	Peers       json.RawMessage
	HostAccess  bool
	Probes      []uint16
	HostNetwork bool
	Bootstrap   bool
	Exec        []map[string]any
}

type image struct {
	Name, Digest, Repository string
	Signers                  []string
	Run                      map[string]any
}

// digest identifies the entry in certificates, with how its containers may be
// started and not with its peers, which are judged by the manifest in force at
// every connection. Publishers count by their keys.
func (w *workload) digest(signers []operatorKey) (string, error) {
	namespaces := slices.Sorted(slices.Values(append([]string{}, w.Namespaces...)))
	if namespaces == nil {
		namespaces = []string{}
	}
	digests, rules, long := []string{}, []string{}, w.HostNetwork || len(w.Exec) > 0
	for i := range w.Images {
		rule, err := w.Images[i].rule(signers)
		if err != nil {
			return "", err
		}
		digests = append(digests, w.Images[i].Digest)
		rules = append(rules, jcs(rule))
		long = long || rule["run"] != nil || rule["signers"] != nil
	}
	if !long {
		slices.Sort(digests)
		return digestOf([]byte(jcs([]any{"c8s/workload/v1", w.Name, digests, namespaces}))), nil
	}
	entry := map[string]any{"name": w.Name, "namespaces": namespaces, "images": ordered(rules)}
	if w.HostNetwork {
		entry["hostNetwork"] = true
	}
	if len(w.Exec) > 0 {
		var commands []string
		for _, e := range w.Exec {
			commands = append(commands, jcs(said(e)))
		}
		entry["exec"] = ordered(commands)
	}
	return digestOf([]byte(jcs([]any{"c8s/workload/v2", entry}))), nil
}

func (i *image) rule(signers []operatorKey) (map[string]any, error) {
	rule := map[string]any{}
	if i.Digest != "" {
		rule["digest"] = i.Digest
	}
	var keys []string
	for _, name := range i.Signers {
		at := slices.IndexFunc(signers, func(k operatorKey) bool { return k.Name == name })
		if at < 0 {
			return nil, fmt.Errorf("the manifest has no signer %q", name)
		}
		_, der, err := signers[at].parse()
		if err != nil {
			return nil, err
		}
		keys = append(keys, digestOf(der))
	}
	if len(keys) > 0 {
		slices.Sort(keys)
		rule["signers"] = keys
	}
	if i.Repository != "" {
		rule["repository"] = i.Repository
	}
	run := said(i.Run)
	for member, by := range map[string]string{
		"env": "name", "mounts": "destination", "groups": "", "devices": "", "capabilities": "", "hostNamespaces": "", "sockets": "", "rlimits": "", "sysctls": "",
	} {
		list, ok := run[member].([]any)
		if !ok {
			continue
		}
		slices.SortFunc(list, func(a, b any) int { return compare(a, b, by) })
		for n := range list {
			if rule, ok := list[n].(map[string]any); ok {
				list[n] = said(rule)
			}
		}
	}
	if len(run) > 0 {
		rule["run"] = run
	}
	return rule, nil
}

// compare orders numbers, texts, or objects by a member.
func compare(a, b any, by string) int {
	if by != "" {
		x, _ := a.(map[string]any)
		y, _ := b.(map[string]any)
		a, b = x[by], y[by]
	}
	if x, ok := a.(float64); ok {
		y, _ := b.(float64)
		return cmp.Compare(x, y)
	}
	return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b))
}

// said leaves out members that say the same as being left out. An environment
// variable's value may be empty and still says something.
func said(object map[string]any) map[string]any {
	all := map[string]any{}
	for member, v := range object {
		if v != false && (v != "" || member == "value") {
			all[member] = v
		}
	}
	return all
}

func ordered(texts []string) []json.RawMessage {
	slices.Sort(texts)
	raw := make([]json.RawMessage, len(texts))
	for i, text := range texts {
		raw[i] = json.RawMessage(text)
	}
	return raw
}

// jcs writes JSON as RFC 8785 asks: the values here are texts without the
// characters that Go writes otherwise, booleans, small whole numbers, and
// objects as maps, whose members Go sorts.
func jcs(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // values of JSON can always be written
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}
