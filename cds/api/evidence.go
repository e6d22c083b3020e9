// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/c8s-dev/c8s/attest"
)

// maxEvidenceDocument bounds what ParseEvidenceDocument reads: base64 of the
// largest evidence, and its transcript.
const maxEvidenceDocument = 512 << 10

// EvidenceDocument lets anybody appraise evidence again: the record, and what
// its REPORT_DATA commits to. It is served by the hash of the evidence.
type EvidenceDocument struct {
	Evidence   []byte             `json:"evidence"` // RATS conceptual message wrapper
	Transcript EvidenceTranscript `json:"transcript"`
}

// EvidenceTranscript spells attest.Transcript. Byte strings are base64.
type EvidenceTranscript struct {
	Purpose    string `json:"purpose"`
	Nonce      []byte `json:"nonce,omitempty"`
	Exporter   []byte `json:"exporter,omitempty"`
	SPKIHash   []byte `json:"spkiHash,omitempty"`
	HPKEHash   []byte `json:"hpkeHash,omitempty"`
	ClaimsHash []byte `json:"claimsHash,omitempty"`
	GPUHash    []byte `json:"gpuHash,omitempty"`
	Beacon     []byte `json:"beacon,omitempty"`
}

// NewEvidenceDocument puts evidence and transcript together.
func NewEvidenceDocument(ev *attest.Evidence, t attest.Transcript) (*EvidenceDocument, error) {
	record, err := attest.MarshalCMW(ev)
	if err != nil {
		return nil, err
	}
	return &EvidenceDocument{Evidence: record, Transcript: EvidenceTranscript(t)}, nil
}

// Marshal encodes the document as JSON.
func (d *EvidenceDocument) Marshal() ([]byte, error) { return json.Marshal(d) }

// ParseEvidenceDocument reads a document and the evidence in it.
func ParseEvidenceDocument(raw []byte) (*EvidenceDocument, *attest.Evidence, error) {
	if len(raw) > maxEvidenceDocument {
		return nil, nil, fmt.Errorf("reading an evidence document: %d bytes, at most %d accepted", len(raw), maxEvidenceDocument)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var d EvidenceDocument
	if err := dec.Decode(&d); err != nil {
		return nil, nil, fmt.Errorf("reading an evidence document: %w", err)
	}
	if dec.More() {
		return nil, nil, errors.New("reading an evidence document: something follows it")
	}
	ev, err := attest.ParseCMW(d.Evidence)
	if err != nil {
		return nil, nil, fmt.Errorf("reading an evidence document: %w", err)
	}
	return &d, ev, nil
}

// ReportData is what the evidence must commit to.
func (d *EvidenceDocument) ReportData() [64]byte { return attest.Transcript(d.Transcript).ReportData() }
