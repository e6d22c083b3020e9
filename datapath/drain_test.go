// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
)

// successor is a second proxy on the sockets of n, with the same pods.
func (n *node) successor() *node {
	t := n.w.t
	t.Helper()
	dup := func(ln *net.TCPListener) *net.TCPListener {
		f, err := ln.File()
		must(t, err)
		defer f.Close()
		again, err := net.FileListener(f)
		must(t, err)
		return again.(*net.TCPListener)
	}
	l := Listeners{Pods: []*net.TCPListener{dup(n.listeners.Pods[0])}, Tunnels: dup(n.listeners.Tunnels)}
	for _, c := range n.listeners.Packets {
		f, err := c.File()
		must(t, err)
		again, err := net.FilePacketConn(f)
		must(t, err)
		must(t, f.Close())
		l.Packets = append(l.Packets, again.(*net.UDPConn))
	}
	return n.w.nodeOn(n.addr.String(), Limits{}, l, func(next *node) {
		next.target.Store(n.target.Load())
		n.mu.Lock()
		defer n.mu.Unlock()
		maps.Copy(next.pods, n.pods)
	})
}

// handOver does to n what the agent does when a successor has come.
func (n *node) handOver() *node {
	n.proxy.Pause()
	next := n.successor()
	n.proxy.Leave()
	return next
}

func TestSuccessorTakesNewConnectionsAndTheOldFinishesItsOwn(t *testing.T) {
	for name, over := range map[string]func(a, b *node) (now *node, old *node){
		"the connecting side": func(a, _ *node) (*node, *node) { return a.handOver(), a },
		"the accepting side":  func(a, b *node) (*node, *node) { b.handOver(); return a, b },
	} {
		t.Run(name, func(t *testing.T) {
			_, a, b := pair(t)
			echo(t, dbApp)
			standing := a.dial(webAddr, dbApp)
			talk(t, standing)
			pooled := a.dial(webAddr, dbApp) // leaves an idle tunnel behind
			talk(t, pooled)
			must(t, pooled.Close())
			a.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Closed })

			now, old := over(a, b)
			carried := old.proxy.Stats().Streams
			for range 20 {
				c := now.dial(webAddr, dbApp)
				talk(t, c)
				must(t, c.Close())
				talk(t, standing)
			}
			// Only a stream that crossed the request may still have come.
			if more := old.proxy.Stats().Streams - carried; more > 1 {
				t.Errorf("the old daemon was given %d more connections", more)
			}
			must(t, standing.Close())
			if left := old.proxy.Drain(t.Context(), 0); left != 0 {
				t.Errorf("%d connections are left", left)
			}
		})
	}
}

// Connections that come between the two daemons wait.
func TestConnectionsWaitWhileTheDoorIsShut(t *testing.T) {
	_, a, _ := pair(t)
	echo(t, dbApp)
	a.proxy.Pause()
	c := a.dial(webAddr, dbApp)
	if n := a.proxy.Stats().Outgoing; n != 0 {
		t.Errorf("%d connections were accepted", n)
	}
	a.proxy.Resume()
	talk(t, c)

	a.proxy.Pause()
	c = a.dial(webAddr, dbApp)
	next := a.successor()
	a.proxy.Leave()
	talk(t, c)
	if n := next.proxy.Stats().Outgoing; n != 1 {
		t.Errorf("the successor carries %d connections, want the one that waited", n)
	}
}

func TestDrainResetsWhatDoesNotEndInTime(t *testing.T) {
	_, a, b := pair(t)
	echo(t, dbApp)
	c := a.dial(webAddr, dbApp)
	talk(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if left := b.proxy.Drain(ctx, 0); left != 1 {
		t.Errorf("%d connections were left, want 1", left)
	}
	wantReset(t, c)
	a.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Closed && r.Reason == "shutdown" })
	b.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Closed && r.Reason == "shutdown" && r.Rule != "" })
}

func TestEndingDaemonRefusesNewConnectionsAndKeepsOldOnes(t *testing.T) {
	_, a, b := pair(t)
	echo(t, dbApp)
	c := a.dial(webAddr, dbApp)
	talk(t, c)
	a.proxy.Refuse()
	a.dialRefused(webAddr, dbApp)
	a.wantRefusal("shutdown")
	talk(t, c)
	b.proxy.Refuse() // and so does the other side
	talk(t, c)
}

func TestOtherNodesAreRefusedByAnEndingDaemon(t *testing.T) {
	_, a, b := pair(t)
	echo(t, dbApp)
	b.proxy.Refuse()
	c, err := a.tryDial(webAddr, dbApp)
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
	b.wantRefusal("shutdown")
}

// Streams may still be on their way when nothing is carried for a moment.
func TestDrainWaitsForQuiet(t *testing.T) {
	w := newWorld(t)
	n := w.node("127.0.0.1", Limits{})
	done := make(chan int, 1)
	go func() { done <- n.proxy.Drain(t.Context(), time.Hour) }()
	select {
	case <-done:
		t.Fatal("it was not quiet for an hour")
	case <-time.After(3 * drainLook):
	}
	w.ahead.Store(int64(2 * time.Hour))
	if left := <-done; left != 0 {
		t.Errorf("%d connections are left", left)
	}
}
