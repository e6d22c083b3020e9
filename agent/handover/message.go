// SPDX-License-Identifier: Apache-2.0

// Package handover passes a node from one daemon to the next and keeps this
// invariant: at every moment exactly one of the two owns the node, and when
// either dies in the middle it is clear to the other that it owns it. Sockets
// are shared before they are given away, so none ever closes in between.
//
// The two speak over a unix socket of packets, one JSON message each:
//
//	successor                    owner
//	hello versions release terms
//	                             hello version release | refused
//	pods                         (as often as it likes)
//	                             pod* end
//	take kinds
//	                             pod* memory* sockets (with descriptors) | refused
//	done
//	                             done | refused
//
// From "take" on the owner stands still. It gives the node away when it sends
// "done", and takes it back when the successor says nothing for too long or is
// gone. A successor whose "done" is answered by nothing at all has outlived
// the owner: only a dead one does not say "refused".
//
// Memory is what pods would miss if it were lost, and nothing depends on it. The
// owner sends the kinds that the successor names and it knows itself: one that
// knows none is told none, and the kind's name changes with its form.
package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Version of the protocol that this package speaks.
const Version = 1

// Bounds of a message. The longest holds one pod.
const (
	maxMessage = 128 << 10
	maxSockets = 16
	maxName    = 64
	maxTerms   = 64
	maxMemory  = 32 << 20 // of all messages with memory; what is beyond is left out
)

// Operations.
const (
	opHello   = "hello"
	opPods    = "pods"
	opPod     = "pod"
	opEnd     = "end"
	opTake    = "take"
	opMemory  = "memory"
	opSockets = "sockets"
	opDone    = "done"
	opRefused = "refused"
)

// Terms are settings that both daemons must share, such as firewall marks: by
// name, as a person would write them.
type Terms map[string]string

// Pod is a pod that the owner has. What describes it is the daemon's business.
type Pod struct {
	Info json.RawMessage `json:"info"`
	Open bool            `json:"open"`
}

// Memory is a piece of what the owner remembers, and fits into a message.
type Memory struct {
	Kind string          `json:"kind"`
	Data json.RawMessage `json:"data"`
}

// message is everything that is ever said. Unknown fields are ignored: a later
// release may say more.
type message struct {
	Op       string   `json:"op"`
	Versions []int    `json:"versions,omitempty"`
	Version  int      `json:"version,omitempty"`
	Release  string   `json:"release,omitempty"` // for people
	Terms    Terms    `json:"terms,omitempty"`
	Pod      *Pod     `json:"pod,omitempty"`
	Kinds    []string `json:"kinds,omitempty"` // of memory, that the successor can use
	Memory   *Memory  `json:"memory,omitempty"`
	Sockets  []string `json:"sockets,omitempty"`
	Why      string   `json:"why,omitempty"` // refused
}

func parse(raw []byte) (*message, error) {
	if len(raw) > maxMessage {
		return nil, fmt.Errorf("parsing a message: %d bytes, at most %d allowed", len(raw), maxMessage)
	}
	var m message
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("parsing a message: %w", err)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("parsing a message: %w", err)
	}
	return &m, nil
}

func (m *message) check() error {
	switch m.Op {
	case opHello:
		if len(m.Versions) > maxTerms || len(m.Terms) > maxTerms {
			return errors.New("too many versions or terms")
		}
	case opPod:
		if m.Pod == nil || len(m.Pod.Info) == 0 {
			return errors.New("a pod without a description")
		}
	case opTake:
		if len(m.Kinds) > maxTerms {
			return errors.New("too many kinds of memory")
		}
	case opMemory:
		if m.Memory == nil || m.Memory.Kind == "" || len(m.Memory.Data) == 0 {
			return errors.New("memory without a kind or content")
		}
	case opSockets:
		return checkNames(m.Sockets)
	case opPods, opEnd, opDone, opRefused:
	default:
		return fmt.Errorf("unknown operation %q", m.Op)
	}
	return nil
}

func checkNames(names []string) error {
	if len(names) > maxSockets {
		return fmt.Errorf("%d sockets, at most %d allowed", len(names), maxSockets)
	}
	for i, name := range names {
		if name == "" || len(name) > maxName || slices.Contains(names[:i], name) {
			return fmt.Errorf("socket name %q is empty, too long or there twice", name)
		}
	}
	return nil
}

// agree returns the newest version that both sides speak.
func agree(theirs []int) (int, bool) {
	return Version, slices.Contains(theirs, Version)
}

// differ names a setting that the two daemons do not share, if there is one. A
// setting that only one of them knows is of another release and not compared.
func (t Terms) differ(theirs Terms) error {
	for name, ours := range t {
		if other, known := theirs[name]; known && other != ours {
			return fmt.Errorf("%s is %s here and %s there: end the running daemon before the new one starts", name, ours, other)
		}
	}
	return nil
}
