// SPDX-License-Identifier: Apache-2.0

package collateral

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/policy"
)

// Kind names a sort of thing a vendor publishes.
type Kind string

// The kinds. The certificates complete Evidence.Certs; the others are stapled.
const (
	AMDVCEK         Kind = "amd-vcek"       // one chip's certificate for one TCB
	AMDVCEKChain    Kind = "amd-vcek-chain" // ASK and ARK
	AMDVLEKChain    Kind = "amd-vlek-chain" // ASVK and ARK
	AMDCRL          Kind = Kind(attest.AMDCRL)
	IntelTCBInfo    Kind = Kind(attest.IntelTCBInfo)
	IntelQEIdentity Kind = Kind(attest.IntelQEIdentity)
	IntelPCKCRL     Kind = Kind(attest.IntelPCKCRL)
	IntelRootCRL    Kind = Kind(attest.IntelRootCRL)
)

// Stapled reports whether the kind travels as attest.Collateral.
func (k Kind) Stapled() bool {
	switch k {
	case AMDCRL, IntelTCBInfo, IntelQEIdentity, IntelPCKCRL, IntelRootCRL:
		return true
	}
	return false
}

// The product lines AMD has keys for. Siena and Bergamo use Genoa's.
const (
	productMilan = policy.ProductMilan
	productGenoa = policy.ProductGenoa
	productTurin = "Turin"
)

// The CAs that issue PCK certificates.
const (
	CAPlatform  = "platform"
	CAProcessor = "processor"
)

const (
	chipIDSize      = 64
	turinChipIDSize = 8
	fmspcSize       = 6
)

// Request names one thing. It is comparable; only the constructors and
// ParseRequest make one that a Source answers.
type Request struct {
	Kind    Kind
	Product string     // AMD: "Milan", "Genoa", "Turin"
	ChipID  string     // VCEK: lower-case hex, 8 bytes for Turin, else 64
	TCB     policy.TCB // VCEK
	FMSPC   string     // TCB info: lower-case hex, 6 bytes
	CA      string     // PCK CRL: CAPlatform or CAProcessor
}

// VCEK asks for the certificate of one chip at one TCB. Turin names chips with
// 8 bytes; its longer, zero-padded spelling in reports is accepted.
func VCEK(product string, chipID []byte, tcb policy.TCB) (Request, error) {
	if product == productTurin && len(chipID) == chipIDSize && allZero(chipID[turinChipIDSize:]) {
		chipID = chipID[:turinChipIDSize]
	}
	r := Request{Kind: AMDVCEK, Product: product, ChipID: hex.EncodeToString(chipID), TCB: tcb}
	return r, r.Validate()
}

// OfProduct asks for a product's AMDVCEKChain, AMDVLEKChain or AMDCRL.
func OfProduct(kind Kind, product string) (Request, error) {
	r := Request{Kind: kind, Product: product}
	return r, r.Validate()
}

// TCBInfo asks for TDX's TCB info of a platform, named by hex in either case.
func TCBInfo(fmspc string) (Request, error) {
	r := Request{Kind: IntelTCBInfo, FMSPC: strings.ToLower(fmspc)}
	return r, r.Validate()
}

// QEIdentity asks for the identity of TDX's quoting enclave.
func QEIdentity() Request { return Request{Kind: IntelQEIdentity} }

// RootCRL asks for the CRL of Intel's root.
func RootCRL() Request { return Request{Kind: IntelRootCRL} }

// PCKCRL asks for the CRL of CAPlatform or CAProcessor.
func PCKCRL(ca string) (Request, error) {
	r := Request{Kind: IntelPCKCRL, CA: ca}
	return r, r.Validate()
}

// Validate checks that the request names one thing in its only spelling.
func (r Request) Validate() error {
	only := Request{Kind: r.Kind}
	switch r.Kind {
	case AMDVCEK:
		only.Product, only.ChipID, only.TCB = r.Product, r.ChipID, r.TCB
	case AMDVCEKChain, AMDVLEKChain, AMDCRL:
		only.Product = r.Product
	case IntelTCBInfo:
		only.FMSPC = r.FMSPC
	case IntelPCKCRL:
		only.CA = r.CA
	case IntelQEIdentity, IntelRootCRL:
	default:
		return fail(CodeRequest, "a known kind of collateral", strconv.Quote(short(string(r.Kind))), "")
	}
	if r != only {
		return fail(CodeRequest, "only what names "+string(r.Kind), "more", "")
	}
	return r.validateNames()
}

func (r Request) validateNames() error {
	if r.amd() && r.Product != productMilan && r.Product != productGenoa && r.Product != productTurin {
		return fail(CodeRequest, "product Milan, Genoa or Turin", strconv.Quote(short(r.Product)), "")
	}
	switch r.Kind {
	case AMDVCEK:
		size := chipIDSize
		if r.Product == productTurin {
			size = turinChipIDSize
		}
		if !lowerHex(r.ChipID, size) {
			return fail(CodeRequest, fmt.Sprintf("a chip id of %d bytes in lower-case hex", size), strconv.Quote(short(r.ChipID)), "")
		}
		if strings.Trim(r.ChipID, "0") == "" {
			return fail(CodeRequest, "a chip id", "zeros", "have the host unmask the chip id")
		}
		if r.Product != productTurin && r.TCB.FMC != 0 {
			return fail(CodeRequest, "no FMC level before Turin", strconv.Itoa(int(r.TCB.FMC)), "")
		}
	case IntelTCBInfo:
		if !lowerHex(r.FMSPC, fmspcSize) {
			return fail(CodeRequest, "an FMSPC of 6 bytes in hex", strconv.Quote(short(r.FMSPC)), "")
		}
	case IntelPCKCRL:
		if r.CA != CAPlatform && r.CA != CAProcessor {
			return fail(CodeRequest, "CA platform or processor", strconv.Quote(short(r.CA)), "")
		}
	}
	return nil
}

func (r Request) amd() bool {
	switch r.Kind {
	case AMDVCEK, AMDVCEKChain, AMDVLEKChain, AMDCRL:
		return true
	}
	return false
}

func lowerHex(s string, size int) bool {
	if len(s) != 2*size {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}

func allZero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}

// String is the request's stable spelling, which ParseRequest reads: the kind
// and what names the thing, between colons.
func (r Request) String() string {
	switch r.Kind {
	case AMDVCEK:
		t := r.TCB
		return fmt.Sprintf("%s:%s:%s:%d.%d.%d.%d.%d", r.Kind, r.Product, r.ChipID, t.FMC, t.BootLoader, t.TEE, t.SNP, t.Microcode)
	case AMDVCEKChain, AMDVLEKChain, AMDCRL:
		return string(r.Kind) + ":" + r.Product
	case IntelTCBInfo:
		return string(r.Kind) + ":" + r.FMSPC
	case IntelPCKCRL:
		return string(r.Kind) + ":" + r.CA
	}
	return string(r.Kind)
}

// ParseRequest reads what String writes, and nothing else.
func ParseRequest(s string) (Request, error) {
	const parts, longest = 4, 256
	if len(s) > longest {
		return Request{}, fail(CodeRequest, fmt.Sprintf("at most %d bytes", longest), fmt.Sprintf("%d bytes", len(s)), "")
	}
	f := strings.SplitN(s, ":", parts)
	r := Request{Kind: Kind(f[0])}
	switch {
	case r.Kind == AMDVCEK && len(f) == parts:
		r.Product, r.ChipID = f[1], f[2]
		tcb, err := ParseTCB(f[3])
		if err != nil {
			return Request{}, err
		}
		r.TCB = tcb
	case r.Kind != AMDVCEK && r.amd() && len(f) == 2:
		r.Product = f[1]
	case r.Kind == IntelTCBInfo && len(f) == 2:
		r.FMSPC = f[1]
	case r.Kind == IntelPCKCRL && len(f) == 2:
		r.CA = f[1]
	}
	if err := r.Validate(); err != nil {
		return Request{}, err
	}
	if r.String() != s {
		return Request{}, fail(CodeRequest, "a request's only spelling", strconv.Quote(short(s)), "")
	}
	return r, nil
}

// ParseTCB reads the levels FMC, boot loader, TEE, SNP and microcode between
// dots, as String writes them; FMC is zero before Turin.
func ParseTCB(s string) (policy.TCB, error) {
	const levels = 5
	f := strings.SplitN(s, ".", levels)
	var v [levels]uint8
	for i := range v {
		var n uint64
		err := strconv.ErrSyntax
		if len(f) == levels {
			n, err = strconv.ParseUint(f[i], 10, 8)
		}
		if err != nil {
			return policy.TCB{}, fail(CodeRequest, "five levels from 0 to 255 between dots: FMC.bootLoader.TEE.SNP.microcode", strconv.Quote(short(s)), "")
		}
		v[i] = uint8(n)
	}
	return policy.TCB{FMC: v[0], BootLoader: v[1], TEE: v[2], SNP: v[3], Microcode: v[4]}, nil
}

// Endpoints are the servers to ask: the vendors', mirrors, or a PCCS.
type Endpoints struct {
	KDS       string // base of AMD's key distribution service
	PCS       string // base of Intel's provisioning certification service
	IntelRoot string // whole URL of the root's CRL
}

// VendorEndpoints are the vendors' own.
func VendorEndpoints() Endpoints {
	return Endpoints{
		KDS:       "https://kdsintf.amd.com",
		PCS:       "https://api.trustedservices.intel.com",
		IntelRoot: "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der",
	}
}

// Validate refuses what is not a plain HTTP base address.
func (e Endpoints) Validate() error {
	for _, s := range []string{e.KDS, e.PCS, e.IntelRoot} {
		u, err := url.Parse(s)
		if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return fail(CodeRequest, "the address of a server: https://host/path, without user or query", strconv.Quote(short(s)), "")
		}
	}
	return nil
}

// URL is where the thing is published: AMD document 57230, "KDS API", and
// Intel's "PCS API v4". A simple CDN or mirror may serve the same paths.
func (e Endpoints) URL(r Request) string {
	kds, pcs := strings.TrimRight(e.KDS, "/"), strings.TrimRight(e.PCS, "/")
	switch r.Kind {
	case AMDVCEK:
		t, fmc := r.TCB, ""
		if r.Product == productTurin {
			fmc = fmt.Sprintf("fmcSPL=%d&", t.FMC)
		}
		return fmt.Sprintf("%s/vcek/v1/%s/%s?%sblSPL=%d&teeSPL=%d&snpSPL=%d&ucodeSPL=%d", kds, r.Product, r.ChipID, fmc, t.BootLoader, t.TEE, t.SNP, t.Microcode)
	case AMDVCEKChain:
		return kds + "/vcek/v1/" + r.Product + "/cert_chain"
	case AMDVLEKChain:
		return kds + "/vlek/v1/" + r.Product + "/cert_chain"
	case AMDCRL:
		return kds + "/vcek/v1/" + r.Product + "/crl"
	case IntelTCBInfo:
		return pcs + "/tdx/certification/v4/tcb?fmspc=" + r.FMSPC
	case IntelQEIdentity:
		return pcs + "/tdx/certification/v4/qe/identity"
	case IntelPCKCRL:
		return pcs + "/sgx/certification/v4/pckcrl?ca=" + r.CA + "&encoding=der"
	case IntelRootCRL:
		return e.IntelRoot
	}
	return ""
}

// issuerHeader is the response header with the signer's chain.
func (r Request) issuerHeader() string {
	switch r.Kind {
	case IntelTCBInfo:
		return "TCB-Info-Issuer-Chain"
	case IntelQEIdentity:
		return "SGX-Enclave-Identity-Issuer-Chain"
	case IntelPCKCRL:
		return "SGX-PCK-CRL-Issuer-Chain"
	}
	return ""
}
