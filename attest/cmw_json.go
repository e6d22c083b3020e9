// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// MarshalCMWJSON writes evidence as a CMW record in JSON: ["media type", "value
// in base64url without padding", 4].
func MarshalCMWJSON(e *Evidence) ([]byte, error) {
	if _, err := MarshalCMW(e); err != nil { // the same evidence in both forms
		return nil, err
	}
	return fmt.Appendf(nil, "[%q,%q,%d]", e.mediaType(), base64.RawURLEncoding.EncodeToString(encodeValue(e)), indEvidence), nil
}

func parseJSON(b []byte) (*Evidence, error) {
	if limit := base64.RawURLEncoding.EncodedLen(MaxCMW) + 128; len(b) > limit {
		return nil, fmt.Errorf("%d bytes, at most %d accepted", len(b), limit)
	}
	var parts []json.RawMessage
	if err := json.Unmarshal(b, &parts); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	if len(parts) != 3 {
		return nil, fmt.Errorf("record of %d elements, expected 3", len(parts))
	}
	if ind := string(parts[2]); ind != strconv.Itoa(indEvidence) {
		return nil, fmt.Errorf("indicator %.16s, expected %d (evidence)", ind, indEvidence)
	}
	var mediaType, encoded string
	if err := errors.Join(json.Unmarshal(parts[0], &mediaType), json.Unmarshal(parts[1], &encoded)); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	v, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("value: %w", err)
	}
	e, err := parseValue(mediaType, v)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(encodeValue(e), v) {
		return nil, errors.New("value not in deterministic encoding")
	}
	if len(encodeRecord(e)) > MaxCMW {
		return nil, fmt.Errorf("more than %d bytes as CBOR", MaxCMW)
	}
	return e, nil
}
