// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/c8s-dev/c8s/datapath"
)

// owning is a run of the world's agent that owns the node.
func (w *world) owning() (r *run, group *errgroup.Group) {
	group, ctx := errgroup.WithContext(w.ctx)
	w.cfg.Source = make(scripted)
	owner := &run{Agent: w.Agent, group: group, life: ctx, tenure: ctx, end: w.cancel}
	owner.publisher = newPublisher(&owner.sockets, func(map[uint16]datapath.Published) {})
	return owner, group
}

func TestPartsRunWhileTheDaemonOwnsTheNode(t *testing.T) {
	inWorld(t, func(w *world) {
		running := make(chan bool, 10)
		w.cfg.Parts = []Part{{"plugin", func(ctx context.Context) error {
			running <- true
			<-ctx.Done()
			running <- false
			return ctx.Err()
		}}}
		r, group := w.owning()
		for range 2 { // the second time the successor had failed
			r.beginSpell()
			if !<-running {
				t.Fatal("it ended")
			}
			if !r.endSpell(time.Second) || <-running {
				t.Fatal("it goes on for a successor to see")
			}
		}
		w.cancel()
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// A part that will not end must not be run twice, and the daemon goes on.
func TestPartThatEndsLateBeginsAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		begun, release := make(chan struct{}, 10), make(chan struct{}, 1)
		w.cfg.Parts = []Part{{"stuck", func(ctx context.Context) error {
			begun <- struct{}{}
			<-ctx.Done()
			<-release
			return ctx.Err()
		}}}
		r, group := w.owning()
		r.beginSpell()
		<-begun
		for range 2 {
			if r.endSpell(time.Second) {
				t.Error("it has not ended")
			}
		}
		synctest.Wait()
		if len(begun) != 0 {
			t.Fatal("it runs twice")
		}
		release <- struct{}{}
		<-begun
		synctest.Wait() // a part begins before its spell is there to be ended
		release <- struct{}{}
		if !r.endSpell(time.Second) {
			t.Error("it ended in time")
		}
		w.cancel()
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	})
}

func TestClientsOfAServiceWaitWhileItStandsStill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gate.sock")
	for network, addr := range map[string]string{"tcp": "127.0.0.1:0", "unix": path} {
		ln, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		var kept sockets
		if err := kept.keep("gate", ln); err != nil {
			t.Fatal(err)
		}
		defer kept.close()
		ln.Close() // as the end of a spell does
		client, err := net.Dial(network, ln.Addr().String())
		if err != nil {
			t.Fatalf("%s: clients are refused: %v", network, err)
		}
		defer client.Close()
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		again, err := kept.listener("gate")
		if err != nil {
			t.Fatal(err)
		}
		conn, err := again.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Errorf("%s: %v", network, err)
		}
		conn.Close()
		again.Close()
	}
	if _, err := net.Dial("unix", path); err != nil {
		t.Errorf("the socket's file is gone with its first listener: %v", err)
	}
}
