// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/internal/onejson"
	"github.com/c8s-dev/c8s/attest/snp"
)

const maxImport = 64 << 10 // bytes

// ImportJSON reads Azure evidence in the JSON form that attestation-rs writes:
// {"platform": "az-snp" or "az-tdx", "evidence": {"tpm_quote": {"signature",
// "message", "pcrs"} in hexadecimal, "hcl_report", "vcek" or "td_quote" in
// base64url}}.
func ImportJSON(b []byte) (*attest.Evidence, error) {
	if len(b) > maxImport {
		return nil, importError(fmt.Sprintf("at most %d bytes", maxImport), fmt.Sprintf("%d bytes", len(b)))
	}
	if err := onejson.Check(b); err != nil {
		return nil, importError("one JSON object without repeated keys", err.Error())
	}
	var in struct {
		Platform string `json:"platform"`
		Evidence struct {
			Quote struct {
				Signature hexText   `json:"signature"`
				Message   hexText   `json:"message"`
				PCRs      []hexText `json:"pcrs"`
			} `json:"tpm_quote"`
			HCL     base64Text `json:"hcl_report"`
			VCEK    base64Text `json:"vcek"`
			TDQuote base64Text `json:"td_quote"`
		} `json:"evidence"`
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, importError("the documented fields", err.Error())
	}
	hcl, err := ParseHCL(in.Evidence.HCL)
	if err != nil {
		return nil, err
	}
	ev := &attest.Evidence{TEE: hcl.TEE, VTPM: &attest.VTPM{Runtime: hcl.Runtime, Quote: in.Evidence.Quote.Message, Signature: in.Evidence.Quote.Signature}}
	for _, pcr := range in.Evidence.Quote.PCRs {
		ev.VTPM.PCRs = append(ev.VTPM.PCRs, pcr)
	}
	switch {
	case in.Platform == "az-snp" && hcl.TEE == attest.TEESEVSNP && len(in.Evidence.VCEK) > 0:
		ev.Report, ev.Certs = hcl.Report, [][]byte{in.Evidence.VCEK}
		p, err := snp.EndorsedProduct(in.Evidence.VCEK)
		if err != nil {
			return nil, err
		}
		ev.Product = string(p)
	case in.Platform == "az-tdx" && hcl.TEE == attest.TEETDX && len(in.Evidence.TDQuote) > 0:
		ev.Report = in.Evidence.TDQuote
	default:
		return nil, importError("az-snp with a VCEK, or az-tdx with a TD quote", fmt.Sprintf("platform %.16q with a report of %s", in.Platform, hcl.TEE))
	}
	return ev, nil
}

func importError(expected, actual string) error {
	return attest.NewFailure(CodeImport, expected, actual, "")
}

type hexText []byte

func (h *hexText) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	*h = b
	return err
}

type base64Text []byte

func (t *base64Text) UnmarshalText(text []byte) error {
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(string(text), "="))
	*t = b
	return err
}
