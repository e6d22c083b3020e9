// SPDX-License-Identifier: Apache-2.0

package acquire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-configfs-tsm/report"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/attest/tdx"
)

// kernel plays the driver of a device file: it reads the request by the offsets
// of the kernel's header files.
type kernel func(request uintptr, argument unsafe.Pointer) error

func (k kernel) ioctl(request uintptr, argument unsafe.Pointer) error { return k(request, argument) }

func at(p unsafe.Pointer, size int) []byte { return unsafe.Slice((*byte)(p), size) }

// sevGuest answers with a simulated machine's reports.
func sevGuest(t *testing.T, tee *sim.TEE, edit func(request uintptr, arg, user, certs []byte) error) kernel {
	return func(request uintptr, argument unsafe.Pointer) error {
		arg := at(argument, 32) // sizeof(struct snp_guest_request_ioctl)
		if arg[0] != 1 {
			t.Errorf("message version %d", arg[0])
		}
		pointer := func(b []byte) unsafe.Pointer {
			p := uintptr(binary.NativeEndian.Uint64(b))
			return *(*unsafe.Pointer)(unsafe.Pointer(&p))
		}
		user := at(pointer(arg[8:]), 112) // sizeof(struct snp_ext_report_req)
		response := at(pointer(arg[16:]), 4000)
		if binary.NativeEndian.Uint32(user[64:]) != 0 || !bytes.Equal(user[68:96], make([]byte, 28)) {
			t.Errorf("VMPL and reserved bytes are %x", user[64:96])
		}
		resp, err := report.Get(tee, &report.Request{InBlob: user[:64], GetAuxBlob: true})
		if err != nil {
			return err
		}
		var certs []byte
		if request == 0xc0205302 {
			size := binary.NativeEndian.Uint32(user[104:])
			if size > 16<<10 || size%4096 != 0 { // as the driver
				return syscall.EINVAL
			}
			certs = at(pointer(user[96:]), int(size))
			copy(certs, resp.AuxBlob)
		}
		binary.LittleEndian.PutUint32(response[4:], uint32(len(resp.OutBlob)))
		copy(response[32:], resp.OutBlob)
		return edit(request, arg, response, certs)
	}
}

func fine(uintptr, []byte, []byte, []byte) error { return nil }

func TestSEVGuestGivesReportAndCertificates(t *testing.T) {
	ev, err := snpEvidence(context.Background(), sevGuest(t, simtest.New(t, "a"), fine), [64]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	if ev.TEE != attest.TEESEVSNP || len(ev.Certs) != 3 || ev.Product != "Milan" || len(ev.Collateral) != 1 {
		t.Errorf("%+v", ev)
	}
}

func TestSEVGuestWithoutCertificates(t *testing.T) {
	for name, edit := range map[string]func(request uintptr, arg, response, certs []byte) error{
		"a host that offers none": func(_ uintptr, _, _, certs []byte) error { clear(certs); return nil },
		"a table that is too large": func(request uintptr, arg, _, _ []byte) error {
			if request == 0xc0205302 {
				binary.NativeEndian.PutUint32(arg[28:], 1)
				return syscall.EIO
			}
			return nil
		},
		"a kernel without the request": func(request uintptr, _, _, _ []byte) error {
			return map[uintptr]error{0xc0205302: syscall.ENOTTY}[request]
		},
	} {
		ev, err := snpEvidence(context.Background(), sevGuest(t, simtest.New(t, "a"), edit), [64]byte{7})
		if err != nil || ev.Certs != nil || ev.Product != "Milan" {
			t.Errorf("%s: %+v, %v", name, ev, err)
		}
	}
}

func TestSEVGuestRefusals(t *testing.T) {
	busy, tired := 2, 2
	for name, c := range map[string]struct {
		edit func(request uintptr, arg, response, certs []byte) error
		want string
	}{
		"busy for a while": {func(uintptr, []byte, []byte, []byte) error {
			if busy--; busy >= 0 {
				return syscall.EAGAIN
			}
			return nil
		}, ""},
		"a busy hypervisor": {func(_ uintptr, arg, _, _ []byte) error {
			if tired--; tired >= 0 {
				binary.NativeEndian.PutUint32(arg[28:], 2)
				return syscall.EIO
			}
			binary.NativeEndian.PutUint32(arg[28:], 0)
			return nil
		}, ""},
		"an error of the firmware": {func(_ uintptr, arg, _, _ []byte) error {
			binary.NativeEndian.PutUint32(arg[24:], 0x16)
			return syscall.EIO
		}, "firmware error 0x16"},
		"a status":         {func(_ uintptr, _, response, _ []byte) error { response[0] = 0x16; return nil }, "status 0x16"},
		"a size too large": {func(_ uintptr, _, response, _ []byte) error { response[6] = 1; return nil }, "bytes"},
		"other data":       {func(_ uintptr, _, response, _ []byte) error { response[32+0x50] ^= 1; return nil }, "other data"},
		"a broken table":   {func(_ uintptr, _, _, certs []byte) error { copy(certs[16:], "\xff\xff\xff\xff"); return nil }, "cert-table"},
	} {
		_, err := snpEvidence(context.Background(), sevGuest(t, simtest.New(t, "a"), c.edit), [64]byte{7})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	always := func(uintptr, []byte, []byte, []byte) error { return syscall.EBUSY }
	if _, err := snpEvidence(ctx, sevGuest(t, simtest.New(t, "a"), always), [64]byte{7}); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, syscall.EBUSY) {
		t.Errorf("busy for ever: %v", err)
	}
}

// qgs plays the quote generation service of the host: the TDREPORT's first
// bytes are the report data here, since only the TDX module can make a real one.
func qgs(td *sim.TD, edit func(answer []byte) []byte) func(context.Context) (io.ReadWriteCloser, error) {
	return func(context.Context) (io.ReadWriteCloser, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			request := make([]byte, 4+16+8+1024)
			if _, err := io.ReadFull(theirs, request); err != nil {
				return
			}
			le := binary.LittleEndian
			m := request[4:]
			if binary.BigEndian.Uint32(request) != uint32(len(m)) || le.Uint16(m) != 1 || le.Uint32(m[4:]) != 0 || le.Uint32(m[8:]) != uint32(len(m)) || le.Uint32(m[16:]) != 1024 || le.Uint32(m[20:]) != 0 {
				return
			}
			resp, err := report.Get(td, &report.Request{InBlob: m[24:][:64]})
			if err != nil {
				return
			}
			answer := le.AppendUint16(nil, 1)
			answer = le.AppendUint16(answer, 1)
			answer = le.AppendUint32(answer, 1)
			answer = le.AppendUint32(answer, uint32(16+8+3+len(resp.OutBlob)))
			answer = le.AppendUint32(answer, 0)
			answer = le.AppendUint32(answer, 3)
			answer = le.AppendUint32(answer, uint32(len(resp.OutBlob)))
			answer = append(append(answer, "qe1"...), resp.OutBlob...)
			answer = edit(answer)
			_, _ = theirs.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(answer))), answer...))
		}()
		return ours, nil
	}
}

func tdxGuest(t *testing.T) kernel {
	return func(request uintptr, argument unsafe.Pointer) error {
		if request != 0xc4405401 {
			t.Errorf("request %#x", request)
		}
		b := at(argument, 64+1024) // sizeof(struct tdx_report_req)
		copy(b[64:], b[:64])
		return nil
	}
}

func TestTDXGuestGivesQuoteAndLog(t *testing.T) {
	td, err := sim.NewTDX(t.TempDir(), sim.TDXOptions{Events: []string{"kernel"}})
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	path := filepath.Join(root, ccelPath)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, td.EventLog(), 0o600)); err != nil {
		t.Fatal(err)
	}
	as := func(b []byte) []byte { return b }
	for name, c := range map[string]struct {
		edit func([]byte) []byte
		want string
	}{
		"good":            {as, ""},
		"an error code":   {func(b []byte) []byte { b[12] = 1; return b }, "error code 0x1"},
		"another type":    {func(b []byte) []byte { b[4] = 0; return b }, "type 0"},
		"sizes that lie":  {func(b []byte) []byte { b[17] = 1; return b }, "contradict"},
		"cut":             {func(b []byte) []byte { return b[:20] }, "20 bytes"},
		"another message": {func(b []byte) []byte { return b[:len(b)-1] }, "contradict"},
		"no quote":        {func(b []byte) []byte { b[27] ^= 0xff; return b }, tdx.CodeQuoteVersion},
	} {
		o := Options{Root: root, DialQGS: qgs(td, c.edit)}
		ev, err := o.tdxEvidence(context.Background(), tdxGuest(t), [64]byte{9})
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
			continue
		}
		if err != nil || ev.TEE != attest.TEETDX || len(ev.EventLog) == 0 {
			t.Errorf("%s: %+v, %v", name, ev, err)
		}
	}
	silent := func(context.Context) (io.ReadWriteCloser, error) { // a socket, as vsock is one
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { _ = unix.Close(fds[1]) })
		return os.NewFile(uintptr(fds[0]), "silent"), nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := (Options{Root: root, DialQGS: silent}).tdxEvidence(ctx, tdxGuest(t), [64]byte{9}); err == nil {
		t.Error("a silent service answered")
	}
}

func TestAMachineWithoutATEESaysAllThatWasLookedFor(t *testing.T) {
	_, err := Open(context.Background(), Options{Root: t.TempDir()})
	var none *NoTEEError
	if !errors.As(err, &none) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"/sys/kernel/config/tsm/report", "/dev/sev-guest", "/dev/tdx_guest", "/dev/tpmrm0", "--tee=sim"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %s in: %v", want, err)
		}
	}
	if _, err := Open(context.Background(), Options{Root: t.TempDir(), Method: MethodVTPM}); err == nil || strings.Contains(err.Error(), "/dev/sev-guest") {
		t.Errorf("only the TPM was asked for: %v", err)
	}
	if _, err := Open(context.Background(), Options{Method: "magic"}); err == nil || !strings.Contains(err.Error(), "magic") {
		t.Errorf("got %v", err)
	}
}

func TestAFileIsNoDevice(t *testing.T) {
	root := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(root, "dev"), 0o700), os.WriteFile(filepath.Join(root, sevGuestPath), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), Options{Root: root, Method: MethodDevice}); err == nil || !strings.Contains(err.Error(), "no device") {
		t.Errorf("got %v", err)
	}
}

func FuzzQuoteAnswer(f *testing.F) {
	f.Add([]byte("\x01\x00\x01\x00\x01\x00\x00\x00\x1a\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00qq"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseQuoteAnswer(b) })
}
