// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/c8s-dev/c8s/nri/facts"
	"github.com/c8s-dev/c8s/nri/image"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestAListedPodStartsAndIsAnnounced(t *testing.T) {
	w := newWorld(t)
	seen := w.watch()
	p := w.announced(podOf("shop"))
	w.started(p, "c1", policytest.Web)
	e := seen.want(false, "shop", "")
	if e.Pod.Entry != policytest.Web || e.Pod.Netns != "/var/run/netns/sandbox-shop" || e.Pod.Addrs[0].String() != "10.1.0.7" || e.Pod.UID != p.uid || e.Pod.Images[0] != policytest.Digest(policytest.Web) {
		t.Errorf("%+v", e.Pod)
	}
	w.started(p, "c2", side) // belongs to the same entry: nothing new for the mesh
	w.e.gone(p.id)
	seen.want(true, "shop", "")
	if w.opener.asked[0] != p.uid {
		t.Errorf("waited for %v", w.opener.asked)
	}
}

func TestCreateRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(*world)
		image   string
		change  func(*specs.Spec)
		code    policy.Code
	}{
		"no manifest":       {prepare: func(w *world) { w.e.Manifest(nil) }, code: CodeManifestMissing},
		"unlisted image":    {image: "unlisted", code: policy.CodeImageUnlisted},
		"another command":   {change: func(s *specs.Spec) { s.Process.Args = []string{"/bin/sh"} }, code: policy.CodeArgsNotAllowed},
		"environment":       {change: func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "LD_PRELOAD=/x") }, code: policy.CodeEnvNotAllowed},
		"root":              {change: func(s *specs.Spec) { s.Process.User = specs.User{} }, code: policy.CodeUserNotAllowed},
		"working directory": {change: func(s *specs.Spec) { s.Process.Cwd = "/" }, code: policy.CodeCwdNotAllowed},
		"terminal":          {change: func(s *specs.Spec) { s.Process.Terminal = true }, code: policy.CodeStdinNotAllowed},
		"path of the node": {change: func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/etc"})
		}, code: policy.CodeMountNotAllowed},
		"device":             {change: func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/kvm"}} }, code: policy.CodeDeviceNotAllowed},
		"capability":         {change: func(s *specs.Spec) { s.Process.Capabilities.Effective = []string{"CAP_SYS_ADMIN"} }, code: policy.CodeCapabilityNotAllowed},
		"hook":               {change: func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/x"}}} }, code: policy.CodeHookNotAllowed},
		"host processes":     {change: func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] }, code: policy.CodeHostNamespace},
		"another's network":  {change: func(s *specs.Spec) { s.Linux.Namespaces[3].Path = "/proc/1/ns/net" }, code: policy.CodeSettingUnknown},
		"no seccomp":         {change: func(s *specs.Spec) { s.Linux.Seccomp = nil }, code: policy.CodeSocketNotAllowed},
		"unmasked":           {change: func(s *specs.Spec) { s.Linux.MaskedPaths = nil }, code: policy.CodePrivileged},
		"rlimit":             {change: func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}} }, code: policy.CodeRlimitNotAllowed},
		"sysctl":             {change: func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.core.somaxconn": "1"} }, code: policy.CodeSysctlNotAllowed},
		"not of a pod":       {change: func(s *specs.Spec) { delete(s.Annotations, facts.AnnotationType) }, code: CodeForeignContainer},
		"of another pod":     {change: func(s *specs.Spec) { s.Annotations[facts.AnnotationSandboxID] = "sandbox-other" }, code: CodeForeignContainer},
		"containerd away":    {prepare: func(w *world) { w.runtime.set(func() { w.runtime.away = true }) }, code: CodeImageUnknown},
		"unannounced pod":    {prepare: func(w *world) { w.e.gone("sandbox-shop") }, code: CodePodUnknown},
		"open stdin":         {prepare: func(w *world) { w.runtime.stdin = true }, code: policy.CodeStdinNotAllowed},
		"image without name": {prepare: func(w *world) { w.runtime.nameless = true }, code: CodeImageUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.announced(podOf("shop"))
			if tc.prepare != nil {
				tc.prepare(w)
			}
			which := policytest.Web
			if tc.image != "" {
				which = tc.image
			}
			change := tc.change
			if change == nil {
				change = func(*specs.Spec) {}
			}
			wantCode(t, w.create(p, "c1", which, change), tc.code)
			if len(w.opener.asked) != 0 {
				t.Error("it waited for the mesh all the same")
			}
		})
	}
}

func TestRequestsThatAreNotUnderstoodAreRefused(t *testing.T) {
	w := newWorld(t)
	p := w.announced(podOf("shop"))
	r := w.request("c1", p.spec(policytest.Web))
	foreign := r
	foreign.Namespace = "moby"
	wantCode(t, w.e.Create(t.Context(), foreign), CodeForeignContainer)
	r.Config = append(r.Config, '{')
	wantCode(t, w.e.Create(t.Context(), r), CodeConfigUnreadable)
}

func TestSandboxesAreJudged(t *testing.T) {
	for name, tc := range map[string]struct {
		host   bool
		change func(*world, *specs.Spec)
		code   policy.Code
	}{
		"plain":           {code: policy.CodeAllowed},
		"in the node's":   {host: true, code: policy.CodeAllowed},
		"unlisted image":  {change: func(w *world, _ *specs.Spec) { w.next(func(m *policy.Manifest) { m.Sandboxes = nil }) }, code: policy.CodeSandboxUnlisted},
		"no manifest":     {change: func(w *world, _ *specs.Spec) { w.e.Manifest(nil) }, code: CodeManifestMissing},
		"another command": {change: func(_ *world, s *specs.Spec) { s.Process.Args = []string{"/bin/sh"} }, code: CodeSandboxSetting},
		"mount": {change: func(_ *world, s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/"})
		}, code: CodeSandboxSetting},
		"the node's pids":    {change: func(_ *world, s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] }, code: CodeSandboxSetting},
		"a process' network": {change: func(_ *world, s *specs.Spec) { s.Linux.Namespaces[4].Path = "/proc/1/ns/net" }, code: CodeSandboxSetting},
		"no entry for hosts": {host: true, change: func(w *world, _ *specs.Spec) {
			w.next(func(m *policy.Manifest) { m.Workloads = m.Workloads[:2] })
		}, code: CodeSandboxSetting},
		"another's id": {change: func(_ *world, s *specs.Spec) { s.Annotations[facts.AnnotationSandboxID] = "sandbox-other" }, code: CodeForeignContainer},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := podOf("shop")
			p.host = tc.host
			s := p.sandboxSpec()
			w.runtime.sandbox(p)
			if tc.change != nil {
				tc.change(w, s)
			}
			wantCode(t, w.e.Create(t.Context(), w.request(p.id, s)), tc.code)
		})
	}
}

func TestLaterContainersBelongToTheEntryOfTheFirst(t *testing.T) {
	w := newWorld(t)
	p := w.announced(podOf("shop"))
	w.started(p, "c1", policytest.Web)
	wantCode(t, w.create(p, "c2", policytest.DB), policy.CodeImageUnlisted)
	w.started(p, "c3", side)
	w.e.ended("c1")
	w.e.ended("c3")
	wantCode(t, w.create(p, "c4", policytest.DB), policy.CodeImageUnlisted) // for the pod's life
}

func TestAPodMayNameItsEntryAndOnlyNarrows(t *testing.T) {
	both := func(m *policy.Manifest) {
		m.Workloads[1].Images = append(m.Workloads[1].Images, policy.Image{Name: "web", Digest: policytest.Digest(policytest.Web)})
	}
	for wants, code := range map[string]policy.Code{
		"": policy.CodeWorkloadAmbiguous, policytest.Web: policy.CodeAllowed, policytest.DB: policy.CodeAllowed, hostAgent: policy.CodeImageUnlisted, "none": policy.CodeWorkloadUnlisted,
	} {
		w := newWorld(t, both)
		p := podOf("shop")
		p.wants = wants
		w.announced(p)
		wantCode(t, w.create(p, "c1", policytest.Web), code)
	}
}

func TestAPodIsFreeAgainWhenItsFirstContainerIsRefusedAtLast(t *testing.T) {
	w := newWorld(t)
	p := w.announced(podOf("shop"))
	if _, err := w.e.creating(t.Context(), p.nri(), p.container("c1", policytest.Web)); err != nil {
		t.Fatal(err)
	}
	err := w.create(p, "c1", policytest.Web, func(s *specs.Spec) { s.Process.Capabilities.Ambient = []string{"CAP_SYS_ADMIN"} })
	wantCode(t, err, policy.CodeCapabilityNotAllowed)
	if pods, _, _ := w.e.meshPods(); len(pods) != 0 {
		t.Errorf("still bound: %+v", pods)
	}
	w.started(p, "c2", policytest.DB)
}

func TestContainersWaitForTheMeshAndSayWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.announced(podOf("shop"))
		w.opener.held = errors.New("the CDS refuses: machine-unlisted")
		err := w.create(p, "c1", policytest.Web)
		wantCode(t, err, CodePodNotOpen)
		if !strings.Contains(err.Error(), "machine-unlisted") || !strings.Contains(err.Error(), "c8s status") {
			t.Errorf("%v", err)
		}
		w.opener.held = nil
		wantCode(t, w.create(p, "c2", policytest.Web), policy.CodeAllowed)
	})
}

func TestPodsInTheNodesNetworkDoNotWait(t *testing.T) {
	w := newWorld(t)
	seen := w.watch()
	p := podOf("agent")
	p.host = true
	w.announced(p)
	w.opener.held = errors.New("never")
	w.started(p, "c1", hostAgent)
	if len(w.opener.asked) != 0 {
		t.Error("it waited")
	}
	q := w.announced(podOf("shop")) // the first event is that of the next pod
	w.opener.held = nil
	w.started(q, "c2", policytest.Web)
	seen.want(false, "shop", "")
}

func TestAManifestThatChangesWhileAContainerWaitsCounts(t *testing.T) {
	w := newWorld(t)
	p := w.announced(podOf("shop"))
	w.opener.waiting = func() {
		w.next(func(m *policy.Manifest) { m.Workloads = m.Workloads[1:]; m.Workloads[0].Peers = policy.Peers{} })
	}
	wantCode(t, w.create(p, "c1", policytest.Web), policy.CodeWorkloadUnlisted)
}

func TestImagesMayBeListedByTheirSigner(t *testing.T) {
	keys, _ := policytest.Operators(t, 1, 1)
	signer := policy.Signer(keys.Keys[0])
	id, err := signer.ID()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(m *policy.Manifest) {
		m.Signers = []policy.Signer{signer}
		m.Workloads[0].Images = append(m.Workloads[0].Images, policy.Image{Name: "signed", Signers: []string{signer.Name}})
	})
	p := w.announced(podOf("shop"))
	wantCode(t, w.create(p, "c1", "unlisted"), policy.CodeImageUnlisted)
	w.runtime.set(func() {
		w.runtime.signatures[policytest.Digest("unlisted")] = []policy.SignatureFacts{{Signer: id, Repository: "registry.example/app"}}
	})
	wantCode(t, w.create(p, "c2", "unlisted"), policy.CodeAllowed)
	pods, _, _ := w.e.meshPods()
	if signed := pods[p.uid].Signed; len(signed) != 1 || signed[0].Signer != id {
		t.Errorf("%+v", pods)
	}
}

// NRI's requests share one lock and are given up after two seconds; the registry
// may take longer.
func TestASlowRegistryHoldsUpNoHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.announced(podOf("shop"))
		w.runtime.set(func() { w.runtime.slow = true })
		began := time.Now()
		adjust, err := w.e.creating(t.Context(), p.nri(), p.container("c1", policytest.Web))
		if err != nil || adjust == nil || time.Since(began) > hookWithin {
			t.Errorf("%v, %v after %s", adjust, err, time.Since(began))
		}
		if pods, _, _ := w.e.meshPods(); len(pods) != 0 {
			t.Errorf("bound unjudged: %v", pods)
		}
	})
}

func TestAddedProcessesAreJudgedByThePodsEntry(t *testing.T) {
	w := newWorld(t)
	p := w.announced(podOf("shop"))
	w.started(p, "c1", policytest.Web)
	q := w.announced(podOf("store"))
	w.started(q, "c2", policytest.DB)
	exec := func(id string, s *specs.Spec, change func(*specs.Process)) error {
		process := *s.Process
		process.Args = []string{"/bin/check"}
		change(&process)
		b, err := json.Marshal(process)
		if err != nil {
			t.Fatal(err)
		}
		return w.e.Exec(t.Context(), ExecRequest{ID: id, Namespace: image.Namespace, Process: b, Config: w.request(id, s).Config})
	}
	web, same := p.spec(policytest.Web), func(*specs.Process) {}
	wantCode(t, exec("c1", web, same), policy.CodeAllowed)
	wantCode(t, exec("c1", web, func(p *specs.Process) { p.Args = []string{"/bin/sh"} }), policy.CodeExecNotAllowed)
	wantCode(t, exec("c1", web, func(p *specs.Process) { p.User.UID = 0 }), policy.CodeExecNotAllowed)
	wantCode(t, exec("c1", web, func(p *specs.Process) { p.Terminal = true }), policy.CodeExecTerminal)
	wantCode(t, exec("c1", web, func(p *specs.Process) { p.Args = nil }), CodeConfigUnreadable)
	wantCode(t, exec("c2", q.spec(policytest.DB), same), policy.CodeExecNotAllowed)
	wantCode(t, exec("c9", web, same), CodeContainerUnknown)
	wantCode(t, w.e.Exec(t.Context(), ExecRequest{ID: "c1", Namespace: "moby"}), CodeContainerUnknown)
	w.next(func(m *policy.Manifest) { m.Workloads[0].Exec = nil })
	wantCode(t, exec("c1", web, same), policy.CodeExecNotAllowed)
	w.e.Manifest(nil)
	wantCode(t, exec("c1", web, same), CodeManifestMissing)
}

func TestSandboxesThatNobodyAnnouncedAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		make := func(name string) {
			p := podOf(name)
			w.runtime.sandbox(p)
			wantCode(t, w.e.Create(t.Context(), w.request(p.id, p.sandboxSpec())), policy.CodeAllowed)
		}
		make("lost")
		time.Sleep(unannounced + time.Second)
		make("next")
		if _, ok := w.e.pods["sandbox-lost"]; ok || len(w.e.pods) != 1 {
			t.Errorf("%v", w.e.pods)
		}
	})
}

func TestRefusalsNameWhatTheReaderNeeds(t *testing.T) {
	w := newWorld(t)
	p := w.announced(podOf("shop"))
	err := w.create(p, "c1", policytest.Web, func(s *specs.Spec) { s.Process.Args = []string{"/bin/sh", "-c", "id"} })
	for _, part := range []string{"workloads[web]", "/bin/sh", "/bin/web", "list the whole argv"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %q", part, err)
		}
	}
}

func TestAnEnforcerNeedsItsParts(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("made of nothing")
	}
}

func BenchmarkCreate(b *testing.B) {
	w := newWorld(b)
	p := w.announced(podOf("shop"))
	s := p.spec(policytest.Web)
	w.runtime.container(p, "c1", policytest.Web, s)
	r := w.request("c1", s)
	for b.Loop() {
		if err := w.e.Create(context.Background(), r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreatingAndValidating is what the plugin adds to a container's
// creation, where NRI calls it twice.
func BenchmarkCreatingAndValidating(b *testing.B) {
	w := newWorld(b)
	p := w.announced(podOf("shop"))
	c := p.container("c1", policytest.Web)
	for b.Loop() {
		adjust, err := w.e.creating(context.Background(), p.nri(), c)
		if err != nil {
			b.Fatal(err)
		}
		if err := w.e.validate(context.Background(), validation(p, c, adjust)); err != nil {
			b.Fatal(err)
		}
	}
}
