// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// bindings is a manifest with entries that are alike.
func bindings(t *testing.T) *policy.Manifest {
	alice, bob := fixedSigner(t, "alice", 1), fixedSigner(t, "bob", 2)
	image := func(name string, args ...string) policy.Image {
		i := policy.Image{Name: name, Digest: policytest.Digest(name)}
		if len(args) > 0 {
			i.Run = &policy.Run{Args: args}
		}
		return i
	}
	return policytest.New(t, policytest.With(func(m *policy.Manifest) {
		m.Signers = []policy.Signer{alice, bob}
		m.Sandboxes = []policy.Image{image("pause"), image("pause2")}
		m.Workloads = append(m.Workloads,
			policy.Workload{Name: "tool-a", Images: []policy.Image{image("tool", "/tool", "a"), image("tool", "/tool", "b"), image("side")}},
			policy.Workload{Name: "tool-c", Images: []policy.Image{image("tool", "/tool", "c"), image("side")}},
			policy.Workload{Name: "here", Images: []policy.Image{image("twin")}, Namespaces: []string{"here"}},
			policy.Workload{Name: "there", Images: []policy.Image{image("twin")}, Namespaces: []string{"there", "both"}},
			policy.Workload{Name: "cni", Images: []policy.Image{image("cni")}, HostNetwork: true, Bootstrap: true},
			policy.Workload{Name: "signed", Images: []policy.Image{{Name: "app", Signers: []string{"alice"}, Repository: "example.org/app"}}},
			policy.Workload{Name: "anything", Images: []policy.Image{{Name: "any", Signers: []string{"bob"}}}},
		)
	})).Manifest
}

func keyID(t *testing.T, b byte) policy.Digest {
	t.Helper()
	id, err := fixedSigner(t, "x", b).ID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestBindFindsTheOneEntryOfAPod(t *testing.T) {
	m := bindings(t)
	args := func(list ...string) func(c *facts) { return func(c *facts) { c.Args = list } }
	onHost := func(c *facts) { c.HostNamespaces = []string{"network", "uts"} }
	signed := func(key byte, repository string) func(c *facts) {
		return func(c *facts) {
			c.Image.Signatures = []policy.SignatureFacts{{Signer: keyID(t, key), Repository: repository, ManifestDigest: policytest.Digest("m")}}
		}
	}
	for name, c := range map[string]struct {
		image, namespace, entry string
		edit                    func(c *facts)
		code                    policy.Code
		rule                    string
	}{
		"by image":                         {image: "web", code: policy.CodeAllowed, rule: "workloads[web].images[0]"},
		"by command line":                  {image: "tool", edit: args("/tool", "c"), code: policy.CodeAllowed, rule: "workloads[tool-c].images[0]"},
		"by the second rule":               {image: "tool", edit: args("/tool", "b"), code: policy.CodeAllowed, rule: "workloads[tool-a].images[1]"},
		"named":                            {image: "side", entry: "tool-c", code: policy.CodeAllowed, rule: "workloads[tool-c].images[1]"},
		"by namespace":                     {image: "twin", namespace: "both", code: policy.CodeAllowed, rule: "workloads[there].images[0]"},
		"in the node's network":            {image: "cni", edit: onHost, code: policy.CodeAllowed, rule: "workloads[cni].images[0]"},
		"signed":                           {image: "app", edit: signed(1, "example.org/app"), code: policy.CodeAllowed, rule: "workloads[signed].images[0]"},
		"signed as anything":               {image: "app", edit: signed(2, "example.org/x"), code: policy.CodeAllowed, rule: "workloads[anything].images[0]"},
		"unlisted":                         {image: "miner", code: policy.CodeImageUnlisted, rule: "workloads"},
		"unlisted there":                   {image: "web", entry: "db", code: policy.CodeImageUnlisted, rule: "workloads[db].images"},
		"nobody":                           {image: "web", entry: "nobody", code: policy.CodeWorkloadUnlisted, rule: "workloads[nobody]"},
		"ambiguous":                        {image: "side", code: policy.CodeWorkloadAmbiguous, rule: "workloads"},
		"no such command line":             {image: "tool", edit: args("/tool", "d"), code: policy.CodeArgsNotAllowed, rule: "workloads[tool-a].images[0].run.args"},
		"named, another's command line":    {image: "tool", entry: "tool-c", edit: args("/tool", "a"), code: policy.CodeArgsNotAllowed, rule: "workloads[tool-c].images[0].run.args"},
		"the nearest rule explains":        {image: "tool", edit: func(c *facts) { c.Args, c.Hooks = []string{"/tool", "b"}, 1 }, code: policy.CodeHookNotAllowed, rule: "workloads[tool-a].images[1].run"},
		"elsewhere":                        {image: "twin", namespace: "default", code: policy.CodeNamespaceNotAllowed, rule: "workloads[here].namespaces"},
		"not in the node's network":        {image: "cni", code: policy.CodeHostNetwork, rule: "workloads[cni].hostNetwork"},
		"the mesh's in the node's":         {image: "web", edit: onHost, code: policy.CodeHostNetwork, rule: "workloads[web].hostNetwork"},
		"signed as something else":         {image: "app", edit: signed(1, "example.org/other"), code: policy.CodeImageUnlisted, rule: "workloads"},
		"signed by an unknown key":         {image: "app", edit: signed(3, "example.org/app"), code: policy.CodeImageUnlisted, rule: "workloads"},
		"signed by no key":                 {image: "app", edit: func(c *facts) { c.Image.Signatures = []policy.SignatureFacts{{Repository: "example.org/app"}} }, code: policy.CodeImageUnlisted, rule: "workloads"},
		"a repository proves nothing":      {image: "app", edit: func(c *facts) { c.Image.Repositories = []string{"example.org/app"} }, code: policy.CodeImageUnlisted, rule: "workloads"},
		"no image":                         {image: "", edit: func(c *facts) { c.Image.Digest = "" }, code: policy.CodeImageUnlisted, rule: "workloads"},
		"the node's host name by itself":   {image: "web", edit: func(c *facts) { c.HostNamespaces = []string{"uts"} }, code: policy.CodeHostNamespace, rule: "workloads[web].images[0].run.hostNamespaces"},
		"its processes from the network's": {image: "cni", edit: func(c *facts) { c.HostNamespaces = []string{"network", "pid"} }, code: policy.CodeHostNamespace, rule: "workloads[cni].images[0].run.hostNamespaces"},
	} {
		t.Run(name, func(t *testing.T) {
			f := policytest.Container(c.image)
			if c.edit != nil {
				c.edit(&f)
			}
			w, image, d := m.Bind(policy.PodFacts{Namespace: c.namespace, Entry: c.entry}, f)
			wantDecision(t, d, c.code)
			if d.Rule != c.rule && !strings.HasPrefix(c.rule, "workloads[nobody]") {
				t.Errorf("rule %q, want %q", d.Rule, c.rule)
			}
			if (w != nil) != d.Allowed || (image != nil) != d.Allowed || w != nil && !strings.HasPrefix(d.Rule, "workloads["+w.Name+"]") {
				t.Errorf("bound to %+v by %+v", w, image)
			}
		})
	}
}

func TestLaterContainersMustBelongToThePodsEntry(t *testing.T) {
	m := bindings(t)
	pod := policy.PodFacts{Namespace: "x"}
	first := policytest.Container("tool")
	first.Args = []string{"/tool", "a"}
	w, _, d := m.Bind(pod, first)
	wantDecision(t, d, policy.CodeAllowed)
	_, d = m.AdmitContainer(w, pod, policytest.Container("side"))
	wantDecision(t, d, policy.CodeAllowed)
	_, d = m.AdmitContainer(w, pod, policytest.Container("web"))
	wantDecision(t, d, policy.CodeImageUnlisted)
	first.Args[1] = "c"
	_, d = m.AdmitContainer(w, pod, first)
	wantDecision(t, d, policy.CodeArgsNotAllowed)

	// The manifest in force decides, whichever the pod was bound by.
	gone := policytest.New(t).Manifest
	_, d = gone.AdmitContainer(w, pod, first)
	wantDecision(t, d, policy.CodeWorkloadUnlisted)
	for _, m := range []*policy.Manifest{nil, {}, {Workloads: m.Workloads, Sandboxes: m.Sandboxes}} {
		_, d := m.AdmitContainer(w, pod, first)
		wantDecision(t, d, policy.CodeUndecided)
		_, _, d = m.Bind(pod, first)
		wantDecision(t, d, policy.CodeUndecided)
		wantDecision(t, m.AdmitSandbox(policytest.Digest("pause")), policy.CodeUndecided)
	}
	_, d = m.AdmitContainer(nil, pod, first)
	wantDecision(t, d, policy.CodeUndecided)
}

func TestSandboxes(t *testing.T) {
	m := bindings(t)
	wantDecision(t, m.AdmitSandbox(policytest.Digest("pause2")), policy.CodeAllowed)
	wantDecision(t, m.AdmitSandbox(policytest.Digest("web")), policy.CodeSandboxUnlisted)
	wantDecision(t, m.AdmitSandbox(""), policy.CodeSandboxUnlisted)
	wantDecision(t, policytest.New(t).Manifest.AdmitSandbox(policytest.Digest("pause")), policy.CodeSandboxUnlisted)
}

func TestAddedProcesses(t *testing.T) {
	w := func(exec ...policy.Exec) *policy.Workload { return &policy.Workload{Name: "web", Exec: exec} }
	probe, shell := policy.Exec{Args: []string{"/probe", "-q"}}, policy.Exec{Args: []string{"/bin/sh"}, TTY: true}
	anything := policy.Exec{Args: []string{policy.Any}}
	run := func(args ...string) policy.ExecFacts { return policy.ExecFacts{Args: args} }
	terminal := func(e policy.ExecFacts) policy.ExecFacts { e.Terminal = true; return e }
	other := run("/probe", "-q")
	other.Differs = []string{"capabilities"}
	for name, c := range map[string]struct {
		w    *policy.Workload
		e    policy.ExecFacts
		code policy.Code
	}{
		"listed":                  {w(shell, probe), run("/probe", "-q"), policy.CodeAllowed},
		"with a terminal":         {w(shell), terminal(run("/bin/sh")), policy.CodeAllowed},
		"without one":             {w(shell), run("/bin/sh"), policy.CodeAllowed},
		"any":                     {w(anything), run("/bin/sh", "-c", "x"), policy.CodeAllowed},
		"any with a terminal":     {w(probe, policy.Exec{Args: []string{policy.Any}, TTY: true}), terminal(run("/probe", "-q")), policy.CodeAllowed},
		"none is":                 {w(), run("/probe", "-q"), policy.CodeExecNotAllowed},
		"another":                 {w(probe), run("/probe"), policy.CodeExecNotAllowed},
		"more arguments":          {w(probe), run("/probe", "-q", "x"), policy.CodeExecNotAllowed},
		"any among others":        {w(policy.Exec{Args: []string{"any", "x"}}), run("y", "x"), policy.CodeExecNotAllowed},
		"nothing":                 {w(anything), run(), policy.CodeExecNotAllowed},
		"a terminal":              {w(probe), terminal(run("/probe", "-q")), policy.CodeExecTerminal},
		"any, a terminal":         {w(anything), terminal(run("/bin/sh")), policy.CodeExecTerminal},
		"more than its container": {w(probe), other, policy.CodeExecNotAllowed},
		"no entry":                {nil, run("/probe"), policy.CodeUndecided},
		"an empty entry":          {&policy.Workload{}, run("/probe"), policy.CodeUndecided},
	} {
		t.Run(name, func(t *testing.T) { wantDecision(t, c.w.AdmitExec(c.e), c.code) })
	}
}

// The CDS sees digests and what the node says of signatures.
func TestAdmitCountsSignaturesByKey(t *testing.T) {
	m := bindings(t)
	app := policytest.Digest("app")
	for name, c := range map[string]struct {
		signed []policy.SignedImage
		entry  string
		code   policy.Code
	}{
		"signed":        {[]policy.SignedImage{{Digest: app, Signer: keyID(t, 1)}}, "signed", policy.CodeAllowed},
		"not named":     {[]policy.SignedImage{{Digest: app, Signer: keyID(t, 1)}}, "", policy.CodeAllowed},
		"another key":   {[]policy.SignedImage{{Digest: app, Signer: keyID(t, 2)}}, "signed", policy.CodeImageUnlisted},
		"unknown key":   {[]policy.SignedImage{{Digest: app, Signer: keyID(t, 3)}}, "", policy.CodeImageUnlisted},
		"another image": {[]policy.SignedImage{{Digest: policytest.Digest("x"), Signer: keyID(t, 1)}}, "signed", policy.CodeImageUnlisted},
		"no key":        {[]policy.SignedImage{{Digest: app}}, "signed", policy.CodeImageUnlisted},
		"nothing":       {nil, "signed", policy.CodeImageUnlisted},
	} {
		t.Run(name, func(t *testing.T) {
			_, d := m.Admit(policy.PodFacts{Images: []policy.Digest{app}, Signed: c.signed, Entry: c.entry})
			wantDecision(t, d, c.code)
		})
	}
	for _, entry := range []string{"cni", ""} {
		w, d := m.Admit(policy.PodFacts{Images: []policy.Digest{policytest.Digest("cni")}, Entry: entry})
		wantDecision(t, d, policy.CodeHostNetwork)
		if w != nil {
			t.Error("a pod in the node's network gets an identity")
		}
	}
}

func TestServiceVariablesHaveExactShapes(t *testing.T) {
	m := webRun(t, &policy.Run{ServiceEnv: true})
	admits := func(v string) bool {
		c := policytest.Container(policytest.Web)
		c.Env = append(c.Env, v)
		_, _, d := m.Bind(policy.PodFacts{}, c)
		return d.Allowed
	}
	for _, v := range []string{
		"DB_SERVICE_HOST=10.0.0.1", "DB_SERVICE_HOST=fd00::1", "DB_SERVICE_PORT=80", "DB_SERVICE_PORT_HTTP_ALT=80", "MY_DB_PORT=tcp://10.0.0.1:80",
		"DB_PORT=udp://[fd00::1]:53", "DB_PORT_80_TCP=tcp://10.0.0.1:80", "DB_PORT_53_UDP=udp://10.0.0.1:53", "DB_PORT_80_TCP_PROTO=tcp",
		"DB_PORT_80_TCP_PORT=80", "DB_PORT_80_TCP_ADDR=10.0.0.1", "DB_PORT_9_SCTP_PROTO=sctp", "A_PORT_B_PORT_80_TCP_PORT=80", "PORT_SERVICE_HOST=10.0.0.1",
	} {
		if !admits(v) {
			t.Errorf("%s is refused", v)
		}
	}
	for _, v := range []string{
		"DB_SERVICE_HOST=db", "DB_SERVICE_HOST=", "DB_SERVICE_HOST=10.0.0.01", "DB_SERVICE_HOST=fe80::1%eth0", "DB_SERVICE_HOST=FD00::1", "db_SERVICE_HOST=10.0.0.1",
		"_SERVICE_HOST=10.0.0.1", "-_SERVICE_HOST=10.0.0.1", "D-B_SERVICE_HOST=10.0.0.1", "DB_SERVICE_PORT=0", "DB_SERVICE_PORT=080", "DB_SERVICE_PORT=65536", "DB_SERVICE_PORT=80 ",
		"DB_SERVICE_PORT_=80", "DB_SERVICE_PORTS=80", "DB_PORT=80", "DB_PORT=http://10.0.0.1:80", "DB_PORT=tcp://10.0.0.1", "DB_PORT=tcp://10.0.0.1:80/x", "DB_PORT=tcp://10.0.0.1:080",
		"DB_PORT_80_TCP=tcp://10.0.0.1:81", "DB_PORT_80_TCP=udp://10.0.0.1:80", "DB_PORT_80_TCP_PROTO=udp", "DB_PORT_80_TCP_PORT=81", "DB_PORT_80_TCP_ADDR=x", "DB_PORT_80_TCP_HOST=10.0.0.1",
		"DB_PORT_X_TCP=tcp://10.0.0.1:80", "_PORT_80_TCP=tcp://10.0.0.1:80", "SERVICE_HOST=10.0.0.1", "PORT=80", "_PORT=tcp://10.0.0.1:80", "DB_PORT_80_TCP_ADDR=10.0.0.1\n",
	} {
		if admits(v) {
			t.Errorf("%s is admitted", v)
		}
	}
	// Never one that the image sets.
	c := policytest.Container(policytest.Web)
	c.Image.Config.Env = append(c.Image.Config.Env, "DB_SERVICE_HOST=10.0.0.1")
	c.Env = append(slices.Clone(c.Env), "DB_SERVICE_HOST=10.0.0.2")
	if _, _, d := m.Bind(policy.PodFacts{}, c); d.Allowed {
		t.Error("a service's variable replaces the image's")
	}
}
