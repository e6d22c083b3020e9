// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// cmwVectors is docs/vectors/cmw.json; byte strings are in hexadecimal.
type cmwVectors struct {
	Accepted []struct {
		Name string `json:"name"`
		CBOR string `json:"cbor"`
		JSON string `json:"json"`
		Hash string `json:"hash"`
	} `json:"accepted"`
	Refused []struct {
		Name string `json:"name"`
		CBOR string `json:"cbor,omitempty"`
		JSON string `json:"json,omitempty"`
	} `json:"refused"`
}

const cmwVectorFile = "../docs/vectors/cmw.json"

func TestWrappersMatchPublishedVectors(t *testing.T) {
	b, err := os.ReadFile(cmwVectorFile)
	if err != nil {
		t.Fatal(err)
	}
	var vectors cmwVectors
	if err := json.Unmarshal(b, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors.Accepted) < 4 || len(vectors.Refused) < 6 {
		t.Fatalf("only %d and %d vectors", len(vectors.Accepted), len(vectors.Refused))
	}
	for _, v := range vectors.Accepted {
		record := unhex(t, v.CBOR)
		e, err := ParseCMW(record)
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		hash := e.Hash()
		text, err := MarshalCMWJSON(e)
		if err != nil || string(text) != v.JSON || hex.EncodeToString(hash[:]) != v.Hash {
			t.Errorf("%s: JSON %s, hash %x, %v", v.Name, text, hash, err)
		}
		fromJSON, err := ParseCMW([]byte(v.JSON))
		if err != nil || fromJSON.Hash() != hash {
			t.Errorf("%s: from JSON: %v", v.Name, err)
		}
		// Another encoder makes the same bytes of the same values.
		var generic any
		if err := cbor.Unmarshal(record, &generic); err != nil {
			t.Fatal(err)
		}
		mode, err := cbor.CoreDetEncOptions().EncMode()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := mode.Marshal(generic); err != nil || !bytes.Equal(again, record) {
			t.Errorf("%s: another encoder writes %x, %v", v.Name, again, err)
		}
	}
	for _, v := range vectors.Refused {
		input := unhex(t, v.CBOR)
		if v.JSON != "" {
			input = []byte(v.JSON)
		}
		if _, err := ParseCMW(input); err == nil {
			t.Errorf("%s: accepted", v.Name)
		}
	}
}
