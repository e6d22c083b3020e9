// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// MediaTypeSNP is the type of the CMW records this package writes and reads.
const MediaTypeSNP = "application/vnd.c8s.sev-snp+cbor"

// indEvidence is the "evidence" bit of a CMW indicator (RFC 9999).
const indEvidence = 4

// ErrCMW is wrapped by every error of ParseCMW and MarshalCMW.
var ErrCMW = errors.New("conceptual message wrapper refused")

// record is the RFC 9999 CBOR record.
type record struct {
	_     struct{} `cbor:",toarray"`
	Type  string
	Value []byte
	Ind   uint64
}

type snpValue struct {
	Report  []byte   `cbor:"report"`
	Certs   [][]byte `cbor:"certs"`
	Product string   `cbor:"product"`
}

// MarshalCMW writes evidence as a CMW record, the CBOR array [media type,
// value, indicator], in deterministic encoding (RFC 8949 section 4.2.1).
func MarshalCMW(e *Evidence) ([]byte, error) {
	if err := e.validate(); err != nil {
		return nil, fmt.Errorf("writing evidence as CMW: %w: %w", ErrCMW, err)
	}
	return encodeRecord(e), nil
}

// ParseCMW reads what MarshalCMW writes and refuses everything else: another
// type, trailing bytes, other encodings of the same value, and sizes above the
// caps of this package. The evidence does not share memory with b.
func ParseCMW(b []byte) (*Evidence, error) {
	e, err := parseCMW(b)
	if err != nil {
		return nil, fmt.Errorf("reading evidence from CMW: %w: %w", ErrCMW, err)
	}
	return e, nil
}

func parseCMW(b []byte) (*Evidence, error) {
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
	if r.Type != MediaTypeSNP {
		return nil, fmt.Errorf("type %.64q, expected %q", r.Type, MediaTypeSNP)
	}
	if r.Ind != indEvidence {
		return nil, fmt.Errorf("indicator %d, expected %d (evidence)", r.Ind, indEvidence)
	}
	var v snpValue
	if err := mode.Unmarshal(r.Value, &v); err != nil {
		return nil, fmt.Errorf("value: %w", err)
	}
	e := &Evidence{TEE: TEESEVSNP, Product: v.Product, Report: v.Report, Certs: v.Certs}
	if err := e.validate(); err != nil {
		return nil, err
	}
	// One value has one encoding, so that its hash identifies it.
	if !bytes.Equal(encodeRecord(e), b) {
		return nil, errors.New("not in deterministic encoding")
	}
	return e, nil
}

func (e *Evidence) validate() error {
	switch {
	case e.TEE != TEESEVSNP:
		return fmt.Errorf("TEE %.32q, expected %q", e.TEE, TEESEVSNP)
	case len(e.Report) == 0 || len(e.Report) > MaxReport:
		return fmt.Errorf("report of %d bytes, 1 to %d accepted", len(e.Report), MaxReport)
	case len(e.Certs) > MaxCerts:
		return fmt.Errorf("%d certificates, at most %d accepted", len(e.Certs), MaxCerts)
	case len(e.Product) > MaxProduct || !printable(e.Product):
		return fmt.Errorf("product is not up to %d printable ASCII characters", MaxProduct)
	}
	for i, c := range e.Certs {
		if len(c) == 0 || len(c) > MaxCert {
			return fmt.Errorf("certificate %d of %d bytes, 1 to %d accepted", i, len(c), MaxCert)
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
		MaxNestedLevels:   4,
		MaxArrayElements:  16,
		MaxMapPairs:       16,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	}
}

// encodeRecord writes the record by hand: it cannot fail, which Hash needs, and
// checks ParseCMW's library from the outside.
func encodeRecord(e *Evidence) []byte {
	var value []byte
	value = head(value, cborMap, 3) // keys in the bytewise order of their encodings
	value = text(value, "certs")
	value = head(value, cborArray, len(e.Certs))
	for _, c := range e.Certs {
		value = byteString(value, c)
	}
	value = text(value, "report")
	value = byteString(value, e.Report)
	value = text(value, "product")
	value = text(value, e.Product)

	out := head(make([]byte, 0, len(value)+64), cborArray, 3)
	out = text(out, "application/vnd.c8s."+e.TEE+"+cbor")
	out = byteString(out, value)
	return head(out, cborUint, indEvidence)
}

// CBOR major types (RFC 8949 section 3.1), shifted into place.
const (
	cborUint  = 0 << 5
	cborBytes = 2 << 5
	cborText  = 3 << 5
	cborArray = 4 << 5
	cborMap   = 5 << 5
)

func text(b []byte, s string) []byte { return append(head(b, cborText, len(s)), s...) }
func byteString(b, s []byte) []byte  { return append(head(b, cborBytes, len(s)), s...) }
func head(b []byte, major byte, n int) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case uint64(n) < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), uint64(n))
}
