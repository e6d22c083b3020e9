// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"encoding/asn1"
	"fmt"
)

// EncodeExtension wraps a CMW record in CBOR as the value of an X.509 extension:
// CHOICE { json UTF8String, cbor OCTET STRING } (RFC 9999).
func EncodeExtension(cmw []byte) ([]byte, error) {
	der, err := asn1.Marshal(cmw)
	if err != nil {
		return nil, fmt.Errorf("writing a CMW extension: %w", err)
	}
	return der, nil
}

// DecodeExtension returns the record of either form for ParseCMW. It shares
// memory with der.
func DecodeExtension(der []byte) ([]byte, error) {
	var raw asn1.RawValue
	rest, err := asn1.Unmarshal(der, &raw)
	isJSON := len(raw.Bytes) > 0 && raw.Bytes[0] == '['
	switch {
	case err != nil || len(rest) != 0 || raw.Class != asn1.ClassUniversal || raw.IsCompound:
	case raw.Tag == asn1.TagOctetString && !isJSON, raw.Tag == asn1.TagUTF8String && isJSON:
		return raw.Bytes, nil
	}
	return nil, fmt.Errorf("reading a CMW extension: %w: neither CBOR in an OCTET STRING nor JSON in a UTF8String", ErrCMW)
}
