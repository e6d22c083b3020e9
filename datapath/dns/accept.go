// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	miekg "github.com/miekg/dns"
)

const (
	maxRecords = 64   // of one answer that are kept
	maxText    = 4096 // bytes of TXT that are kept
)

var (
	errStray     = errors.New("it does not answer the question")
	errTruncated = errors.New("it was cut")
)

// response is an answer of one upstream.
type response struct {
	answer
	open bool // it ends with a name that stands for another, of which it says nothing
}

// accept judges a message that came for a question: only records that the
// question leads to are taken, and of those only what this node understands.
// outside decides about addresses.
func accept(wire []byte, id uint16, k key, outside func(netip.Addr) bool) (*response, error) {
	var m miekg.Msg
	if m.Unpack(wire) != nil || !m.Response || m.Id != id || m.Opcode != miekg.OpcodeQuery || len(m.Question) != 1 ||
		m.Question[0] != (miekg.Question{Name: k.name + ".", Qtype: k.qtype, Qclass: miekg.ClassINET}) {
		return nil, errStray
	}
	switch {
	case m.Truncated:
		return nil, errTruncated
	case m.Rcode != miekg.RcodeSuccess && m.Rcode != miekg.RcodeNameError:
		return nil, fmt.Errorf("it answered %s", miekg.RcodeToString[m.Rcode])
	}
	r := &response{answer: answer{rcode: m.Rcode, ttl: uint32(maxTTL.Seconds())}}
	end, err := r.follow(&m, k)
	if err != nil {
		return nil, err
	}
	r.collect(&m, end, k.qtype, outside)
	if len(r.rrs) > 0 {
		r.rcode, r.blocked = miekg.RcodeSuccess, netip.Addr{}
		return r, nil
	}
	if r.authority(&m, end) {
		return r, nil
	}
	if r.open = m.Rcode == miekg.RcodeSuccess && len(r.chain) > 0 && !r.blocked.IsValid(); !r.open {
		r.ttl = 0 // RFC 2308 section 5: not to be kept; here: for as short as possible
	}
	return r, nil
}

// follow goes from the name that was asked to the one that it stands for.
func (r *response) follow(m *miekg.Msg, k key) (end string, err error) {
	end = k.name
	if k.qtype == miekg.TypeCNAME {
		return end, nil
	}
	for {
		cname := find[*miekg.CNAME](m.Answer, end)
		if cname == nil {
			return end, nil
		}
		target := canonical(cname.Target)
		if len(r.chain) == maxChain || target == k.name || slices.Contains(r.chain, target) {
			return "", errChain
		}
		if !plain(target) {
			return "", errors.New("the name stands for something that is no name")
		}
		r.chain, r.ttl, end = append(r.chain, target), min(r.ttl, cname.Hdr.Ttl), target
	}
}

// find returns the first record of a type that belongs to a name.
func find[T miekg.RR](rrs []miekg.RR, owner string) (found T) {
	for _, rr := range rrs {
		if t, ok := rr.(T); ok && rr.Header().Class == miekg.ClassINET && canonical(rr.Header().Name) == owner {
			return t
		}
	}
	return found
}

// collect takes the records that were asked for.
func (r *response) collect(m *miekg.Msg, end string, qtype uint16, outside func(netip.Addr) bool) {
	text := 0
	for _, rr := range m.Answer {
		h := rr.Header()
		if h.Rrtype != qtype || h.Class != miekg.ClassINET || canonical(h.Name) != end || len(r.rrs) == maxRecords {
			continue
		}
		clean, addr := rebuilt(rr, &text)
		if addr.IsValid() {
			if !outside(addr) {
				r.blocked = addr
				continue
			}
			r.addrs = append(r.addrs, addr)
		}
		if clean != nil {
			r.rrs, r.ttl = append(r.rrs, clean), min(r.ttl, h.Ttl)
		}
	}
}

// rebuilt makes a record of the parts of rr that are understood; nil: of none.
// addr is what a record of an address leads to. text counts bytes of TXT.
func rebuilt(rr miekg.RR, text *int) (clean miekg.RR, addr netip.Addr) {
	hdr := miekg.RR_Header{Rrtype: rr.Header().Rrtype}
	switch rr := rr.(type) {
	case *miekg.A:
		if addr, ok := netip.AddrFromSlice(rr.A.To4()); ok {
			return &miekg.A{Hdr: hdr, A: addr.AsSlice()}, addr
		}
	case *miekg.AAAA:
		if addr, ok := netip.AddrFromSlice(rr.AAAA); ok && addr.Is6() {
			return &miekg.AAAA{Hdr: hdr, AAAA: addr.AsSlice()}, addr
		}
	case *miekg.CNAME:
		if plain(canonical(rr.Target)) {
			return &miekg.CNAME{Hdr: hdr, Target: miekg.CanonicalName(rr.Target)}, addr
		}
	case *miekg.MX:
		if plain(canonical(rr.Mx)) || rr.Mx == "." {
			return &miekg.MX{Hdr: hdr, Preference: rr.Preference, Mx: miekg.CanonicalName(rr.Mx)}, addr
		}
	case *miekg.SRV:
		if plain(canonical(rr.Target)) || rr.Target == "." {
			return &miekg.SRV{Hdr: hdr, Priority: rr.Priority, Weight: rr.Weight, Port: rr.Port, Target: miekg.CanonicalName(rr.Target)}, addr
		}
	case *miekg.TXT:
		for _, s := range rr.Txt {
			*text += len(s)
		}
		if *text <= maxText {
			return &miekg.TXT{Hdr: hdr, Txt: slices.Clone(rr.Txt)}, addr
		}
	}
	return nil, netip.Addr{}
}

// authority takes from a zone's SOA how long there is nothing (RFC 2308
// section 5).
func (r *response) authority(m *miekg.Msg, end string) bool {
	for _, rr := range m.Ns {
		s, ok := rr.(*miekg.SOA)
		if !ok || s.Hdr.Class != miekg.ClassINET {
			continue
		}
		zone := canonical(s.Hdr.Name)
		if _, above := below(end, zone); above && plain(zone) {
			r.zone, r.ttl = zone, min(r.ttl, s.Hdr.Ttl, s.Minttl)
			return true
		}
	}
	return false
}

// join adds what was found for the name that r ended with.
func (r *response) join(asked string, rest *response) error {
	chain := append(slices.Clone(r.chain), rest.chain...)
	for i, name := range chain {
		if len(chain) > maxChain || name == asked || slices.Contains(chain[:i], name) {
			return errChain
		}
	}
	ttl := min(r.ttl, rest.ttl)
	*r = *rest
	r.chain, r.ttl = chain, ttl
	return nil
}
