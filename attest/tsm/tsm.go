// SPDX-License-Identifier: Apache-2.0

// Package tsm asks this machine's TEE for evidence through Linux's configfs-tsm
// (Documentation/ABI/testing/configfs-tsm-report). Its invariant: what it
// returns is over the report data it was asked for.
package tsm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/linuxtsm"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/attest/tdx"
)

// ReportPath is where Linux offers the interface.
const ReportPath = "/sys/kernel/config/tsm/report"

// The providers of the interface that are understood.
const (
	providerSNP = "sev_guest"
	providerTDX = "tdx_guest"
)

// Pauses between tries while the hardware or another process is busy. AMD's
// firmware asks guests for about one request in two seconds.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
	patience   = 30 * time.Second // where the context says nothing shorter
	maxRaces   = 4                // lost to another process that writes the same entry
)

// Attester implements attest.Attester. The TEE answers one question at a time.
type Attester struct {
	client   configfsi.Client
	turn     chan struct{} // holds one token; a mutex that respects contexts
	eventLog func() ([]byte, error)
	sealer   attest.Sealer // nil where the TEE derives no keys
}

// Open uses this machine's TEE.
func Open() (*Attester, error) {
	client, err := linuxtsm.MakeClient()
	if err != nil {
		return nil, fmt.Errorf("looking at %s: %w", ReportPath, err)
	}
	dir, err := client.MkdirTemp(ReportPath, "probe") // fails where no TEE is behind the folder
	if err == nil {
		err = client.RemoveAll(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("making an entry in %s: %w", ReportPath, err)
	}
	return New(client), nil
}

// New uses any implementation of the interface, such as a simulated TEE. One
// that is an attest.Sealer, as the kernel's is not, derives keys too.
func New(client configfsi.Client) *Attester {
	a := &Attester{client: client, turn: make(chan struct{}, 1)}
	a.sealer, _ = client.(attest.Sealer)
	a.turn <- struct{}{}
	return a
}

// WithEventLog puts the event log that read returns beside TDX quotes. A log
// that is not there is left out.
func (a *Attester) WithEventLog(read func() ([]byte, error)) *Attester {
	a.eventLog = read
	return a
}

// WithSealer derives keys by other means than configfs-tsm, which has none.
func (a *Attester) WithSealer(s attest.Sealer) *Attester {
	a.sealer = s
	return a
}

// SealingKey implements attest.Sealer, where the machine can.
func (a *Attester) SealingKey(ctx context.Context, purpose string) ([32]byte, error) {
	if a.sealer == nil {
		return [32]byte{}, attest.ErrNoSealing
	}
	return a.sealer.SealingKey(ctx, purpose)
}

// Attest asks for a report over reportData and what belongs to it. While the
// TEE is busy it waits, until the context ends.
func (a *Attester) Attest(ctx context.Context, reportData [64]byte) (*attest.Evidence, error) {
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the TEE: %w", ctx.Err())
	case <-a.turn:
		defer func() { a.turn <- struct{}{} }()
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("waiting for the TEE: %w", err)
	}
	ev, err := a.retry(ctx, reportData)
	if err != nil {
		return nil, fmt.Errorf("asking the TEE for evidence: %w", err)
	}
	return ev, nil
}

func (a *Attester) retry(ctx context.Context, reportData [64]byte) (*attest.Evidence, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	races := 0
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		ev, err := a.attest(reportData)
		if errors.Is(err, errRace) {
			races++
		} else if !busy(err) {
			return ev, err
		}
		if races == maxRaces {
			return nil, err
		}
		slog.DebugContext(ctx, "the TEE is busy", "pause", pause, "err", err)
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(pause):
		}
	}
}

// busy tells what passes by itself: the firmware's limit of requests.
func busy(err error) bool {
	return errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR)
}

func (a *Attester) attest(reportData [64]byte) (*attest.Evidence, error) {
	answer, err := a.ask(reportData)
	if err != nil {
		return nil, err
	}
	switch p := strings.TrimSpace(string(answer.provider)); p {
	case providerSNP:
		return SNPEvidence(answer.out, answer.aux, reportData)
	case providerTDX:
		return a.tdxEvidence(answer.out, reportData)
	default:
		return nil, fmt.Errorf("the TEE's provider is %q, %q (AMD SEV-SNP) and %q (Intel TDX) are supported", p, providerSNP, providerTDX)
	}
}

// answer is what the files of an entry say.
type answer struct{ provider, out, aux []byte }

var errRace = errors.New("the entry's generation changed: another process writes the same entry")

// ask makes an entry, writes the question and reads the answer. It does what
// the library's report package does, whose errors hide why a file could not be
// read.
func (a *Attester) ask(reportData [64]byte) (got answer, err error) {
	dir, err := a.client.MkdirTemp(ReportPath, "entry")
	if err != nil {
		return got, fmt.Errorf("making an entry in %s: %w", ReportPath, err)
	}
	defer func() { err = errors.Join(err, a.client.RemoveAll(dir)) }()
	if err := a.client.WriteFile(path.Join(dir, "inblob"), reportData[:]); err != nil {
		return got, fmt.Errorf("writing inblob: %w", err)
	}
	writes := 1
	// Below an SVSM the guest may not ask from level 0.
	floor, err := a.client.ReadFile(path.Join(dir, "privlevel_floor"))
	if level := strings.TrimSpace(string(floor)); err == nil && level != "" && level != "0" {
		if err := a.client.WriteFile(path.Join(dir, "privlevel"), []byte(level)); err != nil {
			return got, fmt.Errorf("writing privlevel: %w", err)
		}
		writes++
	}
	for _, f := range []struct {
		name string
		to   *[]byte
	}{{"outblob", &got.out}, {"provider", &got.provider}, {"auxblob", &got.aux}} {
		*f.to, err = a.client.ReadFile(path.Join(dir, f.name))
		// The table of certificates is SNP's alone, and hosts need not offer it.
		if f.name == "auxblob" && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODATA)) {
			err = nil
		}
		if err != nil {
			return got, fmt.Errorf("reading %s: %w", f.name, err)
		}
	}
	after, err := a.client.ReadFile(path.Join(dir, "generation"))
	if err == nil && strings.TrimSpace(string(after)) != strconv.Itoa(writes) {
		err = errRace
	}
	return got, err
}

func (a *Attester) tdxEvidence(quote []byte, reportData [64]byte) (*attest.Evidence, error) {
	var log []byte
	if a.eventLog != nil {
		var err error
		if log, err = a.eventLog(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("reading the event log: %w", err)
		}
	}
	return TDXEvidence(quote, log, reportData)
}

// TDXEvidence joins a quote, whose padding it cuts, and the event log that
// belongs to it, if there is one.
func TDXEvidence(quote, log []byte, reportData [64]byte) (*attest.Evidence, error) {
	q, err := tdx.ParseQuote(quote)
	if err != nil {
		return nil, err
	}
	if q.ReportData != reportData {
		return nil, errForeign()
	}
	return &attest.Evidence{TEE: attest.TEETDX, Report: quote[:len(quote)-q.Padding], EventLog: tdx.TrimEventLog(log)}, nil
}

func errForeign() error {
	return errors.New("the report is over other data than was asked for: another process may use the same entry")
}

// SNPEvidence joins a report and the host's table of certificates. Issuers that
// the host left out are AMD's published ones: whether they are trusted is the
// verifier's question.
func SNPEvidence(raw, table []byte, reportData [64]byte) (*attest.Evidence, error) {
	r, err := snp.ParseReport(raw)
	if err != nil {
		return nil, err
	}
	if r.ReportData != reportData {
		return nil, errForeign()
	}
	ev := &attest.Evidence{TEE: attest.TEESEVSNP, Report: raw}
	if len(table) == 0 {
		p, err := r.Product("")
		ev.Product = string(p)
		return ev, err // collateral can complete it
	}
	t, err := snp.ParseCertTable(table)
	if err != nil {
		return nil, err
	}
	leaf, err := t.Leaf(r.SigningKey)
	if err != nil {
		return nil, err
	}
	product, err := snp.EndorsedProduct(leaf)
	if err != nil {
		return nil, fmt.Errorf("reading the host's certificates: %w", err)
	}
	certs, err := t.Chain(r.SigningKey)
	if err != nil {
		certs = [][]byte{leaf}
	}
	if ev.Certs, err = snp.Complete(certs, product, r.SigningKey); err != nil {
		return nil, fmt.Errorf("completing the host's certificates: %w", err)
	}
	ev.Product = string(product)
	if len(t.CRL) > 0 {
		ev.Collateral = []attest.Collateral{{Kind: attest.AMDCRL, Body: t.CRL}}
	}
	return ev, nil
}
