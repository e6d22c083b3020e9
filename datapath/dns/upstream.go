// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/c8s-dev/c8s/datapath/resolve"
)

const (
	rounds = 2 // how often each upstream is tried for one question
	// maxStrays is how many messages that do not answer the question are read
	// over UDP. More is somebody who guesses ids; TCP has a handshake.
	maxStrays = 16
)

var (
	errStrays   = errors.New("too many messages that do not answer the question")
	errInside   = errors.New("its address belongs to the cluster: name one outside with --dns-upstream")
	errUpstream = errors.New("no upstream answered")
)

// upstream is a resolver outside.
type upstream struct {
	addr netip.AddrPort

	mu       sync.Mutex
	answered time.Time
	failed   time.Time
	err      error // of failed
}

func (u *upstream) note(err error, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil {
		u.answered = now
		return
	}
	u.failed, u.err = now, err
}

// question asks one upstream after the other, beginning with the last that
// answered.
func (r *recursor) question(ctx context.Context, k key) (*response, error) {
	all := errUpstream
	n := len(r.upstreams)
	first := int(r.first.Load())
	for try := 0; try < rounds*n && ctx.Err() == nil; try++ {
		i := (first + try) % n
		u := r.upstreams[i]
		found, err := r.exchange(ctx, u.addr, k)
		if err == nil || errors.Is(err, errChain) { // the latter is the name's fault
			u.note(nil, r.cfg.Now())
			r.first.Store(int32(i))
			return found, err
		}
		u.note(err, r.cfg.Now())
		all = fmt.Errorf("%w; %s: %w", all, u.addr, err)
	}
	return nil, all
}

// exchange asks over UDP from a port of its own, and over TCP what does not fit
// or seems forged.
func (r *recursor) exchange(ctx context.Context, addr netip.AddrPort, k key) (*response, error) {
	if inCluster(r.cfg.Cluster, addr) {
		return nil, errInside
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Limits.Attempt)
	defer cancel()
	found, err := r.over(ctx, "udp", addr, k, r.datagrams)
	if errors.Is(err, errTruncated) || errors.Is(err, errStrays) {
		return r.over(ctx, "tcp", addr, k, r.stream)
	}
	return found, err
}

// inCluster reports whether addr is that of a pod or Service: the node cannot
// talk to them, and they would ask the node.
func inCluster(c Cluster, addr netip.AddrPort) bool {
	_, verdict := c.Resolve(resolve.Query{Protocol: resolve.UDP, Dst: addr})
	switch verdict {
	case resolve.Found, resolve.NoNode, resolve.NoEndpoints, resolve.NoServicePort:
		return true
	}
	return false
}

type exchanger func(conn net.Conn, wire []byte, id uint16, k key) (*response, error)

func (r *recursor) over(ctx context.Context, network string, addr netip.AddrPort, k key, do exchanger) (*response, error) {
	id := uint16(r.cfg.Rand())
	wire, err := ownQuestion(id, k)
	if err != nil {
		return nil, err
	}
	conn, err := r.cfg.Dial(ctx, network, addr.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	r.asked.Add(1)
	return do(conn, wire, id, k)
}

// ownQuestion is the only thing that is ever sent to an upstream.
func ownQuestion(id uint16, k key) ([]byte, error) {
	m := miekg.Msg{
		MsgHdr:   miekg.MsgHdr{Id: id, RecursionDesired: true},
		Question: []miekg.Question{{Name: k.name + ".", Qtype: k.qtype, Qclass: miekg.ClassINET}},
	}
	m.SetEdns0(udpSize, false)
	return m.Pack()
}

func (r *recursor) datagrams(conn net.Conn, wire []byte, id uint16, k key) (*response, error) {
	if _, err := conn.Write(wire); err != nil {
		return nil, err
	}
	buf := make([]byte, miekg.MaxMsgSize)
	for range maxStrays {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		found, err := accept(buf[:n], id, k, r.outside)
		if !errors.Is(err, errStray) {
			return found, err
		}
	}
	return nil, errStrays
}

func (r *recursor) stream(conn net.Conn, wire []byte, id uint16, k key) (*response, error) {
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...)
	if _, err := conn.Write(framed); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return nil, err
	}
	return accept(buf, id, k, r.outside)
}
