// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
)

var header6 = Header{Proto: ProtoTCP, Src: netip.MustParseAddrPort("[fd00::1]:1"), Dst: netip.MustParseAddrPort("[fd00::2]:65535")}

// decodeAll decodes p handed over in pieces and merges DATA, and the pieces of
// a datagram.
func decodeAll(pieces ...[]byte) (evs []event, mid bool, err error) {
	var d decoder
	for _, p := range pieces {
		for {
			ev, rest, ok, err := d.next(p)
			if err != nil {
				return evs, d.midFrame(), err
			}
			if !ok {
				break
			}
			p = rest
			if n := len(evs); ev.typ == typeData && n > 0 && evs[n-1].typ == typeData {
				evs[n-1].data = append(evs[n-1].data, ev.data...)
				continue
			}
			if n := len(evs); ev.typ == typeDgram && n > 0 && evs[n-1].more > 0 {
				if last := &evs[n-1]; last.more != len(ev.data)+ev.more {
					return evs, false, fmt.Errorf("%d bytes were to come, now %d and %d", last.more, len(ev.data), ev.more)
				}
				evs[n-1].data, evs[n-1].more = append(evs[n-1].data, ev.data...), ev.more
				continue
			}
			ev.data = bytes.Clone(ev.data)
			evs = append(evs, ev)
		}
	}
	return evs, d.midFrame(), nil
}

func dataFrame(p string) []byte {
	b := make([]byte, headerLen, headerLen+len(p))
	putHeader(b, typeData, len(p))
	return append(b, p...)
}

func dgramFrame(p string) []byte {
	b := dataFrame(p)
	b[0] = typeDgram
	return b
}

func TestFramesSurviveTheWire(t *testing.T) {
	var wire []byte
	wire = appendOpen(wire, testHeader)
	wire = append(wire, dataFrame("hello")...)
	wire = append(wire, typeFin, 0, 0, 0)
	wire = appendRst(wire, 0xdeadbeef, ReasonIdle)
	wire = append(wire, typeRefuse, 0, 0, 1, byte(ReasonNotAllowed))
	wire = appendOpen(wire, header6)
	udp := testHeader
	udp.Proto = ProtoUDP
	wire = appendOpen(wire, udp)
	wire = append(wire, dgramFrame("one")...)
	wire = append(wire, dgramFrame("")...)
	wire = append(wire, dgramFrame("two")...)
	want := []event{
		{typ: typeOpen, header: testHeader},
		{typ: typeData, data: []byte("hello")},
		{typ: typeFin},
		{typ: typeRst, seq: 0xdeadbeef, reason: ReasonIdle},
		{typ: typeRefuse, reason: ReasonNotAllowed},
		{typ: typeOpen, header: header6},
		{typ: typeOpen, header: udp},
		{typ: typeDgram, data: []byte("one")},
		{typ: typeDgram},
		{typ: typeDgram, data: []byte("two")},
	}
	got, mid, err := decodeAll(wire)
	if err != nil || mid || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v %v", got, mid, err)
	}
}

func TestMalformedFramesAreRefused(t *testing.T) {
	open := func(edit func(b []byte)) []byte {
		b := appendOpen(nil, testHeader)
		edit(b)
		return b
	}
	mapped := appendOpen(nil, header6)
	copy(mapped[6:], netip.MustParseAddr("::ffff:10.0.0.1").AsSlice())
	for name, p := range map[string][]byte{
		"type 0":               {0, 0, 0, 0},
		"datagram too long":    {typeDgram, 0, 0xff, 0xe4},
		"type 255":             {255, 0, 0, 0},
		"empty data":           {typeData, 0, 0, 0},
		"data too long":        {typeData, 0x04, 0, 0},
		"data by far too long": {typeData, 0xff, 0xff, 0xff},
		"fin with payload":     {typeFin, 0, 0, 1, 0},
		"retire with payload":  {typeRetire, 0, 0, 1, 0},
		"rst too short":        {typeRst, 0, 0, 4, 0, 0, 0, 0},
		"refuse without":       {typeRefuse, 0, 0, 0},
		"open too long":        {typeOpen, 0, 1, 14},
		"open, other protocol": open(func(b []byte) { b[4] = 132 }),
		"open, other family":   open(func(b []byte) { b[5] = 6 }),
		"open, port 0":         open(func(b []byte) { b[len(b)-1], b[len(b)-2] = 0, 0 }),
		"open, no address":     open(func(b []byte) { clear(b[6:10]) }),
		"open, mapped address": mapped,
	} {
		if _, _, err := decodeAll(p); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// However the bytes are cut, the same frames come out; and what the decoder
// accepts encodes to the same bytes again.
func FuzzDecoder(f *testing.F) {
	f.Add(appendOpen(nil, testHeader), 3)
	f.Add(append(appendOpen(nil, header6), dataFrame("some data")...), 50)
	f.Add(appendRst([]byte{typeFin, 0, 0, 0}, 7, ReasonReset), 5)
	f.Add([]byte{typeReady, 0, 0, 0, typeRetire, 0, 0, 0}, 4)
	f.Add([]byte{typeRefuse, 0, 0, 1, 3, typeData, 0, 0, 2, 1}, 8)
	f.Add([]byte{typeData, 3, 0xff, 0xfc, 0}, 1)
	f.Add(append(append(dgramFrame("first"), dgramFrame("")...), dgramFrame("second")...), 7)
	f.Add([]byte{typeDgram, 0, 0xff, 0xe3, 0}, 2)
	f.Fuzz(func(t *testing.T, p []byte, cut int) {
		whole, mid, err := decodeAll(p)
		at := 0
		if len(p) > 0 {
			at = int(uint(cut) % uint(len(p)))
		}
		parts, mid2, err2 := decodeAll(p[:at], p[at:])
		if (err == nil) != (err2 == nil) || !reflect.DeepEqual(whole, parts) || mid != mid2 {
			t.Fatalf("cut at %d: %+v %v, whole: %+v %v", at, parts, err2, whole, err)
		}
		if err != nil || mid {
			return
		}
		var again []byte
		for _, ev := range whole {
			switch ev.typ {
			case typeOpen:
				again = appendOpen(again, ev.header)
			case typeData:
				again = append(again, ev.data...)
			case typeDgram:
				again = append(again, dgramFrame(string(ev.data))...)
			case typeFin:
				again = append(again, typeFin, 0, 0, 0)
			case typeRst:
				again = appendRst(again, ev.seq, ev.reason)
			case typeRefuse:
				again = append(again, typeRefuse, 0, 0, 1, byte(ev.reason))
			}
		}
		if len(again) > len(p) {
			t.Fatalf("%d bytes decode to %d", len(p), len(again))
		}
	})
}

func TestEveryReasonIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/tunnel.md")
	must(t, err)
	for r := ReasonNone + 1; r < reasonCount; r++ {
		if row := fmt.Sprintf("| %d | `%s` |", r, r); !strings.Contains(string(page), row) {
			t.Errorf("docs/tunnel.md has no row that begins with %s", row)
		}
	}
}
