// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// signerOf makes a publisher's key.
func signerOf(t testing.TB, name string) policy.Signer {
	t.Helper()
	o, _ := policytest.Operators(t, 1, 1)
	s := policy.Signer(o.Keys[0])
	s.Name = name
	return s
}

// fixedSigner is the key whose seed is 32 bytes of b.
func fixedSigner(t testing.TB, name string, b byte) policy.Signer {
	t.Helper()
	key, err := policy.NewOperatorKey(name, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize)).Public())
	if err != nil {
		t.Fatal(err)
	}
	return policy.Signer(key)
}

// full edits the sample so that it has every optional field of what may run.
func full(t testing.TB, m *policy.Manifest) {
	strict := `a "b" <c> & é`
	m.Signers = []policy.Signer{signerOf(t, "alice"), signerOf(t, "bob")}
	m.Sandboxes, m.Unlisted = []policy.Image{{Name: "pause", Digest: policytest.Digest("pause")}}, policy.UnlistedCut
	w := &m.Workloads[0]
	w.Probes, w.HostNetwork, w.Bootstrap = []uint16{8080, 1}, true, true
	w.Exec = []policy.Exec{{Args: []string{"/probe", ""}}, {Args: []string{"/bin/sh"}, TTY: true}}
	w.Images[0].Run = &policy.Run{
		Args: []string{"/web", "--n", ""}, Env: []policy.EnvRule{{Name: "MODE", Value: &strict}, {Name: "B", Any: true}}, ServiceEnv: true,
		Cwd: "/srv", User: "7:8", Groups: []uint32{30, 4},
		Mounts:  []policy.MountRule{{Destination: "/tmp", Source: policy.MountMemory}, {Destination: "/host", Source: "/etc/x", ReadOnly: true}},
		Devices: []string{"/dev/kvm"}, Capabilities: []string{"NET_ADMIN", "BPF"}, Privileged: true, HostNamespaces: []string{"pid"},
		Sockets: []string{"vsock", "raw"}, Rlimits: []string{"RLIMIT_NOFILE"}, Sysctls: []string{"net.core.somaxconn"}, Stdin: true,
	}
	w.Images = append(w.Images,
		policy.Image{Name: "web", Digest: w.Images[0].Digest},
		policy.Image{Name: "any", Signers: []string{"bob", "alice"}, Repository: "registry.example:5000/team/app"})
}

func TestOptionalFieldsSurviveAndAreStrict(t *testing.T) {
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) { full(t, m) }))
	again, err := policy.Encode(f.Manifest)
	if err != nil || !bytes.Equal(again, f.Payload) {
		t.Fatalf("encoding again: %v\n%s", err, again)
	}
	var doc any
	if err := json.Unmarshal(f.Payload, &doc); err != nil {
		t.Fatal(err)
	}
	refused := func(code policy.Code, path string) {
		t.Helper()
		text, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		_, err = policy.Parse(text)
		wantProblem(t, err, code, path)
	}
	optional := 0
	var walk func(v any, path string)
	walk = func(v any, path string) {
		switch v := v.(type) {
		case []any:
			for i, e := range v {
				walk(e, fmt.Sprintf("%s[%d]", path, i))
			}
		case map[string]any:
			for key, value := range v {
				at := path + "." + key
				v[key] = nil
				refused(policy.CodeNull, at)
				v[strings.ToUpper(key)], v[key] = value, value
				refused(policy.CodeUnknownField, path+"."+strings.ToUpper(key))
				delete(v, strings.ToUpper(key))
				if list, ok := value.([]any); ok && slices.Contains([]string{"probes", "exec", "env", "mounts", "groups", "devices", "capabilities", "hostNamespaces", "sockets", "rlimits", "sysctls", "args", "signers", "sandboxes"}, key) {
					optional++
					v[key] = []any{}
					refused(policy.CodeListEmpty, at)
					v[key] = append([]any{nil}, list...)
					refused(policy.CodeNull, at+"[0]")
				}
				v[key] = value
				walk(value, at)
			}
		}
	}
	walk(doc, "$")
	if optional < 15 {
		t.Errorf("only %d optional lists were tried", optional)
	}
}

func TestParseRefusesImpossibleRuns(t *testing.T) {
	const image = "$.workloads[0].images[0]"
	run := func(m *policy.Manifest) *policy.Run { return m.Workloads[0].Images[0].Run }
	tests := map[string]struct {
		edit func(m *policy.Manifest)
		code policy.Code
		path string
	}{
		"digest and signers":      {func(m *policy.Manifest) { m.Workloads[0].Images[0].Signers = []string{"alice"} }, policy.CodeImageRuleInvalid, image},
		"neither":                 {func(m *policy.Manifest) { m.Workloads[0].Images[0].Digest = "" }, policy.CodeMissingField, image + ".digest"},
		"repository of a digest":  {func(m *policy.Manifest) { m.Workloads[0].Images[0].Repository = "a/b" }, policy.CodeImageRuleInvalid, image + ".repository"},
		"repository with a tag":   {func(m *policy.Manifest) { m.Workloads[0].Images[2].Repository = "example.org/app:1" }, policy.CodeNameInvalid, "$.workloads[0].images[2].repository"},
		"repository without host": {func(m *policy.Manifest) { m.Workloads[0].Images[2].Repository = "app" }, policy.CodeNameInvalid, "$.workloads[0].images[2].repository"},
		"unknown signer":          {func(m *policy.Manifest) { m.Workloads[0].Images[2].Signers[0] = "carol" }, policy.CodeSignerUnknown, "$.workloads[0].images[2].signers[0]"},
		"signer twice":            {func(m *policy.Manifest) { m.Workloads[0].Images[2].Signers[0] = "alice" }, policy.CodeValueDuplicate, "$.workloads[0].images[2].signers[1]"},
		"rule twice":              {func(m *policy.Manifest) { m.Workloads[0].Images[0].Run = nil }, policy.CodeValueDuplicate, "$.workloads[0].images[1].digest"},
		"rule twice, empty run":   {func(m *policy.Manifest) { m.Workloads[0].Images[0].Run = &policy.Run{} }, policy.CodeValueDuplicate, "$.workloads[0].images[1].digest"},
		"signed rule twice": {func(m *policy.Manifest) {
			m.Workloads[0].Images = append(m.Workloads[0].Images, m.Workloads[0].Images[2])
		}, policy.CodeValueDuplicate, "$.workloads[0].images[3].signers"},
		"signer's name twice":    {func(m *policy.Manifest) { m.Signers[1].Name = "alice" }, policy.CodeNameDuplicate, "$.signers[1].name"},
		"signer's key twice":     {func(m *policy.Manifest) { m.Signers[1].PublicKey = m.Signers[0].PublicKey }, policy.CodeValueDuplicate, "$.signers[1].publicKey"},
		"signer's key":           {func(m *policy.Manifest) { m.Signers[0].PublicKey = "AAAA" }, policy.CodeSignerKeyInvalid, "$.signers[0].publicKey"},
		"sandbox by signer":      {func(m *policy.Manifest) { m.Sandboxes[0] = policy.Image{Name: "p", Signers: []string{"alice"}} }, policy.CodeImageRuleInvalid, "$.sandboxes[0]"},
		"sandbox with a run":     {func(m *policy.Manifest) { m.Sandboxes[0].Run = &policy.Run{Stdin: true} }, policy.CodeImageRuleInvalid, "$.sandboxes[0]"},
		"sandbox's digest":       {func(m *policy.Manifest) { m.Sandboxes[0].Digest = "pause" }, policy.CodeDigestInvalid, "$.sandboxes[0].digest"},
		"unlisted":               {func(m *policy.Manifest) { m.Unlisted = "keep" }, policy.CodeUnlistedUnknown, "$.unlisted"},
		"bootstrap in the mesh":  {func(m *policy.Manifest) { m.Workloads[0].HostNetwork = false }, policy.CodeBootstrapInvalid, "$.workloads[0].bootstrap"},
		"probe of port zero":     {func(m *policy.Manifest) { m.Workloads[0].Probes[1] = 0 }, policy.CodePortInvalid, "$.workloads[0].probes[1]"},
		"exec without a program": {func(m *policy.Manifest) { m.Workloads[0].Exec[0].Args = []string{""} }, policy.CodeTextInvalid, "$.workloads[0].exec[0].args[0]"},
		"exec of nothing":        {func(m *policy.Manifest) { m.Workloads[0].Exec[0].Args = []string{} }, policy.CodeListEmpty, "$.workloads[0].exec[0].args"},
		"exec twice":             {func(m *policy.Manifest) { m.Workloads[0].Exec[1].Args = m.Workloads[0].Exec[0].Args }, policy.CodeValueDuplicate, "$.workloads[0].exec[1].args"},
		"NUL in args":            {func(m *policy.Manifest) { run(m).Args[1] = "a\x00b" }, policy.CodeTextInvalid, image + ".run.args[1]"},
		"line separator":         {func(m *policy.Manifest) { run(m).Args[1] = "a\u2028b" }, policy.CodeTextInvalid, image + ".run.args[1]"},
		"env without a word":     {func(m *policy.Manifest) { run(m).Env[1].Any = false }, policy.CodeEnvRuleInvalid, image + ".run.env[1]"},
		"env with both":          {func(m *policy.Manifest) { run(m).Env[0].Any = true }, policy.CodeEnvRuleInvalid, image + ".run.env[0]"},
		"env twice":              {func(m *policy.Manifest) { run(m).Env[1].Name = "MODE" }, policy.CodeNameDuplicate, image + ".run.env[1].name"},
		"env's name":             {func(m *policy.Manifest) { run(m).Env[1].Name = "A=B" }, policy.CodeNameInvalid, image + ".run.env[1].name"},
		"relative cwd":           {func(m *policy.Manifest) { run(m).Cwd = "srv" }, policy.CodePathInvalid, image + ".run.cwd"},
		"cwd with a way up":      {func(m *policy.Manifest) { run(m).Cwd = "/srv/../etc" }, policy.CodePathInvalid, image + ".run.cwd"},
		"user by name":           {func(m *policy.Manifest) { run(m).User = "nginx" }, policy.CodeUserInvalid, image + ".run.user"},
		"user with zeros":        {func(m *policy.Manifest) { run(m).User = "007" }, policy.CodeUserInvalid, image + ".run.user"},
		"user above 32 bits":     {func(m *policy.Manifest) { run(m).User = "1:4294967296" }, policy.CodeUserInvalid, image + ".run.user"},
		"user with a sign":       {func(m *policy.Manifest) { run(m).User = "+1" }, policy.CodeUserInvalid, image + ".run.user"},
		"group twice":            {func(m *policy.Manifest) { run(m).Groups = []uint32{4, 4} }, policy.CodeValueDuplicate, image + ".run.groups[1]"},
		"mount on the root":      {func(m *policy.Manifest) { run(m).Mounts[0].Destination = "/" }, policy.CodePathInvalid, image + ".run.mounts[0].destination"},
		"mount with a slash":     {func(m *policy.Manifest) { run(m).Mounts[0].Destination = "/tmp/" }, policy.CodePathInvalid, image + ".run.mounts[0].destination"},
		"mount twice":            {func(m *policy.Manifest) { run(m).Mounts[0].Destination = "/host" }, policy.CodeValueDuplicate, image + ".run.mounts[1].destination"},
		"mount's kind":           {func(m *policy.Manifest) { run(m).Mounts[0].Source = "hostPath" }, policy.CodeMountSourceUnknown, image + ".run.mounts[0].source"},
		"mount of the runtime":   {func(m *policy.Manifest) { run(m).Mounts[0].Source = "runtime" }, policy.CodeMountSourceUnknown, image + ".run.mounts[0].source"},
		"node's path not clean":  {func(m *policy.Manifest) { run(m).Mounts[1].Source = "/etc//x" }, policy.CodeMountSourceUnknown, image + ".run.mounts[1].source"},
		"device":                 {func(m *policy.Manifest) { run(m).Devices[0] = "kvm" }, policy.CodePathInvalid, image + ".run.devices[0]"},
		"capability":             {func(m *policy.Manifest) { run(m).Capabilities[0] = "CAP_NET_ADMIN" }, policy.CodeCapabilityUnknown, image + ".run.capabilities[0]"},
		"every capability":       {func(m *policy.Manifest) { run(m).Capabilities[0] = "ALL" }, policy.CodeCapabilityUnknown, image + ".run.capabilities[0]"},
		"network namespace":      {func(m *policy.Manifest) { run(m).HostNamespaces[0] = "network" }, policy.CodeNamespaceUnknown, image + ".run.hostNamespaces[0]"},
		"socket":                 {func(m *policy.Manifest) { run(m).Sockets[0] = "tcp" }, policy.CodeSocketUnknown, image + ".run.sockets[0]"},
		"rlimit":                 {func(m *policy.Manifest) { run(m).Rlimits[0] = "NOFILE" }, policy.CodeRlimitUnknown, image + ".run.rlimits[0]"},
		"sysctl":                 {func(m *policy.Manifest) { run(m).Sysctls[0] = "net/core=1" }, policy.CodeNameInvalid, image + ".run.sysctls[0]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := policytest.Manifest(policytest.New(t).Operators)
			full(t, m)
			tt.edit(m)
			_, err := policy.Encode(m)
			wantProblem(t, err, tt.code, tt.path)
		})
	}
}

func TestWorkloadDigestCoversHowItMayRun(t *testing.T) {
	parsed := func(edit func(m *policy.Manifest)) policy.Digest {
		m := policytest.Manifest(policytest.New(t).Operators)
		full(t, m)
		m.Signers = nil
		for seed := range byte(2) {
			m.Signers = append(m.Signers, fixedSigner(t, []string{"alice", "bob"}[seed], seed+1))
		}
		if edit != nil {
			edit(m)
		}
		text, err := policy.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		if m, err = policy.Parse(text); err != nil {
			t.Fatal(err)
		}
		return m.Workloads[0].Digest()
	}
	run := func(m *policy.Manifest) *policy.Run { return m.Workloads[0].Images[0].Run }
	other := "x"
	tests := map[string]struct {
		edit func(m *policy.Manifest)
		same bool
	}{
		"peers":          {func(m *policy.Manifest) { m.Workloads[0].Peers.To = nil }, true},
		"probes":         {func(m *policy.Manifest) { m.Workloads[0].Probes = nil }, true},
		"names":          {func(m *policy.Manifest) { m.Workloads[0].Images[0].Name = "x" }, true},
		"order of rules": {func(m *policy.Manifest) { slices.Reverse(m.Workloads[0].Images) }, true},
		"order of lists": {func(m *policy.Manifest) {
			slices.Reverse(run(m).Mounts)
			slices.Reverse(run(m).Groups)
			slices.Reverse(run(m).Env)
		}, true},
		"order of words":      {func(m *policy.Manifest) { slices.Reverse(run(m).Capabilities); slices.Reverse(run(m).Sockets) }, true},
		"order of exec":       {func(m *policy.Manifest) { slices.Reverse(m.Workloads[0].Exec) }, true},
		"signers' order":      {func(m *policy.Manifest) { slices.Reverse(m.Workloads[0].Images[2].Signers) }, true},
		"signers' names":      {func(m *policy.Manifest) { m.Signers[0].Name, m.Workloads[0].Images[2].Signers[1] = "carol", "carol" }, true},
		"signer's key":        {func(m *policy.Manifest) { m.Signers[0] = signerOf(t, "alice") }, false},
		"signer less":         {func(m *policy.Manifest) { m.Workloads[0].Images[2].Signers = []string{"bob"} }, false},
		"repository":          {func(m *policy.Manifest) { m.Workloads[0].Images[2].Repository = "" }, false},
		"node's network":      {func(m *policy.Manifest) { m.Workloads[0].HostNetwork, m.Workloads[0].Bootstrap = false, false }, false},
		"exec":                {func(m *policy.Manifest) { m.Workloads[0].Exec[0].TTY = true }, false},
		"rule less":           {func(m *policy.Manifest) { m.Workloads[0].Images = m.Workloads[0].Images[:2] }, false},
		"order of args":       {func(m *policy.Manifest) { slices.Reverse(run(m).Args[1:]) }, false},
		"value":               {func(m *policy.Manifest) { run(m).Env[0].Value = &other }, false},
		"empty value":         {func(m *policy.Manifest) { run(m).Env[0].Value = new(string) }, false},
		"any value":           {func(m *policy.Manifest) { run(m).Env[0] = policy.EnvRule{Name: "MODE", Any: true} }, false},
		"service environment": {func(m *policy.Manifest) { run(m).ServiceEnv = false }, false},
		"cwd":                 {func(m *policy.Manifest) { run(m).Cwd = "" }, false},
		"user":                {func(m *policy.Manifest) { run(m).User = "7" }, false},
		"groups":              {func(m *policy.Manifest) { run(m).Groups = nil }, false},
		"read-only":           {func(m *policy.Manifest) { run(m).Mounts[1].ReadOnly = false }, false},
		"required":            {func(m *policy.Manifest) { run(m).Mounts[1].Required = true }, false},
		"devices":             {func(m *policy.Manifest) { run(m).Devices = nil }, false},
		"capabilities":        {func(m *policy.Manifest) { run(m).Capabilities = nil }, false},
		"privileged":          {func(m *policy.Manifest) { run(m).Privileged = false }, false},
		"namespaces":          {func(m *policy.Manifest) { run(m).HostNamespaces = nil }, false},
		"sockets":             {func(m *policy.Manifest) { run(m).Sockets = run(m).Sockets[:1] }, false},
		"rlimits":             {func(m *policy.Manifest) { run(m).Rlimits = nil }, false},
		"sysctls":             {func(m *policy.Manifest) { run(m).Sysctls = nil }, false},
		"stdin":               {func(m *policy.Manifest) { run(m).Stdin = false }, false},
	}
	want := parsed(nil)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := parsed(tt.edit); (got == want) != tt.same {
				t.Errorf("same digest = %t, want %t", got == want, tt.same)
			}
		})
	}
	const vector = "sha256:ba7d4a01093bbe035c7824d388e13c9b0968b06ad18e03fbcfed1cb6ff2a97b8"
	if want != vector {
		t.Errorf("digest = %s, want %s: certificates in the field carry it", want, vector)
	}
}
