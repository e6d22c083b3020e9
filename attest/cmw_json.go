// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// maxJSON is for a record of MaxCMW bytes in JSON, with some white space.
const maxJSON = MaxCMW*4/3 + 128

// MarshalCMWJSON writes evidence as a CMW record in JSON: ["media type", "value
// in base64url without padding", 4].
func MarshalCMWJSON(e *Evidence) ([]byte, error) {
	if _, err := MarshalCMW(e); err != nil { // the same evidence in both forms
		return nil, err
	}
	return fmt.Appendf(nil, "[%q,%q,%d]", e.mediaType(), base64.RawURLEncoding.EncodeToString(encodeValue(e)), indEvidence), nil
}

func parseJSON(b []byte) (*Evidence, error) {
	if len(b) > maxJSON {
		return nil, fmt.Errorf("%d bytes, at most %d accepted", len(b), maxJSON)
	}
	mediaType, encoded, err := readTriple(b)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	v, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("value: %w", err)
	}
	// The decoder skips line ends and spare bits.
	if base64.RawURLEncoding.EncodeToString(v) != encoded {
		return nil, errors.New("value: not base64url as written by an encoder")
	}
	e, err := parseValue(mediaType, v)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(encodeValue(e), v) {
		return nil, errors.New("value not in deterministic encoding")
	}
	if n := len(encodeRecord(e)); n > MaxCMW {
		return nil, fmt.Errorf("%d bytes as CBOR, at most %d accepted", n, MaxCMW)
	}
	return e, nil
}

// readTriple reads an array of two strings and the indicator, and nothing after
// it. It goes element by element, so that a long array costs no memory.
func readTriple(b []byte) (mediaType, encoded string, err error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	if _, err := dec.Token(); err != nil { // the bracket that ParseCMW saw
		return "", "", err
	}
	var ind json.RawMessage
	for i, into := range []any{&mediaType, &encoded, &ind} {
		if !dec.More() {
			return "", "", fmt.Errorf("%d elements, expected 3", i)
		}
		if err := dec.Decode(into); err != nil {
			return "", "", err
		}
	}
	if string(ind) != strconv.Itoa(indEvidence) {
		return "", "", fmt.Errorf("indicator %.16q, expected %d (evidence)", ind, indEvidence)
	}
	if end, err := dec.Token(); err != nil || end != json.Delim(']') {
		return "", "", errors.New("more than 3 elements, or no end")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return "", "", errors.New("bytes after the end")
	}
	return mediaType, encoded, nil
}
