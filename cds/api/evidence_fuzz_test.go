// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"testing"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
)

// Whatever parses is written and read again without a change.
func FuzzParseEvidenceDocument(f *testing.F) {
	transcript := attest.Transcript{Purpose: PurposeNode, Nonce: []byte("n"), Exporter: []byte("e"), SPKIHash: make([]byte, 32)}
	ev, err := simtest.Attester(f, "node").Attest(f.Context(), transcript.ReportData())
	if err != nil {
		f.Fatal(err)
	}
	doc, err := NewEvidenceDocument(ev, transcript)
	if err != nil {
		f.Fatal(err)
	}
	raw, err := doc.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"evidence":"","transcript":{"purpose":""}}`))
	f.Add(append(raw, '{'))
	f.Fuzz(func(t *testing.T, raw []byte) {
		doc, ev, err := ParseEvidenceDocument(raw)
		if err != nil {
			return
		}
		again, err := doc.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		back, same, err := ParseEvidenceDocument(again)
		if err != nil {
			t.Fatal(err)
		}
		if same.Hash() != ev.Hash() || back.ReportData() != doc.ReportData() || !bytes.Equal(back.Evidence, doc.Evidence) {
			t.Errorf("%+v became %+v", doc, back)
		}
	})
}
