// SPDX-License-Identifier: Apache-2.0

package tsm_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-configfs-tsm/configfs/configfsi"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/attest/tdx"
	"github.com/c8s-dev/c8s/attest/tsm"
)

var _ attest.Attester = (*tsm.Attester)(nil)

func TestEvidenceIsCompleteForEveryReportVersion(t *testing.T) {
	for _, version := range []uint32{2, 3, 5} {
		att := simtest.Attester(t, "a", func(o *sim.Options) { o.ReportVersion = version })
		ev, err := att.Attest(context.Background(), [64]byte{5})
		if err != nil {
			t.Fatal(err)
		}
		if ev.TEE != attest.TEESEVSNP || ev.Product != "Milan" || len(ev.Certs) != 3 || len(ev.Report) != snp.ReportSize {
			t.Errorf("version %d: %s %s, %d certificates, %d bytes", version, ev.TEE, ev.Product, len(ev.Certs), len(ev.Report))
		}
	}
}

func TestAGuestBelowAnSVSMAsksFromItsOwnLevel(t *testing.T) {
	ev, err := simtest.Attester(t, "a", func(o *sim.Options) { o.VMPL = 2 }).Attest(context.Background(), [64]byte{5})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := snp.ParseReport(ev.Report); err != nil || r.VMPL != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestAMachineWithoutTEESaysWhatWasLookedFor(t *testing.T) {
	if _, err := os.Stat(tsm.ReportPath); err == nil {
		t.Skip("this machine has a TEE")
	}
	_, err := tsm.Open()
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/sys/kernel/config/tsm/report") {
		t.Errorf("got %v", err)
	}
}

// busy is a TEE that refuses for a while.
type busy struct {
	configfsi.Client
	left *int
}

func (b busy) ReadFile(name string) ([]byte, error) {
	if path.Base(name) == "outblob" && *b.left > 0 {
		*b.left--
		return nil, syscall.EBUSY
	}
	return b.Client.ReadFile(name)
}

func TestABusyTEEIsAskedAgain(t *testing.T) {
	left := 3
	if _, err := tsm.New(busy{simtest.New(t, "a"), &left}).Attest(context.Background(), [64]byte{1}); err != nil || left != 0 {
		t.Errorf("%d left, %v", left, err)
	}
	left = 1000
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := tsm.New(busy{simtest.New(t, "a"), &left}).Attest(ctx, [64]byte{1}); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, syscall.EBUSY) {
		t.Errorf("got %v", err)
	}
}

func TestAHostWithoutATableLeavesItToCollateral(t *testing.T) {
	ev, err := tsm.New(liar{simtest.New(t, "a"), "auxblob", func([]byte) []byte { return nil }}).Attest(context.Background(), [64]byte{1})
	if err != nil || ev.Certs != nil || ev.Product != "Milan" {
		t.Errorf("%+v, %v", ev, err)
	}
}

func TestATrustDomainAnswersWithQuoteAndLog(t *testing.T) {
	for _, version := range []uint16{4, 5} {
		td, err := sim.NewTDX(t.TempDir(), sim.TDXOptions{Version: version, Events: []string{"firmware", "kernel"}})
		if err != nil {
			t.Fatal(err)
		}
		ev, err := tsm.New(td).WithEventLog(func() ([]byte, error) { return td.EventLog(), nil }).Attest(context.Background(), [64]byte{5})
		if err != nil {
			t.Fatal(err)
		}
		q, err := tdx.ParseQuote(ev.Report)
		if err != nil || q.ReportData != [64]byte{5} || q.Padding != 0 || q.Version != version || ev.TEE != attest.TEETDX || len(ev.EventLog) == 0 || len(ev.EventLog) == len(td.EventLog()) {
			t.Errorf("%+v, %v", ev, err)
		}
		ev, err = tsm.New(td).WithEventLog(func() ([]byte, error) { return nil, os.ErrNotExist }).Attest(context.Background(), [64]byte{5})
		if err != nil || ev.EventLog != nil {
			t.Errorf("without a log: %v", err)
		}
		if _, err = tsm.New(td).WithEventLog(func() ([]byte, error) { return nil, os.ErrPermission }).Attest(context.Background(), [64]byte{5}); !errors.Is(err, os.ErrPermission) {
			t.Errorf("with a log that cannot be read: %v", err)
		}
	}
}

func TestACancelledCallerDoesNotBotherTheTEE(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := simtest.Attester(t, "a").Attest(ctx, [64]byte{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// liar is a host that changes what the TEE's files say.
type liar struct {
	configfsi.Client
	attr string
	edit func([]byte) []byte
}

func (l liar) ReadFile(name string) ([]byte, error) {
	b, err := l.Client.ReadFile(name)
	if err == nil && path.Base(name) == l.attr {
		b = l.edit(bytes.Clone(b))
	}
	return b, err
}

func TestLyingHostsAreNoticed(t *testing.T) {
	tee := simtest.New(t, "a")
	to := func(b []byte) func([]byte) []byte { return func([]byte) []byte { return b } }
	for name, c := range map[string]struct {
		attr string
		edit func([]byte) []byte
		want string
	}{
		"another provider":  {"provider", to([]byte("cca_guest\n")), `"cca_guest"`},
		"Intel's provider":  {"provider", to([]byte("tdx_guest\n")), "quote-version"},
		"other report data": {"outblob", func(b []byte) []byte { b[0x50] ^= 1; return b }, "other data"},
		"short report":      {"outblob", func(b []byte) []byte { return b[:100] }, snp.CodeReportFormat},
		"empty table":       {"auxblob", to(make([]byte, 24)), snp.CodeCertificates},
		"table that wraps":  {"auxblob", func(b []byte) []byte { copy(b[16:24], "\xff\xff\xff\xff\x02\x00\x00\x00"); return b }, snp.CodeCertTable},
		"another request":   {"generation", to([]byte("77\n")), "generation"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tsm.New(liar{tee, c.attr, c.edit}).Attest(context.Background(), [64]byte{1})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want something about %s", err, c.want)
			}
		})
	}
}
