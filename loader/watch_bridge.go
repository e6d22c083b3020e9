// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/c8s-dev/c8s/bpf"
)

// refreshPort notes that a pod's link joined or left a bridge. Where the
// bridge cannot be used the pod closes.
func (l *Loader) refreshPort(device netlink.Link) error {
	var pod bpf.Pod
	index := device.Attrs().Index
	if l.objs.Pods.Lookup(uint32(index), &pod) != nil || pod.State == bpf.PodClosed {
		return nil // SetPod reads the bridge when it opens the pod
	}
	master, mac, err := l.bridgeOf(device)
	if err != nil {
		return errors.Join(err, l.closePod(index))
	}
	if master == pod.Master && mac == pod.Gateway {
		return nil
	}
	pod.Master, pod.Gateway = master, mac
	return l.writeMaster(index, pod)
}

// refreshMaster notes a bridge's new MAC address for its pods.
func (l *Loader) refreshMaster(bridge netlink.Link) error {
	var (
		index   uint32
		pod     bpf.Pod
		changed = map[int]bpf.Pod{}
		attrs   = bridge.Attrs()
	)
	if len(attrs.HardwareAddr) != len(pod.Gateway) {
		return nil
	}
	all := l.objs.Pods.Iterate()
	for all.Next(&index, &pod) {
		if int(pod.Master) == attrs.Index && !slices.Equal(pod.Gateway[:], attrs.HardwareAddr) {
			pod.Gateway = [6]uint8(attrs.HardwareAddr)
			changed[int(index)] = pod
		}
	}
	err := all.Err()
	for index, pod := range changed {
		err = errors.Join(err, l.writeMaster(index, pod))
	}
	return err
}

func (l *Loader) writeMaster(index int, pod bpf.Pod) error {
	if err := l.objs.Pods.Put(uint32(index), pod); err != nil {
		return fmt.Errorf("writing the pod's bridge: %w", err)
	}
	var keys []addrKey
	if pod.Addr4 != 0 {
		keys = append(keys, addrKey{2: mapped, 3: pod.Addr4})
	}
	if pod.Addr6 != [4]uint32{} {
		keys = append(keys, pod.Addr6)
	}
	for _, key := range keys {
		if err := l.objs.PodAddrs.Put(key, bpf.PodAddr{Ifindex: uint32(index), Master: pod.Master}); err != nil {
			return fmt.Errorf("writing the bridge of a pod's address: %w", err)
		}
	}
	return nil
}

// mapped is the third word of an IPv4-mapped address in network order; the
// programs are built for little-endian machines only.
const mapped = 0xffff0000
