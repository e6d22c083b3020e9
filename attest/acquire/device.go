// SPDX-License-Identifier: Apache-2.0

package acquire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/tsm"
)

// Requests of the device files (Linux, include/uapi/linux/sev-guest.h and
// tdx-guest.h).
const (
	snpGetReport    = 0xc0205300 // _IOWR('S', 0, struct snp_guest_request_ioctl)
	snpGetExtReport = 0xc0205302 // _IOWR('S', 2, struct snp_guest_request_ioctl)
	tdxGetReport0   = 0xc4405401 // _IOWR('T', 1, struct tdx_report_req)

	snpMessageVersion = 1
	snpReportReqSize  = 96
	snpExtReqSize     = 112
	snpResponseSize   = 4000
	snpReportOffset   = 32       // behind status, size and reserved bytes of MSG_REPORT_RSP
	certsSize         = 16 << 10 // SEV_FW_BLOB_MAX_SIZE: the driver refuses more
	tdReportSize      = 1024

	vmmInvalidLength = 1 // SNP_GUEST_VMM_ERR_INVALID_LEN: the host's table is larger
	vmmBusy          = 2 // SNP_GUEST_VMM_ERR_BUSY
)

// AMD's firmware answers guests about once in two seconds; Linux passes EAGAIN
// or EBUSY on.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 2 * time.Second
	patience   = 30 * time.Second
)

// device is an open device file: one method, so that a test can be the kernel.
type device interface {
	ioctl(request uintptr, argument unsafe.Pointer) error
}

type file struct{ *os.File }

func (f file) ioctl(request uintptr, argument unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(argument)); errno != 0 {
		return errno
	}
	return nil
}

func (o Options) openDevice(path string) (device, error) {
	f, err := os.OpenFile(o.path(path), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil, errors.Join(fmt.Errorf("%s is no device", path), err, f.Close())
	}
	return file{f}, nil
}

func (o Options) openSEVGuest(context.Context) (attest.Attester, error) {
	d, err := o.openDevice(sevGuestPath)
	if err != nil {
		return nil, err
	}
	a := newAttester(func(ctx context.Context, reportData [64]byte) (*attest.Evidence, error) {
		return snpEvidence(ctx, d, reportData)
	})
	a.sealer = o.newSealer(d)
	return a, nil
}

func snpEvidence(ctx context.Context, d device, reportData [64]byte) (*attest.Evidence, error) {
	var report, table []byte
	err := untilFree(ctx, func() (err error) {
		report, table, err = askSNP(d, reportData)
		return err
	})
	if err != nil {
		return nil, err
	}
	return tsm.SNPEvidence(report, table, reportData)
}

// snpRequest is struct snp_guest_request_ioctl.
type snpRequest struct {
	version  uint8
	_        [7]byte
	request  uintptr
	response uintptr
	fwError  uint32
	vmmError uint32
}

// askSNP asks for a report with the host's certificates, or without them where
// the host offers none.
func askSNP(d device, reportData [64]byte) (report, table []byte, err error) {
	certs := make([]byte, certsSize)
	request := make([]byte, snpExtReqSize)
	copy(request, reportData[:]) // user_data; VMPL 0
	binary.NativeEndian.PutUint32(request[snpReportReqSize+8:], certsSize)
	response := make([]byte, snpResponseSize)

	var pinned runtime.Pinner // the kernel gets addresses inside of addresses
	defer pinned.Unpin()
	for _, b := range [][]byte{certs, request, response} {
		pinned.Pin(&b[0])
	}
	binary.NativeEndian.PutUint64(request[snpReportReqSize:], uint64(uintptr(unsafe.Pointer(&certs[0]))))
	arg := &snpRequest{version: snpMessageVersion, request: uintptr(unsafe.Pointer(&request[0])), response: uintptr(unsafe.Pointer(&response[0]))}
	err = d.ioctl(snpGetExtReport, unsafe.Pointer(arg))
	if errors.Is(err, syscall.ENOTTY) || err != nil && arg.vmmError == vmmInvalidLength { // no extended request, or too large a table
		certs, arg.fwError, arg.vmmError = nil, 0, 0
		err = d.ioctl(snpGetReport, unsafe.Pointer(arg))
	}
	if err != nil && arg.vmmError == vmmBusy {
		err = errors.Join(syscall.EBUSY, err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: firmware error %#x, hypervisor error %#x: %w", sevGuestPath, arg.fwError, arg.vmmError, err)
	}
	if status := binary.LittleEndian.Uint32(response); status != 0 {
		return nil, nil, fmt.Errorf("%s: the firmware answered with status %#x", sevGuestPath, status)
	}
	size := binary.LittleEndian.Uint32(response[4:])
	if uint64(size) > snpResponseSize-snpReportOffset {
		return nil, nil, fmt.Errorf("%s: a report of %d bytes", sevGuestPath, size)
	}
	return response[snpReportOffset:][:size], trimTable(certs), nil
}

// trimTable gives nothing for a table of zeros, which is how a host says that
// it has no certificates.
func trimTable(b []byte) []byte {
	for _, c := range b {
		if c != 0 {
			return b
		}
	}
	return nil
}

// untilFree tries again while the hardware is busy.
func untilFree(ctx context.Context, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := ask()
		if !errors.Is(err, syscall.EBUSY) && !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(pause):
		}
	}
}
