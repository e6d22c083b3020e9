// SPDX-License-Identifier: Apache-2.0

package api

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/internal/onejson"
)

// maxIssuance bounds what ParseIssuance reads: an entry, a proof in a log of
// 2^64 entries, and a checkpoint with its cosignatures.
const maxIssuance = 4<<10 + 64*64 + 2*translog.MaxNote

// Issuance shows anybody that a certificate is in the log: what its holder got
// as Receipt, by a checkpoint of the time when it was asked for. It is served
// by the digest of the certificate while that lives.
type Issuance struct {
	Entry      json.RawMessage `json:"entry"` // of the log, as it is there
	Index      int64           `json:"index"`
	Proof      [][]byte        `json:"proof"`      // inclusion, RFC 6962 section 2.1.1
	Checkpoint string          `json:"checkpoint"` // signed note
}

// Marshal writes the document's one encoding.
func (i *Issuance) Marshal() ([]byte, error) {
	text, err := onejson.Encode(i)
	if err != nil {
		return nil, fmt.Errorf("writing an issuance: %w", err)
	}
	return text, nil
}

// ParseIssuance reads a document in its one encoding, and believes nothing of
// it: Receipt gives what a client verifies.
func ParseIssuance(text []byte) (*Issuance, error) {
	var i Issuance
	err := onejson.Decode(text, maxIssuance, &i)
	if err == nil && i.Index < 0 {
		err = errors.New("a negative index")
	}
	if err == nil {
		_, err = translog.ParseEntry(i.Entry)
	}
	for n, h := range i.Proof {
		if err == nil && len(h) != sha256.Size {
			err = fmt.Errorf("hash %d of the proof has %d bytes", n, len(h))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading an issuance: %w", err)
	}
	return &i, nil
}

// Receipt is the same as the holder of the certificate got it.
func (i *Issuance) Receipt() *Receipt {
	return &Receipt{Entry: i.Entry, Index: i.Index, Proof: i.Proof, Checkpoint: []byte(i.Checkpoint)}
}
