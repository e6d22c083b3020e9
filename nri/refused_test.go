// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"fmt"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestRefusedContainersAreListedUntilTheyStart(t *testing.T) {
	w := newWorld(t)
	p := w.announced(podOf("shop"))
	shell := func(s *specs.Spec) { s.Process.Args = []string{"/bin/sh"} }
	for i := range 2 {
		wantCode(t, w.create(p, fmt.Sprint("c", i), policytest.Web, shell), policy.CodeArgsNotAllowed)
	}
	list := w.e.Refused()
	if len(list) != 1 || list[0].Pod != "prod/shop" || list[0].Container != policytest.Web || list[0].Code != policy.CodeArgsNotAllowed || list[0].Times != 2 {
		t.Fatalf("after two attempts: %+v", list)
	}
	w.started(p, "c2", policytest.Web)
	if list := w.e.Refused(); len(list) != 0 {
		t.Errorf("after it started: %+v", list)
	}
	w.next(func(m *policy.Manifest) { m.Workloads[0].Images = m.Workloads[0].Images[1:] })
	if list := w.e.Refused(); len(list) != 1 || list[0].Code != policy.CodeImageUnlisted {
		t.Errorf("after the manifest took it back: %+v", list)
	}
	w.e.gone(p.id)
	if list := w.e.Refused(); len(list) != 0 {
		t.Errorf("with the pod gone: %+v", list)
	}
}

// Names of containers are the control plane's: they must not fill the daemon.
func TestRefusedContainersOfAPodAreBounded(t *testing.T) {
	w := newWorld(t)
	p := w.announced(podOf("shop"))
	for i := range 2 * maxRefused {
		name := fmt.Sprint("unlisted-", i)
		wantCode(t, w.create(p, name, name), policy.CodeImageUnlisted)
	}
	if list := w.e.Refused(); len(list) != maxRefused {
		t.Errorf("%d are remembered, want %d", len(list), maxRefused)
	}
}
