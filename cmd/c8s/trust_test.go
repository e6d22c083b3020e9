// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestUnsignedManifestIsNamedAsSuch(t *testing.T) {
	f := policytest.New(t)
	dir := t.TempDir()
	operators, err := json.Marshal(f.Operators)
	if err != nil {
		t.Fatal(err)
	}
	flags := trustFlags{filepath.Join(dir, "operators.json"), filepath.Join(dir, "manifest.json")}
	if err := errors.Join(os.WriteFile(flags.operatorsPath, operators, 0o600), os.WriteFile(flags.manifestPath, f.Payload, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := flags.load(); err == nil || !strings.Contains(err.Error(), "sign it with 'c8s manifest sign'") {
		t.Errorf("without signatures: %v", err)
	}
	if err := os.WriteFile(flags.manifestPath, f.Envelope, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := flags.load()
	if err != nil || got.manifest.Digest != f.Digest {
		t.Errorf("signed: %v", err)
	}
}
