// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
)

// vector is one entry of docs/vectors/transcript.json; byte strings are in
// hexadecimal.
type vector struct {
	Name       string `json:"name"`
	Purpose    string `json:"purpose"`
	Nonce      string `json:"nonce"`
	Exporter   string `json:"exporter"`
	SPKIHash   string `json:"spkiHash"`
	HPKEHash   string `json:"hpkeHash"`
	ClaimsHash string `json:"claimsHash"`
	GPUHash    string `json:"gpuHash"`
	Beacon     string `json:"beacon"`
	ReportData string `json:"reportData"`
}

const vectorFile = "../docs/vectors/transcript.json"

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTranscriptMatchesPublishedVectors(t *testing.T) {
	b, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(b, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) < 4 {
		t.Fatalf("only %d vectors", len(vectors))
	}
	seen := make(map[string]string)
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			got := Transcript{
				Purpose: v.Purpose, Nonce: unhex(t, v.Nonce), Exporter: unhex(t, v.Exporter), SPKIHash: unhex(t, v.SPKIHash),
				HPKEHash: unhex(t, v.HPKEHash), ClaimsHash: unhex(t, v.ClaimsHash), GPUHash: unhex(t, v.GPUHash), Beacon: unhex(t, v.Beacon),
			}.ReportData()
			if hex.EncodeToString(got[:]) != v.ReportData {
				t.Errorf("got %x", got)
			}
			if other, twice := seen[v.ReportData]; twice {
				t.Errorf("same report data as %q", other)
			}
			seen[v.ReportData] = v.Name
		})
	}
}

func TestTranscriptFieldsDoNotRunIntoEachOther(t *testing.T) {
	x, y := []byte("x"), []byte("y")
	xy := []byte("xy")
	all := []Transcript{
		{},
		{Purpose: "x"},
		{Nonce: x},
		{Exporter: x},
		{SPKIHash: x},
		{HPKEHash: x},
		{ClaimsHash: x},
		{GPUHash: x},
		{Beacon: x},
		{Nonce: xy},
		{Nonce: x, Exporter: y},
		{Exporter: xy},
		{Purpose: "xy"},
		{Purpose: "x", Nonce: y},
		{Nonce: bytes.Repeat([]byte{0}, 8)},
		{Nonce: bytes.Repeat([]byte{0}, 16)},
	}
	seen := make(map[[64]byte]int)
	for i, tr := range all {
		if j, twice := seen[tr.ReportData()]; twice {
			t.Errorf("%+v and %+v have the same report data", all[j], tr)
		}
		seen[tr.ReportData()] = i
	}
}

func FuzzTranscriptIsInjective(f *testing.F) {
	f.Add("enrol/node", []byte{1}, []byte{2}, 1)
	f.Fuzz(func(t *testing.T, purpose string, a, b []byte, cut int) {
		joined := append(bytes.Clone(a), b...)
		if cut < 0 || cut > len(joined) || cut == len(a) {
			return
		}
		one := Transcript{Purpose: purpose, Nonce: a, Exporter: b}
		two := Transcript{Purpose: purpose, Nonce: joined[:cut], Exporter: joined[cut:]}
		if one.ReportData() == two.ReportData() {
			t.Errorf("cut at %d of %x gives the same report data", cut, joined)
		}
	})
}
