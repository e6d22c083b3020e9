// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/cds/ledger"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/bench/load"
)

// evidenceSize is about what is kept of a node's evidence with an issuance.
const evidenceSize = 10 << 10

// appends measures the log alone, in this process: how fast it takes what an
// issuance writes, one at a time and many together.
func (r *cdsRun) appends(ctx context.Context) error {
	say("log appends")
	for _, sc := range []struct {
		name     string
		together int
		kept     int
	}{
		{"a pod's issuance logged, 1 at a time", 1, 0},
		{"a pod's issuance logged, 64 at a time", 64, 0},
		{"a node's issuance logged, with its evidence, 64 at a time", 64, evidenceSize},
	} {
		var rate, cpu [siteCount][]float64
		for round := range r.o.Rounds {
			for i := range siteCount {
				s, err := r.openStore(i, fmt.Sprintf("log-%d-%d-%d", sc.together, sc.kept, round))
				if err != nil {
					return err
				}
				if s == nil {
					continue
				}
				perSecond, each, err := appendTo(ctx, s, sc.together, sc.kept, r.o.Duration)
				s.Close()
				if err != nil {
					return fmt.Errorf("log appends: %w", err)
				}
				rate[i], cpu[i] = append(rate[i], perSecond), append(cpu[i], each)
			}
		}
		r.add(sc.name, "/s", medians(rate), "", nil)
		r.add(sc.name, "µs of CPU", medians(cpu), "", nil)
	}
	return nil
}

// openStore opens a store of its own of a site's kind; nil for kinds that are
// not there.
func (r *cdsRun) openStore(site int, name string) (store.Store, error) {
	switch {
	case site == siteMemory:
		return store.OpenFile(filepath.Join(r.tmp, name+".db"))
	case site == siteFile:
		return store.OpenFile(filepath.Join(r.disk, name+".db"))
	case site == siteEtcd && len(r.etcd) > 0:
		return store.OpenEtcd(store.EtcdConfig{Endpoints: r.etcd, Prefix: "/" + name + "/"})
	}
	return nil, nil
}

// appendTo returns the rate of changes and what each costs this process.
func appendTo(ctx context.Context, s store.Store, together, kept int, d time.Duration) (perSecond, micros float64, err error) {
	l, err := newLedger(ctx, s)
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error { return l.Run(ctx) })
	evidence := make([]byte, kept)
	before := ownCPU()
	res, err := load.Calls(ctx, together, d, func(ctx context.Context, _ int) (int, error) {
		_, err := l.Do(ctx, func(d *ledger.Draft) error {
			name := rand.Text()
			if kept > 0 {
				d.Put(store.Item{Key: "evidence/" + name, Data: evidence}, store.Item{Key: "expiry/" + name})
			}
			_, err := d.Append(issuance(d.Now, policy.DigestOf([]byte(name))))
			return err
		})
		return 1, err
	})
	after := ownCPU()
	cancel()
	_ = g.Wait() // ends because it was told to
	return res.PerSecond(), (after - before).Seconds() * 1e6 / float64(max(1, res.Requests)), err
}

func newLedger(ctx context.Context, s store.Store) (*ledger.Ledger, error) {
	var seal [chacha20poly1305.KeySize]byte
	rand.Read(seal[:])
	sealed, err := store.Sealed(s, seal)
	if err != nil {
		return nil, err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	const origin = "bench.c8s.example/log"
	signer, err := translog.NewSigner(origin, key)
	if err != nil {
		return nil, err
	}
	cfg := ledger.Config{Store: sealed, Origin: origin, Signer: signer, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	return ledger.Create(ctx, cfg, func(d *ledger.Draft) error {
		_, err := d.Append(issuance(d.Now, policy.DigestOf(nil)))
		return err
	})
}

func issuance(now time.Time, d policy.Digest) translog.Entry {
	return translog.Entry{
		Type: translog.TypeIssuance, Time: now, Certificate: d, Issuer: d, Evidence: d, Manifest: d, Role: policy.RoleWorkload, NotAfter: now.Add(time.Hour),
	}
}

// ownCPU is the processor time of this process.
func ownCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
