// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

const digestPrefix = "sha256:"

// digestOf spells a hash like all documents do.
func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return digestPrefix + hex.EncodeToString(sum[:])
}

// isDigest: digests become parts of paths and are compared as text.
func isDigest(s string) bool {
	text, ok := strings.CutPrefix(s, digestPrefix)
	b, err := hex.DecodeString(text)
	return ok && err == nil && len(b) == sha256.Size && hex.EncodeToString(b) == text
}

// lengthPrefixed joins fields, each after its length in bytes as a big-endian
// uint64: how transcripts and beacons are signed.
func lengthPrefixed(fields ...[]byte) []byte {
	var out []byte
	for _, f := range fields {
		out = append(binary.BigEndian.AppendUint64(out, uint64(len(f))), f...)
	}
	return out
}

// transcript is what evidence commits to (docs/attestation.md, "Transcript").
type transcript struct {
	Purpose                                                          string
	Nonce, Exporter, SPKIHash, HPKEHash, ClaimsHash, GPUHash, Beacon []byte
}

func (t transcript) reportData() []byte {
	sum := sha512.Sum512(lengthPrefixed([]byte("c8s/report/v1/"+t.Purpose),
		t.Nonce, t.Exporter, t.SPKIHash, t.HPKEHash, t.ClaimsHash, t.GPUHash, t.Beacon))
	return sum[:]
}

// instant reads the one accepted spelling of a time.
func instant(s string) (time.Time, error) {
	const layout = "2006-01-02T15:04:05Z"
	t, err := time.Parse(layout, s)
	if err == nil && t.Format(layout) != s {
		err = fmt.Errorf("%q is not like %s", s, layout)
	}
	return t, err
}

// oneEncoding reads a document that has exactly one text: what the same value
// would be written as. So nothing is repeated, unknown or ambiguous in it.
func oneEncoding(text []byte, v any) error {
	if err := json.Unmarshal(text, v); err != nil {
		return err
	}
	var again bytes.Buffer
	e := json.NewEncoder(&again)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	return must(bytes.Equal(bytes.TrimSuffix(again.Bytes(), []byte("\n")), text), "encoding", "the one text of this value", "another")
}

// strictJSON reads what people write: any spacing and order, but no member
// that is unknown or stands twice, and nothing after the value.
func strictJSON(text []byte, v any) error {
	if err := noRepeats(json.NewDecoder(bytes.NewReader(text))); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the document")
	}
	return nil
}

// noRepeats reads one value and refuses objects that have a member twice,
// also in another case: encoding/json would take the last.
func noRepeats(d *json.Decoder) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	open, nested := token.(json.Delim)
	if !nested {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		if open == '{' {
			key, err := d.Token()
			if err != nil {
				return err
			}
			name := strings.ToLower(strings.ToUpper(fmt.Sprint(key)))
			if seen[name] {
				return fmt.Errorf("the member %.80q stands twice", name)
			}
			seen[name] = true
		}
		if err := noRepeats(d); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}
