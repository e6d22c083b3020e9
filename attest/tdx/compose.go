// SPDX-License-Identifier: Apache-2.0

package tdx

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"io"
)

// Keys sign a composed quote. Only a simulator has such keys.
type Keys struct {
	Attestation *ecdsa.PrivateKey // the quoting enclave's
	PCK         *ecdsa.PrivateKey // the platform's
	Chain       []byte            // PEM: PCK, PCK CA, root
}

// Compose writes q in the layout that ParseQuote reads and signs it, as the
// TDX module and Intel's quoting enclave do. Version and BodyType choose the
// layout; UserData stands for the authentication data too. AttestationKey,
// QE.ReportData and PCKChain are filled in from the keys.
func (q *Quote) Compose(random io.Reader, keys Keys) ([]byte, error) {
	b := q.composeHeader()
	for _, field := range q.bodyFields() {
		b = append(b, field...)
	}
	signature, err := signP256(random, keys.Attestation, b)
	if err != nil {
		return nil, fmt.Errorf("signing a quote: %w", err)
	}
	point, err := keys.Attestation.PublicKey.Bytes()
	if err != nil {
		return nil, fmt.Errorf("signing a quote: %w", err)
	}
	key, auth := point[1:], q.UserData[:] // without the byte that says "uncompressed"
	enclave := q.composeQE(key, auth)
	enclaveSignature, err := signP256(random, keys.PCK, enclave)
	if err != nil {
		return nil, fmt.Errorf("signing a quote: %w", err)
	}
	certification := append(enclave, enclaveSignature...)
	certification = binary.LittleEndian.AppendUint16(certification, uint16(len(auth)))
	certification = append(certification, auth...)
	certification = appendSized(certification, certTypePCK, append(append([]byte{}, keys.Chain...), 0))

	data := append(signature, key...)
	data = appendSized(data, certTypeQE, certification)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data))) //nolint:gosec // a few kilobytes
	return append(b, data...), nil
}

func (q *Quote) composeHeader() []byte {
	le := binary.LittleEndian
	b := le.AppendUint16(nil, q.Version)
	b = le.AppendUint16(b, keyTypeP256)
	b = le.AppendUint32(b, teeTDX)
	b = append(b, 0, 0, 0, 0)
	vendor := intelVendor()
	b = append(b, vendor[:]...)
	b = append(b, q.UserData[:]...)
	if q.Version == version5 {
		size := uint32(body10Size)
		if q.BodyType == bodyTD15 {
			size = body15Size
		}
		b = le.AppendUint32(le.AppendUint16(b, q.BodyType), size)
	}
	return b
}

func (q *Quote) composeQE(key, auth []byte) []byte {
	b, le := make([]byte, qeReportSize), binary.LittleEndian
	le.PutUint32(b[16:], q.QE.MiscSelect)
	copy(b[48:], q.QE.Attributes[:])
	copy(b[64:], q.QE.MREnclave[:])
	copy(b[128:], q.QE.MRSigner[:])
	le.PutUint16(b[256:], q.QE.ISVProdID)
	le.PutUint16(b[258:], q.QE.ISVSVN)
	sum := sha256.Sum256(append(append([]byte{}, key...), auth...))
	copy(b[qeReportDataOff:], sum[:])
	return b
}

func appendSized(b []byte, kind uint16, content []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, kind)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(content))) //nolint:gosec // a few kilobytes
	return append(b, content...)
}

func signP256(random io.Reader, key *ecdsa.PrivateKey, message []byte) ([]byte, error) {
	digest := sha256.Sum256(message)
	r, s, err := ecdsa.Sign(random, key, digest[:])
	if err != nil {
		return nil, err
	}
	return append(r.FillBytes(make([]byte, scalarSize)), s.FillBytes(make([]byte, scalarSize))...), nil
}

// SignDocument signs a part of Intel's JSON as its servers do: {"<name>": part,
// "signature": "…"}.
func SignDocument(random io.Reader, key *ecdsa.PrivateKey, name string, part []byte) ([]byte, error) {
	signature, err := signP256(random, key, part)
	if err != nil {
		return nil, fmt.Errorf("signing %s: %w", name, err)
	}
	return fmt.Appendf(nil, `{"%s":%s,"signature":"%x"}`, name, part, signature), nil
}

// Extension writes what Intel says about a platform as the extension of its
// PCK certificate.
func (k *PCK) Extension() (pkix.Extension, error) {
	tcb := make([]pair, 0, arcCPUSVN)
	for i, c := range k.Components {
		tcb = append(tcb, valueOf(int(c), arcTCB, i+1))
	}
	tcb = append(tcb, valueOf(int(k.PCESVN), arcTCB, arcPCESVN), valueOf(k.CPUSVN[:], arcTCB, arcCPUSVN))
	entries := []pair{
		valueOf(k.PPID[:], arcPPID), valueOf(tcb, arcTCB), valueOf(k.PCEID[:], arcPCEID), valueOf(k.FMSPC[:], arcFMSPC),
		valueOf(asn1.Enumerated(1), arcSGXType), // scalable, with integrity
	}
	if k.PIID != [16]byte{} {
		entries = append(entries, valueOf(k.PIID[:], arcPIID))
	}
	der, err := marshalSequence(entries)
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("writing the SGX extension: %w", err)
	}
	return pkix.Extension{Id: SGXArc(), Value: der}, nil
}

// pair is an attribute to write: its OID and value.
type pair struct {
	id    asn1.ObjectIdentifier
	value any
}

func valueOf(value any, arcs ...int) pair { return pair{SGXArc(arcs...), value} }

func marshalSequence(list []pair) ([]byte, error) {
	var content []byte
	for _, p := range list {
		var value []byte
		var err error
		if nested, ok := p.value.([]pair); ok {
			value, err = marshalSequence(nested)
		} else {
			value, err = asn1.Marshal(p.value)
		}
		if err != nil {
			return nil, err
		}
		id, err := asn1.Marshal(p.id)
		if err != nil {
			return nil, err
		}
		one, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: append(id, value...)})
		if err != nil {
			return nil, err
		}
		content = append(content, one...)
	}
	return asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: content})
}
