// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/ingress"
)

// ingressListenFlags say where clients come from.
type ingressListenFlags struct {
	https, http string
	http3       bool
	proxies     []string
	forwarded   []string
}

func (l *ingressListenFlags) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&l.https, "https-address", ":443", "listen address for clients; also answers TLS-ALPN-01 challenges of ACME")
	f.StringVar(&l.http, "http-address", ":80", "listen address that redirects to https and answers HTTP-01 challenges of ACME; empty for none")
	f.BoolVar(&l.http3, "http3", false, "serve HTTP/3 too, on the UDP port of --https-address")
	f.StringSliceVar(&l.proxies, "proxy-protocol-from", nil, "prefixes of load balancers that say with the PROXY protocol who the client is (repeatable); from there a header is required, from elsewhere refused")
	f.StringSliceVar(&l.forwarded, "forwarded-from", nil, "prefixes of proxies whose X-Forwarded-For and Forwarded headers are passed on (repeatable)")
}

func (l *ingressListenFlags) check() error {
	if err := requireFlag("https-address", l.https); err != nil {
		return err
	}
	for flag, address := range map[string]string{"https-address": l.https, "http-address": l.http} {
		if address == "" {
			continue
		}
		if _, err := portOf(address); err != nil {
			return exit.Usage(fmt.Errorf("--%s: %w", flag, err))
		}
	}
	_, err := prefixes("proxy-protocol-from", l.proxies)
	_, forwarded := prefixes("forwarded-from", l.forwarded)
	return errors.Join(err, forwarded)
}

// portOf is the port of a listen address; 0 for none.
func portOf(address string) (uint16, error) {
	if address == "" {
		return 0, nil
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("port %q of %q is no number up to 65535", port, address)
	}
	return uint16(n), nil
}

// prefixes reads prefixes, and addresses that stand for themselves.
func prefixes(flag string, values []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, v := range values {
		p, err := netip.ParsePrefix(v)
		if err != nil {
			var addr netip.Addr
			if addr, err = netip.ParseAddr(v); err != nil {
				return nil, exit.Usage(fmt.Errorf("--%s: %q is neither an address nor a prefix such as 10.0.0.0/8", flag, v))
			}
			p = netip.PrefixFrom(addr, addr.BitLen())
		}
		if p != p.Masked() {
			return nil, exit.Usage(fmt.Errorf("--%s: %s has host bits set, did you mean %s?", flag, p, p.Masked()))
		}
		all = append(all, p)
	}
	return all, nil
}

// open opens the listeners, all or none.
func (l *ingressListenFlags) open(ctx context.Context) (in ingress.Listeners, err error) {
	defer func() {
		if err != nil {
			closeListeners(&in)
		}
	}()
	if in.Proxies, err = prefixes("proxy-protocol-from", l.proxies); err != nil {
		return in, err
	}
	var lc net.ListenConfig
	https, err := lc.Listen(ctx, "tcp", l.https)
	if err != nil {
		return in, fmt.Errorf("listening for https: %w", err)
	}
	in.HTTPS = append(in.HTTPS, https)
	if l.http != "" {
		plain, err := lc.Listen(ctx, "tcp", l.http)
		if err != nil {
			return in, fmt.Errorf("listening for http (--http-address= for none): %w", err)
		}
		in.HTTP = append(in.HTTP, plain)
	}
	if l.http3 {
		if in.QUIC, err = lc.ListenPacket(ctx, "udp", https.Addr().String()); err != nil {
			return in, fmt.Errorf("listening for HTTP/3: %w", err)
		}
	}
	return in, nil
}

// closeListeners closes what was opened; a server that ran has closed them.
func closeListeners(in *ingress.Listeners) {
	for _, ln := range append(in.HTTPS, in.HTTP...) {
		ln.Close()
	}
	if in.QUIC != nil {
		in.QUIC.Close()
	}
}
