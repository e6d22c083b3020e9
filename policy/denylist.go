// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
)

// DenyListPayloadType is the DSSE payload type of a deny list.
const DenyListPayloadType = "application/vnd.c8s.denylist.v1+json"

// DenyListSchema is the only deny list schema this package reads.
const DenyListSchema = "c8s.dev/denylist/v1"

// DenyKind says what a denial's value is.
type DenyKind string

// The kinds of denials.
const (
	DenySerial      DenyKind = "serial"      // of a certificate: lower-case hexadecimal without leading zeros, as ratls.Peer.Serial
	DenyKey         DenyKind = "key"         // Digest of a SubjectPublicKeyInfo
	DenyMachine     DenyKind = "machine"     // as SubstrateFacts.Machine
	DenyMeasurement DenyKind = "measurement" // as SubstrateFacts.Measurement
	DenyWorkload    DenyKind = "workload"    // the name of an entry
)

// DenyKinds lists the kinds, in the order in which Denies asks for them.
func DenyKinds() []DenyKind {
	return []DenyKind{DenySerial, DenyKey, DenyMachine, DenyMeasurement, DenyWorkload}
}

// Denial is one entry of a deny list.
type Denial struct {
	Kind   DenyKind `json:"kind"`
	Value  string   `json:"value"`
	Reason string   `json:"reason"` // for people: 1 to 256 printable ASCII characters
}

// DenyList takes back at once what the manifest accepts. It is always the
// whole list: a successor without an entry lifts that denial. Like a Manifest,
// it comes only from ParseDenyList or OpenDenyList.
type DenyList struct {
	Schema      string   `json:"schema"` // DenyListSchema
	TrustDomain string   `json:"trustDomain"`
	Version     uint64   `json:"version"`  // from 1, counted apart from the manifest's
	Previous    Digest   `json:"previous"` // of the previous list's payload; empty only in version 1
	Entries     []Denial `json:"entries"`

	index *denyIndex // by ParseDenyList only
}

// denyIndex finds the entry of a value, for each kind. It is never written
// after it was built.
type denyIndex struct {
	digest                                      Digest
	serial, key, machine, measurement, workload map[string]int
}

func newDenyIndex(entries []Denial, digest Digest) *denyIndex {
	x := &denyIndex{
		digest: digest, serial: map[string]int{}, key: map[string]int{},
		machine: map[string]int{}, measurement: map[string]int{}, workload: map[string]int{},
	}
	of := map[DenyKind]map[string]int{
		DenySerial: x.serial, DenyKey: x.key, DenyMachine: x.machine, DenyMeasurement: x.measurement, DenyWorkload: x.workload,
	}
	for i, e := range entries {
		of[e.Kind][e.Value] = i
	}
	return x
}

// Digest returns the digest of the payload l was parsed from, or "" for a list
// that was not parsed.
func (l *DenyList) Digest() Digest {
	if l == nil || l.index == nil {
		return ""
	}
	return l.index.digest
}

// Holder is what a certificate, or whoever asks for one, can be denied by. A
// part that is empty is not known yet, and nothing denies it.
type Holder struct {
	Serial                         string
	Key                            Digest // of the SubjectPublicKeyInfo
	IssuerKey                      Digest // of the CA's that issued the certificate: what a denied key signed is denied
	Machine, Measurement, Workload string // a pod has the machine and measurement of its node
}

// Denies says whether the list denies the holder; Allowed means that it does
// not. No list (nil) denies nothing. Allowing allocates nothing, and takes the
// same time for lists of any size.
func (l *DenyList) Denies(h Holder) Decision {
	if l == nil {
		return Decision{Allowed: true, Code: CodeAllowed, Rule: "no deny list"}
	}
	x := l.index
	if x == nil {
		return undecidedDenyList()
	}
	if i, ok := x.serial[h.Serial]; ok {
		return l.denied(i, CodeDeniedSerial, "enrol again for another certificate, or have the operators lift the denial")
	}
	if i, ok := x.key[string(h.Key)]; ok {
		return l.denied(i, CodeDeniedKey, "enrol again with a new key, or have the operators lift the denial")
	}
	if i, ok := x.key[string(h.IssuerKey)]; ok {
		return l.denied(i, CodeDeniedKey, "enrol again for a certificate of another issuing key, or have the operators lift the denial")
	}
	if i, ok := x.machine[h.Machine]; ok {
		return l.denied(i, CodeDeniedMachine, "use another machine, or have the operators lift the denial")
	}
	if i, ok := x.measurement[h.Measurement]; ok {
		return l.denied(i, CodeDeniedMeasurement, "launch another image, or have the operators lift the denial")
	}
	if i, ok := x.workload[h.Workload]; ok {
		return l.denied(i, CodeDeniedWorkload, "have the operators lift the denial")
	}
	return Decision{Allowed: true, Code: CodeAllowed, Rule: "denylist"}
}

func (l *DenyList) denied(i int, code Code, remedy string) Decision {
	e := l.Entries[i]
	return Decision{
		Code: code, Rule: elementPath("denylist", i), Expected: fmt.Sprintf("no %s on deny list %d", e.Kind, l.Version),
		Actual: fmt.Sprintf("%s (%s)", e.Value, e.Reason), Remedy: remedy,
	}
}

func undecidedDenyList() Decision {
	return Decision{
		Code: CodeUndecided, Expected: "a deny list from policy.OpenDenyList or policy.ParseDenyList", Actual: "one built by hand",
		Remedy: "open a signed deny list first",
	}
}

// SignedDenyList is a deny list whose signatures were checked.
type SignedDenyList struct {
	List     *DenyList
	Payload  []byte // exactly as signed
	Digest   Digest // of Payload
	Envelope []byte // as received
	Signers  []string
	Ignored  []IgnoredSignature
}

// OpenDenyList checks an envelope: enough of the trusted operators signed it,
// and the payload is a valid deny list. Whether it is for this trust domain is
// for the caller, or DenyListSucceeds, to compare.
func OpenDenyList(envelope []byte, trusted Operators) (*SignedDenyList, error) {
	p, err := denyListFormat().open(envelope, trusted)
	if err != nil {
		return nil, err
	}
	l, err := ParseDenyList(p.Payload)
	if err != nil {
		return nil, err
	}
	return &SignedDenyList{
		List: l, Payload: p.Payload, Digest: l.Digest(), Envelope: slices.Clone(envelope),
		Signers: p.Signers, Ignored: p.Ignored,
	}, nil
}

// DenyListSucceeds decides whether next may replace prev: newer, chained to
// prev's exact payload and of the same trust domain. Only version 1 follows no
// list (nil). Who may sign is the manifest's to say: open next with the
// operators of the one in force.
func DenyListSucceeds(prev, next *SignedDenyList) Decision {
	if next == nil || next.List.Digest() == "" || prev != nil && prev.List.Digest() == "" {
		return Decision{Code: CodeUndecided, Rule: "succession of the deny list", Expected: "opened deny lists", Actual: "less", Remedy: "open them with policy.OpenDenyList"}
	}
	n := next.List
	if prev == nil {
		const rule = "succession of no deny list"
		if n.Version != 1 {
			return Decision{Code: CodeDenyListGap, Rule: rule, Expected: "version 1", Actual: fmt.Sprint(n.Version), Remedy: "apply the lists in between first, in order"}
		}
		return allow(rule)
	}
	p := prev.List
	rule := fmt.Sprintf("succession of deny list %d", p.Version)
	newer := fmt.Sprintf("a version above %d", p.Version)
	switch {
	case n.TrustDomain != p.TrustDomain:
		return Decision{Code: CodeTrustDomain, Rule: rule, Expected: p.TrustDomain, Actual: n.TrustDomain, Remedy: "this deny list belongs to another mesh"}
	case n.Version < p.Version:
		return Decision{Code: CodeDenyListRolledBack, Rule: rule, Expected: newer, Actual: fmt.Sprint(n.Version), Remedy: "to lift a denial, publish a new list without it"}
	case n.Version == p.Version && n.Digest() == p.Digest():
		return Decision{Code: CodeDenyListUnchanged, Rule: rule, Expected: newer, Actual: "the same list"}
	case n.Previous == p.Digest():
		return allow(rule)
	}
	d := Decision{
		Code: CodeDenyListForked, Rule: rule, Expected: "previous = " + string(p.Digest()),
		Actual: fmt.Sprintf("version %d with previous = %q", n.Version, n.Previous),
		Remedy: "somebody signed two successors of one deny list: find out who before signing a third",
	}
	if n.Version > p.Version+1 {
		d.Code, d.Remedy = CodeDenyListGap, "apply the lists in between first, in order"
	}
	return d
}

// DiffDenyLists lists what changes when b replaces a, which may be nil: what is
// denied narrows, what is lifted widens.
func DiffDenyLists(a, b *DenyList) []Change {
	if a == nil {
		a = &DenyList{}
	}
	if b == nil {
		b = &DenyList{}
	}
	d := &differ{}
	d.value("trustDomain", a.TrustDomain, b.TrustDomain, Changes)
	d.value("version", a.Version, b.Version, Changes)
	d.value("previous", a.Previous, b.Previous, Changes)
	was, is := byKey(a.Entries, Denial.id), byKey(b.Entries, Denial.id)
	for _, e := range a.Entries {
		path := "entries[" + e.id() + "]"
		if after, ok := is[e.id()]; ok {
			d.value(path+".reason", e.Reason, after.Reason, Changes)
		} else {
			d.add(path, e.Reason, "", Widens)
		}
	}
	for _, e := range b.Entries {
		if _, ok := was[e.id()]; !ok {
			d.add("entries["+e.id()+"]", "", e.Reason, Narrows)
		}
	}
	return d.changes
}

func (d Denial) id() string { return string(d.Kind) + " " + d.Value }
