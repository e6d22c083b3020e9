// SPDX-License-Identifier: Apache-2.0

// Package sim is a software TEE for development. Its invariant: everything it
// makes is marked SIMULATED under a root of its own, so that no manifest
// accepts it that does not name that root and say that it is simulated.
//
// A TEE has the interface of Linux's configfs-tsm, so that the code that talks
// to real hardware runs unchanged. The reports and certificates have the exact
// format of AMD SEV-SNP for Milan, Genoa and Turin.
package sim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/google/go-configfs-tsm/configfs/faketsm"

	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/policy"
)

const year = 365 * 24 * time.Hour

// Lifetimes of the leaf certificates, as AMD's.
const (
	vcekLifetime = 7 * year
	vlekLifetime = year
)

// Options describe the simulated machine. The zero value is a Milan with a
// measurement, host data, chip id and TCB of zeros, launched under the
// strictest guest policy; a chip id of zeros is refused by appraisal.
type Options struct {
	Product       snp.Product // Milan when empty
	ReportVersion uint32      // 2 to 5; 3 when zero
	Measurement   [48]byte
	HostData      [32]byte
	ChipID        [snp.ChipIDSize]byte // Turin uses the first 8 bytes, a VLEK none
	VLEK          string               // when not empty: sign with a VLEK of the cloud provider with this CSP id
	TCB           policy.TCB           // what the VCEK or VLEK is for
	Committed     *policy.TCB          // TCB when nil
	Debug         bool                 // guest policy: the host may debug the guest
	Migration     bool                 // guest policy: a migration agent is allowed
	SMT           bool                 // guest policy: sibling threads are allowed
	VMPL          uint32               // the lowest level reports can be asked for, 0 to 3

	Now  func() time.Time // time.Now when nil
	Rand io.Reader        // crypto/rand when nil
}

// TEE is one simulated machine. It implements configfsi.Client.
type TEE struct {
	*faketsm.Client
	dir    string
	opts   Options
	random io.Reader
	vendor *vendor
	key    *ecdsa.PrivateKey // the VCEK or VLEK
	table  []byte            // the host's certificate table
	report snp.Report        // what does not change from report to report
}

// New starts a simulated machine. The vendor's root is kept in dir, mode 0600,
// and shared by all machines that use the same dir; making it takes about a second.
func New(dir string, opts Options) (*TEE, error) {
	if opts.Product == "" {
		opts.Product = snp.Milan
	}
	if opts.ReportVersion == 0 {
		opts.ReportVersion = 3
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Rand == nil {
		opts.Rand = rand.Reader
	}
	t := &TEE{dir: dir, opts: opts, random: opts.Rand}
	if err := t.start(dir); err != nil {
		return nil, fmt.Errorf("starting a simulated TEE: %w", err)
	}
	return t, nil
}

func (t *TEE) start(dir string) (err error) {
	if t.report, err = template(t.opts); err != nil {
		return err
	}
	if _, err := io.ReadFull(t.random, t.report.ReportID[:]); err != nil {
		return err
	}
	if t.vendor, err = loadVendor(dir, t.opts.Product, t.opts.Now(), t.random); err != nil {
		return err
	}
	if t.key, err = ecdsa.GenerateKey(elliptic.P384(), t.random); err != nil {
		return err
	}
	leaf, err := t.issueLeaf()
	if err != nil {
		return err
	}
	t.table = t.certTable(leaf).Marshal()
	t.Client = newConfigfs(t)
	return nil
}

func (t *TEE) certTable(leaf []byte) *snp.CertTable {
	table := &snp.CertTable{ASK: t.issuer().Raw, ARK: t.vendor.ark.Raw, CRL: t.CRL()}
	if t.opts.signer() == snp.KeyVLEK {
		table.VLEK = leaf
	} else {
		table.VCEK = leaf
	}
	return table
}

// issuer returns the certificate that issues the leaf.
func (t *TEE) issuer() *x509.Certificate {
	if t.opts.signer() == snp.KeyVLEK {
		return t.vendor.asvk
	}
	return t.vendor.ask
}

func (o Options) signer() snp.SigningKey {
	if o.VLEK != "" {
		return snp.KeyVLEK
	}
	return snp.KeyVCEK
}

// chipID returns what reports say: machines with a VLEK do not name their chip.
func (o Options) chipID() (id [snp.ChipIDSize]byte) {
	if o.signer() == snp.KeyVCEK {
		copy(id[:], o.ChipID[:o.Product.ChipIDSize()])
	}
	return id
}

// template fills in what is the same in every report of the machine.
func template(o Options) (snp.Report, error) {
	raw, err := o.Product.RawTCB(o.TCB)
	if err != nil {
		return snp.Report{}, err
	}
	committed := raw
	if o.Committed != nil {
		if committed, err = o.Product.RawTCB(*o.Committed); err != nil {
			return snp.Report{}, err
		}
	}
	if o.VMPL > 3 {
		return snp.Report{}, fmt.Errorf("VMPL %d, 0 to 3 possible", o.VMPL)
	}
	firmware := snp.FirmwareVersion{Build: 55, Minor: 1, Major: 29}
	return snp.Report{
		Version: o.ReportVersion, Policy: guestPolicy(o), CPUID: cpuid(o.Product),
		PlatformInfo: 0x25, // SMT, ECC, alias check complete
		Measurement:  o.Measurement, HostData: o.HostData, ChipID: o.chipID(), SigningKey: o.signer(),
		Current: raw, Reported: raw, Launch: raw, Committed: committed,
		CurrentVersion: firmware, CommittedVersion: firmware,
		ReportIDMA: [32]byte(filled(0xff, 32)), // no migration agent
	}, nil
}

func guestPolicy(o Options) uint64 {
	const alwaysOne = 1 << 17
	p := uint64(alwaysOne)
	for bit, set := range map[uint64]bool{snp.PolicyDebug: o.Debug, snp.PolicyMigration: o.Migration, snp.PolicySMT: o.SMT} {
		if set {
			p |= bit
		}
	}
	return p
}

func cpuid(p snp.Product) snp.CPUID {
	switch p {
	case snp.Genoa:
		return snp.CPUID{Family: 0x19, Model: 0x11, Stepping: 1}
	case snp.Turin:
		return snp.CPUID{Family: 0x1A, Model: 0x02, Stepping: 1}
	}
	return snp.CPUID{Family: 0x19, Model: 0x01, Stepping: 1}
}

func filled(b byte, n int) []byte {
	s := make([]byte, n)
	for i := range s {
		s[i] = b
	}
	return s
}

// Root returns the DER of the simulated vendor's root certificate.
func (t *TEE) Root() []byte { return t.vendor.ark.Raw }

// CRL returns the DER of the simulated vendor's revocation list, which is empty
// and holds for as long as the vendor does.
func (t *TEE) CRL() []byte { return t.vendor.crl.Raw }

// Product returns the simulated product, for Attesters of version 2 reports.
func (t *TEE) Product() snp.Product { return t.opts.Product }

// Substrate returns the manifest entry that accepts exactly this machine's
// evidence, for the roles given; with a VLEK, that of any machine of its kind.
// Widen it where several machines share it.
func (t *TEE) Substrate(name string, roles ...policy.Role) policy.Substrate {
	o := t.opts
	floor, launch := o.TCB, o.TCB
	if o.Committed != nil {
		floor = policy.TCB{
			FMC:        min(floor.FMC, o.Committed.FMC),
			BootLoader: min(floor.BootLoader, o.Committed.BootLoader), TEE: min(floor.TEE, o.Committed.TEE),
			SNP: min(floor.SNP, o.Committed.SNP), Microcode: min(floor.Microcode, o.Committed.Microcode),
		}
	}
	chip := o.chipID()
	machine := hex.EncodeToString(chip[:])
	signingKey := policy.SigningKeyVCEK
	if o.signer() == snp.KeyVLEK {
		machine, signingKey = policy.MachineProvider+o.VLEK, policy.SigningKeyVLEK
	}
	return policy.Substrate{
		Name: name, Roles: roles, TEE: policy.TEESEVSNP, Product: string(o.Product), Paravisor: policy.ParavisorNone, Simulated: true,
		Roots:        []policy.Digest{policy.DigestOf(t.Root())},
		Machines:     []string{machine},
		Measurements: []string{hex.EncodeToString(o.Measurement[:])},
		HostData:     []string{hex.EncodeToString(o.HostData[:])},
		SNP: &policy.SNPRules{
			SigningKey: signingKey, MinTCB: &floor, MinLaunchTCB: &launch, AllowProvisional: o.Committed != nil && *o.Committed != o.TCB,
			IDKeys: []string{policy.None}, AuthorKeys: []string{policy.None}, RequirePlatform: []string{policy.PlatformECC, policy.PlatformAliasCheck},
			Guest: policy.SNPGuest{AllowDebug: o.Debug, AllowMigration: o.Migration, AllowSMT: o.SMT, VMPL: o.VMPL},
		},
		Collateral: policy.CollateralRules{Use: policy.CollateralRequired, MaxAgeDays: uint32(vendorLifetime / (24 * time.Hour))},
	}
}
