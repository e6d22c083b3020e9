// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/bpf"
)

// Event is one refused packet.
type Event struct {
	Time    time.Time
	Reason  bpf.Reason
	Ifindex int
	// Src and Dst have port 0 where the packet has none or was not parsed
	// that far; an address that was not parsed is invalid.
	Src, Dst netip.AddrPort
	Proto    uint8
	// Suppressed counts refusals on this link that were not reported since
	// its event before; the kernel reports 20 per link and second.
	Suppressed uint32
}

// Drops returns the number of refusals by reason since the maps were made.
func (l *Loader) Drops() (map[bpf.Reason]uint64, error) {
	total := make(map[bpf.Reason]uint64)
	for _, r := range bpf.Reasons() {
		var perCPU []uint64
		if err := l.objs.Drops.Lookup(uint32(r), &perCPU); err != nil {
			return nil, fmt.Errorf("reading the drop counter %s: %w", r, err)
		}
		for _, n := range perCPU {
			total[r] += n
		}
	}
	return total, nil
}

// Events yields refusals as they happen until ctx ends. Several readers at a
// time would share them out between them.
func (l *Loader) Events(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		r, err := ringbuf.NewReader(l.objs.Events)
		if err != nil {
			l.log.Error("reading events", "err", err)
			return
		}
		defer r.Close()
		defer context.AfterFunc(ctx, func() { _ = r.Close() })() // wakes ReadInto
		boot := bootTime()
		var record ringbuf.Record
		for ctx.Err() == nil {
			err := r.ReadInto(&record)
			if errors.Is(err, ringbuf.ErrClosed) {
				return
			}
			if err != nil {
				l.log.Error("reading events", "err", err)
				return
			}
			e, err := parseEvent(record.RawSample, boot)
			if err != nil {
				l.log.Warn("reading an event", "err", err)
				continue
			}
			if !yield(e) {
				return
			}
		}
	}
}

// bootTime is the wall clock's time at which CLOCK_MONOTONIC was zero.
func bootTime() time.Time {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail for this clock
	return time.Now().Add(-time.Duration(ts.Nano()))
}

func parseEvent(sample []byte, boot time.Time) (Event, error) {
	var raw bpf.Event
	if len(sample) < int(unsafe.Sizeof(raw)) {
		return Event{}, fmt.Errorf("parsing an event: %d bytes instead of %d", len(sample), unsafe.Sizeof(raw))
	}
	if err := binary.Read(bytes.NewReader(sample), binary.NativeEndian, &raw); err != nil {
		return Event{}, fmt.Errorf("parsing an event: %w", err)
	}
	return Event{
		Time:    boot.Add(time.Duration(raw.Time)),
		Reason:  bpf.Reason(raw.Reason),
		Ifindex: int(raw.Ifindex),
		Src:     addrPort(raw.Src, raw.Sport),
		Dst:     addrPort(raw.Dst, raw.Dport),
		Proto:   raw.Proto, Suppressed: raw.Suppressed,
	}, nil
}

// addrPort reads what the kernel keeps in network order.
func addrPort(words [4]uint32, port uint16) netip.AddrPort {
	var a [16]byte
	for i, w := range words {
		binary.NativeEndian.PutUint32(a[4*i:], w)
	}
	var p [2]byte
	binary.NativeEndian.PutUint16(p[:], port)
	addr := netip.AddrFrom16(a).Unmap()
	if words == [4]uint32{} {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(p[:]))
}
