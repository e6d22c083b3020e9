// SPDX-License-Identifier: Apache-2.0

// Package tdx reads Intel TDX evidence. Its invariant: what is checked is what
// was received. Every signature is verified over received bytes, every length
// is used up exactly, and nothing is filled in.
//
// Layouts are those of Intel's "TDX DCAP Quoting Library API", appendix 3
// (quotes), "SGX PCK Certificate and CRL Profile" (certificates) and the
// Provisioning Certification Service for ECDSA Attestation, API version 4
// (collateral). The package judges nothing by policy.
package tdx

import (
	"encoding/binary"
	"fmt"

	"github.com/c8s-dev/c8s/attest"
)

// MaxQuote caps a quote with its padding. Signature data with a chain has about
// 4,300 bytes; up to 3,065 bytes of padding were seen.
const MaxQuote = attest.MaxReport

// Offsets in the header of a quote.
const (
	offVersion  = 0
	offKeyType  = 2
	offTEEType  = 4
	offReserved = 8
	offVendor   = 12
	offUserData = 28
	headerSize  = 48
)

const (
	version4     = 4
	version5     = 5
	keyECDSA256  = 2
	teeTDX       = 0x81
	descriptor   = 6 // version 5: type and size of the body
	bodyTD10     = 2
	bodyTD15     = 3
	bodySize10   = 584
	bodySize15   = 648
	lengthSize   = 4
	certDataSize = 6 // type and size of certification data

	scalarSize    = 32
	signatureSize = 2 * scalarSize
	keySize       = 2 * scalarSize
	qeReportSize  = 384

	certQEReport = 6 // certification data: the QE's report and what certifies it
	certPCKChain = 5 // certification data: the PCK certificate chain in PEM
)

// BodyVersion tells which TD report a quote is made of.
type BodyVersion uint16

// The TD reports.
const (
	BodyTD10 BodyVersion = bodyTD10 // of TDX 1.0
	BodyTD15 BodyVersion = bodyTD15 // of TDX 1.5: with TEETCBSVN2 and MRServiceTD
)

// Quote is a parsed quote. Its signatures have not been checked.
type Quote struct {
	Version        uint16
	Body           BodyVersion
	UserData       [20]byte
	TEETCBSVN      [16]byte // of the TDX module and microcode when the TD was launched
	MRSEAM         [48]byte // measurement of the TDX module
	MRSignerSEAM   [48]byte // zero: Intel's
	SEAMAttributes [8]byte
	TDAttributes   [8]byte
	XFAM           [8]byte
	MRTD           [48]byte
	MRConfigID     [48]byte
	MROwner        [48]byte
	MROwnerConfig  [48]byte
	RTMR           [4][48]byte
	ReportData     [64]byte
	TEETCBSVN2     [16]byte // what runs now; zero without BodyTD15
	MRServiceTD    [48]byte // zero without BodyTD15
	QE             QEReport
	Padding        int // bytes of zero after the quote, not part of it

	raw       []byte // a copy of what was received, less the padding
	signed    []byte // what the quote's signature covers
	signature []byte
	key       []byte // the attestation key, x and y
	qeReport  []byte
	qeSigned  []byte // signature over qeReport
	auth      []byte
	chain     []byte // PEM
}

// QEReport is the report of the quoting enclave.
type QEReport struct {
	CPUSVN     [16]byte
	MiscSelect [4]byte
	Attributes [16]byte
	MREnclave  [32]byte
	MRSigner   [32]byte
	ISVProdID  uint16
	ISVSVN     uint16
	ReportData [64]byte
}

// intelQEVendor is the QE vendor id of Intel, a UUID.
func intelQEVendor() [16]byte {
	return [16]byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07}
}

// ParseQuote reads a quote of version 4 or 5. It allocates the quote and one
// copy of the bytes, and nothing that lengths in the input could enlarge. The
// certificates are for Chain to read.
func ParseQuote(b []byte) (*Quote, error) {
	if len(b) > MaxQuote {
		return nil, attest.NewFailure(CodeQuoteFormat, fmt.Sprintf("at most %d bytes", MaxQuote), fmt.Sprintf("%d bytes", len(b)), "")
	}
	r := &reader{rest: b}
	header := r.next(headerSize, "header")
	if r.err != nil {
		return nil, r.err
	}
	q := &Quote{}
	if err := q.readHeader(header); err != nil {
		return nil, err
	}
	size, err := q.bodySize(r)
	if err != nil {
		return nil, err
	}
	r.next(size, "body")
	signed := len(b) - len(r.rest)
	data := &reader{rest: r.prefixed(lengthSize, "signature data")}
	if r.err != nil {
		return nil, r.err
	}
	if q.Padding, err = padding(r.rest); err != nil {
		return nil, err
	}
	q.raw = append([]byte(nil), b[:len(b)-len(r.rest)]...)
	q.signed = q.raw[:signed]
	data.rest = q.raw[len(q.raw)-len(data.rest):]
	q.readBody(q.signed[signed-size:])
	return q, q.readSignatureData(data)
}

func (q *Quote) readHeader(b []byte) error {
	le := binary.LittleEndian
	q.Version = le.Uint16(b[offVersion:])
	copy(q.UserData[:], b[offUserData:])
	const remedy = "use a c8s version that knows this platform's quotes"
	switch vendor := [16]byte(b[offVendor:offUserData]); {
	case q.Version != version4 && q.Version != version5:
		return attest.NewFailure(CodeQuoteVersion, "4 or 5", fmt.Sprint(q.Version), remedy)
	case le.Uint16(b[offKeyType:]) != keyECDSA256:
		return attest.NewFailure(CodeQuoteAlgorithm, "2 (ECDSA P-256)", fmt.Sprint(le.Uint16(b[offKeyType:])), remedy)
	case le.Uint32(b[offTEEType:]) != teeTDX:
		return attest.NewFailure(CodeQuoteTEE, "0x81 (TDX)", fmt.Sprintf("%#x", le.Uint32(b[offTEEType:])), "")
	case le.Uint32(b[offReserved:]) != 0:
		return attest.NewFailure(CodeQuoteReserved, "zero at offset 8", fmt.Sprintf("%x", b[offReserved:offVendor]), remedy)
	case vendor != intelQEVendor():
		return attest.NewFailure(CodeQuoteVendor, fmt.Sprintf("%x (Intel)", intelQEVendor()), fmt.Sprintf("%x", vendor), "")
	}
	return nil
}

// bodySize reads the body's descriptor, which version 4 does not have.
func (q *Quote) bodySize(r *reader) (int, error) {
	if q.Version == version4 {
		q.Body = BodyTD10
		return bodySize10, nil
	}
	d := r.next(descriptor, "body descriptor")
	if r.err != nil {
		return 0, r.err
	}
	kind, size := binary.LittleEndian.Uint16(d), binary.LittleEndian.Uint32(d[2:])
	q.Body = BodyVersion(kind)
	switch {
	case kind == bodyTD10 && size == bodySize10, kind == bodyTD15 && size == bodySize15:
		return int(size), nil
	case kind != bodyTD10 && kind != bodyTD15:
		return 0, attest.NewFailure(CodeQuoteVersion, "a body of type 2 (TD 1.0) or 3 (TD 1.5)", fmt.Sprint(kind), "use a c8s version that knows this platform's quotes")
	}
	return 0, attest.NewFailure(CodeQuoteFormat, "a body of 584 (type 2) or 648 bytes (type 3)", fmt.Sprintf("%d bytes of type %d", size, kind), "")
}

func (q *Quote) readBody(b []byte) {
	for _, f := range q.bodyFields() {
		b = b[copy(f, b):]
	}
}

// bodyFields are the parts of a body in their order; those of TD 1.0 come first.
func (q *Quote) bodyFields() [][]byte {
	fields := [...][]byte{
		q.TEETCBSVN[:], q.MRSEAM[:], q.MRSignerSEAM[:], q.SEAMAttributes[:], q.TDAttributes[:], q.XFAM[:],
		q.MRTD[:], q.MRConfigID[:], q.MROwner[:], q.MROwnerConfig[:],
		q.RTMR[0][:], q.RTMR[1][:], q.RTMR[2][:], q.RTMR[3][:], q.ReportData[:],
		q.TEETCBSVN2[:], q.MRServiceTD[:],
	}
	if q.Body == BodyTD15 {
		return fields[:]
	}
	return fields[:len(fields)-2]
}

// readSignatureData reads what follows the signed part. Each size must use up
// what is around it.
func (q *Quote) readSignatureData(r *reader) error {
	q.signature = r.next(signatureSize, "signature")
	q.key = r.next(keySize, "attestation key")
	outer := r.certification(certQEReport)
	if err := r.done("signature data"); err != nil {
		return err
	}
	q.qeReport = outer.next(qeReportSize, "QE report")
	q.qeSigned = outer.next(signatureSize, "QE report signature")
	q.auth = outer.prefixed(2, "QE authentication data")
	inner := outer.certification(certPCKChain)
	if err := outer.done("certification data"); err != nil {
		return err
	}
	q.chain = inner.rest
	q.QE.read(q.qeReport)
	return nil
}

// read takes the fields of an enclave's report (Intel SDM volume 3D, REPORT).
func (e *QEReport) read(b []byte) {
	copy(e.CPUSVN[:], b)
	copy(e.MiscSelect[:], b[16:])
	copy(e.Attributes[:], b[48:])
	copy(e.MREnclave[:], b[64:])
	copy(e.MRSigner[:], b[128:])
	e.ISVProdID = binary.LittleEndian.Uint16(b[256:])
	e.ISVSVN = binary.LittleEndian.Uint16(b[258:])
	copy(e.ReportData[:], b[320:])
}

// padding accepts what Linux's configfs leaves after a quote: zero bytes of the
// host's buffer. They are not part of the quote.
func padding(b []byte) (int, error) {
	for _, v := range b {
		if v != 0 {
			return 0, attest.NewFailure(CodeQuotePadding, "nothing but zero after the quote", fmt.Sprintf("%#02x among the %d bytes after it", v, len(b)), "")
		}
	}
	return len(b), nil
}
