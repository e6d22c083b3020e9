// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Filter says which records somebody wants to see. A record must fit every
// field that is set; the zero value takes all.
type Filter struct {
	Verdict   Verdict
	Direction Direction
	Protocol  string // "tcp" or "udp"
	Reason    string
	Pod       string       // of the node that keeps the records, namespace/name
	Workload  string       // at either end
	Service   string       // that was asked for, namespace/name
	Address   netip.Prefix // of source, destination or endpoint
	Port      uint16       // of the destination or the endpoint, as the pod that connected named it
	Since     time.Time    // not older
	Text      string       // somewhere in addresses, workloads, identities, names, rule
}

// Match reports whether r fits.
func (f *Filter) Match(r *Record) bool {
	return fits(f.Verdict, r.Verdict) && fits(f.Direction, r.Direction) && fits(f.Protocol, r.Protocol) && fits(f.Reason, r.Reason) &&
		fits(f.Pod, r.Pod) && fits(f.Service, r.Service) &&
		(f.Workload == "" || f.Workload == r.SrcWorkload || f.Workload == r.DstWorkload) &&
		(!f.Address.IsValid() || f.Address.Contains(r.Src.Addr()) || f.Address.Contains(r.Dst.Addr()) || f.Address.Contains(r.Endpoint.Addr())) &&
		(f.Port == 0 || f.Port == r.Dst.Port() || f.Port == r.Endpoint.Port()) &&
		!r.Time.Before(f.Since) && f.mentioned(r)
}

func fits[T ~string](want, have T) bool { return want == "" || want == have }

func (f *Filter) mentioned(r *Record) bool {
	if f.Text == "" {
		return true
	}
	for _, s := range []string{
		r.Src.String(), r.Dst.String(), r.Endpoint.String(), r.SrcID, r.DstID, r.SrcWorkload, r.DstWorkload, r.Pod, r.Service, r.DstName, r.Rule,
	} {
		if strings.Contains(s, f.Text) {
			return true
		}
	}
	return false
}

// ParseAddress reads what --address takes: an address, a prefix, or an address
// with a port.
func ParseAddress(s string) (netip.Prefix, uint16, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), 0, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), 0, nil
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		a := ap.Addr().Unmap()
		return netip.PrefixFrom(a, a.BitLen()), ap.Port(), nil
	}
	return netip.Prefix{}, 0, fmt.Errorf("reading the address %q: it must be an address, a prefix or address:port, like 10.0.0.1, fd00::/64 or [fd00::1]:80", s)
}

// Values writes f as the parameters that ParseFilter reads.
func (f *Filter) Values() url.Values {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set("verdict", string(f.Verdict))
	set("direction", string(f.Direction))
	set("protocol", f.Protocol)
	set("reason", f.Reason)
	set("pod", f.Pod)
	set("workload", f.Workload)
	set("service", f.Service)
	set("text", f.Text)
	if f.Address.IsValid() {
		v.Set("address", f.Address.String())
	}
	if f.Port != 0 {
		v.Set("port", strconv.Itoa(int(f.Port)))
	}
	if !f.Since.IsZero() {
		v.Set("since", f.Since.Format(time.RFC3339Nano))
	}
	return v
}

// ParseFilter reads the parameters of a request. Values that no record can
// have are errors: an empty answer would look like peace.
func ParseFilter(v url.Values) (Filter, error) {
	f := Filter{
		Verdict: Verdict(v.Get("verdict")), Direction: Direction(v.Get("direction")), Protocol: v.Get("protocol"), Reason: v.Get("reason"),
		Pod: v.Get("pod"), Workload: v.Get("workload"), Service: v.Get("service"), Text: v.Get("text"),
	}
	switch f.Verdict {
	case "", Allowed, Refused, Closed, Avoided:
	default:
		return f, fmt.Errorf("reading the filter: verdict %q is none of allowed, refused, closed, avoided", f.Verdict)
	}
	switch f.Protocol {
	case "", "tcp", "udp":
	default:
		return f, fmt.Errorf("reading the filter: protocol %q is neither tcp nor udp", f.Protocol)
	}
	switch f.Direction {
	case "", Egress, Ingress, Kernel:
	default:
		return f, fmt.Errorf("reading the filter: direction %q is none of egress, ingress, kernel", f.Direction)
	}
	if s := v.Get("address"); s != "" {
		p, err := netip.ParsePrefix(s)
		if err != nil || p != p.Masked() {
			return f, fmt.Errorf("reading the filter: address %q is no prefix", s)
		}
		f.Address = p
	}
	if s := v.Get("port"); s != "" {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil || n == 0 {
			return f, fmt.Errorf("reading the filter: port %q is none", s)
		}
		f.Port = uint16(n)
	}
	if s := v.Get("since"); s != "" {
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return f, fmt.Errorf("reading the filter: since %q is no time as in RFC 3339", s)
		}
		f.Since = t
	}
	return f, nil
}
