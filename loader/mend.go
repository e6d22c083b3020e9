// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/bpf"
)

// mendBatch is how many links mend looks at each time, which takes 2 ms beside
// thousands of others. With three a pod, those of 1,000 pods have their turn
// every 12 seconds; what is lost meanwhile stands on its second lock.
const mendBatch = 256

// Restored counts what others took from the lock, and was put back.
type Restored struct{ Pins, Programs uint64 }

// Restored says how often the lock was damaged while this process owned it.
func (l *Loader) Restored() Restored {
	return Restored{l.restored.pins.Load(), l.restored.programs.Load()}
}

// mend puts back pins, which hold the lock when this process dies, and
// programs that were detached or have others before them. It returns the links
// that it could not lock again; their pods are closed. What guards the whole
// node and cannot be put back is an error.
func (l *Loader) mend() (broken map[int]error, err error) {
	before := l.Restored()
	if err := l.mendPins(); err != nil {
		l.log.Error("the lock would not outlive this daemon", "err", err)
	}
	if err := l.mendNode(); err != nil {
		return nil, err
	}
	broken = l.mendLinks()
	if now := l.Restored(); now != before {
		l.log.Warn("somebody damaged the lock; it is whole again", "pins", now.Pins-before.Pins, "programs", now.Programs-before.Programs, "failed", len(broken))
	}
	return broken, nil
}

// mendPins puts back what is held and not pinned any more.
func (l *Loader) mendPins() error {
	links, err := namesIn(l.pins.links())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("listing the pinned links: %w", err)
	}
	for name, h := range l.held {
		if links[name] {
			continue
		}
		if err := l.repin(name, h); err != nil {
			return err
		}
	}
	maps, err := namesIn(l.pins.maps())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("listing the pinned maps: %w", err)
	}
	all := mapsOf(&l.objs.C8sMaps)
	if l.lsmStatus.Active {
		all[bpf.LSMMapPodCgroups] = l.lsm.PodCgroups
	}
	for name, m := range all {
		if maps[name] {
			continue
		}
		if err := l.pin(m, filepath.Join(l.pins.maps(), name)); err != nil {
			return fmt.Errorf("pinning the map %s again: %w", name, err)
		}
		l.restored.pins.Add(1)
	}
	return nil
}

// mapsOf lists maps by the names of their pins.
func mapsOf(maps *bpf.C8sMaps) map[string]*ebpf.Map {
	v := reflect.ValueOf(maps).Elem()
	found := make(map[string]*ebpf.Map, v.NumField())
	for i := range v.NumField() {
		found[v.Type().Field(i).Tag.Get("ebpf")] = v.Field(i).Interface().(*ebpf.Map)
	}
	return found
}

// mendNode attaches steer and netns_guard again.
func (l *Loader) mendNode() error {
	for name, h := range map[string]held{progSteer: l.held[progSteer], progNetns: l.held[progNetns]} {
		if h.Link == nil {
			continue
		}
		info, err := h.Info()
		if err != nil {
			return fmt.Errorf("looking at %s: %w", name, err)
		}
		if name == progSteer && info.NetNs().NetnsInode == 0 {
			l.restored.programs.Add(1)
			err = l.attachSteer()
		}
		if name == progNetns && info.Cgroup().CgroupId == 0 {
			l.restored.programs.Add(1)
			err = l.attachNetnsGuardAgain()
		}
		if err != nil {
			return fmt.Errorf("somebody detached %s: %w", name, err)
		}
	}
	return nil
}

func (l *Loader) attachNetnsGuardAgain() error {
	tree, err := findCgroups()
	if err != nil {
		return err
	}
	return l.attachNetnsGuard(tree)
}

// mendLinks looks at the next of the links on devices.
func (l *Loader) mendLinks() map[int]error {
	if len(l.queue) == 0 {
		for name := range l.held {
			if _, ifindex := parseLinkName(name); ifindex != 0 {
				l.queue = append(l.queue, name)
			}
		}
	}
	batch := l.queue[:min(mendBatch, len(l.queue))]
	l.queue = l.queue[len(batch):]
	lost := map[string]place{}
	err := l.ns.do(func() error {
		for _, name := range batch {
			if h, ok := l.held[name]; ok {
				if p := h.place(name); p != inPlace {
					lost[name] = p
				}
			}
		}
		return nil
	})
	if err != nil {
		l.log.Error("looking at the programs on links", "err", err)
	}
	broken := map[int]error{}
	for name, p := range lost {
		_, ifindex := parseLinkName(name)
		if err := l.restore(name, ifindex, p); err != nil {
			broken[ifindex] = errors.Join(err, l.closePod(ifindex))
		}
	}
	return broken
}

// place is where a program is.
type place int

const (
	inPlace  place = iota
	behind         // others run before it, and may have the last word
	detached       // from a device that may be there
)

// place runs in the node's namespace. Of the chain in a pod's it cannot see the
// order; a pod may do there what it likes to itself.
func (h held) place(name string) place {
	program, ifindex := parseLinkName(name)
	if program == progGuard {
		if on, err := h.Info(); err != nil || on.TCX().Ifindex != 0 {
			return inPlace
		}
		return detached
	}
	side := hook{egress: program != progEgress}.attachType()
	found, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: side})
	if err != nil {
		return inPlace // the device has gone
	}
	for i, p := range found.Programs {
		if id, ok := p.LinkID(); ok && id == h.id {
			if i == 0 {
				return inPlace
			}
			return behind
		}
	}
	return detached
}

// restore puts a program back. Its filter, the second lock, comes first.
func (l *Loader) restore(name string, ifindex int, p place) error {
	if _, err := l.nl.LinkByIndex(ifindex); err != nil {
		return nil // the watcher hears of its end
	}
	l.restored.programs.Add(1)
	var h hook
	switch program, _ := parseLinkName(name); program {
	case progGuard:
		pod, ok := l.guarded[ifindex]
		if !ok {
			return l.closePod(ifindex) // SetPod guards it before it opens it
		}
		_, err := l.guardPod(pod)
		return err
	case progUplink:
		h = l.uplinkHook(ifindex)
	case progEgress:
		h = l.podHooks(ifindex)[0]
	case progIngress:
		h = l.podHooks(ifindex)[1]
	}
	if p == behind {
		return l.toFront(h)
	}
	if err := h.attachClsact(); err != nil {
		l.log.Debug("locking a link by a filter first", "program", h.program, "err", err)
	}
	return l.attach(h)
}

// actShot is TC_ACT_SHOT of linux/pkt_cls.h.
const actShot = 2

// toFront brings a program before those of others. A program cannot be twice
// on a hook, so another one, that refuses all, stands there meanwhile; if
// something fails it stays.
func (l *Loader) toFront(h hook) error {
	deny, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "c8s_deny", Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, actShot), asm.Return(),
	}})
	if err != nil {
		return fmt.Errorf("loading a program that refuses all: %w", err)
	}
	defer deny.Close()
	front, err := h.attachTCX(deny)
	if err != nil {
		return err
	}
	back, err := l.pinned(h.name)
	if err != nil {
		return errors.Join(err, front.Close())
	}
	if back != nil {
		delete(l.held, h.name)
		defer back.Close()
	}
	if err := l.pinAndHold(h.name, front); err != nil {
		return err
	}
	if back != nil {
		if err := back.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) {
			return fmt.Errorf("bringing %s to the front: %w (everything is refused)", h.program, err)
		}
	}
	if err := front.Update(h.prog); err != nil {
		return fmt.Errorf("bringing %s to the front: %w (everything is refused)", h.program, err)
	}
	return nil
}
