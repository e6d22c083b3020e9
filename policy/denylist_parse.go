// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto"
	"encoding/json"
	"fmt"
	"strings"
)

// Caps on a deny list.
const (
	MaxDenyList         = 8 << 20  // bytes of the payload
	MaxDenyListEnvelope = 12 << 20 // bytes: base64 and signatures come on top
	MaxDenials          = 65_536

	maxReason = 256
	maxSerial = 40 // hexadecimal digits, RFC 5280 section 4.1.2.2
)

// ParseDenyList reads a deny list as strictly as Parse does a manifest. The
// error is an *InvalidError with every problem found.
func ParseDenyList(payload []byte) (*DenyList, error) {
	const doing = "parsing the deny list"
	r := &report{}
	root := parseTree(payload, MaxDenyList, r)
	if root == nil {
		return nil, r.err(doing)
	}
	l := readDenyList(root, r)
	if err := r.err(doing); err != nil {
		return nil, err
	}
	l.validate(r)
	if err := r.err("checking the deny list"); err != nil {
		return nil, err
	}
	l.index = newDenyIndex(l.Entries, DigestOf(payload))
	return l, nil
}

func readDenyList(n *node, r *report) *DenyList {
	f := object(n, "$", r)
	l := &DenyList{
		Schema: f.text("schema"), TrustDomain: f.text("trustDomain"), Version: f.number("version", 64),
		Previous: Digest(f.text("previous")), Entries: []Denial{},
	}
	f.list("entries", func(n *node, path string) {
		e := object(n, path, r)
		l.Entries = append(l.Entries, Denial{Kind: DenyKind(e.text("kind")), Value: e.text("value"), Reason: e.text("reason")})
		e.done()
	})
	f.done()
	return l
}

func (l *DenyList) validate(r *report) {
	if l.Schema != DenyListSchema {
		r.add(CodeSchema, "$.schema", quote(DenyListSchema), quote(l.Schema), "")
	}
	checkTrustDomain(l.TrustDomain, r)
	checkVersion(l.Version, l.Previous, "the first deny list has version 1", r)
	if n := len(l.Entries); n > MaxDenials {
		r.add(CodeListTooLong, "$.entries", fmt.Sprintf("at most %d entries", MaxDenials), fmt.Sprint(n), "deny a machine or a measurement instead of many certificates, and drop what has expired")
		return
	}
	type denied struct {
		kind  DenyKind
		value string
	}
	seen := make(map[denied]struct{}, len(l.Entries))
	for i, e := range l.Entries {
		path := elementPath("$.entries", i)
		e.validate(path, r)
		this := denied{e.Kind, e.Value}
		if _, dup := seen[this]; dup {
			r.add(CodeValueDuplicate, path+".value", "each value of a kind once", quote(e.Value), "remove one of the two")
		}
		seen[this] = struct{}{}
	}
}

func (d *Denial) validate(path string, r *report) {
	value := path + ".value"
	switch d.Kind {
	case DenySerial:
		if d.Value == "" || len(d.Value) > maxSerial || d.Value[0] == '0' || strings.Trim(d.Value, "0123456789abcdef") != "" {
			r.add(CodeSerialInvalid, value, fmt.Sprintf("1 to %d lower-case hexadecimal digits without leading zeros", maxSerial), quote(d.Value), "")
		}
	case DenyKey:
		checkDigest(Digest(d.Value), value, r)
	case DenyMachine:
		if !isSNPMachine(d.Value) && !isTDXMachine(d.Value) {
			badMachine(d.Value, value, r)
		}
	case DenyMeasurement:
		checkHex(d.Value, measurementLen, value, r)
	case DenyWorkload:
		if !isLabel(d.Value) {
			r.add(CodeNameInvalid, value, "the name of a workload (DNS label)", quote(d.Value), "")
		}
	default:
		kinds := DenyKinds()
		words := make([]string, len(kinds))
		for i, k := range kinds {
			words[i] = string(k)
		}
		checkWord(string(d.Kind), path+".kind", CodeDenyKindUnknown, r, words...)
	}
	if !isPrintableUpTo(d.Reason, maxReason) {
		r.add(CodeNameInvalid, path+".reason", fmt.Sprintf("why, in 1 to %d printable ASCII characters", maxReason), quote(d.Reason), "whoever is refused reads it")
	}
}

// EncodeDenyList writes l as a payload that ParseDenyList accepts, ready to
// sign: the same value always gives the same bytes.
func EncodeDenyList(l *DenyList) ([]byte, error) {
	if l == nil {
		return nil, undecidedDenyList()
	}
	return encode("encoding the deny list", l, func(b []byte) error { _, err := ParseDenyList(b); return err })
}

// MarshalJSON writes no entries as [], because ParseDenyList refuses null.
func (l DenyList) MarshalJSON() ([]byte, error) {
	type plain DenyList
	p := plain(l)
	p.Entries = filled(p.Entries)
	return json.Marshal(p)
}

// SignDenyList wraps a deny list's payload in an envelope with one signature
// for each key. It refuses to sign what ParseDenyList refuses.
func SignDenyList(payload []byte, keys ...crypto.Signer) ([]byte, error) {
	return denyListFormat().sign(payload, keys)
}
