// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// The types of the CMW records that this package writes and reads.
const (
	MediaTypeSNP = "application/vnd.c8s.sev-snp+cbor"
	MediaTypeTDX = "application/vnd.c8s.tdx+cbor"
)

// indEvidence is the "evidence" bit of a CMW indicator (RFC 9999).
const indEvidence = 4

// numPCR is how many registers a TPM has.
const numPCR = 24

// ErrCMW is wrapped by every error about CMW records.
var ErrCMW = errors.New("conceptual message wrapper refused")

// record is the RFC 9999 CBOR record.
type record struct {
	_     struct{} `cbor:",toarray"`
	Type  string
	Value []byte
	Ind   uint64
}

// value is what a record carries. Members that are empty are left out, but for
// the report.
type value struct {
	Report     []byte            `cbor:"report"`
	Certs      [][]byte          `cbor:"certs,omitempty"`
	Product    string            `cbor:"product,omitempty"`
	EventLog   []byte            `cbor:"eventlog,omitempty"`
	VTPM       *vtpmValue        `cbor:"vtpm,omitempty"`
	Collateral []collateralValue `cbor:"collateral,omitempty"`
}

type vtpmValue struct {
	Runtime   []byte   `cbor:"runtime"`
	Quote     []byte   `cbor:"quote"`
	Signature []byte   `cbor:"signature"`
	PCRs      [][]byte `cbor:"pcrs"`
}

type collateralValue struct {
	Kind  string   `cbor:"kind"`
	Body  []byte   `cbor:"body"`
	Certs [][]byte `cbor:"certs,omitempty"`
}

// MarshalCMW writes evidence as a CMW record, the CBOR array [media type,
// value, indicator], in deterministic encoding (RFC 8949 section 4.2.1).
func MarshalCMW(e *Evidence) ([]byte, error) {
	if err := e.validate(); err != nil {
		return nil, fmt.Errorf("writing evidence as CMW: %w: %w", ErrCMW, err)
	}
	b := encodeRecord(e)
	if len(b) > MaxCMW {
		return nil, fmt.Errorf("writing evidence as CMW: %w: %d bytes, at most %d allowed", ErrCMW, len(b), MaxCMW)
	}
	return b, nil
}

// ParseCMW reads what MarshalCMW and MarshalCMWJSON write and refuses
// everything else: another type, trailing bytes, other encodings of the same
// value, and sizes above the caps of this package. The evidence does not share
// memory with b.
func ParseCMW(b []byte) (*Evidence, error) {
	parse := parseCBOR
	if len(b) > 0 && b[0] == '[' { // a CBOR array of three begins with 0x83
		parse = parseJSON
	}
	e, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("reading evidence from CMW: %w: %w", ErrCMW, err)
	}
	return e, nil
}

func parseCBOR(b []byte) (*Evidence, error) {
	if len(b) > MaxCMW {
		return nil, fmt.Errorf("%d bytes, at most %d accepted", len(b), MaxCMW)
	}
	mode, err := strictCBOR().DecMode()
	if err != nil {
		return nil, err
	}
	var r record
	if err := mode.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	if r.Ind != indEvidence {
		return nil, fmt.Errorf("indicator %d, expected %d (evidence)", r.Ind, indEvidence)
	}
	e, err := parseValue(r.Type, r.Value)
	if err != nil {
		return nil, err
	}
	// One value has one encoding, so that its hash identifies it.
	if !bytes.Equal(encodeRecord(e), b) {
		return nil, errors.New("not in deterministic encoding")
	}
	return e, nil
}

// parseValue reads the value of a record of either form.
func parseValue(mediaType string, b []byte) (*Evidence, error) {
	e := &Evidence{}
	switch mediaType {
	case MediaTypeSNP:
		e.TEE = TEESEVSNP
	case MediaTypeTDX:
		e.TEE = TEETDX
	default:
		return nil, fmt.Errorf("type %.64q, expected %q or %q", mediaType, MediaTypeSNP, MediaTypeTDX)
	}
	mode, err := strictCBOR().DecMode()
	if err != nil {
		return nil, err
	}
	var v value
	if err := mode.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("value: %w", err)
	}
	e.Report, e.Certs, e.Product, e.EventLog = v.Report, v.Certs, v.Product, v.EventLog
	if v.VTPM != nil {
		e.VTPM = &VTPM{Runtime: v.VTPM.Runtime, Quote: v.VTPM.Quote, Signature: v.VTPM.Signature, PCRs: v.VTPM.PCRs}
	}
	for _, c := range v.Collateral {
		e.Collateral = append(e.Collateral, Collateral{Kind: CollateralKind(c.Kind), Body: c.Body, Certs: c.Certs})
	}
	return e, e.validate()
}

func (e *Evidence) validate() error {
	switch {
	case e.TEE != TEESEVSNP && e.TEE != TEETDX:
		return fmt.Errorf("TEE %.32q, expected %q or %q", e.TEE, TEESEVSNP, TEETDX)
	case len(e.Report) == 0 || len(e.Report) > MaxReport:
		return fmt.Errorf("report of %d bytes, 1 to %d accepted", len(e.Report), MaxReport)
	case e.TEE == TEETDX && (len(e.Certs) > 0 || e.Product != ""):
		return errors.New("certificates or a product beside a TDX quote, which has its own")
	case e.TEE == TEESEVSNP && len(e.EventLog) > 0:
		return errors.New("an event log beside an SEV-SNP report, which has no registers")
	case len(e.Product) > MaxProduct || !printable(e.Product):
		return fmt.Errorf("product is not up to %d printable ASCII characters", MaxProduct)
	case len(e.EventLog) > MaxEventLog:
		return fmt.Errorf("event log of %d bytes, at most %d accepted", len(e.EventLog), MaxEventLog)
	}
	if err := validateCerts(e.Certs); err != nil {
		return err
	}
	if err := e.VTPM.validate(); err != nil {
		return err
	}
	return validateCollateral(e.Collateral)
}

func validateCerts(certs [][]byte) error {
	if len(certs) > MaxCerts {
		return fmt.Errorf("%d certificates, at most %d accepted", len(certs), MaxCerts)
	}
	for i, c := range certs {
		if len(c) == 0 || len(c) > MaxCert {
			return fmt.Errorf("certificate %d of %d bytes, 1 to %d accepted", i, len(c), MaxCert)
		}
	}
	return nil
}

func (v *VTPM) validate() error {
	switch {
	case v == nil:
		return nil
	case len(v.Runtime) == 0 || len(v.Runtime) > MaxRuntime:
		return fmt.Errorf("runtime claims of %d bytes, 1 to %d accepted", len(v.Runtime), MaxRuntime)
	case len(v.Quote) == 0 || len(v.Quote) > MaxQuote || len(v.Signature) == 0 || len(v.Signature) > MaxQuote:
		return fmt.Errorf("quote of %d and signature of %d bytes, 1 to %d accepted", len(v.Quote), len(v.Signature), MaxQuote)
	case len(v.PCRs) > numPCR:
		return fmt.Errorf("%d registers, at most %d accepted", len(v.PCRs), numPCR)
	}
	for i, pcr := range v.PCRs {
		if len(pcr) != 0 && len(pcr) != 32 {
			return fmt.Errorf("register %d of %d bytes, 0 or 32 accepted", i, len(pcr))
		}
	}
	return nil
}

func validateCollateral(items []Collateral) error {
	if len(items) > MaxCollateral {
		return fmt.Errorf("%d pieces of collateral, at most %d accepted", len(items), MaxCollateral)
	}
	for i, c := range items {
		switch c.Kind {
		case AMDCRL, IntelTCBInfo, IntelQEIdentity, IntelPCKCRL, IntelRootCRL:
		default:
			return fmt.Errorf("collateral %d of unknown kind %.32q", i, c.Kind)
		}
		if len(c.Body) == 0 || len(c.Body) > MaxCollateralBody {
			return fmt.Errorf("collateral %d of %d bytes, 1 to %d accepted", i, len(c.Body), MaxCollateralBody)
		}
		if err := validateCerts(c.Certs); err != nil {
			return fmt.Errorf("collateral %d: %w", i, err)
		}
	}
	return nil
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// strictCBOR are the decoding rules for bytes from the network: no tags, no
// indefinite lengths, no unknown or repeated keys, small containers.
func strictCBOR() cbor.DecOptions {
	return cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		MaxNestedLevels:   5,
		MaxArrayElements:  numPCR,
		MaxMapPairs:       16,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	}
}
