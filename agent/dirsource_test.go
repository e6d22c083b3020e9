// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/policy"
)

func samplePod(name string) PodInfo {
	return PodInfo{
		Namespace: "default", Name: name, UID: "uid-" + name, Netns: "/run/netns/" + name, Interface: "eth0",
		Addrs:  []netip.Addr{netip.MustParseAddr("10.81.1.2"), netip.MustParseAddr("fd81:1::2")},
		Images: []policy.Digest{policy.Digest("sha256:" + strings.Repeat("ab", 32))},
	}
}

func writePod(t *testing.T, dir, file string, pod any) {
	t.Helper()
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(dir, "."+file)
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, file)); err != nil {
		t.Fatal(err)
	}
}

func TestDirSourceReportsPodsAsTheyComeAndGo(t *testing.T) {
	dir := t.TempDir()
	writePod(t, dir, "a.json", samplePod("a"))
	events := make(chan PodEvent)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- (&DirSource{Dir: dir, Log: slog.New(slog.DiscardHandler)}).Watch(ctx, events) }()
	next := func() PodEvent {
		t.Helper()
		select {
		case e := <-events:
			return e
		case <-time.After(20 * time.Second):
			t.Fatal("no event")
			return PodEvent{}
		}
	}
	if e := next(); e.Removed || e.Pod.Name != "a" {
		t.Fatalf("first event %+v, want pod a added", e)
	}
	writePod(t, dir, "b.json", samplePod("b"))
	if e := next(); e.Removed || e.Pod.Name != "b" {
		t.Fatalf("event %+v, want pod b added", e)
	}
	replaced := samplePod("a")
	replaced.UID = "uid-a2"
	writePod(t, dir, "a.json", replaced)
	if e := next(); !e.Removed || e.Pod.UID != "uid-a" {
		t.Fatalf("event %+v, want the old pod a removed before its successor", e)
	}
	if e := next(); e.Removed || e.Pod.UID != "uid-a2" {
		t.Fatalf("event %+v, want the new pod a added", e)
	}
	if err := os.Remove(filepath.Join(dir, "b.json")); err != nil {
		t.Fatal(err)
	}
	if e := next(); !e.Removed || e.Pod.Name != "b" {
		t.Fatalf("event %+v, want pod b removed", e)
	}
	cancel()
	if err := <-done; err != context.Canceled {
		t.Fatalf("Watch returned %v", err)
	}
}

func TestPodDescriptionRefusals(t *testing.T) {
	change := func(f func(*PodInfo)) PodInfo {
		p := samplePod("x")
		f(&p)
		return p
	}
	addrs := func(list ...string) (out []netip.Addr) {
		for _, s := range list {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	for name, pod := range map[string]any{
		"no uid":             change(func(p *PodInfo) { p.UID = "" }),
		"relative netns":     change(func(p *PodInfo) { p.Netns = "x" }),
		"no address":         change(func(p *PodInfo) { p.Addrs = nil }),
		"two IPv4 addresses": change(func(p *PodInfo) { p.Addrs = addrs("10.0.0.1", "10.0.0.2") }),
		"loopback address":   change(func(p *PodInfo) { p.Addrs = addrs("127.0.0.1") }),
		"mapped address":     change(func(p *PodInfo) { p.Addrs = addrs("::ffff:10.0.0.1") }),
		"multicast address":  change(func(p *PodInfo) { p.Addrs = addrs("ff02::1") }),
		"no image":           change(func(p *PodInfo) { p.Images = nil }),
		"unknown field":      map[string]string{"nmae": "x"},
		"not an object":      []int{1},
	} {
		raw, err := json.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parsePod(raw); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	good, err := json.Marshal(samplePod("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parsePod(good); err != nil {
		t.Errorf("a complete description was refused: %v", err)
	}
	if _, err := parsePod(append(good, '{')); err == nil {
		t.Error("trailing data was accepted")
	}
}

func FuzzPodDescription(f *testing.F) {
	good, err := json.Marshal(samplePod("x"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"addresses":["::ffff:1.2.3.4"]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		pod, err := parsePod(raw)
		if err == nil && pod.Validate() != nil {
			t.Fatalf("accepted an invalid pod: %+v", pod)
		}
	})
}
