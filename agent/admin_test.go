// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
)

// startAdmin serves an admin socket in dir until the test ends.
func startAdmin(t *testing.T, dir string) *admin {
	t.Helper()
	a := &admin{
		status: func() Status { return Status{Node: NodeStatus{Name: "node-a"}} },
		flows:  flow.NewRing(8), log: slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.serve(ctx, dir) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the admin socket ended with %v", err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		_, err := NewClient(dir).Status(t.Context())
		if err == nil {
			return a
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestAdminSocketIsForRootOnlyAndReplacesAStaleOne(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, SocketName), []byte("stale"), 0o666); err != nil {
		t.Fatal(err)
	}
	startAdmin(t, dir)
	info, err := os.Stat(filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Type() != fs.ModeSocket || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %s, want a socket with 0600", info.Mode())
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v (%v), want the socket alone", entries, err)
	}
}

func TestFlowsRefusesABadCount(t *testing.T) {
	h := (&admin{flows: flow.NewRing(8)}).handler()
	for _, n := range []string{"", "-1", "10001", "x", "1e3", "99999999999999999999"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/flows?n="+n, nil))
		if w.Code != http.StatusBadRequest {
			t.Errorf("n=%q: %d, want 400", n, w.Code)
		}
	}
	for _, filter := range []string{"verdict=maybe", "direction=up", "port=0", "address=web", "since=noon"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/flows?n=1&"+filter, nil))
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "filter") {
			t.Errorf("%s: %d %s, want 400 and why", filter, w.Code, w.Body)
		}
	}
	for _, n := range []string{"0", "10000"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/flows?n="+n, nil))
		if w.Code != http.StatusOK {
			t.Errorf("n=%s: %d, want 200", n, w.Code)
		}
	}
}

func TestAdminSocketOnlyReads(t *testing.T) {
	h := (&admin{flows: flow.NewRing(8)}).handler()
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/v1/status", nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
}

func TestFlowsFollowsNewRecords(t *testing.T) {
	dir := t.TempDir()
	a := startAdmin(t, dir)
	for _, reason := range []string{"one", "two", "three"} {
		a.flows.Add(flow.Record{Verdict: flow.Refused, Reason: reason})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []string
	enough := errors.New("enough")
	err := NewClient(dir).Flows(ctx, FlowQuery{Last: 2, Follow: true}, func(r flow.Record) error {
		got = append(got, r.Reason)
		switch len(got) {
		case 2:
			a.flows.Add(flow.Record{Reason: "four"})
		case 3:
			a.flows.Add(flow.Record{Reason: "five"})
		case 4:
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || strings.Join(got, " ") != "two three four five" {
		t.Errorf("got %v (%v)", got, err)
	}
}

func TestClientSaysWhatToDoWithoutADaemonAndWhyItWasRefused(t *testing.T) {
	dir := t.TempDir()
	_, err := NewClient(dir).Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), "is `c8s node` running") || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a daemon: %v", err)
	}
	startAdmin(t, dir)
	err = NewClient(dir).Flows(t.Context(), FlowQuery{Last: MaxFlowHistory + 1}, nil)
	if err == nil || !strings.Contains(err.Error(), "n must be a number between 0 and 10000") {
		t.Errorf("too many records: %v", err)
	}
}
