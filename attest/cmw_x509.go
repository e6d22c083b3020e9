// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"encoding/asn1"
	"fmt"
	"unicode/utf8"
)

// EncodeExtension wraps a CMW record as the value of an X.509 extension: CHOICE
// { json UTF8String, cbor OCTET STRING } (RFC 9999). It does not look further
// into the record than DecodeExtension does.
func EncodeExtension(cmw []byte) ([]byte, error) {
	tag := extensionTag(cmw)
	if tag == 0 {
		return nil, fmt.Errorf("writing a CMW extension: %w: neither CBOR nor JSON", ErrCMW)
	}
	der, err := asn1.Marshal(asn1.RawValue{Tag: tag, Bytes: cmw})
	if err != nil {
		return nil, fmt.Errorf("writing a CMW extension: %w: %w", ErrCMW, err)
	}
	return der, nil
}

// DecodeExtension returns the record of either form for ParseCMW. It shares
// memory with der.
func DecodeExtension(der []byte) ([]byte, error) {
	var raw asn1.RawValue
	rest, err := asn1.Unmarshal(der, &raw)
	if err != nil {
		return nil, fmt.Errorf("reading a CMW extension: %w: %w", ErrCMW, err)
	}
	if tag := extensionTag(raw.Bytes); len(rest) != 0 || raw.Class != asn1.ClassUniversal || raw.IsCompound || tag == 0 || raw.Tag != tag {
		return nil, fmt.Errorf("reading a CMW extension: %w: neither CBOR in an OCTET STRING nor JSON in a UTF8String", ErrCMW)
	}
	return raw.Bytes, nil
}

// extensionTag is the ASN.1 type for a record, or 0. As in ParseCMW the first
// byte tells the forms apart, so nothing can be one form to one reader and the
// other to the next.
func extensionTag(cmw []byte) int {
	switch {
	case len(cmw) == 0 || len(cmw) > maxJSON:
		return 0
	case cmw[0] != '[':
		return asn1.TagOctetString
	case utf8.Valid(cmw):
		return asn1.TagUTF8String
	}
	return 0
}
