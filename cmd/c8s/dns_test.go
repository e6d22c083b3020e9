// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

// nodeRoot is a process of a node whose /etc/resolv.conf is an absolute link,
// as systemd-resolved makes it.
func nodeRoot(t *testing.T, resolvConf string) (process string) {
	t.Helper()
	process = t.TempDir()
	for _, dir := range []string{"root/etc", "root/run/systemd/resolve"} {
		if err := os.MkdirAll(filepath.Join(process, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(process, "root/run/systemd/resolve/stub"), []byte(resolvConf), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/run/systemd/resolve/stub", filepath.Join(process, "root/etc/resolv.conf")); err != nil {
		t.Fatal(err)
	}
	return process
}

// A node that answers more names lets more questions through its kernel.
func TestDatagramRateFollowsTheRateOfNames(t *testing.T) {
	for rate, want := range map[int]uint32{1: 32<<20 + 1<<10, 1000: 32<<20 + 1000<<10, 10_000_000: 1 << 30, math.MaxInt64: 1 << 30} {
		if got := (&dnsFlags{rate: rate}).datagramRate(); got != want {
			t.Errorf("%d names a second: %d, want %d", rate, got, want)
		}
	}
}

func TestUpstreamsAreTheNodesUnlessOthersAreNamed(t *testing.T) {
	process := nodeRoot(t, "# by hand\nsearch corp.example lab.example\nnameserver 127.0.0.53\nnameserver fd00::53\noptions ndots:1\n")
	for name, tt := range map[string]struct {
		flags dnsFlags
		want  string
	}{
		"the node's":  {dnsFlags{rate: 1}, "[127.0.0.53:53 [fd00::53]:53]"},
		"others":      {dnsFlags{rate: 1, upstreams: []string{"192.0.2.1", "192.0.2.1:5353", "2001:db8::1", "[2001:db8::1]:5353"}}, "[192.0.2.1:53 192.0.2.1:5353 [2001:db8::1]:53 [2001:db8::1]:5353]"},
		"none at all": {dnsFlags{rate: 1, upstreams: []string{"none"}}, "[]"},
	} {
		got, err := tt.flags.config(process, slog.New(slog.DiscardHandler))
		if err != nil || fmt.Sprint(got.Upstreams) != tt.want || strings.Join(got.Search, " ") != "corp.example lab.example" {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	got, err := (&dnsFlags{rate: 1, private: []string{"10.1.2.3/16"}}).config(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil || len(got.Upstreams) != 0 || fmt.Sprint(got.Private) != "[10.1.0.0/16]" {
		t.Errorf("without a file of the node: %+v, %v", got, err)
	}
}

func TestDNSFlagsThatMakeNoSense(t *testing.T) {
	process := nodeRoot(t, "nameserver 192.0.2.1\n")
	for name, flags := range map[string]dnsFlags{
		"no rate":        {rate: -1},
		"no service":     {service: "kube-dns"},
		"no namespace":   {service: "/kube-dns"},
		"no address":     {upstreams: []string{"dns.example.com"}},
		"port 0":         {upstreams: []string{"192.0.2.1:0"}},
		"none and one":   {upstreams: []string{"none", "192.0.2.1"}},
		"no prefix":      {private: []string{"10.0.0.1"}},
		"a wrong prefix": {private: []string{"10.0.0.0/33"}},
	} {
		if name != "no rate" {
			flags.rate = 1
		}
		if _, err := flags.config(process, slog.New(slog.DiscardHandler)); err == nil || exit.Code(err) != 2 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
