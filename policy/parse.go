// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// MaxPayload is the size of the largest accepted manifest, in bytes.
const MaxPayload = 1 << 20

// Parse reads a manifest and refuses what it does not fully understand. The
// error is an *InvalidError with every problem found.
func Parse(payload []byte) (*Manifest, error) {
	const doing = "parsing the manifest"
	r := &report{}
	root := parseTree(payload, MaxPayload, r)
	if root == nil {
		return nil, r.err(doing)
	}
	m := readManifest(root, r)
	if err := r.err(doing); err != nil {
		return nil, err // values could not be read: judging them would mislead
	}
	m.validate(r)
	if err := r.err("checking the manifest"); err != nil {
		return nil, err
	}
	m.resolveSigners()
	m.index = newIndex(m, DigestOf(payload))
	return m, nil
}

func readManifest(n *node, r *report) *Manifest {
	f := object(n, "$", r)
	m := &Manifest{
		Schema:      f.text("schema"),
		TrustDomain: f.text("trustDomain"),
		Version:     f.number("version", 64),
		Previous:    Digest(f.text("previous")),
		NotBefore:   f.optional("notBefore"),
		Production:  f.truth("production"),
		Operators:   readOperators(f.object("operators")),
		Recovery:    readRecovery(f),
		Witnesses:   readWitnesses(f),
		Substrates:  readSubstrates(f),
		Workloads:   []Workload{},
	}
	if f.has("witnessQuorum") {
		m.WitnessQuorum = int(f.number("witnessQuorum", 16))
	}
	optionalList(f, "signers", &m.Signers, readSigner)
	optionalList(f, "sandboxes", &m.Sandboxes, readImage)
	m.Unlisted = f.optional("unlisted")
	m.SameNode = f.optional("sameNode")
	f.list("workloads", func(n *node, path string) {
		m.Workloads = append(m.Workloads, readWorkload(object(n, path, r)))
	})
	optionalList(f, "ingress", &m.Ingress, readIngress)
	f.done()
	return m
}

func readOperators(f *fields) Operators {
	o := Operators{Threshold: int(f.number("threshold", 16)), Keys: []OperatorKey{}}
	f.list("keys", func(n *node, path string) {
		k := object(n, path, f.report)
		o.Keys = append(o.Keys, OperatorKey{Name: k.text("name"), Algorithm: k.text("algorithm"), PublicKey: k.text("publicKey")})
		k.done()
	})
	f.done()
	return o
}

func readWorkload(f *fields) Workload {
	w := Workload{Name: f.text("name"), Images: []Image{}}
	f.list("images", func(n *node, path string) { w.Images = append(w.Images, readImage(object(n, path, f.report))) })
	w.Namespaces = texts[string](f, "namespaces")
	peers := f.object("peers")
	w.Peers = Peers{To: readRules(peers, "to"), From: readRules(peers, "from")}
	peers.done()
	w.HostAccess = f.truth("hostAccess")
	w.Probes = optionalNumbers[uint16](f, "probes", 16)
	w.HostNetwork = f.optionalTruth("hostNetwork")
	w.Bootstrap = f.optionalTruth("bootstrap")
	optionalList(f, "exec", &w.Exec, readExec)
	w.DNS = optionalTexts(f, "dns")
	optionalList(f, "external", &w.External, readExternal)
	optionalList(f, "publish", &w.Publish, readPublish)
	f.done()
	return w
}

func readRules(f *fields, key string) []PeerRule {
	rules := []PeerRule{}
	f.list(key, func(n *node, path string) {
		p := object(n, path, f.report)
		rule := PeerRule{Workload: p.text("workload")}
		rule.Ports = ports(p)
		rule.Protocol = p.text("protocol")
		p.done()
		rules = append(rules, rule)
	})
	return rules
}

func readExternal(f *fields) External {
	e := External{Name: f.text("name"), CIDRs: optionalTexts(f, "cidrs"), Names: optionalTexts(f, "names"), Ports: ports(f)}
	e.Protocol, e.TLS, e.SNI = f.text("protocol"), f.optionalTruth("tls"), optionalTexts(f, "sni")
	f.done()
	return e
}

func readPublish(f *fields) Publish {
	p := Publish{Port: uint16(f.number("port", 16)), HostPort: uint16(f.number("hostPort", 16)), From: texts[string](f, "from")}
	f.done()
	return p
}

func readIngress(f *fields) IngressRule {
	r := IngressRule{Name: f.text("name"), Hosts: texts[string](f, "hosts"), Backends: []IngressBackend{}}
	f.list("backends", func(n *node, path string) {
		b := object(n, path, f.report)
		r.Backends = append(r.Backends, IngressBackend{Workload: b.text("workload"), Mode: b.text("mode"), Ports: ports(b)})
		b.done()
	})
	f.done()
	return r
}

func ports(f *fields) []uint16 {
	list := []uint16{}
	f.list("ports", func(n *node, path string) { list = append(list, uint16(number(n, path, 16, f.report))) })
	return list
}

// Encode writes m as a payload that Parse accepts, ready to sign: the same
// value always gives the same bytes.
func Encode(m *Manifest) ([]byte, error) {
	if m == nil {
		return nil, undecided()
	}
	return encode("encoding the manifest", m, func(b []byte) error { _, err := Parse(b); return err })
}

// encode writes v as indented JSON that its reader accepts.
func encode(doing string, v any, accept func([]byte) error) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	out.WriteByte('\n')
	if err := accept(out.Bytes()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// MarshalJSON writes empty lists as [], because Parse refuses null.
func (m Manifest) MarshalJSON() ([]byte, error) {
	type plain Manifest
	p := plain(m)
	p.Operators.Keys = filled(p.Operators.Keys)
	p.Substrates = filledSubstrates(p.Substrates)
	if p.Recovery != nil {
		p.Recovery = &Recovery{Threshold: p.Recovery.Threshold, Keys: filled(p.Recovery.Keys)}
	}
	p.Workloads = slices.Clone(filled(p.Workloads))
	for i := range p.Workloads {
		p.Workloads[i] = p.Workloads[i].filled()
	}
	p.Ingress = slices.Clone(p.Ingress)
	for i := range p.Ingress {
		p.Ingress[i] = p.Ingress[i].filled()
	}
	return json.Marshal(p)
}

func (w Workload) filled() Workload {
	w.Images, w.Namespaces = filled(w.Images), filled(w.Namespaces)
	w.Peers.To, w.Peers.From = filledRules(w.Peers.To), filledRules(w.Peers.From)
	w.External, w.Publish = slices.Clone(w.External), slices.Clone(w.Publish)
	for i := range w.External {
		w.External[i].Ports = filled(w.External[i].Ports)
	}
	for i := range w.Publish {
		w.Publish[i].From = filled(w.Publish[i].From)
	}
	return w
}

func (r IngressRule) filled() IngressRule {
	r.Hosts, r.Backends = filled(r.Hosts), slices.Clone(filled(r.Backends))
	for i := range r.Backends {
		r.Backends[i].Ports = filled(r.Backends[i].Ports)
	}
	return r
}

func filledRules(rules []PeerRule) []PeerRule {
	rules = slices.Clone(filled(rules))
	for i := range rules {
		rules[i].Ports = filled(rules[i].Ports)
	}
	return rules
}

func filled[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
