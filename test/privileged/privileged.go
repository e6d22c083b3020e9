// SPDX-License-Identifier: Apache-2.0

// Package privileged marks tests that need root.
//
// Invariant: where privileged tests are required (C8S_REQUIRE_PRIVILEGED, as
// in CI), not one of them is left out without failing the run.
package privileged

import (
	"os"
	"testing"
)

// RequireEnv turns a skip of a privileged test into a failure when it is set
// to anything but the empty string or 0.
const RequireEnv = "C8S_REQUIRE_PRIVILEGED"

// Require skips t unless the process is root, because the test makes network
// namespaces or loads kernel programs. With RequireEnv it fails t instead.
func Require(t testing.TB) {
	t.Helper()
	require(t, os.Geteuid(), os.Getenv(RequireEnv))
}

func require(t testing.TB, uid int, required string) {
	t.Helper()
	if uid != 0 {
		Missing(t, required, "needs root: it makes network namespaces or loads kernel programs")
	}
}

// Missing reports something a test cannot do without: a failure where the
// tests are required, a skip elsewhere. Required is the value of RequireEnv.
func Missing(t testing.TB, required, what string) {
	t.Helper()
	if required != "" && required != "0" {
		t.Fatalf("%s (and %s forbids skipping)", what, RequireEnv)
	}
	t.Skip(what)
}
