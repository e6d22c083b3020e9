// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// text is a piece of memory of about that many bytes.
func text(kind string, size int) Memory {
	return Memory{kind, json.RawMessage(`"` + strings.Repeat("m", size-2) + `"`)}
}

func TestSuccessorGetsTheMemoryItCanUse(t *testing.T) {
	o := newOwner(t)
	o.memory = []Memory{text("a/1", 1000), text("b/1", 10), text("later/1", 10), text("a/1", 10)}
	s := dial(t, o)
	taken, err := s.Take("a/1", "b/1", "a/2")
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll([]*os.File{taken.Sockets["tcp4"]})
	var got []string
	for _, m := range taken.Memory {
		got = append(got, fmt.Sprint(m.Kind, " ", len(m.Data)))
	}
	if fmt.Sprint(got) != "[a/1 1000 b/1 10 a/1 10]" || len(taken.Pods) != 2 || taken.LeftOut != 0 {
		t.Errorf("got %v and %d pods", got, len(taken.Pods))
	}
	if err := s.Done(); err != nil {
		t.Error(err)
	}
	o.waitNoted("yield memory of a/1,b/1,a/2 gone")
}

// Memory is never a reason for a hand-over to fail.
func TestMemoryThatDoesNotFitIsLeftOut(t *testing.T) {
	o := newOwner(t)
	o.memory = []Memory{text("k", maxMessage), text("k", 10)}
	for range maxMemory/(100<<10) + 5 {
		o.memory = append(o.memory, text("k", 100<<10))
	}
	s := dial(t, o)
	taken, err := s.Take("k")
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll([]*os.File{taken.Sockets["tcp4"]})
	size := 0
	for _, m := range taken.Memory {
		size += len(m.Data)
	}
	if len(taken.Memory[0].Data) != 10 || size > maxMemory || size < maxMemory-2*maxMessage {
		t.Errorf("%d bytes in %d pieces", size, len(taken.Memory))
	}
	if err := s.Done(); err != nil {
		t.Error(err)
	}
}

func TestSuccessorTakesOnlySoMuchMemory(t *testing.T) {
	const piece, more = 100 << 10, 3
	path := scripted(t, func(c *conn) error {
		for range maxMemory/piece + more {
			if err := c.send(message{Op: opMemory, Memory: new(text("k", piece))}); err != nil {
				return err
			}
		}
		return c.send(message{Op: opSockets})
	})
	s, err := Dial(t.Context(), path, "v2", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	taken, err := s.Take("k")
	if err != nil {
		t.Fatal(err)
	}
	if len(taken.Memory) != maxMemory/piece || taken.LeftOut != more {
		t.Errorf("%d pieces, %d left out", len(taken.Memory), taken.LeftOut)
	}
}

// scripted is an owner that greets and answers "take" as told.
func scripted(t *testing.T, take func(*conn) error) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix(Network, &net.UnixAddr{Name: path, Net: Network})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	t.Cleanup(func() {
		ln.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	go func() { done <- script(ln, take) }()
	return path
}

func script(ln *net.UnixListener, take func(*conn) error) error {
	uc, err := ln.AcceptUnix()
	if err != nil {
		return err
	}
	c := &conn{uc}
	defer c.Close()
	if _, _, err := c.receive(); err != nil {
		return err
	}
	if err := c.send(message{Op: opHello, Version: Version}); err != nil {
		return err
	}
	if _, _, err := c.receive(); err != nil {
		return err
	}
	return take(c)
}

// The first release sends no memory, whatever else it is asked for.
func TestOwnerWithoutMemoryHandsOver(t *testing.T) {
	path := scripted(t, func(c *conn) error {
		for _, raw := range []string{`{"op":"pod","pod":{"info":{"uid":"a"},"open":true}}`, `{"op":"sockets"}`} {
			if _, err := c.Write([]byte(raw)); err != nil {
				return err
			}
		}
		return nil
	})
	s, err := Dial(t.Context(), path, "v2", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	taken, err := s.Take("answers/1")
	if err != nil || len(taken.Pods) != 1 || len(taken.Memory) != 0 {
		t.Errorf("%+v, %v", taken, err)
	}
}

// The first release takes nothing but pods and sockets, and would give up on an
// operation that it does not know.
func TestSuccessorWithoutMemoryTakesOver(t *testing.T) {
	o := newOwner(t)
	o.memory = []Memory{text("answers/1", 10)}
	c, err := net.DialUnix(Network, nil, &net.UnixAddr{Name: o.path, Net: Network})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	says := func(raw string, want ...string) {
		t.Helper()
		if _, err := c.Write([]byte(raw)); err != nil {
			t.Fatal(err)
		}
		for _, op := range want {
			m, files, err := (&conn{c}).receive()
			closeAll(files)
			if err != nil || m.Op != op {
				t.Fatalf("after %s: %+v, %v; want %s", raw, m, err, op)
			}
		}
	}
	says(`{"op":"hello","versions":[1],"release":"v0","terms":{"mark":"0x1"}}`, opHello)
	says(`{"op":"take"}`, opPod, opPod, opSockets)
	says(`{"op":"done"}`, opDone)
	o.waitNoted("yield gone")
}
