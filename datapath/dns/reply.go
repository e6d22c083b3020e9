// SPDX-License-Identifier: Apache-2.0

package dns

import (
	miekg "github.com/miekg/dns"
)

// reply is what a pod is answered with.
type reply struct {
	result Result
	rcode  int
	own    bool // the node is the authority
	answer []miekg.RR
	beside []miekg.RR // additional: addresses of the answer's targets
	soa    *miekg.SOA // where there is nothing: how long that may be kept
	why    *refusal   // for the flow record
	silent bool       // no answer at all
}

// absent is NXDOMAIN, noData that the name has nothing of this type; both last
// as zone says.
func (r *reply) absent(soa *miekg.SOA) *reply {
	r.rcode, r.soa = miekg.RcodeNameError, soa
	return r
}

func (r *reply) noData(soa *miekg.SOA) *reply {
	r.rcode, r.soa = miekg.RcodeSuccess, soa
	return r
}

// soa is the record that makes an answer without data last ttl seconds
// (RFC 2308 section 3).
func soa(zone string, ttl uint32) *miekg.SOA {
	return &miekg.SOA{
		Hdr: header(zone+".", miekg.TypeSOA, ttl), Ns: "ns.dns." + zone + ".", Mbox: "hostmaster." + zone + ".",
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
	}
}

func header(owner string, rrtype uint16, ttl uint32) miekg.RR_Header {
	return miekg.RR_Header{Name: owner, Rrtype: rrtype, Class: miekg.ClassINET, Ttl: ttl}
}

// pack makes the message. Over UDP an answer that is too long is cut and marked
// so, and the pod asks again over TCP.
func (q *query) pack(r *reply, tcp bool) []byte {
	m := miekg.Msg{
		MsgHdr: miekg.MsgHdr{
			Id: q.id, Response: true, Opcode: q.opcode, Authoritative: r.own, RecursionDesired: q.rd,
			RecursionAvailable: true, CheckingDisabled: q.cd, Rcode: r.rcode,
		},
		Compress: true, Question: q.asked, Answer: r.answer, Extra: r.beside,
	}
	if r.soa != nil {
		m.Ns = []miekg.RR{r.soa}
	}
	if q.edns {
		opt := &miekg.OPT{Hdr: miekg.RR_Header{Name: ".", Rrtype: miekg.TypeOPT}}
		opt.SetUDPSize(udpSize)
		m.Extra = append(m.Extra, opt)
	} else if m.Rcode > 0xf {
		m.Rcode = miekg.RcodeServerFailure
	}
	limit := miekg.MaxMsgSize
	if !tcp {
		limit = q.size
	}
	m.Truncate(limit)
	wire, err := m.Pack()
	if err != nil { // a record that cannot be: the pod learns that it failed
		m = miekg.Msg{MsgHdr: m.MsgHdr}
		m.Rcode = miekg.RcodeServerFailure
		wire, _ = m.Pack()
	}
	return wire
}
