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
	n := newNode(b, truth)
	n.daemon(nil)
	for name, argv := range map[string][]string{
		"nothing": {truth},
		"state":   append([]string{n.binary}, n.state()...),
		"create":  append([]string{n.binary}, n.create()...),
		"exec":    append([]string{n.binary}, n.exec()...),
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
