// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestParseRefusesWhatIsImpossibleOutside(t *testing.T) {
	long := make([]string, 257)
	for i := range long {
		long[i] = fmt.Sprintf("n%d.example.com", i)
	}
	ext := func(m *policy.Manifest) *policy.External { return &m.Workloads[0].External[0] }
	const e0, p0 = "$.workloads[0].external[0]", "$.workloads[0].publish[0]"
	for name, tt := range map[string]struct {
		edit func(m *policy.Manifest)
		code policy.Code
		path string
	}{
		"same node":            {func(m *policy.Manifest) { m.SameNode = "fast" }, policy.CodeSameNodeUnknown, "$.sameNode"},
		"peer's protocol":      {func(m *policy.Manifest) { m.Workloads[0].Peers.To[0].Protocol = "sctp" }, policy.CodeProtocolUnknown, "$.workloads[0].peers.to[0].protocol"},
		"dns name":             {func(m *policy.Manifest) { m.Workloads[0].DNS[0] = "Api.example.com" }, policy.CodeNameInvalid, "$.workloads[0].dns[0]"},
		"dns final dot":        {func(m *policy.Manifest) { m.Workloads[0].DNS[0] = "api.example.com." }, policy.CodeNameInvalid, "$.workloads[0].dns[0]"},
		"dns inner wildcard":   {func(m *policy.Manifest) { m.Workloads[0].DNS[0] = "api.*.com" }, policy.CodeNameInvalid, "$.workloads[0].dns[0]"},
		"dns half wildcard":    {func(m *policy.Manifest) { m.Workloads[0].DNS[0] = "a*.example.com" }, policy.CodeNameInvalid, "$.workloads[0].dns[0]"},
		"dns everything":       {func(m *policy.Manifest) { m.Workloads[0].DNS[0] = "*" }, policy.CodeNameInvalid, "$.workloads[0].dns[0]"},
		"dns any":              {func(m *policy.Manifest) { m.Workloads[0].DNS = []string{"any"} }, policy.CodeNameInvalid, "$.workloads[0].dns[0]"},
		"dns address":          {func(m *policy.Manifest) { m.Workloads[0].DNS[0] = "192.0.2.1" }, policy.CodeNameInvalid, "$.workloads[0].dns[0]"},
		"dns long label":       {func(m *policy.Manifest) { m.Workloads[0].DNS[0] = strings.Repeat("a", 64) + ".example" }, policy.CodeNameInvalid, "$.workloads[0].dns[0]"},
		"dns long name":        {func(m *policy.Manifest) { m.Workloads[0].DNS[0] = strings.Repeat("abc.", 63) + "ab" }, policy.CodeNameInvalid, "$.workloads[0].dns[0]"},
		"dns twice":            {func(m *policy.Manifest) { m.Workloads[0].DNS[1] = m.Workloads[0].DNS[0] }, policy.CodeValueDuplicate, "$.workloads[0].dns[1]"},
		"external name":        {func(m *policy.Manifest) { ext(m).Name = "No" }, policy.CodeNameInvalid, e0 + ".name"},
		"external twice":       {func(m *policy.Manifest) { ext(m).Name = "by-name" }, policy.CodeNameDuplicate, "$.workloads[0].external[1].name"},
		"cidrs and names":      {func(m *policy.Manifest) { ext(m).Names = []string{"a.example.com"} }, policy.CodeExternalInvalid, e0},
		"neither":              {func(m *policy.Manifest) { ext(m).CIDRs = nil }, policy.CodeExternalInvalid, e0},
		"cidr with host bits":  {func(m *policy.Manifest) { ext(m).CIDRs[0] = "192.0.2.1/24" }, policy.CodeCIDRInvalid, e0 + ".cidrs[0]"},
		"address":              {func(m *policy.Manifest) { ext(m).CIDRs[0] = "192.0.2.1" }, policy.CodeCIDRInvalid, e0 + ".cidrs[0]"},
		"mapped cidr":          {func(m *policy.Manifest) { ext(m).CIDRs[0] = "::ffff:192.0.2.0/120" }, policy.CodeCIDRInvalid, e0 + ".cidrs[0]"},
		"long spelling":        {func(m *policy.Manifest) { ext(m).CIDRs[0] = "2001:0db8::/32" }, policy.CodeCIDRInvalid, e0 + ".cidrs[0]"},
		"cidr twice":           {func(m *policy.Manifest) { ext(m).CIDRs[1] = ext(m).CIDRs[0] }, policy.CodeValueDuplicate, e0 + ".cidrs[1]"},
		"no port":              {func(m *policy.Manifest) { ext(m).Ports = nil }, policy.CodeListEmpty, e0 + ".ports"},
		"port 0":               {func(m *policy.Manifest) { ext(m).Ports[1] = 0 }, policy.CodePortInvalid, e0 + ".ports[1]"},
		"protocol":             {func(m *policy.Manifest) { ext(m).Protocol = "icmp" }, policy.CodeProtocolUnknown, e0 + ".protocol"},
		"udp with tls":         {func(m *policy.Manifest) { ext(m).Protocol, ext(m).TLS = "udp", true }, policy.CodeExternalInvalid, e0},
		"udp with sni":         {func(m *policy.Manifest) { ext(m).Protocol, ext(m).SNI = "udp", []string{"a.example.com"} }, policy.CodeExternalInvalid, e0},
		"sni":                  {func(m *policy.Manifest) { ext(m).SNI = []string{"a..example.com"} }, policy.CodeNameInvalid, e0 + ".sni[0]"},
		"too many":             {func(m *policy.Manifest) { ext(m).SNI = long }, policy.CodeListTooLong, e0 + ".sni"},
		"host network":         {func(m *policy.Manifest) { m.Workloads[0].HostNetwork = true }, policy.CodeHostNetworkRules, "$.workloads[0].hostNetwork"},
		"published port":       {func(m *policy.Manifest) { m.Workloads[0].Publish[0].Port = 0 }, policy.CodePortInvalid, p0 + ".port"},
		"host port":            {func(m *policy.Manifest) { m.Workloads[0].Publish[0].HostPort = 0 }, policy.CodePortInvalid, p0 + ".hostPort"},
		"the tunnel's port":    {func(m *policy.Manifest) { m.Workloads[0].Publish[0].HostPort = policy.TunnelPort }, policy.CodePortInvalid, p0 + ".hostPort"},
		"clients":              {func(m *policy.Manifest) { m.Workloads[0].Publish[0].From = nil }, policy.CodeListEmpty, p0 + ".from"},
		"client":               {func(m *policy.Manifest) { m.Workloads[0].Publish[0].From[0] = "10.0.0.0" }, policy.CodeCIDRInvalid, p0 + ".from[0]"},
		"any among clients":    {func(m *policy.Manifest) { m.Workloads[0].Publish[0].From[0] = policy.Any }, policy.CodeAnyNotAlone, p0 + ".from"},
		"host port twice":      {func(m *policy.Manifest) { m.Workloads[0].Publish[1].HostPort = 30080 }, policy.CodeValueDuplicate, "$.workloads[0].publish[1].hostPort"},
		"host port of another": {func(m *policy.Manifest) { m.Workloads[1].Publish = slices.Clone(m.Workloads[0].Publish) }, policy.CodeValueDuplicate, "$.workloads[1].publish[0].hostPort"},
		"peer twice":           {func(m *policy.Manifest) { to := &m.Workloads[0].Peers.To; *to = append(*to, (*to)[0]) }, policy.CodeValueDuplicate, "$.workloads[0].peers.to[1].workload"},
	} {
		t.Run(name, func(t *testing.T) {
			m := policytest.Manifest(policytest.New(t).Operators)
			outside(m)
			tt.edit(m)
			_, err := policy.Encode(m)
			wantProblem(t, err, tt.code, tt.path)
		})
	}
	for field, text := range map[string]string{"dns": "[]", "external": "[]", "publish": "[]"} {
		payload := bytes.Replace(sample(t), []byte(`"hostAccess": true`), []byte(`"hostAccess": true, "`+field+`": `+text), 1)
		_, err := policy.Parse(payload)
		wantProblem(t, err, policy.CodeListEmpty, "$.workloads[0]."+field)
	}
}

func TestRulesForOutsideVoidNoCertificate(t *testing.T) { voidsNoCertificate(t, outside) }

// voidsNoCertificate makes a change of what is judged at every connection: it is
// not part of an entry's digest, so no certificate ends because of it.
func voidsNoCertificate(t *testing.T, change func(*policy.Manifest)) {
	t.Helper()
	f := policytest.New(t)
	next := f.Next(t, change)
	was, _ := f.Manifest.Workload(policytest.Web)
	is, _ := next.Manifest.Workload(policytest.Web)
	if was.Digest() != is.Digest() {
		t.Error("the digest changed")
	}
	if again, err := policy.Encode(next.Manifest); err != nil || !bytes.Equal(again, next.Payload) {
		t.Errorf("encoding twice differs (%v)", err)
	}
}
