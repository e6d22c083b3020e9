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

// served gives the sample two hosts' rules: Web answers for bank.example and
// one label below, but for admin.bank.example, which is DB's.
func served(m *policy.Manifest) {
	m.Substrates[0].Roles = append(m.Substrates[0].Roles, policy.RoleIngress)
	m.Ingress = []policy.IngressRule{
		{Name: "bank", Hosts: []string{"bank.example", "*.bank.example"}, Backends: []policy.IngressBackend{
			{Workload: policytest.Web, Mode: policy.ModeHTTP, Ports: []uint16{8080, 8081}},
			{Workload: policytest.DB, Mode: policy.ModeTCP, Ports: []uint16{5432}},
		}},
		{Name: "admin", Hosts: []string{"admin.bank.example"}, Backends: []policy.IngressBackend{
			{Workload: policytest.DB, Mode: policy.ModeHTTP, Ports: []uint16{8080}},
		}},
	}
}

// ingressAgrees: what a rule lists is allowed, and what is allowed is reached.
func ingressAgrees(t *testing.T, m *policy.Manifest) {
	exact := map[string]bool{}
	for _, host := range m.IngressHosts() {
		exact[host] = true
	}
	for i := range m.Ingress {
		rule := &m.Ingress[i]
		for _, host := range rule.Hosts {
			if host = strings.Replace(host, "*", "x", 1); host[0] == 'x' && exact[host] && !slices.Contains(rule.Hosts, host) {
				continue // another rule's
			}
			if got, d := m.IngressHost(host); got != rule || !d.Allowed {
				t.Fatalf("%s of %s has the rule %+v: %v", host, rule.Name, got, d)
			}
			for _, b := range rule.Backends {
				for _, port := range b.Ports {
					if d := m.IngressAllowed(host, b.Workload, b.Mode, port); !d.Allowed {
						t.Fatalf("%s lists %+v for %s: %v", rule.Name, b, host, d)
					}
					if d := m.IngressReaches(b.Workload, port); !d.Allowed {
						t.Fatalf("%s lists %+v: %v", rule.Name, b, d)
					}
				}
			}
		}
	}
}

func TestIngressAllowed(t *testing.T) {
	m := policytest.New(t, policytest.With(served)).Manifest
	const web, db, http, tcp = policytest.Web, policytest.DB, policy.ModeHTTP, policy.ModeTCP
	for _, tt := range []struct {
		host, workload, mode string
		port                 uint16
		code                 policy.Code
	}{
		{"bank.example", web, http, 8080, policy.CodeAllowed},
		{"bank.example", web, http, 8081, policy.CodeAllowed},
		{"www.bank.example", web, http, 8080, policy.CodeAllowed},
		{"bank.example", db, tcp, 5432, policy.CodeAllowed},
		{"admin.bank.example", db, http, 8080, policy.CodeAllowed},
		// An exact name takes its host out of the wildcard altogether.
		{"admin.bank.example", web, http, 8080, policy.CodeIngressWorkload},
		{"admin.bank.example", db, tcp, 5432, policy.CodeIngressMode},
		{"bank.example", db, http, 8080, policy.CodeIngressMode},
		{"bank.example", web, tcp, 8080, policy.CodeIngressMode},
		{"bank.example", web, "", 8080, policy.CodeIngressMode},
		{"bank.example", web, http, 5432, policy.CodeIngressPort},
		{"bank.example", db, tcp, 8080, policy.CodeIngressPort},
		{"bank.example", web, http, 0, policy.CodeIngressPort},
		{"bank.example", "shop", http, 8080, policy.CodeWorkloadUnlisted},
		{"bank.example", "", http, 8080, policy.CodeWorkloadUnlisted},
		// A wildcard stands for exactly one label, and is no name.
		{"a.b.bank.example", web, http, 8080, policy.CodeIngressHost},
		{".bank.example", web, http, 8080, policy.CodeIngressHost},
		{"*.bank.example", web, http, 8080, policy.CodeIngressHost},
		{"A.bank.example", web, http, 8080, policy.CodeIngressHost},
		{"a_b.bank.example", web, http, 8080, policy.CodeIngressHost},
		{"BANK.example", web, http, 8080, policy.CodeIngressHost},
		{"bank.example.", web, http, 8080, policy.CodeIngressHost},
		{"bank.example:443", web, http, 8080, policy.CodeIngressHost},
		{"example", web, http, 8080, policy.CodeIngressHost},
		{"192.0.2.1", web, http, 8080, policy.CodeIngressHost},
		{"evil.example", web, http, 8080, policy.CodeIngressHost},
		{"", web, http, 8080, policy.CodeIngressHost},
	} {
		t.Run(fmt.Sprintf("%s to %s by %s on %d", tt.host, tt.workload, tt.mode, tt.port), func(t *testing.T) {
			wantDecision(t, m.IngressAllowed(tt.host, tt.workload, tt.mode, tt.port), tt.code)
			rule, d := m.IngressHost(tt.host)
			if known := tt.code != policy.CodeIngressHost; d.Allowed != known || (rule != nil) != known {
				t.Errorf("the host's rule is %+v: %v", rule, d)
			}
		})
	}
	if d := m.IngressAllowed("bank.example", web, http, 8080); d.Rule != "ingress[bank].backends[web/http]" {
		t.Errorf("the rule is %s", d.Rule)
	}
	if d := m.IngressAllowed("bank.example", db, http, 1); d.Rule != "ingress[bank].backends" || d.Expected != "db by tcp" || d.Actual != "by http" {
		t.Errorf("explained by %+v", d)
	}
	ingressAgrees(t, m)
}

func TestIngressReachesWhatSomeRuleLists(t *testing.T) {
	m := policytest.New(t, policytest.With(served), policytest.With(func(m *policy.Manifest) {
		m.Workloads = append(m.Workloads, policy.Workload{Name: "inner", Images: []policy.Image{{Name: "i", Digest: policytest.Digest("i")}}})
	})).Manifest
	for _, tt := range []struct {
		workload string
		port     uint16
		code     policy.Code
	}{
		{policytest.Web, 8080, policy.CodeAllowed},
		{policytest.DB, 8080, policy.CodeAllowed},
		{policytest.DB, 5432, policy.CodeAllowed},
		{policytest.DB, policytest.DBPort, policy.CodeIngressPort}, // for its peers only
		{policytest.Web, 0, policy.CodeIngressPort},
		{"inner", 8080, policy.CodeIngressWorkload},
		{"nobody", 8080, policy.CodeWorkloadUnlisted},
	} {
		wantDecision(t, m.IngressReaches(tt.workload, tt.port), tt.code)
	}
}

func TestWithoutRulesAnIngressServesNothing(t *testing.T) {
	m := policytest.New(t).Manifest
	if hosts := m.IngressHosts(); len(hosts) != 0 {
		t.Errorf("hosts %v", hosts)
	}
	wantDecision(t, m.IngressAllowed("bank.example", policytest.Web, policy.ModeHTTP, 8080), policy.CodeIngressHost)
	wantDecision(t, m.IngressReaches(policytest.Web, 8080), policy.CodeIngressWorkload)
	for _, m := range []*policy.Manifest{nil, {Ingress: []policy.IngressRule{{Name: "x", Hosts: []string{"bank.example"}}}}} {
		wantDecision(t, m.IngressAllowed("bank.example", policytest.Web, policy.ModeHTTP, 8080), policy.CodeUndecided)
		wantDecision(t, m.IngressReaches(policytest.Web, 8080), policy.CodeUndecided)
		if rule, d := m.IngressHost("bank.example"); rule != nil || d.Code != policy.CodeUndecided || m.IngressHosts() != nil {
			t.Errorf("a manifest built by hand answers %+v, %v", rule, d)
		}
	}
}

func TestParseRefusesImpossibleIngressRules(t *testing.T) {
	first := func(m *policy.Manifest) *policy.IngressRule { return &m.Ingress[0] }
	backend := func(m *policy.Manifest) *policy.IngressBackend { return &m.Ingress[0].Backends[0] }
	const r0, b0 = "$.ingress[0]", "$.ingress[0].backends[0]"
	host := func(name string) func(m *policy.Manifest) {
		return func(m *policy.Manifest) { first(m).Hosts[0] = name }
	}
	for name, tt := range map[string]struct {
		edit func(m *policy.Manifest)
		code policy.Code
		path string
	}{
		"name":               {func(m *policy.Manifest) { first(m).Name = "No" }, policy.CodeNameInvalid, r0 + ".name"},
		"name twice":         {func(m *policy.Manifest) { first(m).Name = "admin" }, policy.CodeNameDuplicate, "$.ingress[1].name"},
		"no host":            {func(m *policy.Manifest) { first(m).Hosts = nil }, policy.CodeListEmpty, r0 + ".hosts"},
		"upper case":         {host("Bank.example"), policy.CodeNameInvalid, r0 + ".hosts[0]"},
		"final dot":          {host("bank.example."), policy.CodeNameInvalid, r0 + ".hosts[0]"},
		"one label":          {host("bank"), policy.CodeNameInvalid, r0 + ".hosts[0]"},
		"everything":         {host("*"), policy.CodeNameInvalid, r0 + ".hosts[0]"},
		"any":                {host(policy.Any), policy.CodeNameInvalid, r0 + ".hosts[0]"},
		"inner wildcard":     {host("a.*.example"), policy.CodeNameInvalid, r0 + ".hosts[0]"},
		"half a wildcard":    {host("a*.example"), policy.CodeNameInvalid, r0 + ".hosts[0]"},
		"two wildcards":      {host("*.*.example"), policy.CodeNameInvalid, r0 + ".hosts[0]"},
		"underscore":         {host("_tls.example.com"), policy.CodeNameInvalid, r0 + ".hosts[0]"},
		"inner underscore":   {host("a._tls.example"), policy.CodeNameInvalid, r0 + ".hosts[0]"},
		"address":            {host("192.0.2.1"), policy.CodeNameInvalid, r0 + ".hosts[0]"},
		"address and port":   {host("[2001:db8::1]:443"), policy.CodeNameInvalid, r0 + ".hosts[0]"},
		"port":               {host("bank.example:443"), policy.CodeNameInvalid, r0 + ".hosts[0]"},
		"path":               {host("bank.example/x"), policy.CodeNameInvalid, r0 + ".hosts[0]"},
		"not ASCII":          {host("bänk.example"), policy.CodeNameInvalid, r0 + ".hosts[0]"},
		"long label":         {host(strings.Repeat("a", 64) + ".example"), policy.CodeNameInvalid, r0 + ".hosts[0]"},
		"host twice":         {host("*.bank.example"), policy.CodeValueDuplicate, r0 + ".hosts[1]"},
		"host of another":    {host("admin.bank.example"), policy.CodeValueDuplicate, "$.ingress[1].hosts[0]"},
		"too many hosts":     {func(m *policy.Manifest) { first(m).Hosts = numbered(257) }, policy.CodeListTooLong, r0 + ".hosts"},
		"no backend":         {func(m *policy.Manifest) { first(m).Backends = nil }, policy.CodeListEmpty, r0 + ".backends"},
		"unknown workload":   {func(m *policy.Manifest) { backend(m).Workload = "shop" }, policy.CodeIngressBackend, b0 + ".workload"},
		"no workload":        {func(m *policy.Manifest) { backend(m).Workload = "" }, policy.CodeIngressBackend, b0 + ".workload"},
		"the node's network": {func(m *policy.Manifest) { m.Workloads[0].HostNetwork = true }, policy.CodeIngressBackend, b0 + ".workload"},
		"backend twice": {func(m *policy.Manifest) {
			first(m).Backends[1] = *backend(m)
		}, policy.CodeValueDuplicate, "$.ingress[0].backends[1].workload"},
		"mode":       {func(m *policy.Manifest) { backend(m).Mode = "https" }, policy.CodeModeUnknown, b0 + ".mode"},
		"no port":    {func(m *policy.Manifest) { backend(m).Ports = nil }, policy.CodeListEmpty, b0 + ".ports"},
		"port 0":     {func(m *policy.Manifest) { backend(m).Ports[1] = 0 }, policy.CodePortInvalid, b0 + ".ports[1]"},
		"port twice": {func(m *policy.Manifest) { backend(m).Ports[1] = 8080 }, policy.CodeValueDuplicate, b0 + ".ports[1]"},
		"too many ports": {func(m *policy.Manifest) {
			backend(m).Ports = make([]uint16, 257)
		}, policy.CodeListTooLong, b0 + ".ports"},
		"too many backends": {func(m *policy.Manifest) {
			first(m).Backends = slices.Repeat(first(m).Backends, 33)
		}, policy.CodeListTooLong, r0 + ".backends"},
		"too many rules": {func(m *policy.Manifest) { m.Ingress = slices.Repeat(m.Ingress, 129) }, policy.CodeListTooLong, "$.ingress"},
	} {
		t.Run(name, func(t *testing.T) {
			m := policytest.Manifest(policytest.New(t).Operators)
			served(m)
			tt.edit(m)
			_, err := policy.Encode(m)
			wantProblem(t, err, tt.code, tt.path)
		})
	}
	for text, at := range map[string]struct {
		code policy.Code
		path string
	}{
		`[]`:   {policy.CodeListEmpty, "$.ingress"},
		`null`: {policy.CodeNull, "$.ingress"},
		`[{"name": "a", "hosts": ["a.example"], "backends": [{"workload": "web", "mode": "http", "ports": [1], "path": "/"}]}]`: {policy.CodeUnknownField, "$.ingress[0].backends[0].path"},
		`[{"name": "a", "hosts": ["a.example"], "backends": [{"workload": "web", "ports": [1]}]}]`:                              {policy.CodeMissingField, "$.ingress[0].backends[0].mode"},
		`[{"name": "a", "hosts": ["a.example"], "backends": [{"workload": "web", "mode": "http", "ports": [65536]}]}]`:          {policy.CodeWrongType, "$.ingress[0].backends[0].ports[0]"},
	} {
		payload := bytes.Replace(sample(t), []byte(`"version": 1`), []byte(`"version": 1, "ingress": `+text), 1)
		_, err := policy.Parse(payload)
		wantProblem(t, err, at.code, at.path)
	}
}

func numbered(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("n%d.example.com", i)
	}
	return names
}

// Both sides judge by the manifest at every connection.
func TestIngressRulesVoidNoCertificate(t *testing.T) { voidsNoCertificate(t, served) }

func TestDiffSaysWhatIngressRulesWiden(t *testing.T) {
	with := policytest.New(t, policytest.With(served))
	for path, edit := range map[string]func(m *policy.Manifest){
		"ingress[admin]":                      func(m *policy.Manifest) { m.Ingress = m.Ingress[:1] },
		"ingress[bank].hosts[*.bank.example]": func(m *policy.Manifest) { m.Ingress[0].Hosts = m.Ingress[0].Hosts[:1] },
		"ingress[bank].backends[db/tcp]":      func(m *policy.Manifest) { m.Ingress[0].Backends = m.Ingress[0].Backends[:1] },
		"ingress[bank].backends[web/http].ports[8081]": func(m *policy.Manifest) {
			m.Ingress[0].Backends[0].Ports = m.Ingress[0].Backends[0].Ports[:1]
		},
	} {
		next := with.Next(t, edit)
		for effect, changes := range map[policy.Effect][]policy.Change{policy.Narrows: policy.Diff(with.Manifest, next.Manifest), policy.Widens: policy.Diff(next.Manifest, with.Manifest)} {
			i := slices.IndexFunc(changes, func(c policy.Change) bool { return c.Path == path })
			if i < 0 || changes[i].Effect != effect || changes[i].Before == changes[i].After {
				t.Errorf("want %s at %s among %+v", effect, path, changes)
			}
		}
	}
}

func TestAffectedFollowsHostsToTheirNextRule(t *testing.T) {
	with := policytest.New(t, policytest.With(served))
	bank := func(m *policy.Manifest) *policy.IngressRule { return &m.Ingress[0] }
	for name, tt := range map[string]struct {
		edit func(m *policy.Manifest)
		want []string // "path after"
	}{
		"renamed":    {func(m *policy.Manifest) { bank(m).Name = "b" }, nil},
		"reordered":  {func(m *policy.Manifest) { slices.Reverse(m.Ingress) }, nil},
		"widened":    {func(m *policy.Manifest) { bank(m).Hosts = append(bank(m).Hosts, "b.example") }, nil},
		"host gone":  {func(m *policy.Manifest) { bank(m).Hosts = bank(m).Hosts[1:] }, []string{"ingress[bank].hosts[bank.example] "}},
		"rules gone": {func(m *policy.Manifest) { m.Ingress = nil }, []string{"ingress[bank].hosts[bank.example] ", "ingress[bank].hosts[*.bank.example] ", "ingress[admin].hosts[admin.bank.example] "}},
		"exact name gone": {func(m *policy.Manifest) { m.Ingress = m.Ingress[:1] }, []string{
			"ingress[admin].hosts[admin.bank.example].backends[db/http] ingress[bank]", // the wildcard has it now
		}},
		"port gone":    {func(m *policy.Manifest) { bank(m).Backends[0].Ports = []uint16{8080} }, []string{"ingress[bank].backends[web/http] "}},
		"backend gone": {func(m *policy.Manifest) { bank(m).Backends = bank(m).Backends[:1] }, []string{"ingress[bank].backends[db/tcp] "}},
		"taken out of the wildcard": {func(m *policy.Manifest) {
			m.Ingress = append(m.Ingress, policy.IngressRule{Name: "shop", Hosts: []string{"shop.bank.example"}, Backends: bank(m).Backends[1:]})
		}, []string{"ingress[bank].hosts[shop.bank.example].backends[web/http] ingress[shop]"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, i := range policy.Affected(with.Manifest, with.Next(t, tt.edit).Manifest, policytest.Now()) {
				got = append(got, i.Path+" "+i.After)
				if i.Outcome != policy.Stops || i.Before == "" || i.Why == "" {
					t.Errorf("it is not explained: %+v", i)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("stops:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestAllowingAnIngressAllocatesNothing(t *testing.T) {
	m := policytest.New(t, policytest.With(served)).Manifest
	if n := testing.AllocsPerRun(100, func() {
		m.IngressHost("www.bank.example")
		m.IngressAllowed("bank.example", policytest.Web, policy.ModeHTTP, 8081)
		m.IngressReaches(policytest.DB, 5432)
	}); n != 0 {
		t.Errorf("allowing allocates %v times", n)
	}
}

func BenchmarkIngressAllowed(b *testing.B) {
	m := policytest.New(b, policytest.With(served)).Manifest
	b.ReportAllocs()
	for b.Loop() {
		if d := m.IngressAllowed("www.bank.example", policytest.Web, policy.ModeHTTP, 8081); !d.Allowed {
			b.Fatal("refused")
		}
	}
}

// ingressCases are what Lint says of ingresses.
func ingressCases() []lintCase {
	rule := func(hosts ...string) func(m *policy.Manifest) {
		return func(m *policy.Manifest) {
			served(m)
			m.Ingress = m.Ingress[1:]
			m.Ingress[0].Hosts = hosts
		}
	}
	const reaches, admin = "ingress-reaches ingress[admin].backends[db/http] info", "ingress[admin].hosts"
	return []lintCase{
		{"ingress", rule("bank.example"), []string{reaches}},
		{"wildcard host", rule("*.bank.example"), []string{"wildcard-host " + admin + "[*.bank.example] info", reaches}},
		{"public suffix as host", rule("*.com"), []string{"wildcard-host " + admin + "[*.com] info", "wide-name " + admin + "[*.com] warning", reaches}},
		{"nobody to serve", func(m *policy.Manifest) {
			roles := m.Substrates[0].Roles
			rule("bank.example")(m)
			m.Substrates[0].Roles = roles
		}, []string{"no-ingress-substrate ingress warning", reaches}},
		{"nothing to serve", func(m *policy.Manifest) { served(m); m.Ingress = nil }, []string{"no-ingress-rule substrates[sim-milan].roles info"}},
		{"reached by an ingress alone", func(m *policy.Manifest) {
			rule("bank.example")(m)
			m.Workloads[0].Peers.To, m.Workloads[1].Peers.From = nil, nil
		}, []string{reaches}},
		{"the CDS's image on an ingress", func(m *policy.Manifest) {
			rule("bank.example")(m)
			m.Substrates[0].Roles = []policy.Role{policy.RoleIngress, policy.RoleCDS}
		}, []string{"shared-measurement substrates[sim-milan].measurements[" + policytest.Hex(0xaa, 48) + "] warning", reaches}},
	}
}
