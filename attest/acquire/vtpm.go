// SPDX-License-Identifier: Apache-2.0

package acquire

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/azure"
	"github.com/c8s-dev/c8s/attest/snp"
)

// What Azure's paravisor keeps in its TPM, and where the instance asks for what
// the host knows (Microsoft, "Azure confidential VM guest attestation").
const (
	hclIndex    = 0x01400001
	akHandle    = 0x81000003
	numPCR      = 24
	maxRead     = 1024 // bytes of one TPM2_NV_Read
	maxHCL      = 16 << 10
	maxTries    = 3 // for a quote that covers the registers that were read
	imdsURL     = "http://169.254.169.254"
	thimPath    = "/metadata/THIM/amd/certification"
	tdQuotePath = "/acc/tdquote"
)

func (o Options) openVTPM(context.Context) (attest.Attester, error) {
	tpm, err := o.TPM()
	if err != nil {
		return nil, err
	}
	if _, err := readHCL(tpm); err != nil {
		return nil, errors.Join(fmt.Errorf("no HCL report in the TPM, so this is not Azure: %w", err), tpm.Close())
	}
	return newAttester(func(ctx context.Context, reportData [64]byte) (*attest.Evidence, error) {
		return o.vtpmEvidence(ctx, tpm, reportData)
	}), nil
}

func (o Options) vtpmEvidence(ctx context.Context, tpm transport.TPM, reportData [64]byte) (*attest.Evidence, error) {
	hcl, err := readHCL(tpm)
	if err != nil {
		return nil, err
	}
	ev := &attest.Evidence{TEE: hcl.TEE, VTPM: &attest.VTPM{Runtime: hcl.Runtime}}
	if err := quotePCRs(tpm, azure.QualifyingData(reportData), ev.VTPM); err != nil {
		return nil, err
	}
	if hcl.TEE == attest.TEETDX {
		ev.Report, err = o.tdQuote(ctx, hcl.Report)
		return ev, err
	}
	ev.Report = hcl.Report
	if ev.Certs, err = o.thimCertificates(ctx); err != nil {
		return nil, err
	}
	product, err := snp.EndorsedProduct(ev.Certs[0])
	ev.Product = string(product)
	return ev, err
}

// readHCL reads the HCL report in pieces.
func readHCL(tpm transport.TPM) (*azure.HCL, error) {
	index := tpm2.TPMHandle(hclIndex)
	public, err := tpm2.NVReadPublic{NVIndex: index}.Execute(tpm)
	if err != nil {
		return nil, fmt.Errorf("looking at TPM index %#x: %w", hclIndex, err)
	}
	contents, err := public.NVPublic.Contents()
	if err != nil {
		return nil, fmt.Errorf("looking at TPM index %#x: %w", hclIndex, err)
	}
	if int(contents.DataSize) > maxHCL {
		return nil, fmt.Errorf("TPM index %#x has %d bytes, at most %d accepted", hclIndex, contents.DataSize, maxHCL)
	}
	var b []byte
	for len(b) < int(contents.DataSize) {
		r, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: public.NVName},
			Size:       min(maxRead, contents.DataSize-uint16(len(b))), //nolint:gosec // below DataSize
			Offset:     uint16(len(b)),                                 //nolint:gosec // below DataSize
		}.Execute(tpm)
		if err != nil {
			return nil, fmt.Errorf("reading TPM index %#x: %w", hclIndex, err)
		}
		if len(r.Data.Buffer) == 0 {
			return nil, fmt.Errorf("reading TPM index %#x: nothing at %d", hclIndex, len(b))
		}
		b = append(b, r.Data.Buffer...)
	}
	return azure.ParseHCL(b)
}

// quotePCRs reads all registers and quotes them; it starts again when one
// changed in between.
func quotePCRs(tpm transport.TPM, data [32]byte, to *attest.VTPM) (err error) {
	ak := tpm2.TPMHandle(akHandle)
	public, err := tpm2.ReadPublic{ObjectHandle: ak}.Execute(tpm)
	if err != nil {
		return fmt.Errorf("looking at the TPM's attestation key %#x: %w", akHandle, err)
	}
	all := tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: []byte{0xff, 0xff, 0xff}}}}
	for range maxTries {
		if to.PCRs, err = readPCRs(tpm); err != nil {
			return err
		}
		r, err := tpm2.Quote{
			SignHandle:     tpm2.AuthHandle{Handle: ak, Name: public.Name, Auth: tpm2.PasswordAuth(nil)},
			QualifyingData: tpm2.TPM2BData{Buffer: data[:]},
			InScheme: tpm2.TPMTSigScheme{
				Scheme: tpm2.TPMAlgRSASSA, Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256}),
			},
			PCRSelect: all,
		}.Execute(tpm)
		if err != nil {
			return fmt.Errorf("asking the TPM for a quote: %w", err)
		}
		signature, err := r.Signature.Signature.RSASSA()
		if err != nil {
			return fmt.Errorf("reading the TPM's signature: %w", err)
		}
		to.Quote, to.Signature = r.Quoted.Bytes(), signature.Sig.Buffer
		quote, err := azure.ParseQuote(to.Quote)
		if err != nil {
			return err
		}
		if quote.CheckPCRs(to.PCRs) == nil {
			return nil
		}
	}
	return errors.New("the TPM's registers change faster than they can be quoted")
}

// readPCRs reads the SHA-256 bank. A TPM returns some registers at a time.
func readPCRs(tpm transport.TPM) ([][]byte, error) {
	pcrs := make([][]byte, numPCR)
	for i := range pcrs {
		selection := make([]byte, numPCR/8)
		selection[i/8] = 1 << (i % 8)
		r, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{
			PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: selection}},
		}}.Execute(tpm)
		if err != nil {
			return nil, fmt.Errorf("reading PCR %d: %w", i, err)
		}
		if len(r.PCRValues.Digests) != 1 {
			return nil, fmt.Errorf("reading PCR %d: the TPM has no SHA-256 bank", i)
		}
		pcrs[i] = r.PCRValues.Digests[0].Buffer
	}
	return pcrs, nil
}

// tdQuote has the host turn a TDREPORT into a quote.
func (o Options) tdQuote(ctx context.Context, report []byte) ([]byte, error) {
	body, err := json.Marshal(map[string]string{"report": base64.RawURLEncoding.EncodeToString(report)})
	if err != nil {
		return nil, err
	}
	var answer struct {
		Quote string `json:"quote"`
	}
	if err := o.metadata(ctx, http.MethodPost, tdQuotePath, body, &answer); err != nil {
		return nil, err
	}
	quote, err := base64.RawURLEncoding.DecodeString(answer.Quote)
	if err != nil {
		return nil, fmt.Errorf("reading the TD quote of %s: %w", tdQuotePath, err)
	}
	return quote, nil
}

// thimCertificates returns VCEK, ASK and ARK.
func (o Options) thimCertificates(ctx context.Context) ([][]byte, error) {
	var answer struct {
		VCEK  string `json:"vcekCert"`
		Chain string `json:"certificateChain"`
	}
	if err := o.metadata(ctx, http.MethodGet, thimPath, nil, &answer); err != nil {
		return nil, err
	}
	var certs [][]byte
	for block, rest := pem.Decode([]byte(answer.VCEK + "\n" + answer.Chain)); block != nil; block, rest = pem.Decode(rest) {
		certs = append(certs, block.Bytes)
	}
	if len(certs) != 3 {
		return nil, fmt.Errorf("reading %s: %d certificates, expected VCEK, ASK and ARK", thimPath, len(certs))
	}
	return certs, nil
}

// metadata asks the instance's metadata service.
func (o Options) metadata(ctx context.Context, method, path string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, o.IMDS+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Metadata", "true")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := o.HTTP.Do(req)
	if err != nil {
		return fmt.Errorf("asking the instance's metadata: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
	switch {
	case err != nil:
		return fmt.Errorf("reading %s: %w", path, err)
	case len(b) > maxResponse:
		return fmt.Errorf("reading %s: more than %d bytes", path, maxResponse)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("reading %s: status %s", path, resp.Status)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	return nil
}
