// SPDX-License-Identifier: Apache-2.0

package acquire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/tsm"
)

// MSG_KEY_REQ and MSG_KEY_RSP (AMD 56860, SEV-SNP Firmware ABI, section
// 7.2), as sev-guest.h passes them on.
const (
	snpGetDerivedKey = 0xc0205301 // _IOWR('S', 1, struct snp_guest_request_ioctl)
	snpKeyReqSize    = 32
	snpKeyRespSize   = 64
	snpKeyOffset     = 32 // behind status and reserved bytes
	sealingKeySize   = 32

	// The chip's own key. Without saying so the firmware would take the VLEK
	// where there is one, which all machines of a provider share.
	keySelectVCEK = 1 << 1
	// What the key depends on. Not on GUEST_SVN and TCB_VERSION, which the
	// guest could choose anyway, and there is no bit for HOST_DATA.
	fieldPolicy      = 1 << 0
	fieldMeasurement = 1 << 3

	vmplPath = "/sys/devices/system/cpu/sev/vmpl" // Linux 6.12 and later
)

// snpSealer implements attest.Sealer by the device.
type snpSealer struct {
	turn   chan struct{}
	device device
	vmpl   uint32
}

func (o Options) newSealer(d device) *snpSealer {
	s := &snpSealer{turn: make(chan struct{}, 1), device: d, vmpl: o.vmpl()}
	s.turn <- struct{}{}
	return s
}

// vmpl is the guest's level: 0, but below an SVSM.
func (o Options) vmpl() uint32 {
	text, err := os.ReadFile(o.path(vmplPath))
	if err != nil {
		return 0
	}
	level, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 2)
	if err != nil {
		return 0
	}
	return uint32(level)
}

// SealingKey implements attest.Sealer.
func (s *snpSealer) SealingKey(ctx context.Context, purpose string) ([32]byte, error) {
	select {
	case <-ctx.Done():
		return [32]byte{}, fmt.Errorf("waiting for the TEE: %w", ctx.Err())
	case <-s.turn:
		defer func() { s.turn <- struct{}{} }()
	}
	var root []byte
	err := untilFree(ctx, func() (err error) {
		root, err = askKey(s.device, s.vmpl)
		return err
	})
	if err != nil {
		return [32]byte{}, fmt.Errorf("asking the TEE for a sealing key: %w", err)
	}
	return attest.SealingKeyFor(root, purpose)
}

// askKey asks for the key of this chip, guest policy and measurement.
func askKey(d device, vmpl uint32) ([]byte, error) {
	request, response := make([]byte, snpKeyReqSize), make([]byte, snpKeyRespSize)
	binary.LittleEndian.PutUint32(request, keySelectVCEK)
	binary.LittleEndian.PutUint64(request[8:], fieldPolicy|fieldMeasurement)
	binary.LittleEndian.PutUint32(request[16:], vmpl)

	var pinned runtime.Pinner // the kernel gets addresses inside of addresses
	defer pinned.Unpin()
	pinned.Pin(&request[0])
	pinned.Pin(&response[0])
	arg := &snpRequest{version: snpMessageVersion, request: uintptr(unsafe.Pointer(&request[0])), response: uintptr(unsafe.Pointer(&response[0]))}
	if err := d.ioctl(snpGetDerivedKey, unsafe.Pointer(arg)); err != nil {
		if arg.vmmError == vmmBusy {
			err = errors.Join(syscall.EBUSY, err)
		}
		return nil, fmt.Errorf("%s: firmware error %#x, hypervisor error %#x: %w", sevGuestPath, arg.fwError, arg.vmmError, err)
	}
	if status := binary.LittleEndian.Uint32(response); status != 0 {
		return nil, fmt.Errorf("%w: %s: the firmware answered with status %#x; it is too old to be asked for a key of the VCEK, or the host uses none", attest.ErrNoSealing, sevGuestPath, status)
	}
	key := response[snpKeyOffset:][:sealingKeySize]
	if [sealingKeySize]byte(key) == [sealingKeySize]byte{} {
		return nil, fmt.Errorf("%s: the firmware gave a key of zeros", sevGuestPath)
	}
	return key, nil
}

// withSealer adds the device to configfs-tsm, which derives no keys. A device
// that cannot be opened is a reason to say so when a key is asked for, and none
// to give no evidence.
func (o Options) withSealer(att *tsm.Attester) attest.Attester {
	d, err := o.openDevice(sevGuestPath)
	switch {
	case err == nil:
		return att.WithSealer(o.newSealer(d))
	case errors.Is(err, fs.ErrNotExist):
		return att
	}
	return att.WithSealer(noSealer{err})
}

// noSealer says why there are no keys.
type noSealer struct{ err error }

func (n noSealer) SealingKey(context.Context, string) ([32]byte, error) {
	return [32]byte{}, fmt.Errorf("%w: %w", attest.ErrNoSealing, n.err)
}
