// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/acme"
)

const problemPrefix = "urn:ietf:params:acme:error:" // RFC 8555 section 6.7

// explanation of a problem type: whose fault it usually is, and what to do.
type explanation struct{ code, rule, expected, remedy string }

const visitRemedy = "let the name lead here and nowhere else, over IPv6 too if it has such addresses, and let the CA reach port 443 for " +
	TLSALPN01 + " or port 80 for " + HTTP01

var explanations = map[string]explanation{
	"rateLimited":             {CodeRateLimit, "rate limits of the CA", "fewer requests", "the next try comes when the CA allows it; restarting does not help"},
	"caa":                     {CodeCAA, "CAA records of the domain (RFC 8659)", "none, or one that allows this CA", "let the domain's CAA records allow the CA, or use the CA that they name"},
	"dns":                     {CodeDNS, "DNS of the name", "addresses of this ingress", "correct the A and AAAA records"},
	"connection":              {CodeChallenge, "the CA's visit", "an answer of this ingress", visitRemedy},
	"tls":                     {CodeChallenge, "the CA's visit", "a TLS handshake with this ingress", "nothing may end TLS between the CA and this ingress; else use " + HTTP01},
	"unauthorized":            {CodeChallenge, "the CA's visit", "the answer of this ingress", visitRemedy},
	"incorrectResponse":       {CodeChallenge, "the CA's visit", "the answer of this ingress", visitRemedy},
	"rejectedIdentifier":      {CodeIdentifier, "names that the CA certifies", "a public name that is not blocked", "ask the CA why, or use an internal CA by CSR"},
	"unsupportedIdentifier":   {CodeIdentifier, "names that the CA certifies", "a public name", "use an internal CA by CSR"},
	"accountDoesNotExist":     {CodeAccount, "account with the CA", "an account that the CA knows", "a new one is registered with the next try"},
	"externalAccountRequired": {CodeAccount, "account with the CA", "an external account binding", "get key id and key from the CA and configure them"},
	"userActionRequired":      {CodeAccount, "account with the CA", "that somebody agrees to something", "visit the page that the CA names"},
	"invalidContact":          {CodeAccount, "account with the CA", "a contact that the CA takes", "correct the contact"},
	"unsupportedContact":      {CodeAccount, "account with the CA", "a contact that the CA takes", "correct the contact"},
	"invalidProfile":          {CodeProtocol, "profile of the certificate", "one that the CA offers", "correct the profile"},
	"serverInternal":          {CodeUnreachable, "the CA works", "an answer", "wait; the next try comes by itself"},
}

// problemOf finds what the CA said, if it said anything.
func problemOf(err error) *acme.Error {
	var e *acme.Error
	if errors.As(err, &e) {
		return e
	}
	if a := (*acme.AuthorizationError)(nil); errors.As(err, &a) {
		for _, c := range a.Errors {
			if errors.As(c, &e) {
				return e
			}
		}
	}
	if o := (*acme.OrderError)(nil); errors.As(err, &o) && o.Problem != nil {
		return o.Problem
	}
	return nil
}

// explain makes a refusal of what went wrong at the CA.
func explain(err error) *Refusal {
	if r := (*Refusal)(nil); errors.As(err, &r) {
		if challenge := (*challengeError)(nil); !errors.As(err, &challenge) {
			return r
		}
	}
	if e := problemOf(err); e != nil {
		return explainProblem(e, err)
	}
	var u *url.Error
	var n net.Error
	switch {
	case errors.Is(err, errRedirect), errors.Is(err, errPlain), errors.Is(err, errTooLarge):
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &u), errors.As(err, &n):
		return &Refusal{
			Code: CodeUnreachable, Rule: "the CA answers", Expected: "an answer in time", Actual: shown(err.Error()),
			Remedy: "check the way to the CA, its roots and the proxy settings; the next try comes by itself",
		}
	}
	return &Refusal{
		Code: CodeProtocol, Rule: "the CA follows RFC 8555", Expected: "what the protocol says", Actual: shown(err.Error()),
		Remedy: "check the directory's URL and the profile; else report it to the CA",
	}
}

func explainProblem(e *acme.Error, err error) *Refusal {
	kind := strings.TrimPrefix(e.ProblemType, problemPrefix)
	what, ok := explanations[kind]
	challenge := (*challengeError)(nil)
	switch {
	case kind == "unauthorized" && !errors.As(err, &challenge): // not what a visit found, but who asks
		what = explanation{CodeAccount, "account with the CA", "an account that may order", "if the account was deactivated, move the state file away and start again: that makes another"}
	case ok:
	case e.StatusCode == http.StatusTooManyRequests:
		what = explanations["rateLimited"]
	case e.StatusCode >= 500:
		what = explanations["serverInternal"]
	default:
		what = explanation{CodeProtocol, "the CA's answer", "a certificate", "read what the CA says"}
	}
	r := &Refusal{Code: what.code, Rule: what.rule, Expected: what.expected, Remedy: what.remedy, Actual: shown(err.Error())}
	if e.Instance != "" {
		r.Remedy += ": " + shown(e.Instance)
	}
	return r
}

// askedToWait is what the CA wants us to wait for, zero if it does not say.
func askedToWait(err error) time.Duration {
	e := problemOf(err)
	if e == nil {
		return 0
	}
	n, err := strconv.Atoi(e.Header.Get(retryHeader))
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(n)*time.Second, week)
}
