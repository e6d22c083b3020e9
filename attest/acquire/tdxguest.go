// SPDX-License-Identifier: Apache-2.0

package acquire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/tsm"
)

// Intel's quote generation service (Intel SGX/TDX DCAP, QGS message library):
// over vsock, each message behind its length in four big-endian bytes.
const (
	qgsPort       = 4050
	qgsMajor      = 1
	qgsHeaderSize = 16 // major, minor, type, size, error code
	qgsGetQuote   = 0
	qgsQuote      = 1
	qgsMaxMessage = 64 << 10
)

func (o Options) openTDXGuest(context.Context) (attest.Attester, error) {
	d, err := o.openDevice(tdxGuestPath)
	if err != nil {
		return nil, err
	}
	return newAttester(func(ctx context.Context, reportData [64]byte) (*attest.Evidence, error) {
		return o.tdxEvidence(ctx, d, reportData)
	}), nil
}

func (o Options) tdxEvidence(ctx context.Context, d device, reportData [64]byte) (*attest.Evidence, error) {
	var report []byte
	err := untilFree(ctx, func() (err error) {
		report, err = askTDX(d, reportData)
		return err
	})
	if err != nil {
		return nil, err
	}
	quote, err := o.quote(ctx, report)
	if err != nil {
		return nil, fmt.Errorf("asking the host's quote generation service: %w", err)
	}
	log, err := o.trimmedLog()
	if err != nil {
		return nil, fmt.Errorf("reading the event log: %w", err)
	}
	return tsm.TDXEvidence(quote, log, reportData)
}

// askTDX asks the TDX module for a TDREPORT.
func askTDX(d device, reportData [64]byte) ([]byte, error) {
	request := make([]byte, len(reportData)+tdReportSize) // struct tdx_report_req
	copy(request, reportData[:])
	if err := d.ioctl(tdxGetReport0, unsafe.Pointer(&request[0])); err != nil {
		return nil, fmt.Errorf("%s: %w", tdxGuestPath, err)
	}
	return request[len(reportData):], nil
}

// quote has the quoting enclave on the host turn a TDREPORT into a quote.
func (o Options) quote(ctx context.Context, report []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := o.DialQGS(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	if _, err := c.Write(quoteRequest(report)); err != nil {
		return nil, err
	}
	var length [4]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > qgsMaxMessage {
		return nil, fmt.Errorf("an answer of %d bytes, at most %d accepted", n, qgsMaxMessage)
	}
	answer := make([]byte, n)
	if _, err := io.ReadFull(c, answer); err != nil {
		return nil, err
	}
	return parseQuoteAnswer(answer)
}

func quoteRequest(report []byte) []byte {
	le := binary.LittleEndian
	size := qgsHeaderSize + 8 + len(report)
	b := binary.BigEndian.AppendUint32(nil, uint32(size)) //nolint:gosec // about a kilobyte
	b = le.AppendUint16(b, qgsMajor)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint32(b, qgsGetQuote)
	b = le.AppendUint32(b, uint32(size)) //nolint:gosec // about a kilobyte
	b = le.AppendUint32(b, 0)            // error code
	b = le.AppendUint32(b, uint32(len(report)))
	b = le.AppendUint32(b, 0) // no list of enclaves to choose from
	return append(b, report...)
}

func parseQuoteAnswer(b []byte) ([]byte, error) {
	if len(b) < qgsHeaderSize+8 {
		return nil, fmt.Errorf("an answer of %d bytes", len(b))
	}
	le := binary.LittleEndian
	if major, kind, code := le.Uint16(b), le.Uint32(b[4:]), le.Uint32(b[12:]); major != qgsMajor || kind != qgsQuote || code != 0 {
		return nil, fmt.Errorf("an answer of version %d, type %d, with error code %#x", major, kind, code)
	}
	id, quote := uint64(le.Uint32(b[16:])), uint64(le.Uint32(b[20:]))
	rest := b[qgsHeaderSize+8:]
	if uint64(le.Uint32(b[8:])) != uint64(len(b)) || id+quote != uint64(len(rest)) {
		return nil, fmt.Errorf("an answer whose sizes contradict each other")
	}
	return rest[id:], nil
}

// dialVsock connects to the service on this machine's host. The socket does not
// block, so that closing it wakes whoever reads.
func dialVsock(ctx context.Context) (io.ReadWriteCloser, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a vsock socket: %w", err)
	}
	if err := connect(ctx, fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: qgsPort}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connecting to vsock port %d of the host: %w", qgsPort, err)
	}
	return os.NewFile(uintptr(fd), "vsock"), nil
}

// connect waits for a connection, and looks at the context ten times a second.
func connect(ctx context.Context, fd int, to unix.Sockaddr) error {
	const glance = 100 // milliseconds
	err := unix.Connect(fd, to)
	if err == nil || !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, glance) //nolint:gosec // a file descriptor
		switch {
		case errors.Is(err, unix.EINTR) || err == nil && ready == 0:
			continue
		case err != nil:
			return err
		}
		code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		return err
	}
}
