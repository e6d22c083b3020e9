// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/c8s-dev/c8s/ingress/certs/pebbletest"
)

// killedEnv has the test's executable run a store until it is killed; it holds
// the ACME configuration.
const (
	killedEnv     = "C8S_TEST_CERTS_KILLED"
	killedPathEnv = "C8S_TEST_CERTS_PATH"
)

func TestMain(m *testing.M) {
	if raw := os.Getenv(killedEnv); raw != "" {
		if err := runUntilKilled(raw); err != nil {
			_, _ = os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func runUntilKilled(raw string) error {
	var a ACME
	if err := json.Unmarshal([]byte(raw), &a); err != nil {
		return err
	}
	w := &world{denied: map[string]bool{}}
	cfg := Config{
		TrustDomain: domain, Names: []string{"bank.example"}, ACME: &a, Path: os.Getenv(killedPathEnv), Sealer: sealer(1),
		Allowed: w.allowed, Now: w.clock.now, Log: stderrLog(),
	}
	s, err := Open(context.Background(), cfg)
	if err != nil {
		return err
	}
	s.step(context.Background())
	select {} // until killed
}

// Killed at any moment, the next start has one key, counts what was asked of
// the CA, waits as after a failure, and gets there.
func TestKilledBetweenStates(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		at       string // the request that the CA holds when the process is killed
		orders   int    // counted by then
		counted  int    // certificates
		accounts int    // kept
	}{
		{"newAccount", 0, 0, 1},
		{"newOrder", 1, 0, 1},
		{"challenge", 1, 0, 1},
		{"finalize", 1, 1, 1},
		{"certificate", 1, 1, 1},
	} {
		t.Run(tt.at, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "bank.example")
			ca := w.pebble(pebbletest.Options{Believe: true})
			w.cfg.ACME.Challenges = []string{HTTP01}
			reached, release := make(chan struct{}), make(chan struct{})
			ca.answer(func(_ http.ResponseWriter, r *http.Request, kind string) bool {
				if kind != tt.at {
					return false
				}
				select {
				case reached <- struct{}{}:
				case <-release:
				}
				<-release
				return true
			})
			kill, exited := killedProcess(t, w)
			select {
			case <-reached:
			case <-exited:
				t.Fatal("the process ended by itself")
			}
			kill()
			<-exited
			close(release)
			ca.answer(nil)

			s := w.open()
			st := s.state.tries["bank.example"]
			if tt.orders == 0 && st != nil && len(st.Orders) > 0 || tt.orders > 0 && (st == nil || len(st.Orders) != tt.orders || len(st.Issued) != tt.counted) {
				t.Errorf("kept is %+v", st)
			}
			if len(s.state.accounts) != tt.accounts || len(s.state.keys) != 1 {
				t.Errorf("%d accounts, %d keys", len(s.state.accounts), len(s.state.keys))
			}
			before := ca.counted("newOrder")
			s.step(t.Context())
			if tt.orders > 0 && ca.counted("newOrder") != before {
				t.Error("ordered at once again")
			}
			w.clock.move(3 * firstBackoff)
			s.step(t.Context())
			w.wantValid("bank.example", ca.pebble.Issuer)
		})
	}
}

func killedProcess(t *testing.T, w *world) (kill func(), exited chan struct{}) {
	t.Helper()
	raw, err := json.Marshal(w.cfg.ACME)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), killedEnv+"="+string(raw), killedPathEnv+"="+w.cfg.Path)
	cmd.Stderr = &w.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also when the test is killed
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited = make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait() // it is killed
	}()
	kill = func() { _ = cmd.Process.Kill() } // or it is gone
	t.Cleanup(func() {
		kill()
		<-exited
	})
	return kill, exited
}
