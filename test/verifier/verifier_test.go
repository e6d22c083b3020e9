// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
)

func TestCertificatesGoBackToTheOperators(t *testing.T) {
	w := newWorld(t)
	node := w.node()
	pod := w.pod(node, nil)
	dir := t.TempDir()
	w.mirror(dir, pod)
	out, code := judge(t, dir)
	t.Log(code, "\n"+out)
}
