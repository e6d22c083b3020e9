// SPDX-License-Identifier: Apache-2.0

package kept

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestKeptManifestIsAllThereIs(t *testing.T) {
	f := policytest.New(t)
	next := f.Next(t, func(m *policy.Manifest) { m.Workloads[1].HostAccess = true })
	dir := filepath.Join(t.TempDir(), "state")
	path := filepath.Join(dir, "manifest")
	for _, s := range []*policytest.Fixture{f, next} {
		if err := SaveManifest(path, s.Signed); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v in the folder (%v), want the manifest alone", entries, err)
	}
	got, err := NewestManifest(path, f.Envelope, f.Operators)
	if err != nil || got.Digest != next.Digest {
		t.Errorf("got %v, %v, want what was saved last", got, err)
	}
}

// A file that cannot be trusted stops the start: going on without it could be
// going back.
func TestDamagedKeptManifestStopsTheStart(t *testing.T) {
	f, stranger := policytest.New(t), policytest.New(t)
	for name, content := range map[string][]byte{
		"empty":                     {},
		"half":                      f.Envelope[:len(f.Envelope)/2],
		"oversize":                  make([]byte, maxEnvelope+1),
		"signed by other operators": stranger.Envelope,
	} {
		path := filepath.Join(t.TempDir(), "manifest")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := NewestManifest(path, f.Envelope, f.Operators); err == nil {
			t.Errorf("%s: version %d is used instead", name, got.Manifest.Version)
		}
	}
}

func TestManifestOfOtherOperatorsIsNotTakenFromAnywhere(t *testing.T) {
	f, stranger := policytest.New(t), policytest.New(t)
	_, err := NewestManifest(filepath.Join(t.TempDir(), "none"), stranger.Envelope, f.Operators)
	if policy.CodeOf(err) != policy.CodeThresholdUnmet {
		t.Errorf("got %v, want %s", err, policy.CodeThresholdUnmet)
	}
}
