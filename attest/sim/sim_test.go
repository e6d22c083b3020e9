// SPDX-License-Identifier: Apache-2.0

package sim_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/report"
	sevabi "github.com/google/go-sev-guest/abi"

	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/sim/devtee"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/attest/tsm"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

var _ configfsi.Client = (*sim.TEE)(nil)

func TestMachinesShareOneVendorAndDifferInChip(t *testing.T) {
	a, b := simtest.New(t, "a"), simtest.New(t, "b")
	if !bytes.Equal(a.Root(), b.Root()) {
		t.Error("two roots")
	}
	if a.Substrate("x").Machines[0] == b.Substrate("x").Machines[0] {
		t.Error("one chip id")
	}
}

func TestVendorFileIsPrivateAndItsCertificatesAreMarked(t *testing.T) {
	tee := simtest.New(t, "a")
	info, err := os.Stat(filepath.Join(simtest.Dir(t), "simulated-milan.pem"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	ev, err := simtest.Attester(t, "a").Attest(context.Background(), [64]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	for _, der := range ev.Certs {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Subject.Organization) != 1 || c.Subject.Organization[0] != "SIMULATED" || !bytes.HasPrefix([]byte(c.Subject.CommonName), []byte("SIMULATED ")) {
			t.Errorf("subject %s is not marked", c.Subject)
		}
	}
	if !bytes.Equal(ev.Certs[2], tee.Root()) {
		t.Error("another root in the table")
	}
}

func TestADamagedVendorFileIsRefusedNotReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "simulated-milan.pem")
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sim.New(dir, simtest.Options("a")); err == nil {
		t.Error("started")
	}
	if b, _ := os.ReadFile(path); string(b) != "damaged" {
		t.Error("replaced")
	}
}

func TestAVendorFileWithoutARevocationListIsRefusedByName(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "simulated-milan.pem")
	old := "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
	if err := os.WriteFile(path, []byte(old+old+"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sim.New(dir, simtest.Options("a")); err == nil || !strings.Contains(err.Error(), "older version") || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}

func TestEveryKindOfMachineMakesEvidenceThatVerifies(t *testing.T) {
	for _, product := range snp.Products() {
		for _, csp := range []string{"", "CN=cc-example"} {
			tee := simtest.New(t, "a", func(o *sim.Options) {
				o.Product, o.VLEK = product, csp
				if product == snp.Turin {
					o.TCB.FMC = 1
				}
			})
			ev, err := tsm.New(tee).Attest(context.Background(), [64]byte{1})
			if err != nil {
				t.Fatal(err)
			}
			r, err := snp.ParseReport(ev.Report)
			if err != nil {
				t.Fatal(err)
			}
			chain, err := snp.ParseChain(ev.Certs)
			if err != nil {
				t.Fatal(err)
			}
			crl, err := snp.ParseCRL(tee.CRL())
			if err != nil {
				t.Fatal(err)
			}
			err = errors.Join(chain.Verify(), chain.CheckDates(time.Now()), chain.CheckProduct(product), chain.CheckTCB(r),
				chain.VerifySignature(r), chain.CheckRevocation(crl, time.Now()))
			if csp == "" {
				err = errors.Join(err, chain.CheckChip(r))
			}
			if err != nil || !chain.Simulated() || chain.Endorsement.CSPID != csp || ev.Product != string(product) {
				t.Errorf("%s %q: %v", product, csp, err)
			}
		}
	}
}

func TestImpossibleMachinesDoNotStart(t *testing.T) {
	for name, edit := range map[string]func(*sim.Options){
		"no product": func(o *sim.Options) { o.Product = "Rome" },
		"FMC":        func(o *sim.Options) { o.TCB.FMC = 1 },
		"VMPL 4":     func(o *sim.Options) { o.VMPL = 4 },
	} {
		o := simtest.Options("a")
		edit(&o)
		if _, err := sim.New(simtest.Dir(t), o); err == nil {
			t.Errorf("%s: started", name)
		}
	}
}

func TestReportsHaveAMDsFormat(t *testing.T) {
	for _, version := range []uint32{2, 3, 4, 5} {
		tee := simtest.New(t, "a", func(o *sim.Options) { o.ReportVersion = version })
		resp, err := report.Get(tee, &report.Request{InBlob: bytes.Repeat([]byte{9}, 64), GetAuxBlob: true, Privilege: &report.Privilege{Level: 2}})
		if err != nil {
			t.Fatal(err)
		}
		other, err := sevabi.ReportToProto(resp.OutBlob)
		if err != nil {
			t.Fatalf("version %d: another implementation: %v", version, err)
		}
		if other.GetVmpl() != 2 || other.GetReportData()[63] != 9 || other.GetVersion() != version {
			t.Errorf("version %d: %v", version, other)
		}
	}
}

func TestReportsBelowTheFloorAreRefused(t *testing.T) {
	tee := simtest.New(t, "a", func(o *sim.Options) { o.VMPL = 2 })
	for level, works := range map[uint]bool{1: false, 2: true, 3: true, 4: false} {
		_, err := report.Get(tee, &report.Request{InBlob: make([]byte, 64), Privilege: &report.Privilege{Level: level}})
		if (err == nil) != works {
			t.Errorf("level %d: %v", level, err)
		}
	}
}

func TestOneMachineAnswersManyAtOnce(t *testing.T) {
	att := simtest.Attester(t, "a")
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			want := [64]byte{byte(i), 1}
			ev, err := att.Attest(context.Background(), want)
			if err != nil {
				t.Error(err)
				return
			}
			if r, err := snp.ParseReport(ev.Report); err != nil || r.ReportData != want {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
}

func TestDevelopmentMachinesAreMeasured(t *testing.T) {
	ops, _ := policytest.Operators(t, 1, 1)
	binary := filepath.Join(t.TempDir(), "program")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(binary, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	get := func(o devtee.Options) policy.Substrate {
		t.Helper()
		s, err := devtee.Substrate(o)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	o := devtee.Options{Dir: simtest.Dir(t), Machine: "a", Binary: binary, Operators: ops}
	write("one")
	one := get(o)
	write("two")
	if two := get(o); two.Measurements[0] == one.Measurements[0] {
		t.Error("another program has the same measurement")
	}
	o.Operators, _ = policytest.Operators(t, 1, 1)
	if other := get(o); other.HostData[0] == one.HostData[0] {
		t.Error("other operators have the same host data")
	}
	if _, err := devtee.Open(devtee.Options{Operators: ops}); err == nil {
		t.Error("no folder: opened")
	}
	if _, err := devtee.Open(devtee.Options{Dir: o.Dir}); err != nil {
		t.Errorf("defaults: %v", err)
	}
}
