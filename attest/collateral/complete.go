// SPDX-License-Identifier: Apache-2.0

package collateral

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/snp"
)

// Complete returns a copy of the evidence with the certificates and the
// collateral that it lacks. What cannot be had is reported, and the rest is
// done all the same. Nothing in the evidence is believed: a forged report gets
// the certificates of the chip it names, which do not verify it.
func Complete(ctx context.Context, from Source, ev *attest.Evidence, now time.Time) (*attest.Evidence, Report) {
	out := *ev
	out.Certs = cloneAll(ev.Certs)
	out.Collateral = slices.Clone(ev.Collateral)
	c := completer{ctx: ctx, from: from, now: now, ev: &out}
	if needs, ok := c.needs(); ok {
		for _, r := range needs {
			c.staple(r)
		}
	}
	return &out, c.report
}

// Needs lists what Complete would ask for if the evidence came bare.
func Needs(ev *attest.Evidence) ([]Request, error) {
	switch ev.TEE {
	case attest.TEESEVSNP:
		return snpNeeds(ev)
	case attest.TEETDX:
		return tdxNeeds(ev.Report)
	}
	return nil, fail(CodeEvidence, "evidence of SEV-SNP or TDX", strconv.Quote(short(ev.TEE)), "")
}

func tdxNeeds(quote []byte) ([]Request, error) {
	fmspc, ca, err := platformOf(quote)
	if err != nil {
		return nil, err
	}
	info, err := TCBInfo(fmspc)
	if err != nil {
		return nil, err
	}
	crl, err := PCKCRL(ca)
	return []Request{info, QEIdentity(), crl, RootCRL()}, err
}

// snpNeeds leaves out the leaf where AMD does not publish it: VLEKs are handed
// to their cloud provider only.
func snpNeeds(ev *attest.Evidence) ([]Request, error) {
	report, err := snp.ParseReport(ev.Report)
	if err != nil {
		return nil, err
	}
	product, err := report.Product(ev.Product)
	if err != nil {
		return nil, err
	}
	crl, err := OfProduct(AMDCRL, string(product))
	if err != nil {
		return nil, err
	}
	if report.SigningKey == snp.KeyVLEK {
		return []Request{{Kind: AMDVLEKChain, Product: string(product)}, crl}, nil
	}
	tcb, err := product.TCB(report.Reported)
	if err != nil {
		return nil, err
	}
	needs := []Request{{Kind: AMDVCEKChain, Product: string(product)}, crl}
	vcek, err := VCEK(string(product), report.ChipID[:], tcb)
	if err != nil {
		return nil, err
	}
	return append([]Request{vcek}, needs...), nil
}

type completer struct {
	ctx    context.Context //nolint:containedctx // of one call
	from   Source
	now    time.Time
	ev     *attest.Evidence
	report Report
}

// needs puts the certificates in place and returns what is left to staple.
func (c *completer) needs() ([]Request, bool) {
	needs, err := Needs(c.ev)
	if err != nil {
		c.report.problem(err)
		return nil, false
	}
	if c.ev.TEE == attest.TEESEVSNP {
		c.certificates(needs)
	}
	return slices.DeleteFunc(needs, func(r Request) bool { return !r.Kind.Stapled() }), true
}

func (c *completer) get(r Request) (Item, bool) {
	i, err := c.from.Get(c.ctx, r)
	if err != nil {
		c.report.problem(err)
		return Item{}, false
	}
	return i, true
}

// certificates makes Certs leaf, intermediate, root. A VCEK for another TCB
// than the reported one, as hosts keep across firmware updates, is replaced.
func (c *completer) certificates(needs []Request) {
	leaf, issuers := sortCerts(c.ev.Certs)
	for _, r := range needs {
		switch r.Kind {
		case AMDVCEK:
			if _, err := checkVCEK(r, leaf); err == nil {
				continue
			}
			if i, ok := c.get(r); ok {
				leaf = i.Body
				c.report.Added = append(c.report.Added, i)
			}
		case AMDVCEKChain, AMDVLEKChain:
			if namesChain(r, issuers) {
				continue
			}
			if i, ok := c.get(r); ok {
				issuers = i.Certs
				c.report.Added = append(c.report.Added, i)
			}
		}
	}
	if leaf == nil {
		if len(needs) > 0 && needs[0].Kind == AMDVLEKChain {
			c.report.problem(fail(CodeEvidence, "the VLEK beside the report", "none", "have the cloud provider's host hand it out: AMD does not publish VLEKs"))
		}
		return // issuers without a leaf help no one
	}
	certs := append([][]byte{leaf}, issuers...)
	if len(certs) > attest.MaxCerts {
		c.report.problem(fail(CodeLimit, fmt.Sprintf("at most %d certificates", attest.MaxCerts), strconv.Itoa(len(certs)), ""))
		return
	}
	c.ev.Certs = certs
}

// sortCerts finds the leaf, and its issuers in their order.
func sortCerts(certs [][]byte) (leaf []byte, issuers [][]byte) {
	var intermediates, roots [][]byte
	for _, der := range certs {
		c, err := x509.ParseCertificate(der)
		switch {
		case err != nil:
		case !c.IsCA:
			if leaf == nil {
				leaf = der
			}
		case bytes.Equal(c.RawIssuer, c.RawSubject):
			roots = append(roots, der)
		default:
			intermediates = append(intermediates, der)
		}
	}
	return leaf, append(intermediates, roots...)
}

func namesChain(r Request, issuers [][]byte) bool {
	const pair = 2
	if len(issuers) != pair {
		return false
	}
	_, _, err := checkAMDChain(r, pemOf(issuers))
	return err == nil
}

// staple adds the item unless a current one is there already.
func (c *completer) staple(r Request) {
	at := -1
	for n, have := range c.ev.Collateral {
		i, err := ItemOf(have, time.Time{})
		if err != nil || i.Request != r {
			continue
		}
		if !i.Stale(c.now) {
			return
		}
		at = n
	}
	i, ok := c.get(r)
	if !ok {
		return
	}
	stapled, _ := i.Collateral()
	switch {
	case at >= 0 && i.Stale(c.now):
		return // no better than the one that is there
	case at >= 0:
		c.ev.Collateral[at] = stapled
	case len(c.ev.Collateral) >= attest.MaxCollateral:
		c.report.problem(fail(CodeLimit, fmt.Sprintf("at most %d stapled items", attest.MaxCollateral), "one more: "+r.String(), "have the sender staple less"))
		return
	default:
		c.ev.Collateral = append(c.ev.Collateral, stapled)
	}
	c.report.Added = append(c.report.Added, i)
}

// ItemOf says which request stapled collateral answers.
func ItemOf(c attest.Collateral, fetched time.Time) (Item, error) {
	if len(c.Body) > attest.MaxCollateralBody {
		return Item{}, checkSizes(c.Body, c.Certs)
	}
	r, err := requestOfBody(c.Body)
	if err != nil {
		return Item{}, err
	}
	if string(r.Kind) != string(c.Kind) {
		return Item{}, fail(CodeContent, strconv.Quote(short(string(c.Kind))), string(r.Kind), "")
	}
	return NewItem(r, c.Body, c.Certs, fetched)
}

// requestOfBody recognises what is stapled: JSON or DER.
func requestOfBody(body []byte) (Request, error) {
	if strings.HasPrefix(strings.TrimSpace(string(body[:min(len(body), 64)])), "{") {
		r, _, err := requestOfJSON(body)
		return r, err
	}
	crl, err := x509.ParseRevocationList(body)
	if err != nil {
		return Request{}, fail(CodeContent, "a CRL in DER, or Intel's JSON", short(err.Error()), "")
	}
	return requestOfCRL(crl)
}
