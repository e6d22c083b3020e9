// SPDX-License-Identifier: Apache-2.0

// Package acquire finds out how this machine gives evidence and asks it. Its
// invariant: evidence it returns answers the question that was asked, or there
// is an error that says what was looked for and why it was not enough.
//
// The ways are tried in this order: Linux's configfs-tsm (attest/tsm), the
// device files of older kernels, and the virtual TPM of Azure's paravisor.
package acquire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/tsm"
)

// The ways to ask, as Options.Method names them.
const (
	MethodAuto     = "auto"
	MethodConfigfs = "configfs" // Linux 6.7 and later
	MethodDevice   = "device"   // /dev/sev-guest, /dev/tdx_guest
	MethodVTPM     = "vtpm"     // Azure
)

// Methods lists the words for Options.Method.
func Methods() []string { return []string{MethodAuto, MethodConfigfs, MethodDevice, MethodVTPM} }

const (
	ccelPath     = "/sys/firmware/acpi/tables/data/CCEL"
	sevGuestPath = "/dev/sev-guest"
	tdxGuestPath = "/dev/tdx_guest"
	tpmPath      = "/dev/tpmrm0"
	httpTimeout  = 10 * time.Second
	maxResponse  = 64 << 10 // bytes
)

// Options choose a way, and stand in for the machine in tests.
type Options struct {
	Method string // MethodAuto when empty

	Root    string                                            // of the file system; "/" when empty
	HTTP    *http.Client                                      // for the instance's metadata; one with a time limit when nil
	DialQGS func(context.Context) (io.ReadWriteCloser, error) // Intel's quote generation service; vsock port 4050 of the host when nil
	TPM     func() (transport.TPMCloser, error)               // /dev/tpmrm0 when nil
	IMDS    string                                            // base URL; http://169.254.169.254 when empty
}

func (o Options) path(p string) string { return filepath.Join("/", o.Root, p) }

// Open returns an attester for this machine.
func Open(ctx context.Context, o Options) (attest.Attester, error) {
	if o.HTTP == nil {
		o.HTTP = newMetadataClient()
	}
	if o.IMDS == "" {
		o.IMDS = imdsURL
	}
	if o.DialQGS == nil {
		o.DialQGS = dialVsock
	}
	if o.TPM == nil {
		o.TPM = func() (transport.TPMCloser, error) { return linuxtpm.Open(o.path(tpmPath)) }
	}
	if o.Method == "" {
		o.Method = MethodAuto
	}
	var problems []error
	for _, way := range []struct {
		method string
		open   func(context.Context) (attest.Attester, error)
	}{
		{MethodConfigfs, o.openConfigfs}, {MethodDevice, o.openSEVGuest}, {MethodDevice, o.openTDXGuest}, {MethodVTPM, o.openVTPM},
	} {
		if o.Method != MethodAuto && o.Method != way.method {
			continue
		}
		att, err := way.open(ctx)
		if err == nil {
			return att, nil
		}
		problems = append(problems, fmt.Errorf("%s: %w", way.method, err))
	}
	if problems == nil {
		return nil, fmt.Errorf("looking for a TEE: method %q is none of %s", o.Method, strings.Join(Methods(), ", "))
	}
	return nil, &NoTEEError{Problems: problems}
}

// newMetadataClient speaks to the instance's own metadata service: through no
// proxy, and to nowhere else.
func newMetadataClient() *http.Client {
	return &http.Client{
		Timeout: httpTimeout, Transport: &http.Transport{Proxy: nil},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// NoTEEError says where evidence was looked for, and why there is none.
type NoTEEError struct{ Problems []error }

func (e *NoTEEError) Error() string {
	var b strings.Builder
	b.WriteString("this machine gives no evidence; looked at:")
	for _, p := range e.Problems {
		b.WriteString("\n  " + p.Error())
	}
	b.WriteString("\nOn a confidential VM, load the sev-guest or tdx-guest module and mount configfs on /sys/kernel/config (Linux 6.7 or later)." +
		"\nOn any other machine, use a simulated TEE (--tee=sim).")
	return b.String()
}

func (e *NoTEEError) Unwrap() []error { return e.Problems }

func (o Options) openConfigfs(context.Context) (attest.Attester, error) {
	if _, err := os.Stat(o.path(tsm.ReportPath)); err != nil {
		return nil, err
	}
	att, err := tsm.Open()
	if err != nil {
		return nil, err
	}
	return o.withSealer(att.WithEventLog(o.eventLog)), nil
}

// eventLog reads the CC event log (ACPI 6.5, CCEL), if the firmware made one.
func (o Options) eventLog() ([]byte, error) { return os.ReadFile(o.path(ccelPath)) }

// trimmedLog is the log without its padding, or nothing where there is none.
func (o Options) trimmedLog() ([]byte, error) {
	log, err := o.eventLog()
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return log, err
}

// attester asks one question at a time.
type attester struct {
	turn   chan struct{} // holds one token; a mutex that respects contexts
	ask    func(context.Context, [64]byte) (*attest.Evidence, error)
	sealer attest.Sealer // nil where the TEE derives no keys
}

func newAttester(ask func(context.Context, [64]byte) (*attest.Evidence, error)) *attester {
	a := &attester{turn: make(chan struct{}, 1), ask: ask}
	a.turn <- struct{}{}
	return a
}

// Attest implements attest.Attester.
func (a *attester) Attest(ctx context.Context, reportData [64]byte) (*attest.Evidence, error) {
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the TEE: %w", ctx.Err())
	case <-a.turn:
		defer func() { a.turn <- struct{}{} }()
	}
	ev, err := a.ask(ctx, reportData)
	if err != nil {
		return nil, fmt.Errorf("asking the TEE for evidence: %w", err)
	}
	return ev, nil
}

// SealingKey implements attest.Sealer, where the machine can.
func (a *attester) SealingKey(ctx context.Context, purpose string) ([32]byte, error) {
	if a.sealer == nil {
		return [32]byte{}, attest.ErrNoSealing
	}
	return a.sealer.SealingKey(ctx, purpose)
}
