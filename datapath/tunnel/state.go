// SPDX-License-Identifier: Apache-2.0

package tunnel

// state is one side's view of the tunnel's current stream: pure, so that its
// rules can be tested over every interleaving.
//
// What one side may send for one stream:
//
//	opener:   OPEN DATA* FIN? RST?
//	acceptor: REFUSE | DATA* FIN? RST?
//
// where DATA is DGRAM in a stream of UDP.
//
// with at least one terminal (FIN, RST, REFUSE). The stream is over on a side
// that has sent a terminal and received one. After RST or REFUSE the sender
// discards what still arrives, up to the other side's terminal. A side that
// receives RST or REFUSE before it has sent a terminal answers with RST.
// RST may follow FIN (the application resets a half-closed connection), so it
// can arrive when the stream is over, or even after the next OPEN: it carries
// the stream's number and is ignored then.
type state struct {
	opener bool
	seq    uint32 // OPENs so far
	active bool   // a stream was opened; cleared by nothing but over()
	dgrams bool   // the stream carries DGRAM, not DATA

	sentFin, sentEnd bool // end: RST or REFUSE
	gotData          bool
	gotFin, gotEnd   bool
}

type action uint8

const (
	actNone    action = iota // nothing to do (a late RST, or data being discarded)
	actOpen                  // start the stream
	actDeliver               // give the data, or the datagram, to the application
	actFin                   // the other side finished its direction
	actAbort                 // the other side gave the stream up; reset the application
	actAnswer                // as actAbort, and send RST: no terminal was sent yet
)

func (s *state) sentTerminal() bool { return s.sentFin || s.sentEnd }
func (s *state) over() bool {
	return !s.active || s.sentTerminal() && (s.gotFin || s.gotEnd)
}

func (s *state) begin(proto uint8) {
	*s = state{opener: s.opener, seq: s.seq + 1, active: true, dgrams: proto == ProtoUDP}
}

// maySend reports whether a frame of this type is still ours to send and
// records it. It is called before the bytes leave, so that the answer to a
// terminal can never overtake its record.
func (s *state) maySend(typ byte) bool {
	if !s.active || s.sentEnd || s.over() {
		return false
	}
	switch typ {
	case typeData, typeDgram:
		return !s.sentFin && s.carries(typ)
	case typeFin:
		if s.sentFin || s.gotEnd {
			return false
		}
		s.sentFin = true
	case typeRst:
		s.sentEnd = true
	case typeRefuse:
		if s.opener || s.sentFin {
			return false
		}
		s.sentEnd = true
	}
	return true
}

// carries reports whether the stream is of the kind that has such frames.
func (s *state) carries(typ byte) bool { return (typ == typeDgram) == s.dgrams }

// receive judges one event of the other side.
func (s *state) receive(ev event) (action, error) {
	if ev.typ == typeRst && (ev.seq < s.seq || ev.seq == s.seq && s.over()) {
		return actNone, nil
	}
	if ev.typ == typeReady {
		return actNone, violation("READY out of turn")
	}
	if ev.typ == typeRetire {
		if !s.opener {
			return actNone, violation("RETIRE from the opener")
		}
		return actNone, nil // about the tunnel, not the stream
	}
	if ev.typ == typeOpen {
		if s.opener || !s.over() || s.seq == 1<<32-1 {
			return actNone, violation("OPEN out of turn")
		}
		s.begin(ev.header.Proto)
		return actOpen, nil
	}
	if s.over() {
		return actNone, violation("frame type %#02x outside a stream", ev.typ)
	}
	if s.gotEnd || s.gotFin && ev.typ != typeRst {
		return actNone, violation("frame type %#02x after the end of its direction", ev.typ)
	}
	switch ev.typ {
	case typeData, typeDgram:
		if !s.carries(ev.typ) {
			return actNone, violation("frame type %#02x in a stream of the other kind", ev.typ)
		}
		s.gotData = true
		if s.sentEnd {
			return actNone, nil
		}
		return actDeliver, nil
	case typeFin:
		s.gotFin = true
		if s.sentEnd {
			return actNone, nil
		}
		return actFin, nil
	case typeRst:
		if ev.seq > s.seq {
			return actNone, violation("RST of stream %d in stream %d", ev.seq, s.seq)
		}
	case typeRefuse:
		if !s.opener || s.gotData {
			return actNone, violation("REFUSE out of turn")
		}
	}
	s.gotEnd = true
	if s.sentTerminal() {
		return actAbort, nil
	}
	return actAnswer, nil
}
