// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"math/rand/v2"
	"testing"
)

// side plays one side of the protocol against another through two queues.
type side struct {
	state
	out  *[]event // frames on their way to the other side
	want int      // streams still to open
	done int      // streams that ended here
	seen uint32   // last stream counted in done
}

func (s *side) send(t *testing.T, typ byte, to uint32) bool {
	if s.seq != to || !s.maySend(typ) {
		return false
	}
	*s.out = append(*s.out, event{typ: typ, seq: s.seq})
	return true
}

// payload is the frame type that the stream carries.
func (s *side) payload() byte {
	if s.dgrams {
		return typeDgram
	}
	return typeData
}

func (s *side) step(t *testing.T, r *rand.Rand, in *[]event) {
	switch r.IntN(6) {
	case 0, 1, 2:
		if len(*in) == 0 {
			return
		}
		ev := (*in)[0]
		*in = (*in)[1:]
		act, err := s.receive(ev)
		if err != nil {
			t.Fatalf("%+v received %+v: %v", s.state, ev, err)
		}
		switch act {
		case actAnswer:
			if !s.send(t, typeRst, s.seq) {
				t.Fatalf("the answer to a reset may not be sent: %+v", s.state)
			}
		case actOpen:
			if r.IntN(4) == 0 && !s.send(t, typeRefuse, s.seq) {
				t.Fatalf("a fresh stream cannot be refused: %+v", s.state)
			}
		case actDeliver:
			if r.IntN(8) == 0 { // the application's side failed
				s.send(t, typeRst, s.seq)
			}
		}
	case 3:
		s.send(t, s.payload(), s.seq)
	case 4:
		s.send(t, typeFin, s.seq)
	case 5:
		if r.IntN(4) == 0 {
			s.send(t, typeRst, s.seq)
		}
	}
	s.count()
	if s.opener && s.over() && s.want > 0 {
		s.want--
		proto := uint8(ProtoTCP)
		if r.IntN(2) == 0 {
			proto = ProtoUDP
		}
		s.begin(proto)
		*s.out = append(*s.out, event{typ: typeOpen, header: Header{Proto: proto}})
	}
}

func (s *side) count() {
	if s.active && s.over() && s.seen != s.seq {
		s.seen = s.seq
		s.done++
	}
}

// Two sides that only send what maySend allows never see a violation, and
// every stream ends on both sides, whatever the interleaving.
func TestTwoHonestSidesAlwaysFinishEveryStream(t *testing.T) {
	const streams = 6
	for seed := range uint64(20000) {
		r := rand.New(rand.NewPCG(seed, 1))
		var toA, toB []event
		a := side{state: state{opener: true}, out: &toB, want: streams}
		b := side{out: &toA}
		steps := 0
		for a.done < streams || b.done < streams {
			if steps++; steps > 100000 {
				t.Fatalf("seed %d: stuck: %+v %+v", seed, a.state, b.state)
			}
			if r.IntN(2) == 0 {
				a.step(t, r, &toA)
			} else {
				b.step(t, r, &toB)
			}
		}
		for len(toA)+len(toB) > 0 { // what is left is late resets
			for _, q := range []struct {
				s  *side
				in *[]event
			}{{&a, &toA}, {&b, &toB}} {
				for _, ev := range *q.in {
					if act, err := q.s.receive(ev); err != nil || act != actNone {
						t.Fatalf("seed %d: late %+v: %v %v", seed, ev, act, err)
					}
				}
				*q.in = nil
			}
		}
	}
}

// feed runs a list of events through a state and returns the last answer.
func feed(s *state, evs []event) (action, error) {
	var act action
	var err error
	for _, ev := range evs {
		if act, err = s.receive(ev); err != nil {
			break
		}
	}
	return act, err
}

func TestFramesOutOfTurnAreViolations(t *testing.T) {
	open, data, fin := event{typ: typeOpen}, event{typ: typeData}, event{typ: typeFin}
	rst := func(seq uint32) event { return event{typ: typeRst, seq: seq} }
	refuse := event{typ: typeRefuse}
	openUDP, dgram := event{typ: typeOpen, header: Header{Proto: ProtoUDP}}, event{typ: typeDgram}
	for name, tt := range map[string]struct {
		opener bool
		evs    []event
	}{
		"data before open":         {false, []event{data}},
		"fin before open":          {false, []event{fin}},
		"rst of the future":        {false, []event{open, rst(2)}},
		"rst before open":          {false, []event{rst(1)}},
		"open twice":               {false, []event{open, open}},
		"data after fin":           {false, []event{open, fin, data}},
		"fin twice":                {false, []event{open, fin, fin}},
		"data after rst":           {false, []event{open, rst(1), data}},
		"rst twice":                {false, []event{open, rst(1), rst(1)}},
		"refuse by the opener":     {false, []event{open, refuse}},
		"open by the acceptor":     {true, []event{open}},
		"refuse after data":        {true, []event{data, refuse}},
		"refuse after fin":         {true, []event{fin, refuse}},
		"data after refuse":        {true, []event{refuse, data}},
		"ready in a stream":        {true, []event{{typ: typeReady}}},
		"retire by the opener":     {false, []event{{typ: typeRetire}}},
		"open over a half-open":    {false, []event{open, fin, open}},
		"unfinished then new open": {false, []event{open, data, open}},
		"datagram before open":     {false, []event{dgram}},
		"datagram in TCP":          {false, []event{open, dgram}},
		"data in UDP":              {false, []event{openUDP, dgram, data}},
		"datagram after fin":       {false, []event{openUDP, fin, dgram}},
		"datagram to the opener":   {true, []event{dgram}}, // of a TCP stream
	} {
		t.Run(name, func(t *testing.T) {
			s := &state{opener: tt.opener}
			if tt.opener {
				s.begin(ProtoTCP)
			}
			if _, err := feed(s, tt.evs); err == nil {
				t.Errorf("accepted: %+v", s)
			}
		})
	}
}

func TestLateResetOfAFinishedStreamIsIgnored(t *testing.T) {
	s := &state{}
	if _, err := feed(s, []event{{typ: typeOpen}, {typ: typeFin}}); err != nil {
		t.Fatal(err)
	}
	if !s.maySend(typeFin) || !s.over() {
		t.Fatalf("not over: %+v", s)
	}
	for _, evs := range [][]event{
		{{typ: typeRst, seq: 1}},
		{{typ: typeOpen}, {typ: typeRst, seq: 1}},
	} {
		if _, err := feed(s, evs); err != nil {
			t.Fatal(err)
		}
	}
	if s.seq != 2 || s.over() {
		t.Errorf("the late reset hit stream 2: %+v", s)
	}
}

func TestOnlyFramesOfTheStreamsKindMayBeSent(t *testing.T) {
	for proto, want := range map[uint8]byte{ProtoTCP: typeData, ProtoUDP: typeDgram} {
		s := &state{opener: true}
		s.begin(proto)
		for _, typ := range []byte{typeData, typeDgram} {
			if got := s.maySend(typ); got != (typ == want) {
				t.Errorf("protocol %d, frame type %d: %t", proto, typ, got)
			}
		}
	}
}

func TestResetMayFollowFin(t *testing.T) {
	s := &state{opener: true}
	s.begin(ProtoTCP)
	if !s.maySend(typeFin) || !s.maySend(typeRst) || s.maySend(typeRst) || s.maySend(typeData) {
		t.Errorf("wrong: %+v", s)
	}
	if act, err := s.receive(event{typ: typeData}); act != actNone || err != nil {
		t.Errorf("data after our reset: %v, %v; want it discarded", act, err)
	}
	if act, err := s.receive(event{typ: typeFin}); err != nil || act != actNone || !s.over() {
		t.Errorf("%v %v %+v", act, err, s)
	}
}
