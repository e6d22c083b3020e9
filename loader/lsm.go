// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/c8s-dev/c8s/bpf"
)

// Modes of the hardening by the kernel's security hooks (Config.LSM).
const (
	LSMAuto    = "auto"    // where the kernel has it; where not, a warning
	LSMOff     = "off"     // not at all; what an earlier process attached is taken away
	LSMRequire = "require" // Open fails without it
)

// Names of the hardening's programs, also of their pins.
const (
	progPodSocket = "pod_socket"
	progPodBPF    = "pod_bpf"
)

// LSMStatus says whether the hardening is in force.
type LSMStatus struct {
	Active bool `json:"active"`
	// Why it is not; empty where it is.
	Why string `json:"why,omitempty"`
}

// String is the status for people.
func (s LSMStatus) String() string {
	if s.Active {
		return "active"
	}
	return "not available: " + s.Why
}

// LSM returns whether the hardening is in force.
func (l *Loader) LSM() LSMStatus { return l.lsmStatus }

// openLSM puts the hardening in force, as the configuration wants it. It is
// never the lock: only LSMRequire makes its absence an error.
func (l *Loader) openLSM() error {
	if l.cfg.LSM == LSMOff {
		l.lsmStatus.Why = "switched off"
		return l.removeLSM()
	}
	err := l.startLSM()
	if err == nil {
		l.lsmStatus.Active = true
		return nil
	}
	// All of it or nothing: what stays of an earlier process would go on with
	// what that one allowed.
	err = errors.Join(err, l.removeLSM())
	l.lsmStatus.Why = err.Error()
	if l.cfg.LSM == LSMRequire {
		return fmt.Errorf("hardening by the kernel's security hooks: %w", err)
	}
	l.log.Warn("the kernel's security hooks do not help to hold pods; their seccomp filters and the lock do", "err", err)
	return nil
}

func (l *Loader) startLSM() error {
	if err := haveLSM(); err != nil {
		return err
	}
	if err := l.loadLSM(); err != nil {
		return err
	}
	return errors.Join(
		l.attachLSM(progPodSocket, l.lsm.PodSocket),
		l.attachLSM(progPodBPF, l.lsm.PodBpf))
}

// loadLSM loads the hardening's programs. Counters and events are the lock's.
func (l *Loader) loadLSM() error {
	spec, err := bpf.LoadLSM()
	if err != nil {
		return fmt.Errorf("reading the embedded programs: %w", err)
	}
	spec.Maps[bpf.LSMMapPodCgroups].Pinning = ebpf.PinByName
	if err := prepareMaps(spec, l.pins.maps(), l.log); err != nil {
		return err
	}
	err = spec.LoadAndAssign(&l.lsm, &ebpf.CollectionOptions{
		Maps: ebpf.MapOptions{PinPath: l.pins.maps()},
		MapReplacements: map[string]*ebpf.Map{
			bpf.LSMMapDrops: l.objs.Drops, bpf.LSMMapEvents: l.objs.Events, bpf.LSMMapEventBudget: l.objs.EventBudget,
		},
	})
	if verifier := (*ebpf.VerifierError)(nil); errors.As(err, &verifier) {
		return fmt.Errorf("loading the programs: the kernel's verifier refused them: %+v", verifier)
	}
	if err != nil {
		return fmt.Errorf("loading the programs: %w", err)
	}
	return nil
}

// attachLSM puts a program on its hook. Links to security hooks cannot be
// given another program: the new link is there before the old one goes.
func (l *Loader) attachLSM(name string, prog *ebpf.Program) error {
	lnk, err := link.AttachLSM(link.LSMOptions{Program: prog})
	if err != nil {
		return fmt.Errorf("attaching %s: %w", name, err)
	}
	return l.pinAndHold(name, lnk)
}

// removeLSM takes away what an earlier process attached.
func (l *Loader) removeLSM() error {
	return errors.Join(l.pins.restrictNobody(), l.release(progPodSocket), l.release(progPodBPF))
}

// restrictNobody empties the map of restricted cgroups: links to security hooks
// cannot be detached, and a daemon that lives keeps them.
func (p pins) restrictNobody() error {
	m, err := ebpf.LoadPinnedMap(filepath.Join(p.maps(), bpf.LSMMapPodCgroups), nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening the map of restricted cgroups: %w", err)
	}
	defer m.Close()
	var id uint64
	for err = m.NextKey(nil, &id); err == nil; err = m.NextKey(nil, &id) {
		if err := m.Delete(id); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("no longer restricting a cgroup: %w", err)
		}
	}
	if !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("listing the restricted cgroups: %w", err)
	}
	return nil
}

// socketBits are the words of Pod.Sockets: those of policy.Run.Sockets that a
// security hook can tell.
var socketBits = map[string]uint32{
	"vsock": bpf.SocketVsock, "packet": bpf.SocketPacket, "xdp": bpf.SocketXDP, "raw": bpf.SocketRaw, "bpf": bpf.SocketBPF,
	"io_uring": 0, // a matter of seccomp; its sockets pass the hooks as well
}

// restrictCgroup says what the processes of a pod's cgroup may open. The id 0
// says that the pod has none that is known.
func (l *Loader) restrictCgroup(p Pod, id uint64) error {
	if !l.lsmStatus.Active {
		return nil
	}
	var allowed uint32
	for _, kind := range p.Sockets {
		bit, ok := socketBits[kind]
		if !ok {
			return fmt.Errorf("a pod cannot be allowed sockets of the kind %q", kind)
		}
		allowed |= bit
	}
	if id != 0 {
		if err := l.lsm.PodCgroups.Put(id, bpf.PodCgroup{Ifindex: uint32(p.Ifindex), Allowed: allowed}); err != nil {
			return fmt.Errorf("restricting the pod's cgroup: %w", err)
		}
	}
	return l.releaseCgroups(p.Ifindex, id)
}

// releaseCgroups forgets the cgroups of a link's pods but the one to keep.
func (l *Loader) releaseCgroups(ifindex int, keep uint64) error {
	if !l.lsmStatus.Active {
		return nil
	}
	var id uint64
	var pod bpf.PodCgroup
	var stale []uint64
	all := l.lsm.PodCgroups.Iterate()
	for all.Next(&id, &pod) {
		if int(pod.Ifindex) == ifindex && id != keep {
			stale = append(stale, id)
		}
	}
	if err := all.Err(); err != nil {
		return fmt.Errorf("listing the restricted cgroups: %w", err)
	}
	for _, id := range stale {
		if err := l.lsm.PodCgroups.Delete(id); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("no longer restricting a cgroup: %w", err)
		}
	}
	return nil
}
