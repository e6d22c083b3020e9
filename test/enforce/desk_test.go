// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/c8s-dev/c8s/attest/sim/devtee"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/stack"
)

// desk is the operator's: the key, and what was last signed with it.
type desk struct {
	dir       string
	key       crypto.Signer
	operators policy.Operators
	signed    *policy.Signed
}

func newDesk(t testing.TB, m *policy.Manifest) *desk {
	t.Helper()
	_, key := must2(ed25519.GenerateKey(rand.Reader))
	operator := must(policy.NewOperatorKey("operator", key.Public()))
	d := &desk{dir: t.TempDir(), key: key, operators: policy.Operators{Threshold: 1, Keys: []policy.OperatorKey{operator}}}
	substrate := must(devtee.Substrate(devtee.Options{Dir: programs.vendor, Binary: programs.c8s, Operators: d.operators}))
	m.Schema, m.TrustDomain, m.Version = policy.Schema, trustDomain, 1
	m.Operators, m.Substrates = d.operators, []policy.Substrate{substrate}
	d.sign(t, m)
	write(t, d.path("operators.json"), must(json.Marshal(d.operators)))
	write(t, d.path("manifest.json"), d.signed.Envelope)
	return d
}

func (d *desk) path(name string) string { return filepath.Join(d.dir, name) }

func (d *desk) sign(t testing.TB, m *policy.Manifest) {
	t.Helper()
	d.signed = must(policy.Open(must(policy.Sign(must(policy.Encode(m)), d.key)), d.operators))
}

// publish signs the next version of the manifest, gives it to the CDS, and
// waits until every node has it in force.
func (w *world) publish(change func(*policy.Manifest)) {
	w.t.Helper()
	m := *w.desk.signed.Manifest
	m.Workloads = slices.Clone(m.Workloads)
	for i := range m.Workloads {
		m.Workloads[i].Images = slices.Clone(m.Workloads[i].Images)
	}
	change(&m)
	m.Version, m.Previous = m.Version+1, w.desk.signed.Digest
	w.desk.sign(w.t, &m)
	write(w.t, w.desk.path("manifest.new"), w.desk.signed.Envelope)
	if err := os.Rename(w.desk.path("manifest.new"), w.desk.path("manifest.json")); err != nil {
		w.t.Fatal(err)
	}
	for _, n := range w.nodes {
		w.eventually(fmt.Sprintf("manifest %d on %s", m.Version, n.Name()), func(ctx context.Context) error {
			s, err := n.admin.Status(ctx)
			if err == nil && s.Manifest.Version < m.Version {
				err = fmt.Errorf("version %d is in force", s.Manifest.Version)
			}
			return err
		})
	}
}

func (w *world) eventually(what string, f func(context.Context) error) {
	w.t.Helper()
	if err := stack.Poll(w.t.Context(), what, f); err != nil {
		w.t.Fatal(err)
	}
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

func must2[A, B any](a A, b B, err error) (A, B) {
	if err != nil {
		panic(err)
	}
	return a, b
}

func write(t testing.TB, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
