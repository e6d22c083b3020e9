// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	miekg "github.com/miekg/dns"
)

func TestMessagesThatAreNoQuery(t *testing.T) {
	const name = "web.default.svc.cluster.local."
	with := func(change func(m *miekg.Msg)) []byte {
		m := question(name, miekg.TypeA)
		change(m)
		return packed(t, m)
	}
	a, _ := miekg.NewRR(name + " 5 IN A 192.0.2.1")
	for what, tt := range map[string]struct {
		raw  []byte
		want int // rcode; -1: no answer
	}{
		"empty":               {nil, -1},
		"shorter than a head": {make([]byte, 11), -1},
		"an answer":           {with(func(m *miekg.Msg) { m.Response = true }), -1},
		"only a head":         {make([]byte, 12), miekg.RcodeFormatError},
		"cut":                 {packed(t, question(name, miekg.TypeA))[:20], miekg.RcodeFormatError},
		"no question":         {with(func(m *miekg.Msg) { m.Question = nil }), miekg.RcodeFormatError},
		"two questions":       {with(func(m *miekg.Msg) { m.Question = append(m.Question, m.Question[0]) }), miekg.RcodeFormatError},
		"with an answer":      {with(func(m *miekg.Msg) { m.Answer = []miekg.RR{a} }), miekg.RcodeFormatError},
		"with authority":      {with(func(m *miekg.Msg) { m.Ns = []miekg.RR{a} }), miekg.RcodeFormatError},
		"something beside":    {with(func(m *miekg.Msg) { m.Extra = []miekg.RR{a} }), miekg.RcodeFormatError},
		"two OPT":             {with(func(m *miekg.Msg) { m.SetEdns0(1232, false); m.Extra = append(m.Extra, m.Extra[0]) }), miekg.RcodeFormatError},
		"longer than any":     {with(func(m *miekg.Msg) { m.SetEdns0(1232, false); m.IsEdns0().Option = options(1100) }), miekg.RcodeFormatError},
		"10,000 questions":    {questions(t, 65507), miekg.RcodeFormatError},
		"EDNS 1":              {with(func(m *miekg.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }), miekg.RcodeBadVers},
		"an update":           {with(func(m *miekg.Msg) { m.Opcode = miekg.OpcodeUpdate }), miekg.RcodeNotImplemented},
		"a notification":      {with(func(m *miekg.Msg) { m.Opcode = miekg.OpcodeNotify }), miekg.RcodeNotImplemented},
		"a transfer":          {with(func(m *miekg.Msg) { m.Question[0].Qtype = miekg.TypeAXFR }), miekg.RcodeNotImplemented},
		"ANY":                 {with(func(m *miekg.Msg) { m.Question[0].Qtype = miekg.TypeANY }), miekg.RcodeNotImplemented},
		"another class":       {with(func(m *miekg.Msg) { m.Question[0].Qclass = miekg.ClassCHAOS }), miekg.RcodeRefused},
		"a query":             {packed(t, question(name, miekg.TypeA)), miekg.RcodeSuccess},
	} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t)
			wire := s.server.Answer(t.Context(), s.asker("pod"), tt.raw, false)
			if tt.want < 0 {
				if wire != nil {
					t.Fatalf("answered %x", wire)
				}
			} else {
				var m miekg.Msg
				if err := m.Unpack(wire); err != nil {
					t.Fatal(err)
				}
				if m.Rcode != tt.want || !m.Response || !bytes.Equal(wire[:2], tt.raw[:2]) {
					t.Errorf("%v", &m)
				}
			}
			wantMalformed := uint64(1)
			if tt.want == miekg.RcodeSuccess {
				wantMalformed = 0
			}
			if s.count(Malformed) != wantMalformed {
				t.Errorf("counted %v", s.server.Status().Queries)
			}
		})
	}
}

// questions is a datagram of the size, full of questions for the longest name:
// each is a pointer to the first.
func questions(t testing.TB, size int) []byte {
	wire := packed(t, question(strings.Repeat("a.", 126), miekg.TypeA))
	n := uint16(1)
	for ; len(wire)+6 <= size; n++ {
		wire = append(wire, 0xc0, headerSize, 0, 1, 0, 1)
	}
	binary.BigEndian.PutUint16(wire[4:], n)
	return wire
}

func options(n int) (all []miekg.EDNS0) {
	for range n {
		all = append(all, &miekg.EDNS0_LOCAL{Code: miekg.EDNS0LOCALSTART})
	}
	return all
}

// A pod may send a thousand messages a second, and each of these would take
// 9 ms and 4 MB to unpack.
func TestMessageThatIsNoQueryCostsNothing(t *testing.T) {
	for _, size := range []int{maxQuery, 65507} {
		wire := questions(t, size)
		if n := testing.AllocsPerRun(10, func() {
			if _, fault := parse(wire); fault != miekg.RcodeFormatError {
				t.Fatalf("fault %d", fault)
			}
		}); n > 1 {
			t.Errorf("%d bytes: %v allocations", size, n)
		}
	}
}

func TestQuestionComesBackAsThePodWroteIt(t *testing.T) {
	s := newSite(t)
	const name = "wEb.dEFAULT.svc.CLUSTER.local."
	q := question(name, miekg.TypeA)
	q.CheckingDisabled = true
	m := s.exchange(q, false)
	if m.Question[0].Name != name || m.Answer[0].Header().Name != name || !m.RecursionDesired || !m.RecursionAvailable || !m.CheckingDisabled {
		t.Errorf("%v", m)
	}
}

func TestPlainNames(t *testing.T) {
	long := bytes.Repeat([]byte("a"), 63)
	for name, want := range map[string]bool{
		"a": true, "a-b.c_d.0": true, "_sip._udp.example.com": true, string(long): true,
		"": false, ".": false, "a..b": false, ".a": false, "a.": false, "A": false, "a b": false, `a\.b`: false, "*.a": false, "ä": false,
		string(long) + "a": false, string(bytes.Repeat([]byte("a."), 127)) + "a": false, string(bytes.Repeat([]byte("a."), 126)) + "a": true,
	} {
		if plain(name) != want {
			t.Errorf("%q: %t", name, !want)
		}
	}
}

// FuzzQuery: whatever a pod sends, the answer is a message with its id, fits,
// and nothing was asked outside.
func FuzzQuery(f *testing.F) {
	for _, name := range []string{"web.default.svc.cluster.local.", "_sql._tcp.db.default.svc.cluster.local.", "api.example.com.", ".", `\000.x.`} {
		m := question(name, miekg.TypeA)
		f.Add(packed(f, m), false)
		m.SetEdns0(4096, true)
		m.Question[0].Qtype = miekg.TypeSRV
		f.Add(packed(f, m), true)
	}
	f.Add([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1}, false) // a name that points at itself
	f.Add(make([]byte, 12), true)
	s := newSite(f)
	f.Fuzz(func(t *testing.T, raw []byte, tcp bool) {
		s.pass(1e9)
		wire := s.server.Answer(t.Context(), s.asker("pod"), raw, tcp)
		if wire == nil {
			if len(raw) >= headerSize && raw[2]&0x80 == 0 {
				t.Fatal("a query without an answer")
			}
			return
		}
		var m miekg.Msg
		if err := m.Unpack(wire); err != nil || !m.Response || !bytes.Equal(wire[:2], raw[:2]) {
			t.Fatalf("%v: %x", err, wire)
		}
		if !tcp && len(wire) > udpSize {
			t.Fatalf("%d bytes", len(wire))
		}
		if s.server.Status().Questions != 0 {
			t.Fatal("something was asked outside")
		}
	})
}
