// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/policy"
)

// authority shows that the CDS keeps a log, obeys the operators at once, and
// is the same after it was killed.
func (s *stage) authority(ctx context.Context) error {
	const act = "The CDS proves what it did"
	before, err := s.logged(ctx)
	seen := ""
	if err == nil {
		seen = fmt.Sprintf("entry %d of %d, proven to the signed checkpoint", before.entry, before.checkpoint.Size)
	}
	s.add(act, "the certificate of web is in the public log", seen, err)
	s.denied(ctx)
	if err == nil {
		return s.restartCDS(ctx, before)
	}
	return ctx.Err()
}

// sight is what an auditor has seen of the log.
type sight struct {
	keys       policy.Digest // of the CDS
	checkpoint translog.Checkpoint
	entry      int64 // that records the certificate
}

// logged finds web's certificate, as its node shows it to anybody, in the log.
func (s *stage) logged(ctx context.Context) (*sight, error) {
	chain, err := s.web.Certificate(ctx)
	if err != nil {
		return nil, err
	}
	log, err := s.Log(ctx)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	now, _, err := log.Latest(ctx)
	if err != nil {
		return nil, err
	}
	want := policy.DigestOf(chain[0].Raw)
	index, record, err := log.Find(ctx, *now, 0, func(_ int64, raw []byte) bool {
		e, err := translog.ParseEntry(raw)
		return err == nil && e.Type == translog.TypeIssuance && e.Certificate == want
	})
	if err != nil {
		return nil, err
	}
	proof, err := log.Prove(ctx, *now, index)
	if err != nil {
		return nil, err
	}
	return &sight{log.Bundle().Digest(), *now, index}, translog.VerifyInclusion(record, index, *now, proof)
}

// denied has the operators deny web while somebody talks to it.
func (s *stage) denied(ctx context.Context) {
	const act = "The operators deny the workload web"
	seen, err := s.cutOff(ctx)
	s.add(act, "a live connection to it is cut", seen, err)
	_, err = curl(ctx, s.client, s.web.Addr4, webPort)
	if err == nil {
		err = errors.New("the connection was not refused")
	} else {
		err = nil
	}
	s.add(act, "a new one is refused", "curl gets no connection", err)
	err = s.Deny(ctx)
	if err == nil {
		err = s.web.WaitState(ctx, agent.StateOpen, "")
	}
	if err == nil {
		err = s.answers(ctx)
	}
	s.add(act, "the denial is lifted: they talk again", "curl → 200", err)
}

// cutOff says what ended a connection, and how soon after the CDS had
// acknowledged the deny list.
func (s *stage) cutOff(ctx context.Context) (string, error) {
	to := netip.AddrPortFrom(s.web.Addr4, webPort)
	conn, err := dial(ctx, s.client, to, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := ask(conn); err != nil {
		return "", err
	}
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, conn)
		ended <- err
	}()
	if err := s.Deny(ctx, policy.Denial{Kind: policy.DenyWorkload, Value: "web", Reason: "demo"}); err != nil {
		return "", err
	}
	published := time.Now()
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		return "", fmt.Errorf("the program saw %w, want a reset", err)
	}
	took := time.Since(published)
	reason, err := s.closedBecause(ctx, conn.LocalAddr())
	return fmt.Sprintf("%s, %d ms after the CDS had acknowledged it", reason, took.Milliseconds()), err
}

// ask sends one request and waits for the beginning of the answer.
func ask(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: web\r\n\r\n"); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

// closedBecause is why a node closed the connection from src, by its record.
func (s *stage) closedBecause(ctx context.Context, src net.Addr) (string, error) {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		for _, n := range s.Nodes {
			flows, err := n.Flows(ctx)
			if err != nil {
				return "", err
			}
			for _, r := range flows {
				if r.Verdict == flow.Closed && r.Src.String() == src.String() && r.Reason == string(policy.CodeDeniedWorkload) {
					return r.Reason, nil
				}
			}
		}
		if time.Now().After(deadline) {
			return "", errors.New("no flow record says that it was denied")
		}
	}
}

// answers waits until web answers: each node hears the news for itself.
func (s *stage) answers(ctx context.Context) error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, err := curl(ctx, s.client, s.web.Addr4, webPort)
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// restartCDS kills the CDS without warning and has it come back.
func (s *stage) restartCDS(ctx context.Context, before *sight) error {
	const act = "SIGKILL to the CDS"
	if err := s.CDS[0].Kill(); err != nil {
		return err
	}
	_, err := curl(ctx, s.client, s.web.Addr4, webPort)
	s.add(act, "running pods keep talking", "curl → 200", err)
	if err := s.CDS[0].Start(); err != nil {
		return err
	}
	if err := s.CDS[0].WaitReady(ctx); err != nil {
		return err
	}
	log, err := s.Log(ctx)
	if err != nil {
		return err
	}
	defer log.Close()
	digest := log.Bundle().Digest()
	s.add(act, "started again, it has the same CA", short(string(digest)), mustEqual(string(digest), string(before.keys)))
	now, _, err := log.Latest(ctx)
	seen := ""
	if err == nil {
		seen = fmt.Sprintf("%d entries extend the %d seen before", now.Size, before.checkpoint.Size)
		err = log.Consistent(ctx, before.checkpoint, *now)
	}
	s.add(act, "and the same log", seen, err)
	return nil
}
