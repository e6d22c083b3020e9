// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"
)

// hotel is a server that strangers and honest openers reach from addresses of
// their own.
type hotel struct {
	srv  *Server
	addr string
	bufs Buffers
}

func newHotel(t *testing.T, cfg ServerConfig) *hotel {
	h := &hotel{}
	cfg.Buffers = &h.bufs
	cfg.Accept = func(context.Context, *Tunnel, Header) (App, func(Result), Reason) {
		return nil, nil, ReasonConnectionRefused
	}
	h.srv = NewServer(cfg)
	ln := listenTCP(t)
	h.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.srv.Serve(ctx, ln) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return h
}

func sessionOf(cfg *tls.Config) func() (*tls.Config, any) {
	return func() (*tls.Config, any) { return cfg, nil }
}

func (h *hotel) dial(t *testing.T, from string) *net.TCPConn {
	t.Helper()
	c, err := h.tryDial(t, from)
	must(t, err)
	must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	return c
}

// tryDial is for connections that the server may turn away at once.
func (h *hotel) tryDial(t *testing.T, from string) (*net.TCPConn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(t.Context(), "tcp", h.addr)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn), nil
}

func TestStrangerThatLeavesHandshakesHalfDoneDoesNotTakeAllSlots(t *testing.T) {
	client, server := testTLS(t)
	h := newHotel(t, ServerConfig{MaxHandshakes: 16, HandshakeTimeout: time.Minute, Session: sessionOf(server)})
	const perHost, queue = 2, 32
	for range queue {
		h.dial(t, "127.0.0.66") // says nothing
	}
	eventually(t, "the stranger's connections", func() bool { return h.srv.Stats().Guests == queue })
	// One more is turned away at once, by a reset.
	// Its reset may come before the connection is seen as made.
	c, err := h.tryDial(t, "127.0.0.66")
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection above the limit: %v, want a reset", err)
	}
	if strangers, _ := h.srv.guests.shaking(); strangers != perHost {
		t.Errorf("the stranger has %d of %d slots, want %d", strangers, 16, perHost)
	}
	// Everybody else is served meanwhile.
	for _, from := range []string{"127.0.0.1", "127.0.0.2"} {
		tun, err := Dialed(t.Context(), h.dial(t, from), client, &h.bufs)
		must(t, err)
		tun.Close()
	}
	// The other side has its tunnel just before the server counts it.
	for end := time.Now().Add(20 * time.Second); h.srv.Stats().Handshakes < 2 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if s := h.srv.Stats(); s.Crowded != 1 || s.Handshakes != 2 {
		t.Errorf("%+v", s)
	}
}

func TestConnectionsOfOneHostWaitForTheirTurn(t *testing.T) {
	h := newHotel(t, ServerConfig{MaxHandshakes: 8}) // one at once for each host
	var wg sync.WaitGroup
	for range 16 {
		c := h.dial(t, "127.0.0.3")
		wg.Go(func() {
			tun, err := Dialed(t.Context(), c, nil, &h.bufs)
			if err != nil {
				t.Error(err)
				return
			}
			tun.Close()
		})
	}
	wg.Wait()
	eventually(t, "sixteen handshakes", func() bool { return h.srv.Stats().Handshakes == 16 })
	if s := h.srv.Stats(); s.Crowded != 0 {
		t.Errorf("%+v", s)
	}
}

func TestGuestThatWaitsInVainIsTurnedAway(t *testing.T) {
	_, server := testTLS(t)
	h := newHotel(t, ServerConfig{MaxHandshakes: 8, HandshakeTimeout: 100 * time.Millisecond, Session: sessionOf(server)})
	var last *net.TCPConn
	for range 4 {
		last = h.dial(t, "127.0.0.66")
	}
	if _, err := io.Copy(io.Discard, last); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v", err)
	}
	eventually(t, "nobody left", func() bool { return h.srv.Stats().Guests == 0 })
	h.srv.guests.wantNobody(t)
}

func TestTunnelsOfOneHostAreLimited(t *testing.T) {
	h := newHotel(t, ServerConfig{MaxTunnels: 6})
	open := func(from string) *Tunnel {
		tun, err := Dialed(t.Context(), h.dial(t, from), nil, &h.bufs)
		must(t, err)
		t.Cleanup(tun.Close)
		return tun
	}
	var first *Tunnel
	for range 3 {
		first = open("127.0.0.66")
	}
	eventually(t, "three tunnels", func() bool { return h.srv.Stats().Tunnels == 3 })
	// The fourth is greeted, then closed, maybe before it is seen as made.
	if c, err := h.tryDial(t, "127.0.0.66"); err == nil {
		if tun, err := Dialed(t.Context(), c, nil, &h.bufs); err == nil {
			t.Cleanup(tun.Close)
		}
	}
	eventually(t, "the fourth to be shed", func() bool { return h.srv.Stats().Shed == 1 })
	for range 3 {
		open("127.0.0.4")
	}
	eventually(t, "the other's three", func() bool { return h.srv.Stats().Tunnels == 6 })
	first.Close()
	eventually(t, "one less", func() bool { return h.srv.Stats().Tunnels == 5 })
	open("127.0.0.66")
	eventually(t, "its place taken", func() bool { return h.srv.Stats().Tunnels == 6 })
}

func TestHostsAreAddressesAndIPv6Networks(t *testing.T) {
	for addr, want := range map[string]string{
		"10.0.0.1": "10.0.0.1", "::ffff:10.0.0.1": "10.0.0.1", "fd00:1:2:3:4::5": "fd00:1:2:3::", "fe80::1": "fe80::",
	} {
		if got := HostOf(&net.TCPAddr{IP: net.ParseIP(addr), Port: 1, Zone: ""}); got != netip.MustParseAddr(want) {
			t.Errorf("%s counts as %s, want %s", addr, got, want)
		}
	}
}
