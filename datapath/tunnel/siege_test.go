// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
)

// strangerAt is the n-th address of loopback in a network of its own.
func strangerAt(n int) string { return fmt.Sprintf("127.%d.%d.66", 1+n/250, 1+n%250) }

const (
	routedAddr = "127.0.0.2" // Known says so
	provenAddr = "127.0.0.3" // has a tunnel
	freshAddr  = "127.0.0.4" // a peer that nobody knows yet
)

// besiegedHotel knows one address by hearsay and one by a tunnel.
func besiegedHotel(t *testing.T, cfg ServerConfig) (*hotel, *tls.Config) {
	client, server := testTLS(t)
	cfg.Session = sessionOf(server)
	cfg.Known = func(a netip.Addr) bool { return a == netip.MustParseAddr(routedAddr) }
	h := newHotel(t, cfg)
	tun, err := Dialed(t.Context(), h.dial(t, provenAddr), client, &h.bufs)
	must(t, err)
	t.Cleanup(tun.Close)
	eventually(t, "the tunnel", func() bool { return h.srv.Stats().Tunnels == 1 })
	return h, client
}

// shakes makes a tunnel from an address, at the first attempt.
func (h *hotel) shakes(t *testing.T, from string, client *tls.Config) error {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := h.tryDial(t, from)
	if err != nil {
		return err
	}
	tun, err := Dialed(ctx, c, client, &h.bufs)
	if err != nil {
		return err
	}
	tun.Close()
	return nil
}

func TestPeersGetInWhileStrangersHoldEverySlot(t *testing.T) {
	const strangers = 1200
	h, client := besiegedHotel(t, ServerConfig{HandshakeTimeout: time.Hour}) // nobody's ends by itself
	for n := range strangers {
		c := h.dial(t, strangerAt(n))
		_, err := c.Write([]byte{22, 3, 1}) // the start of a handshake
		must(t, err)
	}
	eventually(t, "every slot to be taken", func() bool {
		n, _ := h.srv.guests.shaking()
		return n == defaultMaxHandshakes && h.srv.Stats().Guests == strangers
	})
	for _, from := range []string{routedAddr, provenAddr} {
		for range 3 {
			if err := h.shakes(t, from, client); err != nil {
				t.Errorf("a peer at %s: %v", from, err)
			}
		}
	}
	// Each time one stranger made room, and another took its slot after that.
	eventually(t, "six strangers' end", func() bool { return h.srv.Stats().Crowded == 6 })
	if s := h.srv.Stats(); s.HandshakeErrors != 0 {
		t.Errorf("who made room is counted as something else: %+v", s)
	}
}

// The strangers come back as soon as they have had to make room.
func TestPeersGetInWhileStrangersComeBack(t *testing.T) {
	const strangers, shakes, tries = 1000, 20, 5
	h, client := besiegedHotel(t, ServerConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for n := range strangers {
		wg.Go(func() {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(strangerAt(n))}}
			for ctx.Err() == nil {
				c, err := d.DialContext(ctx, "tcp", h.addr)
				if err != nil {
					continue
				}
				stop := context.AfterFunc(ctx, func() { c.Close() })
				_, _ = c.Read(make([]byte, 1)) // until it is closed
				stop()
				c.Close()
			}
		})
	}
	eventually(t, "every slot to be taken", func() bool {
		n, _ := h.srv.guests.shaking()
		return n == defaultMaxHandshakes
	})
	var took []time.Duration
	for _, from := range slices.Repeat([]string{routedAddr, provenAddr}, shakes) {
		began := time.Now()
		if err := h.shakes(t, from, client); err != nil {
			t.Errorf("a peer at %s: %v", from, err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	// Who nobody knows yet may meet a stranger's fate, and tries again.
	fails := 0
	var err error
	began := time.Now()
	for range tries {
		if err = h.shakes(t, freshAddr, client); err == nil {
			break
		}
		fails++
	}
	if err != nil {
		t.Errorf("a peer that nobody knows yet: %d handshakes failed, the last with %v", fails, err)
	}
	t.Logf("known addresses: p50 %s, p99 %s; an unknown one after %s and %d failures; %d connections made room",
		took[len(took)/2], took[len(took)-1], time.Since(began), fails, h.srv.Stats().Crowded)
}
