// SPDX-License-Identifier: Apache-2.0

package tdx

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/internal/onejson"
)

// Caps on Intel's JSON.
const (
	maxLevels  = 64
	maxModules = 16
)

// tcbInfo is Intel's TCB info, version 3 (PCS API v4).
type tcbInfo struct {
	ID               string           `json:"id"`
	Version          int              `json:"version"`
	IssueDate        time.Time        `json:"issueDate"`
	NextUpdate       time.Time        `json:"nextUpdate"`
	FMSPC            hexBytes         `json:"fmspc"`
	PCEID            hexBytes         `json:"pceId"`
	TCBType          int              `json:"tcbType"`
	EvaluationNumber uint32           `json:"tcbEvaluationDataNumber"`
	Module           moduleIdentity   `json:"tdxModule"`
	Modules          []moduleIdentity `json:"tdxModuleIdentities"`
	Levels           []tcbLevel       `json:"tcbLevels"` // best first
}

type moduleIdentity struct {
	ID             string         `json:"id"`
	MRSigner       hexBytes       `json:"mrsigner"`
	Attributes     hexBytes       `json:"attributes"`
	AttributesMask hexBytes       `json:"attributesMask"`
	Levels         []enclaveLevel `json:"tcbLevels"`
}

type tcbLevel struct {
	TCB struct {
		SGX    []component `json:"sgxtcbcomponents"`
		TDX    []component `json:"tdxtcbcomponents"`
		PCESVN *uint16     `json:"pcesvn"`
	} `json:"tcb"`
	Date       time.Time `json:"tcbDate"`
	Status     TCBStatus `json:"tcbStatus"`
	Advisories []string  `json:"advisoryIDs"`
}

type component struct {
	SVN *uint8 `json:"svn"`
}

// qeIdentity is Intel's identity of the TD quoting enclave, version 2.
type qeIdentity struct {
	ID               string         `json:"id"`
	Version          int            `json:"version"`
	IssueDate        time.Time      `json:"issueDate"`
	NextUpdate       time.Time      `json:"nextUpdate"`
	EvaluationNumber uint32         `json:"tcbEvaluationDataNumber"`
	MiscSelect       hexBytes       `json:"miscselect"`
	MiscSelectMask   hexBytes       `json:"miscselectMask"`
	Attributes       hexBytes       `json:"attributes"`
	AttributesMask   hexBytes       `json:"attributesMask"`
	MRSigner         hexBytes       `json:"mrsigner"`
	ISVProdID        uint16         `json:"isvprodid"`
	Levels           []enclaveLevel `json:"tcbLevels"` // best first
}

type enclaveLevel struct {
	TCB struct {
		ISVSVN *uint16 `json:"isvsvn"`
	} `json:"tcb"`
	Date       time.Time `json:"tcbDate"`
	Status     TCBStatus `json:"tcbStatus"`
	Advisories []string  `json:"advisoryIDs"`
}

// covers reports whether the TCB info is for the platform of a PCK.
func (t *tcbInfo) covers(pck *PCK) bool {
	return bytes.Equal(t.FMSPC, pck.FMSPC[:]) && bytes.Equal(t.PCEID, pck.PCEID[:])
}

// signedPart is the object inside a document of Intel's, byte for byte as
// received, and the signature beside it.
type signedPart struct {
	bytes     []byte
	signature []byte
}

func parseTCBInfo(b []byte) (*tcbInfo, *signedPart, error) {
	t := &tcbInfo{}
	part, err := parseSigned(attest.IntelTCBInfo, b, "tcbInfo", t)
	if err != nil {
		return nil, nil, err
	}
	bad := ""
	switch {
	case t.ID != "TDX" || t.Version != 3 || t.TCBType != 0:
		bad = fmt.Sprintf("id %.16q, version %d, type %d", t.ID, t.Version, t.TCBType)
	case len(t.FMSPC) != 6 || len(t.PCEID) != 2:
		bad = "an FMSPC or PCE-ID of another size"
	case len(t.Levels) == 0 || len(t.Levels) > maxLevels || len(t.Modules) > maxModules:
		bad = fmt.Sprintf("%d levels and %d modules", len(t.Levels), len(t.Modules))
	case t.EvaluationNumber == 0 || t.NextUpdate.IsZero() || t.IssueDate.IsZero():
		bad = "no evaluation number or dates"
	}
	for i := range t.Levels {
		if !t.Levels[i].complete() {
			bad = fmt.Sprintf("level %d lacks a number, its date or a known status", i)
		}
	}
	for _, m := range t.Modules {
		if !complete(m.Levels) {
			bad = fmt.Sprintf("levels of %.16q that lack a number, a date or a known status", m.ID)
		}
	}
	if bad != "" {
		return nil, nil, collateralFormat(attest.IntelTCBInfo, "TCB info of id TDX, version 3", bad)
	}
	return t, part, nil
}

func parseQEIdentity(b []byte) (*qeIdentity, *signedPart, error) {
	q := &qeIdentity{}
	part, err := parseSigned(attest.IntelQEIdentity, b, "enclaveIdentity", q)
	if err != nil {
		return nil, nil, err
	}
	bad := ""
	switch {
	case q.ID != "TD_QE" || q.Version != 2:
		bad = fmt.Sprintf("id %.16q, version %d", q.ID, q.Version)
	case len(q.Levels) == 0 || !complete(q.Levels):
		bad = fmt.Sprintf("%d levels, or one that lacks its number, date or a known status", len(q.Levels))
	case q.EvaluationNumber == 0 || q.NextUpdate.IsZero() || q.IssueDate.IsZero():
		bad = "no evaluation number or dates"
	}
	if bad != "" {
		return nil, nil, collateralFormat(attest.IntelQEIdentity, "QE identity of id TD_QE, version 2", bad)
	}
	return q, part, nil
}

// complete refuses levels that leave something out: nothing said is not zero.
func (l *tcbLevel) complete() bool {
	missing := func(c component) bool { return c.SVN == nil }
	return len(l.TCB.SGX) == components && len(l.TCB.TDX) == components && !slices.ContainsFunc(l.TCB.SGX, missing) && !slices.ContainsFunc(l.TCB.TDX, missing) &&
		l.TCB.PCESVN != nil && !l.Date.IsZero() && l.Status.needs() != needUnknown
}

func complete(levels []enclaveLevel) bool {
	return len(levels) <= maxLevels && !slices.ContainsFunc(levels, func(l enclaveLevel) bool {
		return l.TCB.ISVSVN == nil || l.Date.IsZero() || l.Status.needs() == needUnknown
	})
}

// parseSigned reads {"<name>": {…}, "signature": "<128 hex digits>"}. Fields
// that Intel adds to the signed object are ignored; the object around it is not
// signed, so there nothing is.
func parseSigned(kind attest.CollateralKind, b []byte, name string, into any) (*signedPart, error) {
	if len(b) > attest.MaxCollateralBody {
		return nil, collateralFormat(kind, fmt.Sprintf("at most %d bytes", attest.MaxCollateralBody), fmt.Sprintf("%d bytes", len(b)))
	}
	if err := onejson.Check(b); err != nil {
		return nil, collateralFormat(kind, "one JSON object without repeated keys", err.Error())
	}
	var outer map[string]json.RawMessage
	if err := json.Unmarshal(b, &outer); err != nil {
		return nil, collateralFormat(kind, "a JSON object", err.Error())
	}
	if len(outer) != 2 || outer[name] == nil || outer["signature"] == nil {
		return nil, collateralFormat(kind, fmt.Sprintf("the members %q and %q", name, "signature"), "others")
	}
	part := &signedPart{bytes: bytes.TrimSpace(outer[name])}
	var signature hexBytes
	if err := json.Unmarshal(outer["signature"], &signature); err != nil || len(signature) != 2*scalarSize {
		return nil, collateralFormat(kind, "a signature of 64 bytes", "something else")
	}
	part.signature = signature
	if err := json.Unmarshal(part.bytes, into); err != nil {
		return nil, collateralFormat(kind, "the documented fields", err.Error())
	}
	return part, nil
}
