// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// docs/vectors/workload.json has entries as they stand in manifests, and their
// digests.
func TestVectorsOfWorkloadDigests(t *testing.T) {
	text, err := os.ReadFile("../docs/vectors/workload.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Signers   []policy.Signer
		Workloads []struct {
			Entry  policy.Workload
			Digest policy.Digest
		}
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors.Workloads {
		m := policytest.New(t, policytest.With(func(m *policy.Manifest) {
			m.Signers, m.Workloads = vectors.Signers, []policy.Workload{v.Entry}
		})).Manifest
		if got := m.Workloads[0].Digest(); got != v.Digest {
			t.Errorf("%s: %s, want %s", v.Entry.Name, got, v.Digest)
		}
	}
	if len(vectors.Workloads) < 8 {
		t.Errorf("only %d vectors", len(vectors.Workloads))
	}
}
