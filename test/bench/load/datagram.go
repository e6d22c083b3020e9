// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// The first byte of a datagram says what the server is to do with it.
const (
	datagramCount  = iota // count it for the flow it belongs to
	datagramReport        // answer with that count
	datagramEcho          // send it back
)

const (
	// datagramHeader is the kind and a number of eight bytes.
	datagramHeader = 1 + 8
	maxDatagram    = 1 << 16
	// reportWait is how long an answer may take before it is asked for again,
	// and how long nothing more may arrive before a flow is over.
	reportWait = 100 * time.Millisecond
	// datagramQueue is what sockets hold; the kernel may grant less.
	datagramQueue = 4 << 20
)

// ServeDatagrams is the server of Datagrams and DatagramLatency. It returns nil
// when ctx ended it.
func ServeDatagrams(ctx context.Context, pc *net.UDPConn) error {
	defer context.AfterFunc(ctx, func() { pc.Close() })()
	if err := pc.SetReadBuffer(datagramQueue); err != nil {
		return fmt.Errorf("serving datagrams: %w", err)
	}
	flows := map[netip.AddrPort]uint64{}
	for buf := make([]byte, maxDatagram); ; {
		n, from, err := pc.ReadFromUDPAddrPort(buf)
		if err != nil && ctx.Err() != nil {
			return nil
		}
		if err != nil || n < datagramHeader {
			continue // an ICMP error of a flow that has ended
		}
		switch buf[0] {
		case datagramCount:
			flows[from]++
			continue
		case datagramReport:
			binary.BigEndian.PutUint64(buf[1:], flows[from])
		}
		_, _ = pc.WriteToUDPAddrPort(buf[:n], from) // what is lost is the client's to count
	}
}

// DatagramResult is what Datagrams measured.
type DatagramResult struct {
	Sent, Received uint64
	// Elapsed is from the first datagram sent until the server had the last
	// that arrived.
	Elapsed time.Duration
}

// PerSecond is the rate of datagrams that arrived.
func (r DatagramResult) PerSecond() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Received) / r.Elapsed.Seconds()
}

// Lost is the share of datagrams that did not arrive.
func (r DatagramResult) Lost() float64 {
	if r.Sent == 0 {
		return 0
	}
	return float64(r.Sent-min(r.Received, r.Sent)) / float64(r.Sent)
}

// Datagrams sends datagrams of size bytes for duration d to ServeDatagrams, on
// so many flows and as fast as the kernel takes them. Only those count that the
// server says it received.
func Datagrams(ctx context.Context, dial Dial, flows, size int, d time.Duration) (DatagramResult, error) {
	fail := func(err error) (DatagramResult, error) {
		return DatagramResult{}, fmt.Errorf("measuring datagrams: %w", err)
	}
	if size < datagramHeader || size > maxDatagram {
		return fail(fmt.Errorf("of %d bytes, want %d to %d", size, datagramHeader, maxDatagram))
	}
	// The first datagram makes the flow, and shows that it works.
	conns, err := dialAll(ctx, dial, flows, func(c net.Conn) error { _, err := report(c); return err })
	if err != nil {
		return fail(err)
	}
	defer closeAll(conns)
	defer abortOn(ctx, conns)()
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		failed failures
		r      DatagramResult
		began  = time.Now()
	)
	for _, c := range conns {
		wg.Go(func() {
			sent, err := blast(c, size, began.Add(d))
			var got uint64
			var last time.Time
			if err == nil {
				got, last, err = settled(c)
			}
			if err != nil {
				failed.add(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			r.Sent, r.Received, r.Elapsed = r.Sent+sent, r.Received+got, max(r.Elapsed, last.Sub(began))
		})
	}
	wg.Wait()
	if failed.n > 0 {
		return fail(preferCause(ctx, failed.first))
	}
	if r.Received == 0 {
		return fail(fmt.Errorf("none of %d arrived", r.Sent))
	}
	return r, nil
}

func blast(c net.Conn, size int, until time.Time) (sent uint64, err error) {
	buf := make([]byte, size)
	buf[0] = datagramCount
	for time.Now().Before(until) {
		for range 32 { // the clock is not free
			if _, err := c.Write(buf); err != nil {
				return sent, err
			}
			sent++
		}
	}
	return sent, nil
}

// settled asks what arrived until it has not grown for a while, and says when
// it last did.
func settled(c net.Conn) (n uint64, last time.Time, err error) {
	if n, err = report(c); err != nil {
		return 0, last, err
	}
	for last = time.Now(); time.Since(last) < reportWait; time.Sleep(time.Millisecond) {
		now, err := report(c)
		if err != nil {
			return 0, last, err
		}
		if now != n {
			n, last = now, time.Now()
		}
	}
	return n, last, nil
}

// report asks the server what it received, again where the answer is lost. It
// stands in one queue with what was sent before.
func report(c net.Conn) (uint64, error) {
	ask, answer := make([]byte, datagramHeader), make([]byte, datagramHeader)
	ask[0] = datagramReport
	var err error
	for end := time.Now().Add(grace); time.Now().Before(end); {
		if _, err = c.Write(ask); err != nil {
			return 0, err
		}
		if err = c.SetReadDeadline(time.Now().Add(reportWait)); err != nil {
			return 0, err
		}
		n, readErr := c.Read(answer)
		if err = readErr; err == nil && n == len(answer) && answer[0] == datagramReport {
			return binary.BigEndian.Uint64(answer[1:]), nil
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
	}
	return 0, fmt.Errorf("the server does not say what it received: %w", err)
}
