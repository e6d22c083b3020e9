// SPDX-License-Identifier: Apache-2.0

package collateral

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/attest"
)

// maxBeside bounds the files that are looked at beside a given one.
const maxBeside = 256

// ReadFiles reads collateral from files: bundles, Intel's TCB info and QE
// identity, CRLs in DER, PEM or hex, and the JSON of dcap-qvl. Certificates are
// taken to complete the others, as are PEM files in the same folders.
// Signatures, a bundle's too, are not checked: the verifier checks the vendor's.
func ReadFiles(paths ...string) ([]attest.Collateral, error) {
	items, err := ReadItems(paths...)
	if err != nil {
		return nil, err
	}
	var all []attest.Collateral
	for _, i := range items {
		if c, ok := i.Collateral(); ok {
			all = append(all, c)
		}
	}
	return all, nil
}

// ReadItems is ReadFiles with AMD's certificates. Fetched is when a file was
// last written.
func ReadItems(paths ...string) ([]Item, error) {
	var r reader
	for _, path := range paths {
		if err := r.file(path); err != nil {
			return nil, err
		}
	}
	return r.finish(paths)
}

// reader gathers items, and certificates that may belong to them.
type reader struct {
	items  []Item
	chains [][][]byte
}

func (r *reader) file(path string) error {
	text, err := readRegular(path, MaxBundle)
	if err != nil {
		return fail(CodeFile, "a file that can be read", short(err.Error()), "")
	}
	var written time.Time
	if info, err := os.Stat(path); err == nil {
		written = info.ModTime()
	}
	if err := r.read(text, written); err != nil {
		var f *attest.Failure
		if !errors.As(err, &f) {
			f = &attest.Failure{Code: CodeFile, Expected: "collateral", Actual: short(err.Error())}
		}
		return fail(f.Code, filepath.Base(path)+" to hold "+f.Expected, f.Actual, f.Remedy)
	}
	return nil
}

// read goes by what the text looks like; the parsers then are strict.
func (r *reader) read(text []byte, written time.Time) error {
	trimmed := bytes.TrimSpace(text)
	switch {
	case len(trimmed) > 0 && trimmed[0] == '{':
		return r.json(text, trimmed, written)
	case bytes.HasPrefix(trimmed, []byte("-----BEGIN CERTIFICATE")):
		return r.chain(trimmed, written)
	}
	der := crlDER(text)
	if cert, err := x509.ParseCertificate(der); err == nil {
		return r.chain(pemOf([][]byte{cert.Raw}), written)
	}
	named, err := requestOfBody(der)
	if err != nil {
		return fail(CodeFile, "a bundle, Intel's JSON, a CRL or certificates", "something else", "")
	}
	return r.add(named, der, nil, written)
}

func (r *reader) add(named Request, body []byte, certs [][]byte, written time.Time) error {
	i, err := NewItem(named, body, certs, written)
	if err == nil {
		r.items = append(r.items, i)
	}
	return err
}

func (r *reader) json(text, trimmed []byte, written time.Time) error {
	var probe struct {
		PayloadType *string `json:"payloadType"`
		TCBInfo     any     `json:"tcb_info"`
	}
	if err := json.Unmarshal(trimmed, &probe); err != nil {
		return fail(CodeFile, "JSON", short(err.Error()), "")
	}
	switch {
	case probe.PayloadType != nil:
		b, err := ReadBundle(text)
		if err == nil {
			r.items = append(r.items, b.Items...)
		}
		return err
	case probe.TCBInfo != nil:
		return r.qvl(trimmed, written)
	}
	named, err := requestOfBody(trimmed)
	if err != nil {
		return err
	}
	return r.add(named, trimmed, nil, written)
}

// chain takes certificates: AMD's are items themselves.
func (r *reader) chain(text []byte, written time.Time) error {
	certs, err := parsePEMChain(text)
	if err != nil {
		return err
	}
	r.chains = append(r.chains, certs)
	first, err := x509.ParseCertificate(certs[0])
	if err != nil {
		return fail(CodeFile, "a certificate", short(err.Error()), "")
	}
	if named, err := requestOfVCEK(first); err == nil {
		return r.add(named, first.Raw, nil, written)
	}
	for _, product := range []string{productMilan, productGenoa, productTurin} {
		for _, kind := range []Kind{AMDVCEKChain, AMDVLEKChain} {
			if i, err := NewItem(Request{Kind: kind, Product: product}, text, nil, written); err == nil {
				r.items = append(r.items, i)
			}
		}
	}
	return nil
}

// qvlFile is how dcap-qvl keeps the collateral of one quote.
type qvlFile struct {
	PCKCRLChain  string `json:"pck_crl_issuer_chain"`
	RootCRL      string `json:"root_ca_crl"`
	PCKCRL       string `json:"pck_crl"`
	TCBChain     string `json:"tcb_info_issuer_chain"`
	TCBInfo      string `json:"tcb_info"`
	TCBSignature string `json:"tcb_info_signature"`
	QEChain      string `json:"qe_identity_issuer_chain"`
	QEIdentity   string `json:"qe_identity"`
	QESignature  string `json:"qe_identity_signature"`
}

func (r *reader) qvl(text []byte, written time.Time) error {
	var q qvlFile
	if err := json.Unmarshal(text, &q); err != nil {
		return fail(CodeFile, "collateral as dcap-qvl keeps it", short(err.Error()), "")
	}
	for _, part := range []struct{ name, body, signature, chain string }{
		{"tcbInfo", q.TCBInfo, q.TCBSignature, q.TCBChain},
		{"enclaveIdentity", q.QEIdentity, q.QESignature, q.QEChain},
		{"", q.PCKCRL, "", q.PCKCRLChain},
		{"", q.RootCRL, "", ""},
	} {
		var certs [][]byte
		if part.chain != "" {
			var err error
			if certs, err = parsePEMChain([]byte(part.chain)); err != nil {
				return err
			}
		}
		body, err := hex.DecodeString(part.body)
		if part.name != "" { // put together as Intel published it: the signature is over the part's own bytes
			body, err = fmt.Appendf(nil, "{%q:%s,\"signature\":%q}", part.name, part.body, part.signature), nil
		}
		if err != nil {
			return fail(CodeFile, "a CRL in hex", short(err.Error()), "")
		}
		named, err := requestOfBody(body)
		if err != nil {
			return err
		}
		if err := r.add(named, body, certs, written); err != nil {
			return err
		}
	}
	return nil
}

// finish gives the items that came without their signer's chain the chain from
// another file. A wrong one does no harm: the verifier refuses it.
func (r *reader) finish(paths []string) ([]Item, error) {
	looked := false
	for n := range r.items {
		i := &r.items[n]
		if !i.wantsChain() {
			continue
		}
		if i.Certs = pick(*i, r.chains); len(i.Certs) == 0 && !looked {
			looked = true
			r.beside(paths)
			i.Certs = pick(*i, r.chains)
		}
		if len(i.Certs) == 0 && i.Request.Kind != IntelPCKCRL { // a CRL's may be in the quote
			return nil, fail(CodeFile, "the issuer chain of "+i.Request.String()+" (PEM) beside it", "none", "name the file with the signing chain too")
		}
	}
	return r.items, nil
}

func (i Item) wantsChain() bool { return i.Request.issuerHeader() != "" && len(i.Certs) == 0 }

// pick finds the chain whose first certificate is the signer by its name.
func pick(i Item, chains [][][]byte) [][]byte {
	for _, chain := range chains {
		c, err := x509.ParseCertificate(chain[0])
		if err != nil {
			continue
		}
		if i.Request.Kind == IntelPCKCRL {
			crl, err := x509.ParseRevocationList(i.Body)
			if err == nil && bytes.Equal(crl.RawIssuer, c.RawSubject) {
				return chain
			}
			continue
		}
		if strings.HasSuffix(c.Subject.CommonName, "TCB Signing") {
			return chain
		}
	}
	return nil
}

// beside reads the PEM files in the folders of the given ones, in the order of
// their names.
func (r *reader) beside(paths []string) {
	var dirs []string
	for _, p := range paths {
		dirs = append(dirs, filepath.Dir(p))
	}
	slices.Sort(dirs)
	for _, dir := range slices.Compact(dirs) {
		names, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*.pem"))
		if err != nil {
			continue
		}
		for _, name := range names[:min(len(names), maxBeside)] {
			if text, err := readRegular(name, maxHeader); err == nil {
				if certs, err := parsePEMChain(text); err == nil {
					r.chains = append(r.chains, certs)
				}
			}
		}
	}
}

func escapeGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

// FilesIn lists a folder's files that may be collateral, for ReadItems.
func FilesIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fail(CodeFile, "a folder", short(err.Error()), "")
	}
	var paths []string
	for _, e := range entries {
		if e.Type() == fs.FileMode(0) && !strings.HasPrefix(e.Name(), ".") {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	if len(paths) > maxBeside {
		return nil, fail(CodeLimit, fmt.Sprintf("at most %d files", maxBeside), strconv.Itoa(len(paths)), "name the files")
	}
	return paths, nil
}

// Recognised returns those of the files that ReadItems reads.
func Recognised(paths []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(p string) bool {
		var r reader
		return r.file(p) != nil
	})
}
