// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"bytes"
	"embed"
	"fmt"
	"strings"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/policy"
)

// vendorFiles are AMD's certificates as its key server publishes them, in DER:
// see amd/README.md. Nothing trusts them; a root is trusted by its digest in the
// manifest.
//
//go:embed amd/*.der
var vendorFiles embed.FS

// VendorCerts returns AMD's ASK or ASVK, and ARK, of a product. They complete a
// chain and are never a reason to trust one.
func VendorCerts(p Product, signer SigningKey) (intermediate, root []byte, err error) {
	if err := p.known(); err != nil {
		return nil, nil, err
	}
	if signer != KeyVCEK && signer != KeyVLEK {
		return nil, nil, attest.NewFailure(CodeSigningKey, "VCEK or VLEK", signer.String(), "")
	}
	prefix := "amd/" + strings.ToLower(string(p)) + "-"
	if intermediate, err = vendorFiles.ReadFile(prefix + strings.ToLower(signer.issuer()) + ".der"); err != nil {
		return nil, nil, fmt.Errorf("reading AMD's certificates: %w", err)
	}
	if root, err = vendorFiles.ReadFile(prefix + "ark.der"); err != nil {
		return nil, nil, fmt.Errorf("reading AMD's certificates: %w", err)
	}
	return intermediate, root, nil
}

// VendorRoot names one of AMD's roots.
type VendorRoot struct {
	Product Product
	Digest  policy.Digest // of the ARK's DER, as a manifest lists it
}

// VendorRoots lists AMD's roots, so that tools can say which root a digest is
// of. A digest being here is no reason to trust it.
func VendorRoots() []VendorRoot {
	var roots []VendorRoot
	for _, p := range Products() {
		if _, root, err := VendorCerts(p, KeyVCEK); err == nil {
			roots = append(roots, VendorRoot{Product: p, Digest: policy.DigestOf(root)})
		}
	}
	return roots
}

// Complete adds to a leaf the issuers that are missing: hosts often provide the
// leaf alone. Certificates that are there stay as they are, so that a chain
// under another root is judged as what it is.
func Complete(certs [][]byte, p Product, signer SigningKey) ([][]byte, error) {
	if n := len(certs); n == 0 || n > chainLength {
		return nil, attest.NewFailure(CodeCertificates, "1 to 3 certificates, the leaf first", fmt.Sprint(n), "have the host put the leaf into its certificate table")
	}
	if len(certs) == chainLength {
		return certs, nil
	}
	intermediate, root, err := VendorCerts(p, signer)
	if err != nil {
		return nil, err
	}
	if len(certs) == 2 && !bytes.Equal(certs[1], root) {
		intermediate = certs[1]
	}
	return [][]byte{certs[0], intermediate, root}, nil
}
