// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/ca"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/policy"
)

// fakeCDS certifies as it is told.
type fakeCDS struct {
	t *testing.T

	mu       sync.Mutex
	answers  []answer // the last one stays
	asked    []time.Time
	denyList *policy.SignedDenyList
	watch    func(client.News)
}

type answer struct {
	life, renewAfter time.Duration
	root             *x509.Certificate
	err              error
}

var _ CDS = (*fakeCDS)(nil)

func (f *fakeCDS) EnrolIngress(context.Context, attest.Attester) (*client.Credential, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, time.Now())
	a := f.answers[0]
	if len(f.answers) > 1 {
		f.answers = f.answers[1:]
	}
	if a.err != nil {
		return nil, a.err
	}
	return credential(f.t, a), nil
}

func (f *fakeCDS) Watch(ctx context.Context, fn func(client.News)) error {
	f.mu.Lock()
	f.watch = fn
	f.mu.Unlock()
	<-ctx.Done()
	return ctx.Err()
}

func (f *fakeCDS) Manifest() *policy.Signed { return &policy.Signed{Manifest: &policy.Manifest{}} }

func (f *fakeCDS) DenyList() *policy.SignedDenyList {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.denyList
}

// deny publishes a list of these entries.
func (f *fakeCDS) deny(t *testing.T, entries ...policy.Denial) {
	t.Helper()
	list := &policy.DenyList{Schema: policy.DenyListSchema, TrustDomain: "bank.example", Version: 1, Entries: entries}
	raw, err := policy.EncodeDenyList(list)
	if err == nil {
		list, err = policy.ParseDenyList(raw)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.denyList = &policy.SignedDenyList{List: list}
	fn := f.watch
	f.mu.Unlock()
	fn(client.News{DenyList: f.DenyList()})
}

func (f *fakeCDS) times() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

const machine = "0123456789abcdef"

var serials = big.NewInt(0x1000)

func credential(t *testing.T, a answer) *client.Credential {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	serials.Add(serials, big.NewInt(1))
	leaf := certificate(t, &x509.Certificate{SerialNumber: new(big.Int).Set(serials), NotBefore: now, NotAfter: now.Add(a.life)}, key)
	id := spiffeid.RequireFromString("spiffe://bank.example/ingress/" + machine)
	c := &client.Credential{
		TLS: tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}, Roots: []*x509.Certificate{a.root},
		Peer: &ratls.Peer{
			ID: id, NotAfter: leaf.NotAfter, Leaf: leaf, Serial: leaf.SerialNumber.Text(16),
			Claims: ratls.Claims{Role: policy.RoleIngress, SubstrateFacts: policy.SubstrateFacts{Machine: strings.Repeat(machine, 8)}},
		},
	}
	if a.renewAfter > 0 {
		c.RenewAfter = now.Add(a.renewAfter)
	}
	return c
}

func certificate(t *testing.T, template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func root(t *testing.T, n int64) *x509.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return certificate(t, &x509.Certificate{SerialNumber: big.NewInt(n), NotAfter: time.Now().Add(1e6 * time.Hour), IsCA: true, BasicConstraintsValid: true}, key)
}

type noTEE struct{ attest.Attester }

// world is a running identity in a bubble of its own time.
type world struct {
	*Identity
	cds     *fakeCDS
	changed atomic.Int32
	offset  atomic.Int64                        // of the clock
	rand    atomic.Pointer[func(n int64) int64] // the middle, if nothing else is said
}

func middle(n int64) int64 { return n / 2 }

// earliestFirst has the first choice fall on the earliest, and all others on
// the latest.
func (w *world) earliestFirst() {
	var first atomic.Bool
	choose := func(n int64) int64 {
		if first.CompareAndSwap(false, true) {
			return 0
		}
		return n - 1
	}
	w.rand.Store(&choose)
}

func (w *world) changes() int { return int(w.changed.Load()) }

func run(t *testing.T, fn func(w *world), answers ...answer) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{cds: &fakeCDS{t: t, answers: answers}}
		choose := middle
		w.rand.Store(&choose)
		var err error
		w.Identity, err = New(Config{
			CDS: w.cds, Attester: noTEE{}, Rand: func(n int64) int64 { return (*w.rand.Load())(n) }, Log: slog.New(slog.DiscardHandler),
			Now:     func() time.Time { return time.Now().Add(time.Duration(w.offset.Load())) },
			Changed: func() { w.changed.Add(1) },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		synctest.Wait()
		fn(w)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	})
}

func TestCertificateIsRenewedInItsMiddle(t *testing.T) {
	run(t, func(w *world) {
		if w.Ready() != nil || w.Credential() == nil || w.Enrolled() == nil || w.changes() != 1 {
			t.Fatalf("not enrolled: %v, %d changes", w.Ready(), w.changes())
		}
		first := w.Enrolled()
		time.Sleep(31 * time.Minute)
		synctest.Wait()
		asked := w.cds.times()
		if len(asked) != 2 || w.Enrolled() == first {
			t.Fatalf("asked at %v", asked)
		}
		if after := asked[1].Sub(asked[0]); after != 30*time.Minute {
			t.Errorf("renewed after %s of an hour", after)
		}
	}, answer{life: time.Hour, root: root(t, 1)})
}

// A certificate whose moment is drawn anew at each news would be renewed late,
// and by all ingresses together.
func TestMomentOfRenewalIsDrawnOnce(t *testing.T) {
	run(t, func(w *world) {
		w.earliestFirst()
		for range 50 {
			time.Sleep(time.Minute)
			w.cds.deny(t) // a word that wakes
		}
		synctest.Wait()
		if asked := w.cds.times(); len(asked) != 2 || asked[1].Sub(asked[0]) != 18*time.Minute {
			t.Errorf("asked at %v, want once more after 18 minutes", asked)
		}
	}, answer{life: time.Hour, root: root(t, 1)})
}

func TestTheCDSSaysWhenToRenew(t *testing.T) {
	run(t, func(w *world) {
		time.Sleep(time.Hour)
		synctest.Wait()
		if asked := w.cds.times(); len(asked) < 2 || asked[1].Sub(asked[0]).Round(time.Minute) < 40*time.Minute || asked[1].Sub(asked[0]) > 43*time.Minute {
			t.Errorf("asked at %v", asked)
		}
	}, answer{life: time.Hour, renewAfter: 40 * time.Minute, root: root(t, 1)})
}

func TestNothingIsOfferedAfterTheEndOfTheCertificate(t *testing.T) {
	lost := answer{err: errors.New("the CDS is gone")}
	run(t, func(w *world) {
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		if w.Credential() == nil {
			t.Error("a valid certificate is not used")
		}
		if w.Err() == nil {
			t.Error("nothing says that the renewal fails")
		}
		time.Sleep(time.Minute)
		if w.Credential() != nil || w.Enrolled() != nil || w.Ready() == nil || !strings.Contains(w.Ready().Error(), "the CDS is gone") {
			t.Errorf("used after its end: %v", w.Ready())
		}
		if n := len(w.cds.times()); n < 4 || n > 60 {
			t.Errorf("asked %d times in an hour", n)
		}
	}, answer{life: time.Hour, root: root(t, 1)}, lost)
}

func TestCDSThatAsksToBeLeftAloneIs(t *testing.T) {
	run(t, func(w *world) {
		w.cds.deny(t) // a word that wakes, otherwise
		time.Sleep(time.Minute + 59*time.Second)
		synctest.Wait()
		if n := len(w.cds.times()); n != 1 {
			t.Errorf("asked %d times", n)
		}
		time.Sleep(2 * time.Minute)
		if w.Ready() != nil {
			t.Error(w.Ready())
		}
	}, answer{err: &client.RefusedError{Code: "busy", RetryAfter: 2 * time.Minute}}, answer{life: time.Hour, root: root(t, 1)})
}

func TestDeniedMachineNeitherConnectsNorAsks(t *testing.T) {
	run(t, func(w *world) {
		w.cds.deny(t, policy.Denial{Kind: policy.DenyMachine, Value: strings.Repeat(machine, 8), Reason: "stolen"})
		synctest.Wait()
		if w.Credential() != nil || w.Ready() == nil || !strings.Contains(w.Ready().Error(), "deny this ingress") || w.changes() != 2 {
			t.Errorf("a denied machine is ready: %v, %d changes", w.Ready(), w.changes())
		}
		time.Sleep(50 * time.Minute)
		synctest.Wait()
		if n := len(w.cds.times()); n != 1 {
			t.Errorf("asked %d times", n)
		}
		w.cds.deny(t)
		time.Sleep(time.Second)
		synctest.Wait()
		if w.Ready() != nil || len(w.cds.times()) != 2 {
			t.Errorf("after the denial was lifted: %v, asked %v", w.Ready(), w.cds.times())
		}
	}, answer{life: time.Hour, root: root(t, 1)})
}

func TestDeniedCertificateIsReplacedAtOnce(t *testing.T) {
	run(t, func(w *world) {
		first := w.Enrolled()
		time.Sleep(minLife)
		w.cds.deny(t, policy.Denial{Kind: policy.DenySerial, Value: first.Peer.Serial, Reason: "leaked"})
		synctest.Wait()
		if now := w.Enrolled(); now == nil || now == first {
			t.Errorf("still %v: %v", now, w.Ready())
		}
	}, answer{life: time.Hour, root: root(t, 1)})
}

func TestSuspectedCertificateIsReplacedSoon(t *testing.T) {
	run(t, func(w *world) {
		first := w.Enrolled()
		w.Suspect()
		w.Suspect()
		time.Sleep(minLife)
		synctest.Wait()
		if now := w.Enrolled(); now == nil || now == first || len(w.cds.times()) != 2 {
			t.Errorf("still %v, asked %v", now, w.cds.times())
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if asked := w.cds.times(); len(asked) != 2 {
			t.Errorf("asked %v", asked)
		}
	}, answer{life: time.Hour, root: root(t, 1)})
}

// Nothing is proven with a certificate that the CDS does not know: its
// replacement does not wait as a renewal may.
func TestSuspectedCertificateIsNotLeftForLaterWhenTheCDSFails(t *testing.T) {
	run(t, func(w *world) {
		w.Suspect()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(w.cds.times()); n < 6 || n > 12 || w.Credential() == nil {
			t.Errorf("asked %d times in a minute", n)
		}
	}, answer{life: time.Hour, root: root(t, 1)}, answer{err: errors.New("the CDS starts")})
}

func TestReplacedRootIsAcceptedUntilItsLastLeafIsOver(t *testing.T) {
	old, next := root(t, 1), root(t, 2)
	both, one := x509.NewCertPool(), x509.NewCertPool()
	both.AddCert(old)
	both.AddCert(next)
	one.AddCert(next)
	run(t, func(w *world) {
		time.Sleep(31 * time.Minute)
		synctest.Wait()
		if !w.Roots().Equal(both) {
			t.Error("the old root is refused while leaves of it are valid")
		}
		before := w.changes()
		time.Sleep(ca.MaxLife)
		synctest.Wait()
		if !w.Roots().Equal(one) || w.changes() == before {
			t.Errorf("the old root is accepted after its last leaf, %d changes", w.changes()-before)
		}
	}, answer{life: time.Hour, root: old}, answer{life: time.Hour, root: next})
}

func TestClockSetBackHasConnectionsJudgedAgain(t *testing.T) {
	run(t, func(w *world) {
		time.Sleep(2 * time.Second)
		synctest.Wait()
		before := w.changes()
		w.offset.Store(int64(-time.Hour))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if w.changes() != before+1 {
			t.Errorf("%d changes", w.changes()-before)
		}
	}, answer{life: 10 * time.Hour, root: root(t, 1)})
}

func TestConfigurationMustBeWhole(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("an identity of nothing was made")
	}
}
