// SPDX-License-Identifier: Apache-2.0

package tdx

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/c8s-dev/c8s/attest"
)

// Endorsement is what a PCK certificate says about the platform in Intel's SGX
// extensions (PCK Certificate and CRL Profile, section 1.3.5).
type Endorsement struct {
	PPID     [16]byte // of the processor package
	TCB      TCB
	PCEID    [2]byte
	FMSPC    [6]byte // family, model, stepping, platform type, custom SKU
	Type     SGXType
	Platform *Platform // nil in certificates of the PCK Processor CA
}

// TCB is the patch level a PCK certificate is for.
type TCB struct {
	Components [16]byte // SVN of each SGX TCB component
	PCESVN     uint16
	CPUSVN     [16]byte // as the processor says it
}

// Platform is what certificates of the PCK Platform CA say in addition.
type Platform struct {
	InstanceID [16]byte // PIID: new whenever the platform's keys are
	Dynamic    bool     // packages can be added
	CachedKeys bool     // Intel keeps the platform's root keys
	SMT        bool     // hyper-threading is on
}

// SGXType is how a platform protects memory.
type SGXType uint8

// The types.
const (
	SGXStandard              SGXType = 0
	SGXScalable              SGXType = 1
	SGXScalableWithIntegrity SGXType = 2
)

// oidSGX is the extension; what it holds are arcs below it.
func oidSGX() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}
}

// The arcs below oidSGX.
const (
	arcPPID          = 1
	arcTCB           = 2
	arcPCEID         = 3
	arcFMSPC         = 4
	arcType          = 5
	arcInstance      = 6
	arcConfiguration = 7

	arcPCESVN = 17 // below arcTCB; 1 to 16 are the components
	arcCPUSVN = 18

	arcDynamic    = 1 // below arcConfiguration
	arcCachedKeys = 2
	arcSMT        = 3
)

func endorsementError(expected string) error {
	return attest.NewFailure(CodeEndorsement, expected, "something else", "have the platform fetch its PCK certificate again")
}

func parseEndorsement(leaf *x509.Certificate) (*Endorsement, error) {
	var value []byte
	for _, e := range leaf.Extensions {
		if !e.Id.Equal(oidSGX()) {
			continue
		}
		if value != nil {
			return nil, endorsementError("one SGX extension")
		}
		value = e.Value
	}
	fields, err := arcs(cryptobyte.String(value), oidSGX(), arcConfiguration)
	if err != nil {
		return nil, err
	}
	e := &Endorsement{}
	ok := fields.octets(arcPPID, e.PPID[:]) && fields.octets(arcPCEID, e.PCEID[:]) && fields.octets(arcFMSPC, e.FMSPC[:])
	if !ok {
		return nil, endorsementError("PPID, PCE id and FMSPC of 16, 2 and 6 bytes")
	}
	var kind int
	if v := fields[arcType]; !v.ReadASN1Enum(&kind) || !v.Empty() || kind < 0 || kind > int(SGXScalableWithIntegrity) {
		return nil, endorsementError("an SGX type from 0 to 2")
	}
	e.Type = SGXType(kind)
	if err := e.TCB.parse(fields[arcTCB]); err != nil {
		return nil, err
	}
	return e, e.parsePlatform(fields)
}

func (t *TCB) parse(value cryptobyte.String) error {
	fields, err := arcs(value, append(oidSGX(), arcTCB), arcCPUSVN)
	if err != nil {
		return err
	}
	for i := range t.Components {
		n, ok := fields.number(i+1, 0xff)
		if !ok {
			return endorsementError(fmt.Sprintf("TCB component %d from 0 to 255", i+1))
		}
		t.Components[i] = byte(n)
	}
	n, ok := fields.number(arcPCESVN, 0xffff)
	if !ok || !fields.octets(arcCPUSVN, t.CPUSVN[:]) {
		return endorsementError("a PCESVN from 0 to 65535 and a CPUSVN of 16 bytes")
	}
	t.PCESVN = uint16(n)
	return nil
}

func (e *Endorsement) parsePlatform(fields arcValues) error {
	if fields[arcInstance] == nil && fields[arcConfiguration] == nil {
		return nil
	}
	e.Platform = &Platform{}
	configuration, err := arcs(fields[arcConfiguration], append(oidSGX(), arcConfiguration), arcSMT)
	if err != nil {
		return err
	}
	if !fields.octets(arcInstance, e.Platform.InstanceID[:]) ||
		!configuration.boolean(arcDynamic, &e.Platform.Dynamic) ||
		!configuration.boolean(arcCachedKeys, &e.Platform.CachedKeys) ||
		!configuration.boolean(arcSMT, &e.Platform.SMT) {
		return endorsementError("a platform instance id of 16 bytes, and a configuration")
	}
	return nil
}

// arcValues are the values of a sequence of (object identifier, value), by the
// identifier's last arc.
type arcValues [arcCPUSVN + 1]cryptobyte.String

// arcs reads such a sequence, whose identifiers are below prefix, with last arcs
// from 1 to limit, each at most once.
func arcs(value cryptobyte.String, prefix asn1.ObjectIdentifier, limit int) (arcValues, error) {
	var (
		values   arcValues
		sequence cryptobyte.String
	)
	if !value.ReadASN1(&sequence, cbasn1.SEQUENCE) || !value.Empty() {
		return values, endorsementError("a sequence under " + prefix.String())
	}
	for !sequence.Empty() {
		var (
			entry cryptobyte.String
			id    asn1.ObjectIdentifier
		)
		if !sequence.ReadASN1(&entry, cbasn1.SEQUENCE) || !entry.ReadASN1ObjectIdentifier(&id) || entry.Empty() {
			return values, endorsementError("pairs of identifier and value under " + prefix.String())
		}
		last := len(id) - 1
		if !slices.Equal(id[:last], prefix) || id[last] < 1 || id[last] > limit {
			return values, attest.NewFailure(CodeEndorsement, fmt.Sprintf("%s.1 to .%d", prefix, limit), id.String(), "use a c8s version that knows this platform's certificates")
		}
		if values[id[last]] != nil {
			return values, endorsementError("each of " + prefix.String() + " once")
		}
		values[id[last]] = entry
	}
	return values, nil
}

func (v arcValues) octets(arc int, to []byte) bool {
	var b cryptobyte.String
	s := v[arc]
	return s.ReadASN1(&b, cbasn1.OCTET_STRING) && s.Empty() && copy(to, b) == len(b) && len(b) == len(to)
}

func (v arcValues) number(arc int, limit uint64) (uint64, bool) {
	var n uint64
	s := v[arc]
	ok := s.ReadASN1Integer(&n) && s.Empty() && n <= limit
	return n, ok
}

func (v arcValues) boolean(arc int, to *bool) bool {
	s := v[arc]
	return s.ReadASN1Boolean(to) && s.Empty()
}
