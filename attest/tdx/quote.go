// SPDX-License-Identifier: Apache-2.0

// Package tdx reads Intel TDX evidence. Its invariant: what is checked is what
// was received. Signatures are verified over received bytes, every length is
// exact, and nothing is filled in.
//
// Layouts are those of Intel's "TDX DCAP Quoting Library API" (quote versions 4
// and 5), certificates those of "SGX PCK Certificate and CRL Profile", TCB
// levels those of the Provisioning Certification Service, version 4. The
// package judges nothing by policy.
package tdx

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/c8s-dev/c8s/attest"
)

// Sizes in bytes.
const (
	headerSize     = 48
	descriptorSize = 6 // version 5: body type and size
	body10Size     = 584
	body15Size     = 648
	qeReportSize   = 384
	ecdsaSize      = 64
	certHeaderSize = 6    // type and size of certification data
	MaxPadding     = 4096 // Linux's configfs hands out quotes with up to 3,065 zero bytes after them
)

// The accepted values of a quote's header.
const (
	version4        = 4
	version5        = 5
	keyTypeP256     = 2
	teeTDX          = 0x81
	bodyTD10        = 2
	bodyTD15        = 3
	certTypePCK     = 5
	certTypeQE      = 6
	offUserData     = 28
	offTEETCBSVN2   = 584
	offMRServiceTD  = 600
	qeReportDataOff = 320
)

func intelVendor() [16]byte {
	return [16]byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07}
}

// Attributes of a trust domain (Intel TDX module ABI, ATTRIBUTES).
const (
	attrDebug         = 1 << 0
	attrLASS          = 1 << 27
	attrSeptVEDisable = 1 << 28
	attrMigratable    = 1 << 29
	attrPKS           = 1 << 30
	attrKeyLocker     = 1 << 31
	attrTPA           = 1 << 62
	attrPerfmon       = 1 << 63
	attrKnown         = attrDebug | attrLASS | attrSeptVEDisable | attrMigratable | attrPKS | attrKeyLocker | attrTPA | attrPerfmon
)

// Quote is a parsed quote. Its signatures have not been checked.
type Quote struct {
	Version         uint16
	BodyType        uint16 // bodyTD10 or bodyTD15
	UserData        [20]byte
	TEETCBSVN       [16]byte
	MRSEAM          [48]byte
	MRSignerSEAM    [48]byte // zero: Intel's
	SEAMAttributes  [8]byte
	TDAttributes    [8]byte
	XFAM            [8]byte
	MRTD            [48]byte
	MRConfigID      [48]byte
	MROwner         [48]byte
	MROwnerConfig   [48]byte
	RTMR            [4][48]byte
	ReportData      [64]byte
	TEETCBSVN2      [16]byte // of TD 1.5 bodies: of the module that runs now
	MRServiceTD     [48]byte // of TD 1.5 bodies
	QE              QEReport
	AttestationKey  [64]byte // P-256, x and y
	PCKChain        []byte   // PEM, as received
	Padding         int      // zero bytes after the quote
	signed          []byte   // header and body
	signature       []byte
	qeReport        []byte
	qeSignature     []byte
	qeAuthenticated []byte // the attestation key and the authentication data
}

// QEReport is the report of the quoting enclave (Intel SDM, REPORT).
type QEReport struct {
	MiscSelect uint32
	Attributes [16]byte
	MREnclave  [32]byte
	MRSigner   [32]byte
	ISVProdID  uint16
	ISVSVN     uint16
	ReportData [64]byte
}

// IsQuote reports whether b begins like a TDX quote.
func IsQuote(b []byte) bool {
	return len(b) > headerSize && (b[0] == version4 || b[0] == version5) && b[1] == 0 && binary.LittleEndian.Uint32(b[4:]) == teeTDX
}

// ParseQuote reads a quote of version 4 or 5. It keeps a copy of b.
func ParseQuote(b []byte) (*Quote, error) {
	if len(b) > attest.MaxReport {
		return nil, formatError(fmt.Sprintf("at most %d bytes", attest.MaxReport), fmt.Sprintf("%d bytes", len(b)))
	}
	p := &parser{rest: append(make([]byte, 0, len(b)), b...)}
	q := &Quote{}
	start := p.rest
	p.header(q)
	p.body(q)
	q.signed = start[:len(start)-len(p.rest)]
	p.signatureData(q)
	p.padding(q)
	if p.err != nil {
		return nil, p.err
	}
	return q, nil
}

func formatError(expected, actual string) error {
	return attest.NewFailure(CodeQuoteFormat, expected, actual, "")
}

// parser takes fields off the front and keeps the first error. After an error
// it hands out zeros, so that callers need not stop at once.
type parser struct {
	rest []byte
	err  error
}

func (p *parser) refuse(expected, actual string) {
	if p.err == nil {
		p.err = formatError(expected, actual)
	}
	p.rest = nil
}

func (p *parser) take(n int, what string) []byte {
	if p.err == nil && len(p.rest) < n {
		p.refuse(fmt.Sprintf("%s of %d bytes", what, n), fmt.Sprintf("%d bytes", len(p.rest)))
	}
	if p.err != nil {
		return nil
	}
	b := p.rest[:n:n]
	p.rest = p.rest[n:]
	return b
}

func (p *parser) uint16(what string) uint16 {
	if b := p.take(2, what); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

// sized takes a length of 32 bits and that many bytes.
func (p *parser) sized(what string) []byte {
	var n uint32
	if b := p.take(4, "the size of "+what); b != nil {
		n = binary.LittleEndian.Uint32(b)
	}
	if p.err == nil && uint64(n) > uint64(len(p.rest)) {
		p.refuse(fmt.Sprintf("%s inside the quote's %d bytes", what, len(p.rest)), fmt.Sprintf("%d bytes", n))
		return nil
	}
	return p.take(int(n), what)
}

func (p *parser) header(q *Quote) {
	h := p.take(headerSize, "a quote header")
	if h == nil {
		return
	}
	le := binary.LittleEndian
	q.Version = le.Uint16(h)
	switch {
	case q.Version != version4 && q.Version != version5:
		p.err = attest.NewFailure(CodeQuoteVersion, "4 or 5", fmt.Sprint(q.Version), "use a c8s version that knows this quote")
	case le.Uint16(h[2:]) != keyTypeP256:
		p.refuse("attestation key type 2 (ECDSA P-256)", fmt.Sprint(le.Uint16(h[2:])))
	case le.Uint32(h[4:]) != teeTDX:
		p.refuse("TEE type 0x81 (TDX)", fmt.Sprintf("%#x", le.Uint32(h[4:])))
	case le.Uint32(h[8:]) != 0:
		p.refuse("reserved bytes of zero in the header", hex.EncodeToString(h[8:12]))
	case [16]byte(h[12:]) != intelVendor():
		p.refuse("Intel's quoting enclave", hex.EncodeToString(h[12:28]))
	}
	copy(q.UserData[:], h[offUserData:])
}

func (p *parser) body(q *Quote) {
	size := body10Size
	q.BodyType = bodyTD10
	if q.Version == version5 {
		d := p.take(descriptorSize, "a body descriptor")
		if d == nil {
			return
		}
		q.BodyType = binary.LittleEndian.Uint16(d)
		sizes := map[uint16]int{bodyTD10: body10Size, bodyTD15: body15Size}
		size = sizes[q.BodyType]
		if got := binary.LittleEndian.Uint32(d[2:]); size == 0 || uint64(got) != uint64(size) {
			p.refuse("a body of type 2 (584 bytes) or 3 (648 bytes)", fmt.Sprintf("type %d (%d bytes)", q.BodyType, got))
			return
		}
	}
	b := p.take(size, "a report body")
	if b == nil {
		return
	}
	for _, field := range q.bodyFields() {
		b = b[copy(field, b):]
	}
}

// bodyFields lists the parts of a report body in their order.
func (q *Quote) bodyFields() [][]byte {
	fields := [][]byte{
		q.TEETCBSVN[:], q.MRSEAM[:], q.MRSignerSEAM[:], q.SEAMAttributes[:], q.TDAttributes[:], q.XFAM[:],
		q.MRTD[:], q.MRConfigID[:], q.MROwner[:], q.MROwnerConfig[:],
		q.RTMR[0][:], q.RTMR[1][:], q.RTMR[2][:], q.RTMR[3][:], q.ReportData[:],
	}
	if q.BodyType == bodyTD15 {
		fields = append(fields, q.TEETCBSVN2[:], q.MRServiceTD[:])
	}
	return fields
}

// signatureData reads the parts around the quoting enclave, each of which must
// fill its container exactly.
func (p *parser) signatureData(q *Quote) {
	s := &parser{rest: p.sized("signature data"), err: p.err}
	q.signature = s.take(ecdsaSize, "the quote's signature")
	key := s.take(ecdsaSize, "the attestation key")
	copy(q.AttestationKey[:], key)

	qe := s.certification(certTypeQE)
	q.qeReport = qe.take(qeReportSize, "the quoting enclave's report")
	q.qeSignature = qe.take(ecdsaSize, "the signature of the quoting enclave's report")
	auth := qe.take(int(qe.uint16("the size of the authentication data")), "authentication data")
	q.qeAuthenticated = append(append(make([]byte, 0, len(key)+len(auth)), key...), auth...)

	pck := qe.certification(certTypePCK)
	q.PCKChain = pck.rest
	for _, inner := range []*parser{pck, qe, s} {
		if p.err == nil && inner.err != nil {
			p.err = inner.err
		}
	}
	if p.err == nil && len(qe.rest)+len(s.rest) != 0 {
		p.refuse("certification data that fills its container", fmt.Sprintf("%d bytes too many", len(qe.rest)+len(s.rest)))
	}
	if p.err == nil {
		q.readQE()
	}
}

// certification takes certification data of the given type and returns what
// reads its content.
func (p *parser) certification(want uint16) *parser {
	got := p.uint16("the type of certification data")
	if p.err == nil && got != want {
		p.refuse(fmt.Sprintf("certification data of type %d", want), fmt.Sprint(got))
	}
	content := p.sized("certification data")
	return &parser{rest: content, err: p.err}
}

func (q *Quote) readQE() {
	b, le := q.qeReport, binary.LittleEndian
	q.QE.MiscSelect = le.Uint32(b[16:])
	copy(q.QE.Attributes[:], b[48:])
	copy(q.QE.MREnclave[:], b[64:])
	copy(q.QE.MRSigner[:], b[128:])
	q.QE.ISVProdID, q.QE.ISVSVN = le.Uint16(b[256:]), le.Uint16(b[258:])
	copy(q.QE.ReportData[:], b[qeReportDataOff:])
}

// padding accepts zeros after the quote, which nothing signs.
func (p *parser) padding(q *Quote) {
	if p.err == nil && len(p.rest) > MaxPadding {
		p.refuse(fmt.Sprintf("at most %d bytes of padding", MaxPadding), fmt.Sprintf("%d bytes", len(p.rest)))
	}
	for _, b := range p.rest {
		if b != 0 {
			p.refuse("padding of zeros after the quote", fmt.Sprintf("%#02x", b))
			return
		}
	}
	q.Padding = len(p.rest)
}

func (q *Quote) attributes() uint64 { return binary.LittleEndian.Uint64(q.TDAttributes[:]) }

// Debug reports whether the host may read the trust domain's memory.
func (q *Quote) Debug() bool { return q.attributes()&attrDebug != 0 }

// SeptVEDisable reports whether the host cannot raise exceptions by taking
// pages away.
func (q *Quote) SeptVEDisable() bool { return q.attributes()&attrSeptVEDisable != 0 }

// Migratable reports whether a service TD may move the trust domain.
func (q *Quote) Migratable() bool { return q.attributes()&attrMigratable != 0 }

// Perfmon reports whether the trust domain may use performance counters.
func (q *Quote) Perfmon() bool { return q.attributes()&attrPerfmon != 0 }

// CheckAttributes refuses attributes whose meaning is unknown.
func (q *Quote) CheckAttributes() error {
	if unknown := q.attributes() &^ uint64(attrKnown); unknown != 0 {
		return attest.NewFailure(CodeAttributes, "no attributes that are unknown", fmt.Sprintf("%#x", unknown), "use a c8s version that knows these attributes")
	}
	return nil
}

// ServiceTD returns MRSERVICETD and whether the quote has one that is not zero.
func (q *Quote) ServiceTD() ([48]byte, bool) {
	return q.MRServiceTD, q.BodyType == bodyTD15 && q.MRServiceTD != [48]byte{}
}
