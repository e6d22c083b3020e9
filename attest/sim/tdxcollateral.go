// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/tdx"
)

const collateralLife = 30 * 24 * time.Hour // as Intel's

// TDXCollateral describes what the simulated vendor publishes. Its levels are
// one of each kind, which the simulated platform reaches exactly.
type TDXCollateral struct {
	Issued, NextUpdate time.Time
	FMSPC              [6]byte
	EvaluationNumber   uint32
	Platform           tdx.TCBStatus // of the platform's level
	Module             tdx.TCBStatus // of the TDX module's level
	QE                 tdx.TCBStatus // of the quoting enclave's level
	Advisories         []string      // of the platform's level
	RevokedPCK         []*big.Int    // serial numbers in the PCK CA's list; the simulated PCK has 4
	RevokedCA          []*big.Int    // in the root's list; the simulated PCK CA has 2, the signer 3
}

// Collateral returns collateral that covers the machine, after edits.
func (t *TD) Collateral(edits ...func(*TDXCollateral)) ([]attest.Collateral, error) {
	now := t.opts.Now()
	c := &TDXCollateral{
		Issued: now.Add(-time.Hour), NextUpdate: now.Add(collateralLife), FMSPC: t.opts.FMSPC, EvaluationNumber: evaluationNumber,
		Platform: t.opts.Status, Module: tdx.UpToDate, QE: tdx.UpToDate, Advisories: t.opts.Advisories,
	}
	for _, edit := range edits {
		edit(c)
	}
	items, err := t.publish(c)
	if err != nil {
		return nil, fmt.Errorf("publishing simulated collateral: %w", err)
	}
	return items, nil
}

func (t *TD) publish(c *TDXCollateral) ([]attest.Collateral, error) {
	info, err := t.sign("tcbInfo", c.tcbInfo(&t.quote, &t.pck))
	if err != nil {
		return nil, err
	}
	identity, err := t.sign("enclaveIdentity", c.qeIdentity(&t.quote.QE))
	if err != nil {
		return nil, err
	}
	pckCRL, err := t.revoke(&t.vendor.ca, c, c.RevokedPCK)
	if err != nil {
		return nil, err
	}
	rootCRL, err := t.revoke(&t.vendor.root, c, c.RevokedCA)
	if err != nil {
		return nil, err
	}
	signers := [][]byte{t.vendor.signer.cert.Raw, t.vendor.root.cert.Raw}
	return []attest.Collateral{
		{Kind: attest.IntelTCBInfo, Body: info, Certs: signers},
		{Kind: attest.IntelQEIdentity, Body: identity, Certs: signers},
		{Kind: attest.IntelPCKCRL, Body: pckCRL, Certs: [][]byte{t.vendor.ca.cert.Raw, t.vendor.root.cert.Raw}},
		{Kind: attest.IntelRootCRL, Body: rootCRL},
	}, nil
}

func (t *TD) sign(name string, part map[string]any) ([]byte, error) {
	text, err := json.Marshal(part)
	if err != nil {
		return nil, err
	}
	return tdx.SignDocument(t.opts.Rand, t.vendor.signer.key, name, text)
}

func (t *TD) revoke(by *authority, c *TDXCollateral, serials []*big.Int) ([]byte, error) {
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: c.Issued, NextUpdate: c.NextUpdate, SignatureAlgorithm: x509.ECDSAWithSHA256}
	for _, s := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: s, RevocationTime: c.Issued})
	}
	return x509.CreateRevocationList(t.opts.Rand, list, by.cert, by.key)
}

func (c *TDXCollateral) dates() map[string]any {
	const layout = "2006-01-02T15:04:05Z"
	return map[string]any{
		"issueDate": c.Issued.UTC().Format(layout), "nextUpdate": c.NextUpdate.UTC().Format(layout), "tcbEvaluationDataNumber": c.EvaluationNumber,
	}
}

const levelDate = "2025-01-01T00:00:00Z"

func (c *TDXCollateral) tcbInfo(q *tdx.Quote, pck *tdx.PCK) map[string]any {
	doc := c.dates()
	doc["id"], doc["version"], doc["tcbType"] = "TDX", 3, 0
	doc["fmspc"], doc["pceId"] = fmt.Sprintf("%x", c.FMSPC), fmt.Sprintf("%x", pck.PCEID)
	module := map[string]any{"mrsigner": fmt.Sprintf("%x", q.MRSignerSEAM), "attributes": fmt.Sprintf("%x", q.SEAMAttributes), "attributesMask": "ffffffffffffffff"}
	doc["tdxModule"] = module
	doc["tdxModuleIdentities"] = []any{map[string]any{
		"id": fmt.Sprintf("TDX_%02X", q.TEETCBSVN[1]), "mrsigner": module["mrsigner"], "attributes": module["attributes"], "attributesMask": module["attributesMask"],
		"tcbLevels": []any{enclaveLevel(uint16(q.TEETCBSVN[0]), c.Module, nil)},
	}}
	doc["tcbLevels"] = []any{map[string]any{
		"tcb":     map[string]any{"sgxtcbcomponents": numbers(pck.Components), "tdxtcbcomponents": numbers(q.TEETCBSVN), "pcesvn": pck.PCESVN},
		"tcbDate": levelDate, "tcbStatus": c.Platform, "advisoryIDs": c.Advisories,
	}}
	return doc
}

func numbers(svns [16]uint8) []any {
	list := make([]any, len(svns))
	for i, n := range svns {
		list[i] = map[string]any{"svn": n}
	}
	return list
}

func (c *TDXCollateral) qeIdentity(qe *tdx.QEReport) map[string]any {
	doc := c.dates()
	doc["id"], doc["version"] = "TD_QE", 2
	doc["miscselect"], doc["miscselectMask"] = "00000000", "ffffffff"
	doc["attributes"], doc["attributesMask"] = fmt.Sprintf("%x", qe.Attributes), "ffffffffffffffffffffffffffffffff"
	doc["mrsigner"], doc["isvprodid"] = fmt.Sprintf("%x", qe.MRSigner), qe.ISVProdID
	doc["tcbLevels"] = []any{enclaveLevel(qe.ISVSVN, c.QE, nil)}
	return doc
}

func enclaveLevel(svn uint16, status tdx.TCBStatus, advisories []string) map[string]any {
	return map[string]any{"tcb": map[string]any{"isvsvn": svn}, "tcbDate": levelDate, "tcbStatus": status, "advisoryIDs": advisories}
}
