// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"testing"
)

// BenchmarkStart is what the program adds to every call of the runtime, in the
// place of which is a program that does nothing: compare "nothing" with the
// others.
func BenchmarkStart(b *testing.B) {
	truth, err := exec.LookPath("true")
	if err != nil {
		b.Skip("needs the program true")
	}
	n := newNode(b)
	n.cfg.Runtime = truth
	n.configure()
	n.daemon(&answers{})
	binary := n.path("c8s-runtime")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.configPath="+n.path("runtime.json"), "-o", binary, ".")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	for name, argv := range map[string][]string{
		"nothing": {truth},
		"state":   {binary, "--root", n.path("k8s.io"), "state", "c1"},
		"create":  append([]string{binary}, n.create()...),
		"exec":    append([]string{binary}, n.exec()...),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
					b.Fatalf("%v: %s", err, out)
				}
			}
		})
	}
}
