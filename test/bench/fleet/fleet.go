// SPDX-License-Identifier: Apache-2.0

// Package fleet is the other side of a certificate distribution service under
// load: operators who sign, many simulated machines that attest, and callers
// that are as cheap as they can be, so that what is measured is the service.
//
// Invariant: a caller does everything the protocol asks of it, on one TLS
// connection, and nothing the service could not tell from an honest node. It
// saves only its own checks; a Judge makes them for samples, afterwards.
package fleet

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/sim/devtee"
	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/attest/tsm"
	"github.com/c8s-dev/c8s/policy"
)

// TrustDomain of every fleet.
const TrustDomain = "bench.c8s.example"

const (
	// identities is how many keys the callers take turns with. To the service
	// they are new every time; making them would cost the generator.
	identities = 256
	operators  = 3
	threshold  = 2
)

// Options say what New makes.
type Options struct {
	Dir       string // gets the operators' files and the simulated vendor
	Binary    string // the c8s program, whose measurement the manifest names
	Machines  int
	Workloads int // in the manifest
}

// Fleet is a set of machines that one manifest accepts.
type Fleet struct {
	Operators policy.Operators
	Signed    *policy.Signed // the first manifest

	opts        Options
	keys        []crypto.Signer
	measurement [48]byte
	machines    []*tsm.Attester
	identities  []identity
}

// identity is a key with its certificate request.
type identity struct {
	key       *ecdsa.PrivateKey
	csr, spki []byte
}

// New makes the operators, the machines and the first manifest.
func New(o Options) (*Fleet, error) {
	f := &Fleet{opts: o}
	for _, step := range []func() error{f.makeOperators, f.makeManifest, f.makeMachines, f.makeIdentities} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("making a fleet: %w", err)
		}
	}
	return f, nil
}

// OperatorsFile, ManifestFile and SimDir are for the flags of c8s cds.
func (f *Fleet) OperatorsFile() string { return filepath.Join(f.opts.Dir, "operators.json") }

// ManifestFile holds the first manifest.
func (f *Fleet) ManifestFile() string { return filepath.Join(f.opts.Dir, "manifest.dsse.json") }

// SimDir holds the simulated vendor.
func (f *Fleet) SimDir() string { return filepath.Join(f.opts.Dir, "sim") }

func (f *Fleet) makeOperators() error {
	f.Operators.Threshold = threshold
	for i := range operators {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		public, err := policy.NewOperatorKey(fmt.Sprintf("operator-%d", i), key.Public())
		if err != nil {
			return err
		}
		f.Operators.Keys = append(f.Operators.Keys, public)
		f.keys = append(f.keys, key)
	}
	raw, err := json.Marshal(f.Operators)
	if err != nil {
		return err
	}
	return os.WriteFile(f.OperatorsFile(), raw, 0o600)
}

func (f *Fleet) makeManifest() error {
	substrate, err := devtee.Substrate(devtee.Options{Dir: f.SimDir(), Binary: f.opts.Binary, Operators: f.Operators})
	if err != nil {
		return err
	}
	raw, err := hex.DecodeString(substrate.Measurements[0])
	if err != nil {
		return err
	}
	f.measurement = [48]byte(raw)
	m := &policy.Manifest{
		Schema: policy.Schema, TrustDomain: TrustDomain, Version: 1, Operators: f.Operators, Substrates: []policy.Substrate{substrate},
	}
	for i := range f.opts.Workloads {
		name := workload(i)
		m.Workloads = append(m.Workloads, policy.Workload{Name: name, Images: []policy.Image{{Name: name, Digest: image(i)}}})
	}
	if f.Signed, err = f.sign(m); err != nil {
		return err
	}
	return os.WriteFile(f.ManifestFile(), f.Signed.Envelope, 0o600)
}

func workload(i int) string     { return fmt.Sprintf("workload-%d", i) }
func image(i int) policy.Digest { return policy.DigestOf([]byte(workload(i))) }

func (f *Fleet) sign(m *policy.Manifest) (*policy.Signed, error) {
	payload, err := policy.Encode(m)
	if err != nil {
		return nil, err
	}
	envelope, err := policy.Sign(payload, f.keys[:threshold]...)
	if err != nil {
		return nil, err
	}
	return policy.Open(envelope, f.Operators)
}

// NextManifest signs the same manifest as the successor of prev.
func (f *Fleet) NextManifest(prev *policy.Signed) (*policy.Signed, error) {
	m := *f.Signed.Manifest
	m.Version, m.Previous = prev.Manifest.Version+1, prev.Digest
	return f.sign(&m)
}

// NextDenyList signs the successor of prev, nil for the first list, with one
// more entry than it has.
func (f *Fleet) NextDenyList(prev *policy.SignedDenyList) (*policy.SignedDenyList, error) {
	l := &policy.DenyList{Schema: policy.DenyListSchema, TrustDomain: TrustDomain, Version: 1}
	if prev != nil {
		l.Version, l.Previous, l.Entries = prev.List.Version+1, prev.Digest, prev.List.Entries
	}
	stranger := sha512.Sum512(fmt.Appendf(nil, "stranger %d", l.Version))
	l.Entries = append(l.Entries[:len(l.Entries):len(l.Entries)], policy.Denial{
		Kind: policy.DenyMachine, Value: hex.EncodeToString(stranger[:]), Reason: "lost",
	})
	payload, err := policy.EncodeDenyList(l)
	if err != nil {
		return nil, err
	}
	envelope, err := policy.SignDenyList(payload, f.keys[:threshold]...)
	if err != nil {
		return nil, err
	}
	return policy.OpenDenyList(envelope, f.Operators)
}

func (f *Fleet) makeMachines() error {
	for i := range f.opts.Machines {
		att, err := f.machine(fmt.Sprintf("machine-%d", i))
		if err != nil {
			return err
		}
		f.machines = append(f.machines, att)
	}
	return nil
}

// machine is what devtee makes, without measuring the program again.
func (f *Fleet) machine(name string) (*tsm.Attester, error) {
	tee, err := sim.New(f.SimDir(), sim.Options{
		Product: snp.Milan, Measurement: f.measurement, HostData: f.Operators.Digest(), ChipID: sha512.Sum512([]byte(name)),
		TCB: policy.TCB{BootLoader: 4, TEE: 0, SNP: 24, Microcode: 219},
	})
	if err != nil {
		return nil, err
	}
	return tsm.New(tee), nil
}

func (f *Fleet) makeIdentities() error {
	for range identities {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		id := identity{key: key}
		if id.csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key); err != nil {
			return err
		}
		if id.spki, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
			return err
		}
		f.identities = append(f.identities, id)
	}
	return nil
}

// Machines is how many there are.
func (f *Fleet) Machines() int { return len(f.machines) }

// Warm enrols every machine once, so that the service has verified all of
// their certificates.
func (f *Fleet) Warm(ctx context.Context, addr string) error {
	for i := range f.machines {
		s, err := f.Dial(ctx, addr, nil)
		if err != nil {
			return err
		}
		_, err = s.EnrolNode(ctx, i)
		s.Close()
		if err != nil {
			return fmt.Errorf("enrolling machine %d: %w", i, err)
		}
	}
	return nil
}

// dialTimeout bounds connecting, and each call of Session.
const dialTimeout = 10 * time.Second
