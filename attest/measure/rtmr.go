// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"crypto/sha512"
	"fmt"
	"io"

	"github.com/c8s-dev/c8s/attest"
)

// extend is what TDG.MR.RTMR.EXTEND does for each event digest, from zero on.
func extend(events ...Digest) Digest {
	var r Digest
	for _, e := range events {
		r = sha512.Sum384(append(r[:], e[:]...))
	}
	return r
}

// RTMR1 returns the register after firmware started a kernel that QEMU gave it
// (-kernel), from the kernel's Authenticode digest. The other events are the
// fixed strings of UEFI's boot, TCG "PC Client Platform Firmware Profile",
// section "Boot attempts"; real event logs have them in this order.
//
// It holds where firmware sees the kernel as it is on disk: QEMU 10.0 or newer
// (fw_cfg file etc/boot/kernel) with EDK II from 2025 on. Older ones change
// the kernel's setup header depending on memory size and initrd, and then only
// an event log tells. It also holds for no other boot path: boot loaders, shim,
// and unified kernel images make more events.
func RTMR1(kernel Digest) Digest {
	event := func(text string) Digest { return sha512.Sum384([]byte(text)) }
	return extend(
		kernel,
		event("Calling EFI Application from Boot Option"),
		event("\x00\x00\x00\x00"), // EV_SEPARATOR
		event("Exit Boot Services Invocation"),
		event("Exit Boot Services Returned with Success"),
	)
}

// InitrdToken is how firmware tells the kernel that there is an initrd: as part
// of the command line, which the kernel's EFI stub measures with it.
type InitrdToken int

// The ways. There is no default.
const (
	TokenBefore InitrdToken = iota + 1 // "initrd=initrd COMMAND LINE": EDK II's GenericQemuLoadImageLib since it can boot through shim (2025)
	TokenAfter                         // "COMMAND LINE initrd=initrd": the same library before
	TokenNone                          // the command line as it is
)

func (t InitrdToken) String() string {
	switch t {
	case TokenBefore:
		return "before"
	case TokenAfter:
		return "after"
	case TokenNone:
		return "none"
	}
	return fmt.Sprintf("token %d", int(t))
}

// ParseInitrdToken reads before, after or none.
func ParseInitrdToken(name string) (InitrdToken, error) {
	for _, t := range []InitrdToken{TokenBefore, TokenAfter, TokenNone} {
		if t.String() == name {
			return t, nil
		}
	}
	return 0, attest.NewFailure(CodeInitrdToken, "before, after or none", fmt.Sprintf("%.40q", name), "say where the firmware puts initrd=initrd on the command line")
}

// RTMR2 returns the register after Linux's EFI stub measured its load options
// (UTF-16 with the final NUL) and its initrd, Linux
// drivers/firmware/efi/libstub/efi-stub-helper.c. A nil or empty initrd means
// none; the token does not matter then.
func RTMR2(commandLine string, initrd io.Reader, token InitrdToken) (Digest, error) {
	if err := checkCommandLine(commandLine); err != nil {
		return Digest{}, err
	}
	if token != TokenBefore && token != TokenAfter && token != TokenNone {
		return Digest{}, attest.NewFailure(CodeInitrdToken, "before, after or none", token.String(), "say where the firmware puts initrd=initrd on the command line")
	}
	var events []Digest
	options := commandLine
	if initrd != nil {
		h := sha512.New384()
		n, err := sumReader(h, "initrd", initrd, MaxInitrd)
		if err != nil {
			return Digest{}, err
		}
		if n > 0 {
			events = append(events, Digest(h.Sum(nil)))
			options = withToken(commandLine, token)
		}
	}
	if options == "" {
		return Digest{}, attest.NewFailure(CodeLoadOptions, "a command line or an initrd", "neither: the kernel measures nothing, and RTMR2 stays zero", "give --cmdline as the machine has it, or list no RTMR2")
	}
	if err := checkCommandLine(options); err != nil {
		return Digest{}, err
	}
	return extend(append([]Digest{loadOptionsDigest(options)}, events...)...), nil
}

func withToken(commandLine string, token InitrdToken) string {
	const text = "initrd=initrd"
	switch token {
	case TokenBefore:
		return text + " " + commandLine
	case TokenAfter:
		return commandLine + " " + text
	default:
		return commandLine
	}
}

// loadOptionsDigest hashes ASCII as UTF-16.
func loadOptionsDigest(text string) Digest {
	wide := make([]byte, 0, 2*len(text)+2)
	for i := range len(text) {
		wide = append(wide, text[i], 0)
	}
	return sha512.Sum384(append(wide, 0, 0))
}
