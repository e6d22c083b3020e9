// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

func TestDatagramsOfEverySizeArriveWholeAndInOrder(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newPacketRig(t, useTLS)
		r.nearP.Settle()
		r.relay()
		sizes := []int{0, 1, 60, 1200, 4080, 4081, 4096, 9000, 16384, 32768, 33000, 65000, 65506, MaxDatagram}
		for _, dir := range [][2]*net.UDPConn{{r.near, r.far}, {r.far, r.near}} {
			for _, n := range sizes {
				want := randomBytes(n)
				send(t, dir[0], want)
				if got := recv(t, dir[1]); !bytes.Equal(got, want) {
					t.Fatalf("%d bytes: %d others arrived", n, len(got))
				}
			}
		}
		// Small ones before a large one: the buffer is moved while it holds them.
		for round := range 20 {
			var want [][]byte
			for i := range 40 {
				want = append(want, randomBytes((i*7919+round*104729)%3000))
			}
			want = append(want, randomBytes(60000), randomBytes(round))
			for _, p := range want {
				send(t, r.near, p)
			}
			for i, p := range want {
				if got := recv(t, r.far); !bytes.Equal(got, p) {
					t.Fatalf("round %d, datagram %d: %d bytes, want %d", round, i, len(got), len(p))
				}
			}
		}
		r.nearP.Finish()
		res, farRes := await(t, r.done), await(t, r.farDone)
		if res.Reason != 0 || res.Err != nil || farRes.Reason != 0 {
			t.Errorf("near %+v, far %+v", res, farRes)
		}
		if res.Sent != farRes.Received || res.Received != farRes.Sent || res.Sent == 0 {
			t.Errorf("near %+v, far %+v", res, farRes)
		}
		near, far := r.nearP.Counts(), r.farP.Counts()
		if near.Sent != far.Received || near.Received != uint64(len(sizes)) || near.Unsent+far.Unreceived != 0 {
			t.Errorf("near %+v, far %+v", near, far)
		}
		if !r.opener.Idle() {
			t.Error("the tunnel cannot be used again")
		}
	})
}

func TestHandedDatagramsGoBeforeThoseOfTheSocket(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newPacketRig(t, useTLS)
		next := uint32(0)
		number := func() []byte { next++; return binary.BigEndian.AppendUint32(nil, next) }
		hand := func() {
			if !r.nearP.Hand(number()) {
				t.Fatal("no room")
			}
		}
		hand()
		hand()
		var queued [][]byte
		for range 10 {
			queued = append(queued, []byte{0xff})
		}
		for _, p := range queued {
			send(t, r.near, p)
		}
		r.relay()
		for want := range uint32(2) {
			if got := binary.BigEndian.Uint32(recv(t, r.far)); got != want+1 {
				t.Fatalf("%d, want %d", got, want+1)
			}
		}
		hand() // still before the socket's
		if got := binary.BigEndian.Uint32(recv(t, r.far)); got != 3 {
			t.Fatalf("%d", got)
		}
		r.nearP.Settle()
		for range queued {
			if got := recv(t, r.far); len(got) != 1 {
				t.Fatalf("%x", got)
			}
		}
		hand() // a straggler wakes the reader of the socket
		if got := binary.BigEndian.Uint32(recv(t, r.far)); got != 4 {
			t.Fatalf("%d", got)
		}
	})
}

func TestFlowWithoutASocketOfItsOwn(t *testing.T) {
	r := newPacketRig(t, true)
	got := make(chan []byte, 10)
	r.nearP = HandedPackets(func(p []byte) error {
		if len(p) == 0 {
			return errors.New("refused by the test")
		}
		got <- bytes.Clone(p)
		return nil
	})
	r.nearP.Hand([]byte("a"))
	r.relay()
	if s := string(recv(t, r.far)); s != "a" {
		t.Fatal(s)
	}
	r.nearP.Hand([]byte("b"))
	if s := string(recv(t, r.far)); s != "b" {
		t.Fatal(s)
	}
	send(t, r.far, nil)
	send(t, r.far, []byte("c"))
	if s := string(await(t, got)); s != "c" {
		t.Fatal(s)
	}
	r.nearP.Finish()
	await(t, r.done)
	if c := r.nearP.Counts(); c.Sent != 2 || c.Received != 1 || c.Unreceived != 1 {
		t.Errorf("%+v", c)
	}
}

// What a tunnel had received when it was ended must not reach whoever has the
// application's address next.
func TestClosedFlowWithoutASocketSendsNothing(t *testing.T) {
	sent := 0
	p := HandedPackets(func([]byte) error { sent++; return nil })
	p.write([]byte("before"))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p.write([]byte("after"))
	if c := p.Counts(); sent != 1 || c.Received != 1 || c.Unreceived != 1 {
		t.Errorf("%d sent, %+v", sent, c)
	}
}

func TestWhatDoesNotFitIsDroppedNewestFirstAndCounted(t *testing.T) {
	p, app := newPackets(t)
	kept := 0
	for i := range maxHanded + 10 {
		if p.Hand([]byte{byte(i)}) {
			kept++
		}
	}
	if kept != maxHanded || p.Counts().Unsent != 10 {
		t.Errorf("%d kept, %+v", kept, p.Counts())
	}
	if p.Hand(make([]byte, MaxDatagram+1)) || p.Counts().TooBig != 1 {
		t.Errorf("%+v", p.Counts())
	}
	must(t, p.conn.SetReadBuffer(4096))
	for range 200 {
		send(t, app, make([]byte, 1000))
	}
	before := p.Counts().Unsent
	if before <= 10 {
		t.Errorf("the socket's drops are not counted: %+v", p.Counts())
	}
	must(t, p.Close())
	if after := p.Counts().Unsent; after != before+maxHanded {
		t.Errorf("%d before, %d after the end", before, after)
	}
	if p.Hand(nil) {
		t.Error("a closed flow takes datagrams")
	}
}

// What comes while a flow ends is not lost: it may be carried again.
func TestFlowMayGoOnAfterItsEnd(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newPacketRig(t, useTLS)
		r.nearP.Settle()
		r.relay()
		send(t, r.near, []byte("one"))
		recv(t, r.far)
		if r.nearP.Again() {
			t.Error("nothing waits")
		}
		r.nearP.Finish()
		await(t, r.done)
		await(t, r.farDone)
		send(t, r.near, []byte("two"))
		if !r.nearP.Again() {
			t.Fatal("the datagram is not seen")
		}
		r.farP, r.far = newPackets(t)
		r.farP.Settle()
		r.relay()
		if got := string(recv(t, r.far)); got != "two" {
			t.Fatal(got)
		}
		// The far side may end it too.
		send(t, r.far, []byte("last"))
		r.farP.Finish()
		if got := string(recv(t, r.near)); got != "last" {
			t.Fatal(got)
		}
		if res := await(t, r.done); res.Reason != 0 || res.Err != nil {
			t.Errorf("%+v", res)
		}
		await(t, r.farDone)
		if !r.opener.Idle() {
			t.Error("the tunnel cannot be used again")
		}
	})
}

func TestEndOfATunnelStopsItsFlowAtOnce(t *testing.T) {
	for name, end := range map[string]func(r *packetRig){
		"ended by the opener":   func(r *packetRig) { r.opener.End(Ending{Reason: ReasonPolicyChanged}) },
		"ended by the acceptor": func(r *packetRig) { r.acceptor.End(Ending{Reason: ReasonPolicyChanged}) },
		"stream given up":       func(r *packetRig) { r.opener.Abort(ReasonPolicyChanged) },
		"connection lost":       func(r *packetRig) { r.acceptor.Kill(ReasonPolicyChanged) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newPacketRig(t, true)
			r.nearP.Settle()
			r.relay()
			send(t, r.near, []byte("one"))
			recv(t, r.far)
			end(r)
			if res := await(t, r.done); res.Reason == ReasonNone {
				t.Errorf("near %+v", res)
			}
			if res := await(t, r.farDone); res.Reason == ReasonNone {
				t.Errorf("far %+v", res)
			}
			for _, p := range []*Packets{r.nearP, r.farP} {
				if !p.closed {
					t.Error("a socket is still open")
				}
			}
		})
	}
}

func TestSocketErrorsOfEarlierDatagramsEndNothing(t *testing.T) {
	r := newPacketRig(t, true)
	r.nearP.Settle()
	r.relay()
	send(t, r.near, []byte("one"))
	recv(t, r.far)
	addr, peer := r.far.LocalAddr().(*net.UDPAddr), r.far.RemoteAddr().(*net.UDPAddr)
	r.far.Close() // from here on the kernel answers with ICMP
	send(t, r.near, []byte("two"))
	send(t, r.near, []byte("three"))
	for r.farP.Counts().Received+r.farP.Counts().Unreceived < 3 {
		time.Sleep(time.Millisecond)
	}
	again, err := net.DialUDP("udp4", addr, peer)
	must(t, err)
	defer again.Close()
	send(t, r.near, []byte("four"))
	if got := string(recv(t, again)); got != "four" {
		t.Error(got)
	}
	send(t, again, []byte("back"))
	if got := string(recv(t, r.near)); got != "back" {
		t.Error(got)
	}
}

func TestStreamOfTheOtherKindIsRefused(t *testing.T) {
	opener, acceptor := tunnelPair(t, false)
	relay, app := tcpPair(t)
	defer app.Close()
	go func() {
		_ = acceptor.Serve(context.Background(), func(context.Context, Header) (App, func(Result), Reason) {
			return relay, func(Result) { t.Error("the stream began") }, 0
		})
	}()
	p, _ := newPackets(t)
	p.Hand([]byte("x"))
	if res := opener.RelayPackets(p, udpHeader); !res.Refused || res.Reason != ReasonInternal {
		t.Errorf("%+v", res)
	}
	q, _ := newPackets(t)
	if res := opener.RelayPackets(q, testHeader); res.Err == nil || !q.closed {
		t.Errorf("%+v", res)
	}
	near, far := tcpPair(t)
	defer far.Close()
	if res := opener.Relay(near, udpHeader); res.Err == nil {
		t.Errorf("%+v", res)
	}
}

func TestIdleFlowsHoldNoBuffers(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newPacketRig(t, useTLS)
		r.nearP.Settle()
		r.relay()
		side := func(tun *Tunnel) *packetSide {
			tun.mu.Lock()
			defer tun.mu.Unlock()
			return tun.stream.app.(*packetSide)
		}
		for range 20 {
			send(t, r.near, randomBytes(60000))
			recv(t, r.far)
		}
		near, far := side(r.opener), side(r.acceptor)
		time.Sleep(50 * time.Millisecond)
		r.nearP.Finish() // orders the reads below after the goroutines' writes
		await(t, r.done)
		await(t, r.farDone)
		r.acceptor.Kill(ReasonShutdown)
		await(t, r.served)
		for _, d := range []*packetSide{near, far} {
			if d.buf != nil {
				t.Error("a buffer is held while nothing arrives")
			}
		}
		for _, tun := range []*Tunnel{r.opener, r.acceptor} {
			if tun.part != nil || tun.plain != nil {
				t.Error("a tunnel holds memory")
			}
		}
	})
}

// Any bytes in a flow's stream either are its datagrams, whole and in order,
// or end the tunnel.
func FuzzDatagramStream(f *testing.F) {
	f.Add(append(dgramFrame("one"), dgramFrame("")...), 5)
	f.Add(append(dgramFrame("one"), typeFin, 0, 0, 0), 3)
	f.Add(dgramFrame(string(make([]byte, 5000))), 4500)
	f.Add(append(dgramFrame("one"), dataFrame("two")...), 9)
	f.Add([]byte{typeDgram, 0, 0xff, 0xe3, 1, 2, 3}, 5)
	f.Fuzz(func(t *testing.T, p []byte, cut int) {
		want, _, _ := decodeAll(p)
		a, b := tcpPair(t)
		defer a.Close()
		go func() {
			at := 0
			if len(p) > 0 {
				at = int(uint(cut) % uint(len(p)))
			}
			_, _ = a.Write(appendOpen(nil, udpHeader))
			_, _ = a.Write(p[:at])
			_, _ = a.Write(p[at:])
			_ = a.CloseWrite()
			_, _ = a.Read(make([]byte, 100)) // READY and more
		}()
		acceptor, err := Accepted(context.Background(), b, nil, new(Buffers))
		must(t, err)
		var got [][]byte
		err = acceptor.Serve(context.Background(), func(context.Context, Header) (App, func(Result), Reason) {
			return HandedPackets(func(p []byte) error { got = append(got, bytes.Clone(p)); return nil }), func(Result) {}, 0
		})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		for i, g := range got {
			if i >= len(want) || want[i].typ != typeDgram || want[i].more != 0 || !bytes.Equal(g, want[i].data) {
				t.Fatalf("datagram %d: %q is not among %+v", i, g, want)
			}
		}
	})
}
