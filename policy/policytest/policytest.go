// SPDX-License-Identifier: Apache-2.0

// Package policytest makes valid signed manifests for tests: what it hands
// out always passes policy.Open, or the test fails at once.
package policytest

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/policy"
)

// The values of the sample manifest.
const (
	TrustDomain = "c8s.test"
	Web         = "web" // may connect to DB on port DBPort
	DB          = "db"
	DBPort      = 6379
)

// Now is the time of the tests.
func Now() time.Time { return time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC) }

// Digest returns a digest that is different for every name.
func Digest(name string) policy.Digest { return policy.DigestOf([]byte(name)) }

// Hex returns n bytes in hexadecimal, all equal to b.
func Hex(b byte, n int) string { return strings.Repeat(fmt.Sprintf("%02x", b), n) }

// Fixture is a signed manifest with the keys that signed it.
type Fixture struct {
	*policy.Signed
	Operators policy.Operators
	Keys      []crypto.Signer // in the order of Operators.Keys
}

// Option changes what New makes.
type Option func(*config)

type config struct {
	operators, threshold int
	edits                []func(*policy.Manifest)
}

// WithOperators has n operators, of whom threshold must sign.
func WithOperators(n, threshold int) Option {
	return func(c *config) { c.operators, c.threshold = n, threshold }
}

// With edits the manifest before it is signed.
func With(edit func(*policy.Manifest)) Option {
	return func(c *config) { c.edits = append(c.edits, edit) }
}

// Manifest returns the sample manifest, not yet signed: workload Web talks to
// DB on nodes of one simulated substrate, which also carries the CDS.
func Manifest(operators policy.Operators) *policy.Manifest {
	rule := func(workload string) []policy.PeerRule {
		return []policy.PeerRule{{Workload: workload, Ports: []uint16{DBPort}, Protocol: policy.ProtocolTCP}}
	}
	return &policy.Manifest{
		Schema: policy.Schema, TrustDomain: TrustDomain, Version: 1, Operators: operators,
		Substrates: []policy.Substrate{Substrate()},
		Workloads: []policy.Workload{
			{Name: Web, Images: []policy.Image{{Name: "web", Digest: Digest(Web)}}, Peers: policy.Peers{To: rule(DB)}, HostAccess: true},
			{Name: DB, Images: []policy.Image{{Name: "db", Digest: Digest(DB)}}, Peers: policy.Peers{From: rule(Web)}},
		},
	}
}

// Substrate returns the one substrate of the sample manifest.
func Substrate() policy.Substrate {
	return policy.Substrate{
		Name: "sim-milan", Roles: []policy.Role{policy.RoleNode, policy.RoleCDS}, TEE: policy.TEESEVSNP,
		Product: policy.ProductMilan, Paravisor: policy.ParavisorNone, Simulated: true, Roots: []policy.Digest{Digest("root")},
		Machines: []string{policy.Any}, Measurements: []string{Hex(0xaa, 48)}, HostData: []string{policy.Any},
		SNP: &policy.SNPRules{
			SigningKey: policy.SigningKeyVCEK, MinTCB: &policy.TCB{BootLoader: 3, TEE: 0, SNP: 8, Microcode: 115}, MinLaunchTCB: &policy.TCB{},
			IDKeys: []string{policy.None}, AuthorKeys: []string{policy.None},
		},
		Collateral: policy.CollateralRules{Use: policy.CollateralUnchecked},
	}
}

// TDXSubstrate returns a substrate of trust domains that Intel calls up to date.
func TDXSubstrate() policy.Substrate {
	return policy.Substrate{
		Name: "tdx", Roles: []policy.Role{policy.RoleNode}, TEE: policy.TEETDX,
		Product: policy.Any, Paravisor: policy.ParavisorNone, Simulated: false, Roots: []policy.Digest{Digest("intel")},
		Machines: []string{policy.Any}, Measurements: []string{Hex(0xab, 48)}, HostData: []string{Hex(0, 48)},
		Registers: map[string][]string{
			"rtmr0": {policy.Any}, "rtmr1": {Hex(1, 48)}, "rtmr2": {Hex(2, 48), Hex(3, 48)}, "rtmr3": {Hex(0, 48)},
		},
		TDX: &policy.TDXRules{
			Statuses: []string{"UpToDate", "SWHardeningNeeded"}, Advisories: []string{"INTEL-SA-00615"}, MinEvaluationNumber: 17,
			Owners: []string{Hex(0, 48)}, OwnerConfigs: []string{Hex(0, 48)}, ServiceTDs: []string{policy.None}, XFAMs: []string{policy.Any},
			Guest: policy.TDXGuest{RequireSeptVEDisable: true},
		},
		Collateral: policy.CollateralRules{Use: policy.CollateralRequired, MaxAgeDays: 30},
	}
}

// Facts returns what Substrate accepts.
func Facts() policy.SubstrateFacts {
	return policy.SubstrateFacts{
		TEE: policy.TEESEVSNP, Product: policy.ProductMilan, Paravisor: policy.ParavisorNone, Simulated: true, Root: Digest("root"),
		Machine: Hex(0xcc, 64), Measurement: Hex(0xaa, 48), HostData: Hex(0, 32), TCB: policy.TCB{BootLoader: 3, SNP: 8, Microcode: 115},
	}
}

// TDXFacts returns what TDXSubstrate accepts.
func TDXFacts() policy.SubstrateFacts {
	return policy.SubstrateFacts{
		TEE: policy.TEETDX, Product: "90c06f000000", Paravisor: policy.ParavisorNone, Root: Digest("intel"),
		Machine: Hex(0xdd, 16), Measurement: Hex(0xab, 48), HostData: Hex(0, 48),
		Registers: []policy.Register{
			{Name: "rtmr0", Value: Hex(9, 48)},
			{Name: "rtmr1", Value: Hex(1, 48)},
			{Name: "rtmr2", Value: Hex(3, 48)},
			{Name: "rtmr3", Value: Hex(0, 48)},
		},
		TDXTCB: policy.TDXTCB{Status: "SWHardeningNeeded", Advisories: []string{"INTEL-SA-00615"}, EvaluationNumber: 18}, Collateral: true,
	}
}

// Guest returns what Substrate accepts of a guest.
func Guest() policy.GuestFacts {
	return policy.GuestFacts{SigningKey: policy.SigningKeyVCEK, IDKey: policy.None, AuthorKey: policy.None, ABI: policy.ABIVersion{Major: 1, Minor: 51}}
}

// TDXGuest returns what TDXSubstrate accepts of a guest.
func TDXGuest() policy.GuestFacts {
	return policy.GuestFacts{SeptVEDisable: true, Owner: Hex(0, 48), OwnerConfig: Hex(0, 48), ServiceTD: policy.None, XFAM: Hex(0xe7, 8)}
}

// Peer returns facts that the sample manifest accepts for a workload of s.
func Peer(s *policy.Signed, workload string) policy.Peer {
	p := policy.Peer{
		Role: policy.RoleWorkload, TrustDomain: s.Manifest.TrustDomain, Workload: workload,
		ManifestVersion: s.Manifest.Version, ManifestDigest: s.Digest,
		SubstrateFacts: Facts(),
	}
	if w, ok := s.Manifest.Workload(workload); ok {
		p.WorkloadDigest = w.Digest()
	}
	return p
}

// New signs the sample manifest with fresh keys, one operator by default.
func New(t testing.TB, opts ...Option) *Fixture {
	t.Helper()
	c := config{operators: 1, threshold: 1}
	for _, opt := range opts {
		opt(&c)
	}
	f := &Fixture{}
	f.Operators, f.Keys = Operators(t, c.operators, c.threshold)
	m := Manifest(f.Operators)
	for _, edit := range c.edits {
		edit(m)
	}
	f.Signed = Sign(t, m, f.Operators, f.Keys...)
	return f
}

// Next signs a successor of f's manifest, edited, with the same keys.
func (f *Fixture) Next(t testing.TB, edit func(*policy.Manifest)) *Fixture {
	t.Helper()
	m, err := policy.Parse(f.Payload) // a copy, so that the edit cannot reach f
	if err != nil {
		t.Fatalf("copying the manifest: %v", err)
	}
	m.Version, m.Previous = f.Manifest.Version+1, f.Digest
	if edit != nil {
		edit(m)
	}
	return &Fixture{Signed: Sign(t, m, f.Operators, f.Keys...), Operators: f.Operators, Keys: f.Keys}
}

// Operators makes n Ed25519 operators of whom threshold must sign.
func Operators(t testing.TB, n, threshold int) (policy.Operators, []crypto.Signer) {
	t.Helper()
	o := policy.Operators{Threshold: threshold}
	var keys []crypto.Signer
	for i := range n {
		public, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatalf("making an operator key: %v", err)
		}
		described, err := policy.NewOperatorKey(fmt.Sprintf("operator-%d", i+1), public)
		if err != nil {
			t.Fatalf("describing an operator key: %v", err)
		}
		o.Keys, keys = append(o.Keys, described), append(keys, key)
	}
	return o, keys
}

// Sign encodes, signs and opens a manifest.
func Sign(t testing.TB, m *policy.Manifest, trusted policy.Operators, keys ...crypto.Signer) *policy.Signed {
	t.Helper()
	payload, err := policy.Encode(m)
	if err != nil {
		t.Fatalf("encoding the manifest: %v", err)
	}
	envelope, err := policy.Sign(payload, keys...)
	if err != nil {
		t.Fatalf("signing the manifest: %v", err)
	}
	signed, err := policy.Open(envelope, trusted)
	if err != nil {
		t.Fatalf("opening the manifest: %v", err)
	}
	return signed
}
