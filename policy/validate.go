// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const (
	maxLabel       = 63  // RFC 1123
	maxTrustDomain = 255 // SPIFFE-ID section 2.1
)

func (m *Manifest) validate(r *report) {
	if m.Schema != Schema {
		r.add(CodeSchema, "$.schema", quote(Schema), quote(m.Schema), "")
	}
	checkTrustDomain(m.TrustDomain, r)
	checkVersion(m.Version, m.Previous, "the first manifest has version 1", r)
	if m.NotBefore != "" {
		checkStamp(m.NotBefore, "$.notBefore", r)
	}
	m.Operators.validate("$.operators", r)
	if m.Recovery != nil {
		m.Recovery.validate("$.recovery", m.Production, r)
	}
	m.validateWitnesses(r)
	signers := m.validateSigners(r)
	m.validateSandboxes(r)
	if m.Unlisted != "" {
		checkWord(m.Unlisted, "$.unlisted", CodeUnlistedUnknown, r, UnlistedStop, UnlistedCut)
	}
	if m.SameNode != "" {
		checkWord(m.SameNode, "$.sameNode", CodeSameNodeUnknown, r, SameNodeMesh, SameNodeLocal)
	}
	validateSubstrates(m.Substrates, m.Production, r)
	known := map[string]bool{}
	for i := range m.Workloads {
		checkLabel(m.Workloads[i].Name, elementPath("$.workloads", i)+".name", known, r)
	}
	hostPorts := map[uint16]string{}
	for i := range m.Workloads {
		path := elementPath("$.workloads", i)
		m.Workloads[i].validate(path, known, signers, r)
		m.Workloads[i].validateOutside(path, hostPorts, r)
	}
	m.validateIngress(r)
}

func checkTrustDomain(name string, r *report) {
	td, err := spiffeid.TrustDomainFromString(name)
	if err != nil || td.Name() != name || len(name) > maxTrustDomain {
		r.add(CodeTrustDomainInvalid, "$.trustDomain", "a SPIFFE trust domain name: lower-case letters, digits, '.', '-' and '_'", quote(name), `write it like "example.org"`)
	}
}

func checkVersion(version uint64, previous Digest, remedy string, r *report) {
	switch {
	case version == 0:
		r.add(CodeVersionInvalid, "$.version", "1 or more", "0", remedy)
	case version == 1 && previous != "":
		r.add(CodePreviousInvalid, "$.previous", `"" in version 1`, quote(string(previous)), "")
	case version > 1:
		checkDigest(previous, "$.previous", r)
	}
}

func (w *Workload) validate(path string, known, signers map[string]bool, r *report) {
	at := func(key string) string { return memberPath(path, key) }
	needed(len(w.Images), at("images"), "at least one image", "list the digest of every container's image", r)
	validateImages(w.Images, at("images"), signers, r)
	each(w.Namespaces, at("namespaces"), r, func(ns, path string) {
		if !isLabel(ns) {
			r.add(CodeNameInvalid, path, "a Kubernetes namespace (DNS label)", quote(ns), "")
		}
	})
	checkRules(w.Peers.To, at("peers")+".to", known, r)
	checkRules(w.Peers.From, at("peers")+".from", known, r)
	each(w.Probes, at("probes"), r, func(port uint16, path string) { checkPort(port, path, r) })
	if w.Bootstrap && !w.HostNetwork {
		r.add(CodeBootstrapInvalid, at("bootstrap"), "hostNetwork beside it", "a pod with a network of its own", "without the node daemon there is no mesh to join")
	}
	w.validateExec(at("exec"), r)
}

func (w *Workload) validateExec(path string, r *report) {
	seen := map[string]bool{}
	for i := range w.Exec {
		at := elementPath(path, i) + ".args"
		checkArgs(w.Exec[i].Args, at, r)
		if args := canonical(w.Exec[i].Args); seen[args] {
			r.add(CodeValueDuplicate, at, "each command once", "one that is already listed", "tty allows to have no terminal, too")
		} else {
			seen[args] = true
		}
	}
}

func checkPort(port uint16, path string, r *report) {
	if port == 0 {
		r.add(CodePortInvalid, path, "1 to 65535", "0", "")
	}
}

func checkRules(rules []PeerRule, path string, known map[string]bool, r *report) {
	seen := map[string]bool{}
	for i, rule := range rules {
		at := elementPath(path, i)
		if !known[rule.Workload] {
			r.add(CodePeerUnknown, at+".workload", "the name of a workload of this manifest", quote(rule.Workload), "add the workload, or remove the rule")
		}
		if key := ruleKey(rule); seen[key] {
			r.add(CodeValueDuplicate, at+".workload", "one rule for each workload and protocol", quote(rule.Workload), "put all ports into one rule")
		} else {
			seen[key] = true
		}
		checkProtocol(rule.Protocol, at+".protocol", r)
		needed(len(rule.Ports), at+".ports", "at least one port", "list every port of the accepting side", r)
		each(rule.Ports, at+".ports", r, func(port uint16, path string) { checkPort(port, path, r) })
	}
}

// each checks every element and reports repeated ones.
func each[T comparable](list []T, path string, r *report, check func(v T, path string)) {
	seen := make(map[T]struct{}, len(list))
	for i, v := range list {
		at := elementPath(path, i)
		check(v, at)
		if _, dup := seen[v]; dup {
			r.add(CodeValueDuplicate, at, "each value once", quote(fmt.Sprint(v)), "remove one of the two")
		}
		seen[v] = struct{}{}
	}
}

func needed(n int, path, expected, remedy string, r *report) {
	if n == 0 {
		r.add(CodeListEmpty, path, expected, "an empty list", remedy)
	}
}

func checkDigest(d Digest, path string, r *report) {
	if !d.Valid() {
		r.add(CodeDigestInvalid, path, fmt.Sprintf("%q and %d lower-case hexadecimal digits", digestPrefix, 2*sha256.Size), quote(string(d)), "")
	}
}

func checkHex(v string, n int, path string, r *report) {
	if !isLowerHex(v, n) {
		r.add(CodeHexInvalid, path, fmt.Sprintf("%d lower-case hexadecimal digits", 2*n), quote(v), "")
	}
}

// checkWords checks a list of hexadecimal values of n bytes; words may stand
// among them, and "any" alone.
func checkWords(list []string, n int, path string, r *report, words ...string) {
	checkAny(list, fmt.Sprintf("values of %d hexadecimal digits", 2*n), path, r, func(v, path string) {
		if !slices.Contains(words, v) {
			checkHex(v, n, path, r)
		}
	})
}

// checkAny checks a list of values, or "any" alone.
func checkAny(list []string, want, path string, r *report, check func(v, path string)) {
	needed(len(list), path, fmt.Sprintf("%s, or the single word %q", want, Any), fmt.Sprintf("write [%q] to accept every value", Any), r)
	if slices.Contains(list, Any) {
		if len(list) > 1 {
			r.add(CodeAnyNotAlone, path, fmt.Sprintf("%q alone", Any), fmt.Sprintf("%q among %d values", Any, len(list)), "decide for one")
		}
		return
	}
	each(list, path, r, check)
}

func checkWord(v, path string, code Code, r *report, words ...string) {
	if !slices.Contains(words, v) {
		r.add(code, path, quotedChoice(words), quote(v), "")
	}
}

func quotedChoice(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return strings.Join(quoted, " or ")
}

func checkLabel(name, path string, seen map[string]bool, r *report) {
	checkUnique(name, isLabel, "a DNS label: up to 63 lower-case letters, digits and inner '-'", path, seen, r)
}

func checkUnique(name string, good func(string) bool, want, path string, seen map[string]bool, r *report) {
	switch {
	case !good(name):
		r.add(CodeNameInvalid, path, want, quote(name), "")
	case seen[name]:
		r.add(CodeNameDuplicate, path, "each name once", quote(name), "rename one of the two")
	}
	seen[name] = true
}

// isLabel follows RFC 1123.
func isLabel(s string) bool {
	if s == "" || len(s) > maxLabel || strings.HasPrefix(s, "-") || strings.HasSuffix(s, "-") {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

func isPrintable(s string) bool { return isPrintableUpTo(s, maxLabel) }

func isPrintableUpTo(s string, limit int) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
