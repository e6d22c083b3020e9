// SPDX-License-Identifier: Apache-2.0

package collateral

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/c8s-dev/c8s/attest"
)

// FetcherConfig is how to ask the vendors' servers. All fields are required;
// DefaultFetcherConfig fills them.
type FetcherConfig struct {
	Client    *http.Client // its redirects and cookies are not used
	Endpoints Endpoints
	Clock     Clock
	PerTry    time.Duration // for one answer
	Overall   time.Duration // for one request with all of its tries and pauses
	Tries     int
	VCEKEvery time.Duration // AMD answers about one VCEK in 10 s, then refuses for minutes
}

// DefaultFetcherConfig asks the vendors themselves.
func DefaultFetcherConfig() FetcherConfig {
	return FetcherConfig{
		Client: NewClient(), Endpoints: VendorEndpoints(), Clock: SystemClock(),
		PerTry: 15 * time.Second, Overall: time.Minute, Tries: 4, VCEKEvery: 10 * time.Second,
	}
}

// NewClient returns an HTTP client that reads no more of an answer's header
// than an issuer chain needs.
func NewClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		MaxResponseHeaderBytes: 2 * maxHeader,
		MaxIdleConnsPerHost:    1,
		IdleConnTimeout:        time.Minute,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    10 * time.Second,
	}}
}

// Fetcher asks the vendors' servers. It is safe for concurrent use.
type Fetcher struct {
	config  FetcherConfig
	client  http.Client
	limiter limiter
}

// NewFetcher returns a fetcher.
func NewFetcher(c FetcherConfig) (*Fetcher, error) {
	if c.Client == nil || c.Clock.Now == nil || c.Clock.Sleep == nil || c.PerTry <= 0 || c.Overall <= 0 || c.Tries <= 0 || c.VCEKEvery <= 0 {
		return nil, fail(CodeRequest, "a client, a clock, and positive limits", "a zero value", "start from DefaultFetcherConfig")
	}
	if err := c.Endpoints.Validate(); err != nil {
		return nil, err
	}
	f := &Fetcher{config: c, client: *c.Client, limiter: limiter{clock: c.Clock, hosts: make(map[string]*host)}}
	f.client.CheckRedirect, f.client.Jar = sameHost, nil
	return f, nil
}

// sameHost lets a server rename its paths, but not send anyone elsewhere.
func sameHost(next *http.Request, via []*http.Request) error {
	const limit = 3
	if first := via[0].URL; len(via) > limit || next.URL.Host != first.Host || next.URL.Scheme != first.Scheme {
		return fail(CodeRedirect, fmt.Sprintf("at most %d redirects within %s", limit, first.Host), "one to "+short(next.URL.Host), "name the server itself if it is a mirror")
	}
	return nil
}

func (f *Fetcher) target(r Request) (u *url.URL, spacing time.Duration, err error) {
	if err := r.Validate(); err != nil {
		return nil, 0, err
	}
	if u, err = url.Parse(f.config.Endpoints.URL(r)); err != nil {
		return nil, 0, fail(CodeRequest, "a URL", short(err.Error()), "")
	}
	if r.Kind == AMDVCEK {
		spacing = f.config.VCEKEvery
	}
	return u, spacing, nil
}

// Delay is how long Fetch would wait before it asks.
func (f *Fetcher) Delay(r Request) time.Duration {
	u, spacing, err := f.target(r)
	if err != nil {
		return 0
	}
	return f.limiter.delay(u.Host, spacing)
}

// Fetch asks the vendor. It refuses at once with CodeThrottled when the host's
// pause is longer than the context or Overall allows.
func (f *Fetcher) Fetch(ctx context.Context, r Request) (Item, error) {
	u, spacing, err := f.target(r)
	if err != nil {
		return Item{}, err
	}
	clock := f.config.Clock
	allowed := f.config.Overall
	if d, ok := ctx.Deadline(); ok {
		allowed = min(allowed, time.Until(d))
	}
	deadline := clock.Now().Add(allowed)
	ctx, cancel := context.WithTimeout(ctx, f.config.Overall)
	defer cancel()
	for try := 1; ; try++ {
		if err := f.limiter.wait(ctx, u.Host, spacing, deadline); err != nil {
			return Item{}, err
		}
		started := clock.Now()
		item, retryAfter, err := f.try(ctx, r, u)
		var again transientError
		if !errors.As(err, &again) {
			f.limiter.succeeded(u.Host)
			return item, err
		}
		if ctx.Err() != nil {
			return Item{}, unreachable(u.Host, ctx.Err()) // the caller's haste is not the server's fault
		}
		f.limiter.failed(u.Host, started, retryAfter)
		if try >= f.config.Tries {
			return Item{}, again.error
		}
	}
}

// transientError is worth another try.
type transientError struct{ error }

func (f *Fetcher) try(ctx context.Context, r Request, u *url.URL) (Item, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, f.config.PerTry)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return Item{}, 0, fail(CodeRequest, "a URL", short(err.Error()), "")
	}
	request.Header.Set("User-Agent", "c8s")
	response, err := f.client.Do(request)
	if err != nil {
		if f := (*attest.Failure)(nil); errors.As(err, &f) {
			return Item{}, 0, f
		}
		return Item{}, 0, transientError{unreachable(u.Host, err)}
	}
	defer func() { _ = response.Body.Close() }()
	if err := checkStatus(u.Host, r, response.StatusCode); err != nil {
		return Item{}, f.retryAfter(response.Header.Get("Retry-After")), err
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, attest.MaxCollateralBody+1))
	if err != nil {
		return Item{}, 0, transientError{unreachable(u.Host, err)}
	}
	item, err := f.read(r, response.Header, body)
	return item, 0, err
}

func checkStatus(host string, r Request, status int) error {
	text := strconv.Itoa(status) + " " + http.StatusText(status)
	switch {
	case status == http.StatusOK:
		return nil
	case status == http.StatusNotFound || status == http.StatusGone:
		return fail(CodeNotFound, r.String()+" on "+short(host), text, "check the product, chip id, TCB or FMSPC")
	case status == http.StatusTooManyRequests:
		return transientError{fail(CodeThrottled, "an answer from "+short(host), text, "try again later, or bring a bundle made by 'c8s collateral bundle'")}
	case status >= http.StatusInternalServerError || status == http.StatusRequestTimeout:
		return transientError{unreachable(host, errors.New(text))}
	}
	return fail(CodeStatus, "200 OK from "+short(host), text, "check the address of the server and the request")
}

// retryAfter reads seconds or a date (RFC 9110 section 10.2.3), and zero where
// it is neither.
func (f *Fetcher) retryAfter(header string) time.Duration {
	if n, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(n) * time.Second //nolint:gosec // 31 bits
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(at.Sub(f.config.Clock.Now()), 0)
	}
	return 0
}

func (f *Fetcher) read(r Request, header http.Header, body []byte) (Item, error) {
	if len(body) > attest.MaxCollateralBody {
		return Item{}, fail(CodeTooLarge, fmt.Sprintf("at most %d bytes", attest.MaxCollateralBody), "more", "")
	}
	var certs [][]byte
	if name := r.issuerHeader(); name != "" {
		var err error
		if certs, err = ParseIssuerChain(header.Get(name)); err != nil {
			return Item{}, err
		}
	}
	switch r.Kind {
	case AMDCRL, IntelPCKCRL, IntelRootCRL:
		body = crlDER(body)
	case AMDVCEK:
		if block, _ := pem.Decode(body); block != nil && block.Type == "CERTIFICATE" {
			body = block.Bytes
		}
	}
	return NewItem(r, body, certs, f.config.Clock.Now())
}
