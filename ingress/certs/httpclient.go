// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

const (
	perRequest  = 30 * time.Second
	maxAnswer   = 1 << 20 // of a CA; chains are the largest, with some 10 KiB
	maxHeaders  = 64 << 10
	maxRetries  = 4
	longestNap  = 10 * time.Second // within a try; for longer, the try ends
	firstNap    = 250 * time.Millisecond
	retryHeader = "Retry-After"
)

// errRedirect: no resource of RFC 8555 is behind a redirect, and a POST that
// follows one becomes a GET.
var (
	errRedirect = errors.New("the CA redirects: configure the directory's own URL")
	errPlain    = errors.New("the CA names a resource that is not https")
)

// newHTTPClient is what the ACME client speaks through. That client reads
// answers of any size, follows redirects and waits as long as it is told to; so
// the limits are here.
func newHTTPClient(roots []byte, now func() time.Time) (*http.Client, error) {
	trusted, err := x509.SystemCertPool()
	if err != nil {
		trusted = x509.NewCertPool() // a container without any: the configured ones alone
	}
	if len(roots) > 0 && !trusted.AppendCertsFromPEM(roots) {
		return nil, errors.New("the roots for the ACME directory hold no certificate in PEM")
	}
	dialer := &net.Dialer{Timeout: perRequest / 2}
	return &http.Client{
		Timeout:       perRequest,
		CheckRedirect: func(*http.Request, []*http.Request) error { return errRedirect },
		Transport: &bounded{now: now, next: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, ForceAttemptHTTP2: true,
			TLSClientConfig:     &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12, Time: now},
			TLSHandshakeTimeout: perRequest / 2, MaxResponseHeaderBytes: maxHeaders, MaxIdleConns: 4, IdleConnTimeout: perRequest,
		}},
	}, nil
}

// bounded wants https, cuts what is too large, and makes Retry-After a number
// of seconds that is at least one: a negative one has the client poll without
// a pause.
type bounded struct {
	next http.RoundTripper
	now  func() time.Time
}

func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, errPlain
	}
	res, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	res.Body = &cut{ReadCloser: res.Body, left: maxAnswer}
	if v := res.Header.Get(retryHeader); v != "" {
		res.Header.Set(retryHeader, strconv.Itoa(seconds(v, b.now())))
	}
	return res, nil
}

// seconds reads both forms of RFC 9110 section 10.2.3; from 1 to a week.
func seconds(v string, now time.Time) int {
	n, err := strconv.Atoi(v)
	if err != nil {
		if at, err := http.ParseTime(v); err == nil {
			n = int(min(at.Sub(now), week) / time.Second)
		}
	}
	return min(max(n, 1), int(week/time.Second))
}

type cut struct {
	io.ReadCloser
	left int
}

var errTooLarge = fmt.Errorf("the CA's answer is larger than %d bytes", maxAnswer)

func (c *cut) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errTooLarge
	}
	n, err := c.ReadCloser.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// nap is how long the ACME client waits before it sends a request again; zero
// ends the try, which comes back later with what the CA asked for.
func nap(n int, _ *http.Request, res *http.Response) time.Duration {
	if n > maxRetries {
		return 0
	}
	if v, err := strconv.Atoi(res.Header.Get(retryHeader)); err == nil {
		if asked := time.Duration(v) * time.Second; asked > longestNap {
			return 0
		} else if asked > 0 {
			return asked
		}
	}
	return firstNap << max(n-1, 0)
}
