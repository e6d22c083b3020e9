// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// holder has a value for every part.
func holder() policy.Holder {
	return policy.Holder{
		Serial: "7f01", Key: policytest.Digest("key"), Machine: policytest.Hex(0xcc, 64), Measurement: policytest.Hex(0xaa, 48), Workload: policytest.Web,
	}
}

// oneOfEach denies holder by each of its parts.
func oneOfEach() []policy.Denial {
	h := holder()
	return []policy.Denial{
		policytest.Deny(policy.DenySerial, h.Serial),
		policytest.Deny(policy.DenyKey, string(h.Key)),
		policytest.Deny(policy.DenyMachine, h.Machine),
		policytest.Deny(policy.DenyMeasurement, h.Measurement),
		policytest.Deny(policy.DenyWorkload, h.Workload),
	}
}

func TestDeniedKeyDeniesWhatItSigned(t *testing.T) {
	list := policytest.New(t).DenyList(t, nil, policytest.Deny(policy.DenyKey, string(policytest.Digest("stolen")))).List
	h := holder()
	h.IssuerKey = policytest.Digest("stolen")
	if d := list.Denies(h); d.Code != policy.CodeDeniedKey {
		t.Errorf("a certificate that the key signed: %v", d)
	}
	h.IssuerKey = policytest.Digest("another")
	if d := list.Denies(h); !d.Allowed {
		t.Errorf("a certificate that another key signed: %v", d)
	}
}

func TestDenyListDeniesByEachPart(t *testing.T) {
	f := policytest.New(t)
	codes := map[policy.DenyKind]policy.Code{
		policy.DenySerial: policy.CodeDeniedSerial, policy.DenyKey: policy.CodeDeniedKey, policy.DenyMachine: policy.CodeDeniedMachine,
		policy.DenyMeasurement: policy.CodeDeniedMeasurement, policy.DenyWorkload: policy.CodeDeniedWorkload,
	}
	if len(codes) != len(policy.DenyKinds()) {
		t.Fatalf("%d kinds are tried of %d", len(codes), len(policy.DenyKinds()))
	}
	other := policytest.Deny(policy.DenyWorkload, "another")
	for _, e := range oneOfEach() {
		list := f.DenyList(t, nil, other, e).List
		d := list.Denies(holder())
		if d.Allowed || d.Code != codes[e.Kind] || d.Rule != "denylist[1]" {
			t.Errorf("%s: %+v", e.Kind, d)
		}
		if !strings.Contains(d.Actual, e.Reason) || !strings.Contains(d.Actual, e.Value) || d.Expected == "" || d.Remedy == "" {
			t.Errorf("%s: the refusal does not explain itself: %+v", e.Kind, d)
		}
		if d := list.Denies(policy.Holder{}); !d.Allowed {
			t.Errorf("%s: a holder nothing is known of: %v", e.Kind, d)
		}
		// The value denies nothing where it is another part.
		h := holder()
		h.Serial, h.Machine, h.Measurement, h.Workload, h.Key = h.Workload, string(h.Key), h.Machine, h.Serial, policy.Digest(h.Measurement)
		if d := list.Denies(h); !d.Allowed {
			t.Errorf("%s: denied another part: %v", e.Kind, d)
		}
	}
	if d := f.DenyList(t, nil).List.Denies(holder()); !d.Allowed || d.Code != policy.CodeAllowed {
		t.Errorf("an empty list: %v", d)
	}
}

func TestDenyListsRefuseUntilParsed(t *testing.T) {
	var none *policy.DenyList
	if d := none.Denies(holder()); !d.Allowed {
		t.Errorf("no deny list: %v", d)
	}
	for name, l := range map[string]*policy.DenyList{"zero": {}, "by hand": {Schema: policy.DenyListSchema, Version: 1}} {
		if d := l.Denies(policy.Holder{}); d.Allowed || d.Code != policy.CodeUndecided {
			t.Errorf("%s: %+v", name, d)
		}
	}
	if _, err := policy.EncodeDenyList(none); policy.CodeOf(err) != policy.CodeUndecided {
		t.Errorf("encoding nothing: %v", err)
	}
}

func TestParseDenyListReadsBackWhatEncodeWrites(t *testing.T) {
	f := policytest.New(t)
	for _, entries := range [][]policy.Denial{nil, oneOfEach()} {
		first := f.DenyList(t, nil, entries...)
		again, err := policy.EncodeDenyList(first.List)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, first.Payload) || first.Digest != policy.DigestOf(again) {
			t.Errorf("encoding twice differs:\n%s\n%s", first.Payload, again)
		}
	}
}

func TestParseDenyListIsStrict(t *testing.T) {
	f := policytest.New(t)
	good := f.DenyList(t, nil, oneOfEach()...).Payload
	entry := func(i int, key string, v any) func(doc map[string]any) {
		return func(doc map[string]any) { doc["entries"].([]any)[i].(map[string]any)[key] = v }
	}
	head := func(key string, v any) func(doc map[string]any) {
		return func(doc map[string]any) { doc[key] = v }
	}
	for name, c := range map[string]struct {
		edit func(doc map[string]any)
		code policy.Code
		path string
	}{
		"schema":                 {head("schema", policy.Schema), policy.CodeSchema, "$.schema"},
		"trust domain":           {head("trustDomain", "A"), policy.CodeTrustDomainInvalid, "$.trustDomain"},
		"version zero":           {head("version", 0), policy.CodeVersionInvalid, "$.version"},
		"first with a previous":  {head("previous", policytest.Digest("x")), policy.CodePreviousInvalid, "$.previous"},
		"later without previous": {head("version", 2), policy.CodeDigestInvalid, "$.previous"},
		"unknown field":          {head("x", 1), policy.CodeUnknownField, "$.x"},
		"no entries":             {func(doc map[string]any) { delete(doc, "entries") }, policy.CodeMissingField, "$.entries"},
		"null entries":           {head("entries", nil), policy.CodeNull, "$.entries"},
		"unknown entry field":    {entry(0, "until", "x"), policy.CodeUnknownField, "$.entries[0].until"},
		"kind":                   {entry(0, "kind", "Serial"), policy.CodeDenyKindUnknown, "$.entries[0].kind"},
		"no reason":              {entry(0, "reason", ""), policy.CodeNameInvalid, "$.entries[0].reason"},
		"reason of two lines":    {entry(0, "reason", "a\nb"), policy.CodeNameInvalid, "$.entries[0].reason"},
		"long reason":            {entry(0, "reason", strings.Repeat("a", 257)), policy.CodeNameInvalid, "$.entries[0].reason"},
		"no serial":              {entry(0, "value", ""), policy.CodeSerialInvalid, "$.entries[0].value"},
		"serial in upper case":   {entry(0, "value", "7F01"), policy.CodeSerialInvalid, "$.entries[0].value"},
		"serial with zeros":      {entry(0, "value", "07f01"), policy.CodeSerialInvalid, "$.entries[0].value"},
		"serial with colons":     {entry(0, "value", "7f:01"), policy.CodeSerialInvalid, "$.entries[0].value"},
		"serial too long":        {entry(0, "value", strings.Repeat("1", 41)), policy.CodeSerialInvalid, "$.entries[0].value"},
		"key":                    {entry(1, "value", policytest.Hex(1, 32)), policy.CodeDigestInvalid, "$.entries[1].value"},
		"machine":                {entry(2, "value", policy.Any), policy.CodeHexInvalid, "$.entries[2].value"},
		"measurement":            {entry(3, "value", policytest.Hex(1, 32)), policy.CodeHexInvalid, "$.entries[3].value"},
		"workload":               {entry(4, "value", "a/b"), policy.CodeNameInvalid, "$.entries[4].value"},
		"twice": {func(doc map[string]any) {
			doc["entries"] = append(doc["entries"].([]any), doc["entries"].([]any)[0])
		}, policy.CodeValueDuplicate, "$.entries[5].value"},
	} {
		t.Run(name, func(t *testing.T) {
			var doc map[string]any
			if err := json.Unmarshal(good, &doc); err != nil {
				t.Fatal(err)
			}
			c.edit(doc)
			text, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			l, err := policy.ParseDenyList(text)
			if l != nil {
				t.Error("a list came with the refusal")
			}
			wantProblem(t, err, c.code, c.path)
		})
	}
	for _, machine := range []string{policytest.Hex(1, 64), policytest.Hex(1, 8), policytest.Hex(1, 16), "csp:azure", "ppid:" + policytest.Hex(1, 16)} {
		f.DenyList(t, nil, policytest.Deny(policy.DenyMachine, machine))
	}
}

func TestDenyListsHaveCaps(t *testing.T) {
	full := many(policy.MaxDenials)
	if _, err := policy.EncodeDenyList(full); policy.CodeOf(err) != policy.CodeTooLarge {
		t.Errorf("a payload above 8 MiB: %v", err)
	}
	for i := range full.Entries {
		full.Entries[i] = policy.Denial{Kind: policy.DenySerial, Value: fmt.Sprintf("%x", i+1), Reason: "r"}
	}
	text, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := policy.ParseDenyList(text); err != nil {
		t.Errorf("%d entries: %v", policy.MaxDenials, err)
	}
	full.Entries = append(full.Entries, policy.Denial{Kind: policy.DenySerial, Value: "fffff", Reason: "r"})
	if text, err = json.Marshal(full); err != nil {
		t.Fatal(err)
	}
	_, err = policy.ParseDenyList(text)
	wantProblem(t, err, policy.CodeListTooLong, "$.entries")
}

func TestOpenDenyListNeedsTheOperators(t *testing.T) {
	f := policytest.New(t, policytest.WithOperators(2, 2))
	list := f.DenyList(t, nil, oneOfEach()...)
	if !slices.Equal(list.Signers, []string{"operator-1", "operator-2"}) {
		t.Errorf("signers = %q", list.Signers)
	}
	one, err := policy.SignDenyList(list.Payload, f.Keys[0])
	if err != nil {
		t.Fatal(err)
	}
	if l, err := policy.OpenDenyList(one, f.Operators); l != nil || policy.CodeOf(err) != policy.CodeThresholdUnmet {
		t.Errorf("one signature of two: %v", err)
	}
	both, err := policy.AddSignature(one, f.Keys[1])
	if err != nil {
		t.Fatal(err)
	}
	if l, err := policy.OpenDenyList(both, f.Operators); err != nil || l.Digest != list.Digest {
		t.Errorf("with the second signature: %v", err)
	}
	if _, err := policy.SignDenyList([]byte("{}"), f.Keys...); policy.CodeOf(err) != policy.CodeMissingField {
		t.Errorf("an invalid list was signed: %v", err)
	}
	// Neither document passes for the other.
	if _, err := policy.OpenDenyList(f.Envelope, f.Operators); policy.CodeOf(err) != policy.CodePayloadType {
		t.Errorf("a manifest opened as a deny list: %v", err)
	}
	if _, err := policy.Open(list.Envelope, f.Operators); policy.CodeOf(err) != policy.CodePayloadType {
		t.Errorf("a deny list opened as a manifest: %v", err)
	}
	swapped := mustEnvelope(t, f.Envelope)
	swapped.Payload = list.Payload
	text, err := swapped.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := policy.AddSignature(text, f.Keys[0]); policy.CodeOf(err) == "" {
		t.Error("a deny list was signed as a manifest")
	}
	if _, err := policy.AddSignature(append(bytes.Repeat([]byte(" "), policy.MaxEnvelope), f.Envelope...), f.Keys[0]); policy.CodeOf(err) != policy.CodeTooLarge {
		t.Error("a manifest's envelope may be as large as a deny list's")
	}
}

func TestDenyListSucceeds(t *testing.T) {
	f := policytest.New(t)
	other := policytest.New(t, policytest.With(func(m *policy.Manifest) { m.TrustDomain = "other.test" }))
	first := f.DenyList(t, nil, oneOfEach()...)
	second := f.DenyList(t, first)
	third := f.DenyList(t, second)
	fork := f.DenyList(t, f.DenyList(t, nil))
	sibling := f.DenyList(t, nil, policytest.Deny(policy.DenySerial, "1"))
	for name, c := range map[string]struct {
		prev, next *policy.SignedDenyList
		code       policy.Code
	}{
		"first":                   {nil, first, policy.CodeAllowed},
		"next":                    {first, second, policy.CodeAllowed},
		"second of none":          {nil, second, policy.CodeDenyListGap},
		"skips one":               {first, third, policy.CodeDenyListGap},
		"older":                   {second, first, policy.CodeDenyListRolledBack},
		"same":                    {first, first, policy.CodeDenyListUnchanged},
		"another of that version": {first, sibling, policy.CodeDenyListForked},
		"of another history":      {first, fork, policy.CodeDenyListForked},
		"of another mesh":         {first, other.DenyList(t, nil), policy.CodeTrustDomain},
		"nothing":                 {first, nil, policy.CodeUndecided},
		"not opened":              {nil, &policy.SignedDenyList{List: &policy.DenyList{Version: 1}}, policy.CodeUndecided},
		"after what was not":      {&policy.SignedDenyList{}, first, policy.CodeUndecided},
	} {
		t.Run(name, func(t *testing.T) { wantDecision(t, policy.DenyListSucceeds(c.prev, c.next), c.code) })
	}
}

func TestDiffDenyLists(t *testing.T) {
	f := policytest.New(t)
	a := f.DenyList(t, nil, policytest.Deny(policy.DenyWorkload, "a"), policytest.Deny(policy.DenyWorkload, "b"))
	again := policytest.Deny(policy.DenyWorkload, "b")
	again.Reason = "still lost"
	b := f.DenyList(t, a, again, policytest.Deny(policy.DenyWorkload, "c"))
	want := []policy.Change{
		{Path: "version", Before: "1", After: "2", Effect: policy.Changes},
		{Path: "previous", After: string(a.Digest), Effect: policy.Changes},
		{Path: "entries[workload a]", Before: "lost in a test", Effect: policy.Widens},
		{Path: "entries[workload b].reason", Before: "lost in a test", After: "still lost", Effect: policy.Changes},
		{Path: "entries[workload c]", After: "lost in a test", Effect: policy.Narrows},
	}
	if got := policy.DiffDenyLists(a.List, b.List); !slices.Equal(got, want) {
		t.Errorf("changes = %+v\nwant %+v", got, want)
	}
	for _, c := range policy.DiffDenyLists(nil, a.List)[3:] {
		if c.Effect != policy.Narrows {
			t.Errorf("from nothing: %+v", c)
		}
	}
	for _, c := range policy.DiffDenyLists(a.List, nil)[2:] {
		if c.Effect != policy.Widens {
			t.Errorf("to nothing: %+v", c)
		}
	}
}
