// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"errors"
	"fmt"
	"strings"
)

// Codes of refusals: stable, counted, listed in docs/ingress-certificates.md.
const (
	CodeForeignKey  = "certificate-foreign-key" // for a key outside the TEE
	CodeNames       = "certificate-names"
	CodeDates       = "certificate-dates"
	CodeChain       = "certificate-chain"
	CodeRoot        = "certificate-root"
	CodeUsage       = "certificate-usage"
	CodeUnreadable  = "certificate-unreadable"
	CodeMissing     = "certificate-missing" // nobody has put a chain there yet
	CodeRenewalDue  = "renewal-due"         // of a signed request: somebody must act
	CodeWildcard    = "wildcard-needs-dns"
	CodeNotAllowed  = "host-not-allowed"
	CodeChallenge   = "challenge-failed"
	CodeNoChallenge = "challenge-none"
	CodeCAA         = "acme-caa"
	CodeDNS         = "acme-dns"
	CodeRateLimit   = "acme-rate-limited"
	CodeIdentifier  = "acme-name-rejected"
	CodeAccount     = "acme-account"
	CodeProfile     = "acme-profile"
	CodeUnreachable = "acme-unreachable"
	CodeProtocol    = "acme-protocol"
	CodeBudget      = "order-budget"
	CodeUnsaved     = "state-unsaved"
	CodeState       = "state-refused"
	CodeNoName      = "no-certificate"
)

// Refusal says why a certificate is not asked for, not taken or not served.
type Refusal struct {
	Code     string `json:"code"`
	Rule     string `json:"rule"`
	Expected string `json:"expected,omitempty"`
	Actual   string `json:"actual,omitempty"`
	Remedy   string `json:"remedy,omitempty"`
}

func (r *Refusal) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "refused (%s) by the rule %q", r.Code, r.Rule)
	if r.Expected != "" {
		b.WriteString(": expected " + r.Expected)
	}
	if r.Actual != "" {
		b.WriteString(", got " + r.Actual)
	}
	if r.Remedy != "" {
		b.WriteString("; " + r.Remedy)
	}
	return b.String()
}

// CodeOf returns the code of the refusal in err, or "".
func CodeOf(err error) string {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

// maxShown bounds what is repeated of what others sent.
const maxShown = 600

// shown makes text of others safe to print: escaped and short.
func shown(s string) string {
	if len(s) > maxShown {
		return fmt.Sprintf("%q… (%d bytes)", s[:maxShown], len(s))
	}
	return fmt.Sprintf("%q", s)
}

// asRefusal makes one of any error, which then has the code of a broken protocol.
func asRefusal(err error) *Refusal {
	if err == nil {
		return nil
	}
	if r := (*Refusal)(nil); errors.As(err, &r) {
		return r
	}
	return &Refusal{Code: CodeProtocol, Rule: "what was being done", Actual: shown(err.Error())}
}
