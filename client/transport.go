// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/idna"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/client/receipt"
)

const (
	// maxTries bounds on how many connections one request is tried.
	maxTries = 3
	// receiptNonce is how many random bytes tie a receipt to its request.
	receiptNonce = 16
)

// roundTripper sends requests on proven connections only.
type roundTripper struct{ c *Client }

// CloseIdleConnections implements what http.Client asks for.
func (t roundTripper) CloseIdleConnections() { t.c.CloseIdleConnections() }

// RoundTrip implements http.RoundTripper. The error is a *Refusal where the
// other end did not prove itself, and nothing of req was sent then; or where the
// receipt of its answer is refused: Answered tells.
func (t roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.roundTrip(req)
	if err != nil && req.Body != nil {
		_ = req.Body.Close() // the contract of RoundTripper; again where it was closed already
	}
	return resp, err
}

func (t roundTripper) roundTrip(req *http.Request) (*http.Response, error) {
	o, err := t.originOf(req)
	if err != nil {
		return nil, err
	}
	h1 := t.c.cfg.OnlyHTTP1 || needsHTTP1(req)
	for try := 1; ; try++ {
		cn, err := o.acquire(req.Context(), h1)
		if err != nil {
			return nil, err
		}
		report, key := o.standing(cn.key).get()
		var sent, answered atomic.Bool
		out, err := t.c.outgoing(req, &sent, &answered)
		if err != nil {
			cn.cc.Release()
			return nil, err
		}
		resp, err := cn.cc.RoundTrip(out)
		if err == nil {
			return t.c.answered(resp, out, report, key)
		}
		if try == maxTries || !again(req, sent.Load(), answered.Load()) || cn.cc.Err() == nil {
			return nil, err
		}
		if req, err = rewound(req); err != nil {
			return nil, err
		}
	}
}

func (t roundTripper) originOf(req *http.Request) (*origin, error) {
	if req.URL == nil || req.URL.Scheme != "https" {
		return nil, fmt.Errorf("sending a request to %s: only https URLs can be proven", clip(fmt.Sprint(req.URL)))
	}
	if req.Host != "" && !strings.EqualFold(hostname(req.Host), req.URL.Hostname()) {
		return nil, fmt.Errorf("sending a request to %s: its Host is %s: the proof would be for another host than the one that answers", req.URL.Host, clip(req.Host))
	}
	host, port, err := hostPort(req.URL)
	if err != nil {
		return nil, err
	}
	return t.c.originOf(host, port)
}

func hostname(hostport string) string { return (&url.URL{Host: hostport}).Hostname() }

// splitURL reads the host and port of an https URL; without a scheme it is one.
func splitURL(text string) (host, port string, err error) {
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", "", err
	}
	if u.Scheme != "https" {
		return "", "", fmt.Errorf("%s: only https URLs can be proven", clip(text))
	}
	return hostPort(u)
}

func hostPort(u *url.URL) (host, port string, err error) {
	if host, err = idna.Lookup.ToASCII(u.Hostname()); err != nil || host == "" {
		if host = strings.ToLower(u.Hostname()); host == "" || !httpguts.ValidHostHeader(host) {
			return "", "", fmt.Errorf("%s: it names no host", clip(u.String()))
		}
	}
	if port = u.Port(); port == "" {
		port = "443"
	}
	return host, port, nil
}

// needsHTTP1 reports whether a request is an upgrade, which HTTP/2 has not.
func needsHTTP1(req *http.Request) bool {
	return httpguts.HeaderValuesContainsToken(req.Header["Connection"], "upgrade") || req.Header.Get("Upgrade") != ""
}

// outgoing is req with what this package adds: the wish for a signed answer, and
// a look at how far it came. A header that was not written to its end is no
// request to anybody.
func (c *Client) outgoing(req *http.Request, sent, answered *atomic.Bool) (*http.Request, error) {
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		WroteHeaders:         func() { sent.Store(true) },
		GotFirstResponseByte: func() { answered.Store(true) },
	})
	out := req.WithContext(ctx)
	if out.Header == nil {
		out.Header = http.Header{}
	}
	if !c.cfg.Receipts || len(req.Header["Accept-Signature"]) > 0 {
		return out, nil
	}
	nonce := make([]byte, receiptNonce)
	if _, err := io.ReadFull(c.cfg.Rand, nonce); err != nil {
		return nil, fmt.Errorf("asking for a receipt: %w", err)
	}
	out.Header = out.Header.Clone()
	receipt.Ask(out.Header, nonce)
	return out, nil
}

// again reports whether a request may be sent on another connection: nothing of
// it was sent, or it is one that may arrive twice and was not answered. Its body
// must be there again. These are net/http's rules.
func again(req *http.Request, sent, answered bool) bool {
	if req.Context().Err() != nil || answered {
		return false
	}
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return false
	}
	if !sent {
		return true
	}
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	_, key := req.Header["Idempotency-Key"]
	_, extended := req.Header["X-Idempotency-Key"]
	return key || extended
}

func rewound(req *http.Request) (*http.Request, error) {
	if req.Body == nil || req.Body == http.NoBody {
		return req, nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, fmt.Errorf("sending a request again: %w", err)
	}
	next := *req
	next.Body = body
	return &next, nil
}

// notes are what is known of an answer beside itself.
type notes struct {
	report  *Report
	receipt *receipt.Receipt
}

type notesKey struct{}

// answered verifies the signature that was asked for.
func (c *Client) answered(resp *http.Response, out *http.Request, r *Report, key ed25519.PublicKey) (*http.Response, error) {
	n := &notes{report: r}
	resp.Request = out.WithContext(context.WithValue(out.Context(), notesKey{}, n))
	if len(out.Header["Accept-Signature"]) == 0 || len(resp.Header["Signature-Input"]) == 0 {
		return resp, nil
	}
	found, err := receipt.Verify(resp, key, c.cfg.Now())
	if attest.FailureCode(err) == receipt.CodeMissing { // somebody else's signature, which we know nothing about
		return resp, nil
	}
	if err != nil {
		resp.Body.Close()
		return nil, &Refusal{
			Step:   proof.Step{Name: "receipt", State: proof.Refuted, Code: CodeReceipt, Expected: "an answer signed with the proven receipt key", Actual: err.Error()},
			Report: r, cause: err,
		}
	}
	n.receipt = found
	if c.cfg.OnReceipt != nil {
		c.cfg.OnReceipt(found)
	}
	return resp, nil
}

// ReceiptOf returns the verified receipt of an answer, nil where none was asked
// for or given.
func ReceiptOf(resp *http.Response) *receipt.Receipt {
	if n := notesOf(resp); n != nil {
		return n.receipt
	}
	return nil
}

// ReportOf returns what the connection of an answer had proven.
func ReportOf(resp *http.Response) *Report {
	if n := notesOf(resp); n != nil {
		return n.report
	}
	return nil
}

func notesOf(resp *http.Response) *notes {
	if resp == nil || resp.Request == nil {
		return nil
	}
	n, _ := resp.Request.Context().Value(notesKey{}).(*notes)
	return n
}

var errTarget = errors.New("the target is no host:port")
