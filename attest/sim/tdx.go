// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/faketsm"

	"github.com/c8s-dev/c8s/attest/tdx"
	"github.com/c8s-dev/c8s/policy"
)

const (
	providerTDX      = "tdx_guest\n"
	quotePadding     = 307 // bytes of zeros that Linux leaves after a quote, as seen on hardware
	evaluationNumber = 18
)

// TDXOptions describe a simulated trust domain. The zero value has an MRTD, a
// configuration and a PIID of zeros; its platform's TCB is up to date.
type TDXOptions struct {
	Version    uint16 // of quotes, 4 or 5; 4 when zero
	MRTD       [48]byte
	MRConfigID [48]byte
	PIID       [16]byte
	FMSPC      [6]byte
	Events     []string      // what the event log extends RTMR0 to RTMR2 with in turn
	Debug      bool          // the host may debug the guest
	Status     tdx.TCBStatus // of the platform in the collateral; UpToDate when empty
	Advisories []string

	Now  func() time.Time // time.Now when nil
	Rand io.Reader        // crypto/rand when nil
}

// TD is one simulated trust domain. It implements configfsi.Client.
type TD struct {
	*faketsm.Client
	opts   TDXOptions
	vendor *tdxVendor
	pck    tdx.PCK
	keys   tdx.Keys
	quote  tdx.Quote // what does not change from quote to quote
	log    []byte
}

// NewTDX starts a simulated trust domain. The vendor's keys are kept in dir,
// mode 0600, and shared by all machines that use the same dir.
func NewTDX(dir string, opts TDXOptions) (*TD, error) {
	if opts.Version == 0 {
		opts.Version = 4
	}
	if opts.Status == "" {
		opts.Status = tdx.UpToDate
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Rand == nil {
		opts.Rand = rand.Reader
	}
	t := &TD{opts: opts}
	if err := t.start(dir); err != nil {
		return nil, fmt.Errorf("starting a simulated trust domain: %w", err)
	}
	return t, nil
}

func (t *TD) start(dir string) (err error) {
	if t.vendor, err = loadTDXVendor(dir, t.opts.Now(), t.opts.Rand); err != nil {
		return err
	}
	for _, key := range []**ecdsa.PrivateKey{&t.keys.Attestation, &t.keys.PCK} {
		if *key, err = ecdsa.GenerateKey(elliptic.P256(), t.opts.Rand); err != nil {
			return err
		}
	}
	t.pck = tdx.PCK{PIID: t.opts.PIID, FMSPC: t.opts.FMSPC, PPID: t.opts.PIID, PCESVN: 13, Components: [16]uint8{3, 3, 2, 2, 4, 1, 0, 5}}
	if t.keys.Chain, err = t.vendor.certify(t.opts.Rand, &t.pck, t.keys.PCK, t.opts.Now()); err != nil {
		return err
	}
	if t.log, err = composeLog(t.opts.Events); err != nil {
		return err
	}
	if err := t.measure(); err != nil {
		return err
	}
	t.Client = &faketsm.Client{Subsystems: map[string]configfsi.Client{
		"report": &faketsm.ReportSubsystem{
			MakeEntry: func() *faketsm.ReportEntry {
				return &faketsm.ReportEntry{InAttrs: map[string]*faketsm.ReportAttributeState{attrIn: {}}}
			},
			CheckInAttr: checkInblob,
			ReadAttr:    t.readAttr,
			Entries:     make(map[string]*faketsm.ReportEntry),
			Random:      t.opts.Rand,
		},
	}}
	return nil
}

// measure fills in what every quote says.
func (t *TD) measure() error {
	const bodyTD10, bodyTD15 = 2, 3
	q := &t.quote
	q.Version, q.BodyType = t.opts.Version, bodyTD10
	if q.Version == 5 {
		q.BodyType = bodyTD15
	}
	q.TEETCBSVN = [16]byte{5, 1, 2}
	q.TEETCBSVN2 = q.TEETCBSVN
	q.MRTD, q.MRConfigID = t.opts.MRTD, t.opts.MRConfigID
	attributes := uint64(1 << 28) // SEPT_VE_DISABLE
	if t.opts.Debug {
		attributes |= 1
	}
	binary.LittleEndian.PutUint64(q.TDAttributes[:], attributes)
	binary.LittleEndian.PutUint64(q.XFAM[:], 0x602e7)
	q.QE = tdx.QEReport{Attributes: [16]byte{0x11, 8: 0xe7}, ISVProdID: 2, ISVSVN: 6}
	q.QE.MRSigner = [32]byte(filled(0xdc, 32))
	events, err := tdx.ParseEventLog(t.log)
	if err != nil {
		return err
	}
	q.RTMR = tdx.Replay(events)
	return nil
}

func checkInblob(_ *faketsm.ReportEntry, attr string, contents []byte) error {
	if attr != attrIn {
		return os.ErrPermission
	}
	if len(contents) != inblobSize {
		return syscall.EINVAL
	}
	return nil
}

func (t *TD) readAttr(e *faketsm.ReportEntry, attr string) ([]byte, error) {
	switch attr {
	case attrProvider:
		return []byte(providerTDX), nil
	case attrAux: // Linux has no such file here, which the fake cannot say
		return nil, nil
	case attrOut:
		in := e.InAttrs[attrIn].Value
		if len(in) != inblobSize {
			return nil, syscall.EINVAL
		}
		q := t.quote
		copy(q.ReportData[:], in)
		b, err := q.Compose(t.opts.Rand, t.keys)
		if err != nil {
			return nil, err
		}
		return append(b, make([]byte, quotePadding)...), nil
	}
	return nil, os.ErrNotExist
}

// composeLog writes a CC event log, padded as firmware does.
func composeLog(events []string) ([]byte, error) {
	const evNoAction, evIPL, algSHA384, padded = 3, 0xd, 0xc, 4 << 10
	le := binary.LittleEndian
	header := []byte("Spec ID Event03\x00")
	header = append(header, 0, 0, 0, 0, 0, 2, 0, 2) // platform class, version 2.0, 64-bit
	header = le.AppendUint32(header, 1)
	header = le.AppendUint16(header, algSHA384)
	header = le.AppendUint16(header, sha512.Size384)
	header = append(header, 0)

	b := le.AppendUint32(nil, 0)
	b = le.AppendUint32(b, evNoAction)
	b = append(b, make([]byte, 20)...)
	b = append(le.AppendUint32(b, uint32(len(header))), header...) //nolint:gosec // some bytes
	for i, e := range events {
		digest := sha512.Sum384([]byte(e))
		b = le.AppendUint32(b, uint32(1+i%3)) //nolint:gosec // 1 to 3
		b = le.AppendUint32(b, evIPL)
		b = le.AppendUint32(b, 1)
		b = append(le.AppendUint16(b, algSHA384), digest[:]...)
		b = append(le.AppendUint32(b, uint32(len(e))), e...) //nolint:gosec // some bytes
	}
	if len(b) > padded {
		return nil, fmt.Errorf("event log of %d bytes, at most %d possible", len(b), padded)
	}
	return append(b, filled(0xff, padded-len(b))...), nil
}

// EventLog returns the log that the quotes' RTMRs follow from, as Linux offers
// it under /sys/firmware/acpi/tables/data/CCEL.
func (t *TD) EventLog() []byte { return t.log }

// Root returns the DER of the simulated vendor's root certificate.
func (t *TD) Root() []byte { return t.vendor.root.cert.Raw }

// Substrate returns the manifest entry that accepts exactly this trust domain's
// evidence, for the roles given.
func (t *TD) Substrate(name string, roles ...policy.Role) policy.Substrate {
	zeros := hex.EncodeToString(make([]byte, 48))
	s := policy.Substrate{
		Name: name, Roles: roles, TEE: policy.TEETDX, Product: hex.EncodeToString(t.opts.FMSPC[:]), Paravisor: policy.ParavisorNone, Simulated: true,
		Roots:        []policy.Digest{policy.DigestOf(t.Root())},
		Machines:     []string{hex.EncodeToString(t.opts.PIID[:])},
		Measurements: []string{hex.EncodeToString(t.opts.MRTD[:])},
		HostData:     []string{hex.EncodeToString(t.opts.MRConfigID[:])},
		Registers:    map[string][]string{},
		TDX: &policy.TDXRules{
			Statuses: []string{string(tdx.UpToDate)}, Advisories: []string{policy.None}, MinEvaluationNumber: evaluationNumber,
			Owners: []string{zeros}, OwnerConfigs: []string{zeros}, ServiceTDs: []string{policy.None}, XFAMs: []string{hex.EncodeToString(t.quote.XFAM[:])},
			Guest: policy.TDXGuest{AllowDebug: t.opts.Debug, RequireSeptVEDisable: true},
		},
		Collateral: policy.CollateralRules{Use: policy.CollateralRequired, MaxAgeDays: uint32(collateralLife / (24 * time.Hour))},
	}
	for i := range t.quote.RTMR {
		s.Registers[fmt.Sprintf("rtmr%d", i)] = []string{hex.EncodeToString(t.quote.RTMR[i][:])}
	}
	return s
}
