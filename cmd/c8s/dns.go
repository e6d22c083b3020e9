// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	miekg "github.com/miekg/dns"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/datapath/dns"
	"github.com/c8s-dev/c8s/loader"
)

// dnsFlags say how the names that pods ask for are answered.
type dnsFlags struct {
	domain    string
	service   string
	upstreams []string
	private   []string
	rate      int
}

func (d *dnsFlags) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&d.domain, "cluster-domain", dns.DefaultDomain, "domain of the cluster's own names, as in the kubelet's configuration")
	f.StringVar(&d.service, "dns-service", "kube-system/kube-dns", "namespace/name of the Service that pods are told to ask; the node answers for it")
	f.StringSliceVar(&d.upstreams, "dns-upstream", nil, "resolvers to ask for the names outside the cluster that the manifest lists (address or address:port, repeatable), or none; default: those of the node's /etc/resolv.conf")
	f.StringSliceVar(&d.private, "dns-private", nil, "prefixes of private addresses that names outside the cluster may have (repeatable); answers with others are refused")
	f.IntVar(&d.rate, "dns-rate", dns.DefaultRate, "names that a pod may ask for per second; bursts of twice as many")
}

// datagramRate is loader.Config's: the usual, and what a pod needs in addition to
// ask as many names as it may.
func (d *dnsFlags) datagramRate() uint32 {
	const query = 1 << 10 // nearly: DNS over UDP has small questions
	names := min(int64(d.rate), loader.MaxDatagramRate/query)
	return uint32(min(loader.DefaultDatagramRate+names*query, loader.MaxDatagramRate))
}

const noUpstreams = "none"

// config returns the settings. process is one in the node's mount namespace.
func (d *dnsFlags) config(process string, log *slog.Logger) (*agent.DNS, error) {
	if d.rate <= 0 {
		return nil, exit.Usage(fmt.Errorf("--dns-rate: %d is no rate", d.rate))
	}
	out := &agent.DNS{Domain: d.domain, Service: d.service, Rate: d.rate}
	if namespace, name, ok := strings.Cut(d.service, "/"); d.service != "" && (!ok || namespace == "" || name == "") {
		return nil, exit.Usage(fmt.Errorf("--dns-service: %q is not namespace/name", d.service))
	}
	for _, p := range d.private {
		prefix, err := netip.ParsePrefix(p)
		if err != nil {
			return nil, exit.Usage(fmt.Errorf("--dns-private: %w", err))
		}
		out.Private = append(out.Private, prefix.Masked())
	}
	node, err := nodeResolvers(filepath.Join(process, "root"))
	if err != nil { // pods that ask for names outside find out
		log.Warn("the node's resolvers are not known", "err", err)
		node = &miekg.ClientConfig{}
	}
	out.Search = node.Search
	upstreams := d.upstreams
	switch {
	case len(upstreams) == 1 && upstreams[0] == noUpstreams:
		return out, nil
	case len(upstreams) == 0:
		upstreams = node.Servers
	}
	for _, u := range upstreams {
		addr, err := upstreamOf(u)
		if err != nil {
			return nil, exit.Usage(fmt.Errorf("--dns-upstream: %w", err))
		}
		out.Upstreams = append(out.Upstreams, addr)
	}
	return out, nil
}

func upstreamOf(s string) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(addr, 53), nil
	}
	addr, err := netip.ParseAddrPort(s)
	if err != nil || addr.Port() == 0 {
		return addr, fmt.Errorf("%q is neither an address nor address:port", s)
	}
	return addr, nil
}

// nodeResolvers reads /etc/resolv.conf below root. It is often a link, which
// leads to another file of the node, not of the daemon's container.
func nodeResolvers(root string) (*miekg.ClientConfig, error) {
	const name = "etc/resolv.conf"
	dir, err := os.Open(root)
	if err != nil {
		return nil, fmt.Errorf("reading the node's %s: %w", name, err)
	}
	defer dir.Close()
	fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return nil, fmt.Errorf("reading the node's %s: %w", name, err)
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	config, err := miekg.ClientConfigFromReader(io.LimitReader(file, 1<<16))
	if err != nil {
		return nil, fmt.Errorf("reading the node's %s: %w", name, err)
	}
	for _, s := range config.Servers {
		if _, err := upstreamOf(s); err != nil {
			return nil, errors.Join(fmt.Errorf("reading the node's %s", name), err)
		}
	}
	return config, nil
}
