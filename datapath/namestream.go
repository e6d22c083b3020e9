// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
)

const (
	// maxQuery is the longest query that is read; a question has 255 bytes.
	maxQuery = 4096
	// namesInFlight is how many queries of one connection are worked on at once
	// (RFC 7766 section 6.2.1.1: answers may overtake each other).
	namesInFlight = 16
	// nameWriteTimeout is how long a pod may leave an answer lying.
	nameWriteTimeout = 5 * time.Second
)

// answerStream answers the DNS queries of one TCP connection (RFC 7766), each
// of them judged by the pod of that moment. It returns why the connection may
// not be, or nil when it has been.
func (p *Proxy) answerStream(ctx context.Context, app *net.TCPConn, pod *LocalPod, rec *flow.Record) *Refusal {
	if !p.names.take(pod.UID) {
		return refuse(reasonTooMany, "limit of DNS connections", "fewer connections", "the limit of the pod or the node is reached")
	}
	defer p.names.give(pod.UID)
	if _, why := p.usable(pod); why != nil {
		return why
	}
	defer context.AfterFunc(ctx, func() { _ = app.Close() })()
	s := &nameStream{p: p, conn: app, asker: askerOf(pod, rec.Src, rec.Dst), slots: make(chan struct{}, namesInFlight)}
	s.serve(ctx)
	_ = app.Close()
	return nil
}

// nameStream is one TCP connection with DNS queries.
type nameStream struct {
	p     *Proxy
	conn  *net.TCPConn
	asker Asker
	slots chan struct{}
	work  sync.WaitGroup

	mu sync.Mutex // one answer is written at a time
}

// serve returns when the pod has nothing more to ask, or misbehaves, and every
// query has been answered.
func (s *nameStream) serve(ctx context.Context) {
	defer s.work.Wait()
	for s.conn.SetReadDeadline(time.Now().Add(s.p.cfg.Limits.NamesIdle)) == nil {
		query, err := readQuery(s.conn)
		if err != nil || !s.p.entitled(s.asker) {
			return
		}
		s.slots <- struct{}{} // a pod that asks faster than it is answered waits in its socket
		s.work.Go(func() {
			defer func() { <-s.slots }()
			switch answer := s.p.cfg.DNS.Answer(ctx, s.asker, query, true); {
			case answer != nil && !s.p.entitled(s.asker):
				_ = s.conn.Close() // its address may be another pod's by now
			case answer != nil:
				s.write(answer)
			case s.p.paused.Load():
				_ = s.conn.Close() // on another connection the successor answers
			}
		})
	}
}

// entitled reports whether the pod at the address is still the one that asked,
// with a certificate that nobody denies.
func (p *Proxy) entitled(asker Asker) bool {
	pod, ok := p.cfg.Mesh.Pod(asker.Addr)
	if !ok || pod.UID != asker.UID || pod.Workload != asker.Workload {
		return false
	}
	_, why := p.usable(pod)
	return why == nil
}

// readQuery reads one message with its length before it (RFC 1035 section
// 4.2.2).
func readQuery(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint16(length[:])
	if n > maxQuery {
		return nil, io.ErrShortBuffer
	}
	query := make([]byte, n)
	_, err := io.ReadFull(r, query)
	return query, err
}

func (s *nameStream) write(answer []byte) {
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(answer)), uint16(len(answer)))
	framed = append(framed, answer...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn.SetWriteDeadline(time.Now().Add(nameWriteTimeout)) != nil {
		return
	}
	if _, err := s.conn.Write(framed); err != nil {
		_ = s.conn.Close() // half an answer may be out: nothing can follow it
	}
}
