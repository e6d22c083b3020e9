// SPDX-License-Identifier: Apache-2.0

package acquire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-configfs-tsm/configfs/configfsi"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/attest/tsm"
)

// keyGuest answers requests for keys with 0x5a, after the edit, and checks
// every byte of the question.
func keyGuest(t *testing.T, vmpl uint32, edit func(arg, response []byte) error) kernel {
	return func(request uintptr, argument unsafe.Pointer) error {
		if request != 0xc0205301 {
			t.Errorf("request %#x", request)
		}
		arg := at(argument, 32) // sizeof(struct snp_guest_request_ioctl)
		pointer := func(b []byte) unsafe.Pointer {
			p := uintptr(binary.NativeEndian.Uint64(b))
			return *(*unsafe.Pointer)(unsafe.Pointer(&p))
		}
		want := make([]byte, 32) // sizeof(struct snp_derived_key_req)
		want[0] = 0b010          // ROOT_KEY_SELECT 0, KEY_SEL 1: the VCEK
		want[8] = 0b1001         // GUEST_FIELD_SELECT: policy and measurement
		want[16] = byte(vmpl)
		if got := at(pointer(arg[8:]), 32); arg[0] != 1 || !bytes.Equal(got, want) {
			t.Errorf("version %d, request %x", arg[0], got)
		}
		response := at(pointer(arg[16:]), 64) // sizeof(struct snp_derived_key_resp)
		copy(response[32:], bytes.Repeat([]byte{0x5a}, 32))
		return edit(arg, response)
	}
}

func answered(arg, response []byte) error { return nil }

func rootWith(t *testing.T, path, text string) Options {
	t.Helper()
	root := t.TempDir()
	path = filepath.Join(root, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	return Options{Root: root}
}

func TestSEVGuestDerivesAKeyForEachPurpose(t *testing.T) {
	ctx := context.Background()
	a, err := Options{Root: t.TempDir()}.newSealer(keyGuest(t, 0, answered)).SealingKey(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	want, err := attest.SealingKeyFor(bytes.Repeat([]byte{0x5a}, 32), "a")
	if err != nil || a != want {
		t.Errorf("%x, %v", a, err)
	}
	b, err := rootWith(t, vmplPath, "2\n").newSealer(keyGuest(t, 2, answered)).SealingKey(ctx, "b")
	if err != nil || a == b {
		t.Errorf("below an SVSM: %v", err)
	}
	if _, err := (Options{}).newSealer(keyGuest(t, 0, answered)).SealingKey(ctx, ""); err == nil {
		t.Error("a key for no purpose")
	}
}

func TestSEVGuestKeyRefusals(t *testing.T) {
	busy := 2
	for name, c := range map[string]struct {
		edit   func(arg, response []byte) error
		want   string
		noSeal bool
	}{
		"busy for a while": {edit: func(_, _ []byte) error {
			if busy--; busy >= 0 {
				return syscall.EAGAIN
			}
			return nil
		}},
		"an error of the firmware": {edit: func(arg, _ []byte) error {
			binary.NativeEndian.PutUint32(arg[24:], 0x16)
			return syscall.EIO
		}, want: "firmware error 0x16"},
		"a status":       {edit: func(_, response []byte) error { response[0] = 0x16; return nil }, want: "status 0x16", noSeal: true},
		"a key of zeros": {edit: func(_, response []byte) error { clear(response[32:]); return nil }, want: "zeros"},
	} {
		key, err := Options{Root: t.TempDir()}.newSealer(keyGuest(t, 0, c.edit)).SealingKey(context.Background(), "a")
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) || errors.Is(err, attest.ErrNoSealing) != c.noSeal {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil && key != [32]byte{} {
			t.Errorf("%s: a key in spite of the error", name)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	always := keyGuest(t, 0, func(arg, _ []byte) error { binary.NativeEndian.PutUint32(arg[28:], 2); return syscall.EIO })
	if _, err := (Options{}).newSealer(always).SealingKey(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("busy for ever: %v", err)
	}
}

func TestOtherWaysDeriveNoKeys(t *testing.T) {
	ctx := context.Background()
	ask := func(a attest.Attester) error {
		sealer, ok := a.(attest.Sealer)
		if !ok {
			t.Fatalf("%T does not say that it has no keys", a)
		}
		_, err := sealer.SealingKey(ctx, "a")
		return err
	}
	if err := ask(newAttester(nil)); !errors.Is(err, attest.ErrNoSealing) { // TDX and TPM
		t.Errorf("no sealer: %v", err)
	}
	kernelOnly := struct{ configfsi.Client }{simtest.New(t, "a")} // hides that the simulator can
	if err := ask(Options{Root: t.TempDir()}.withSealer(tsm.New(kernelOnly))); !errors.Is(err, attest.ErrNoSealing) {
		t.Errorf("configfs without a device: %v", err)
	}
	if err := ask(rootWith(t, sevGuestPath, "").withSealer(tsm.New(kernelOnly))); !errors.Is(err, attest.ErrNoSealing) || !strings.Contains(err.Error(), "no device") {
		t.Errorf("configfs beside a file: %v", err)
	}
}
