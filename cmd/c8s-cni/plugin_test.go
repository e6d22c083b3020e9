// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/c8s-dev/c8s/nri/gate"
	"github.com/c8s-dev/c8s/policy"
)

const prevResult = `{"cniVersion":"1.1.0","interfaces":[{"name":"cni0"},{"name":"veth1"},{"name":"eth0","sandbox":"/run/netns/x"}],` +
	`"ips":[{"interface":2,"address":"10.1.2.3/24","gateway":"10.1.2.1"},{"interface":2,"address":"fd00::3/64"}],"x-other":{"kept":true}}`

// fakeGate answers as it is told, and remembers what it was asked.
type fakeGate struct {
	answer error
	asked  []gate.LockRequest
	pings  int
}

func (g *fakeGate) Lock(_ context.Context, r gate.LockRequest) error {
	g.asked = append(g.asked, r)
	return g.answer
}

func (g *fakeGate) Ping(context.Context) error {
	g.pings++
	return g.answer
}

func conf(prev string) string {
	if prev != "" {
		prev = `,"prevResult":` + prev
	}
	return `{"cniVersion":"1.1.0","name":"pods","type":"c8s-cni","gate":"/run/c8s/gate.sock"` + prev + `}`
}

func args(stdin string) *skel.CmdArgs {
	return &skel.CmdArgs{
		ContainerID: "sandbox", Netns: "/run/netns/x", IfName: "eth0", StdinData: []byte(stdin),
		Args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=uid-1;K8S_POD_INFRA_CONTAINER_ID=sandbox",
	}
}

func code(t *testing.T, err error) uint {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no CNI error", err)
	}
	return e.Code
}

func TestAddLocksAndPassesTheResultOn(t *testing.T) {
	g, out := new(fakeGate), new(bytes.Buffer)
	p := plugin{out, func(path string) locker {
		if path != "/run/c8s/gate.sock" {
			t.Errorf("asked at %s", path)
		}
		return g
	}}
	if err := p.add(t.Context(), args(conf(prevResult))); err != nil {
		t.Fatal(err)
	}
	if out.String() != prevResult+"\n" {
		t.Errorf("passed on %s", out)
	}
	want := []gate.LockRequest{{
		NetNS: "/run/netns/x", Interface: "eth0", SandboxID: "sandbox", PodNamespace: "shop", PodName: "web", PodUID: "uid-1",
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.2.3/24"), netip.MustParsePrefix("fd00::3/64")},
	}}
	if d := cmp.Diff(want, g.asked, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Error(d)
	}
}

func TestAddFailsUnlessTheLinkIsLocked(t *testing.T) {
	two := strings.Replace(prevResult, `{"name":"eth0"`, `{"name":"net1","sandbox":"/run/netns/x"},{"name":"eth0"`, 1)
	for name, c := range map[string]struct {
		stdin  string
		answer error
		code   uint
		say    string
	}{
		"no daemon":      {conf(prevResult), fmt.Errorf("dialling: %w", gate.ErrNoDaemon), types.ErrTryAgainLater, "no node daemon"},
		"silent daemon":  {conf(prevResult), context.DeadlineExceeded, types.ErrTryAgainLater, "deadline"},
		"refusal":        {conf(prevResult), policy.Decision{Code: "link-unlockable", Rule: "the lock", Actual: "macvlan"}, codeRefused, "link-unlockable"},
		"no result":      {conf(""), nil, types.ErrInvalidNetworkConfig, "prevResult"},
		"null result":    {conf("null"), nil, types.ErrInvalidNetworkConfig, "prevResult"},
		"broken result":  {conf(`{"cniVersion":"1.1.0","ips":[{"address":"x"}]}`), nil, types.ErrDecodingFailure, "prevResult"},
		"two interfaces": {conf(two), nil, codeRefused, "net1"},
		"no gate":        {strings.Replace(conf(prevResult), "/run/c8s/gate.sock", "gate.sock", 1), nil, types.ErrInvalidNetworkConfig, "c8s node install"},
		"no JSON":        {"{", nil, types.ErrDecodingFailure, "configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			out := new(bytes.Buffer)
			p := plugin{out, func(string) locker { return &fakeGate{answer: c.answer} }}
			for what, do := range map[string]func(context.Context, *skel.CmdArgs) error{"ADD": p.add, "CHECK": p.check} {
				err := do(t.Context(), args(c.stdin))
				if err == nil {
					t.Fatalf("%s succeeded", what)
				}
				var e *types.Error
				if got := code(t, err); got != c.code || !errors.As(err, &e) || !strings.Contains(e.Msg+e.Details, c.say) {
					t.Errorf("%s: code %d, %v; expected %d and %q", what, got, err, c.code, c.say)
				}
			}
			if out.Len() != 0 {
				t.Errorf("a result was printed: %s", out)
			}
		})
	}
}

func TestStatusNeedsTheDaemon(t *testing.T) {
	g := &fakeGate{answer: gate.ErrNoDaemon}
	p := plugin{new(bytes.Buffer), func(string) locker { return g }}
	if got := code(t, p.status(t.Context(), args(conf("")))); got != codeNotAvailable {
		t.Errorf("code %d, expected %d", got, codeNotAvailable)
	}
	g.answer = nil
	if err := p.status(t.Context(), args(conf(""))); err != nil || g.pings != 2 {
		t.Errorf("%v after %d pings", err, g.pings)
	}
}

// TestTheProgram runs the binary as a runtime does.
func TestTheProgram(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "c8s-cni")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	run := func(command string) (string, error) {
		c := exec.CommandContext(t.Context(), bin)
		stdin := strings.Replace(conf(prevResult), "/run/c8s/gate.sock", filepath.Join(t.TempDir(), "gate.sock"), 1)
		c.Stdin = strings.NewReader(stdin)
		c.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID=sandbox", "CNI_NETNS=/run/netns/none", "CNI_IFNAME=eth0", "CNI_PATH="+filepath.Dir(bin))
		out, err := c.Output()
		return string(out), err
	}
	if out, err := run("VERSION"); err != nil || !strings.Contains(out, `"1.1.0"`) || strings.Contains(out, `"0.2.0"`) {
		t.Errorf("VERSION: %v, %s", err, out)
	}
	for _, command := range []string{"ADD", "CHECK", "STATUS"} {
		out, err := run(command)
		if err == nil || !strings.Contains(out, "no node daemon of C8s") || !strings.Contains(out, `"code"`) {
			t.Errorf("%s without a daemon: %v, %s", command, err, out)
		}
	}
	for _, command := range []string{"DEL", "GC"} {
		if out, err := run(command); err != nil {
			t.Errorf("%s without a daemon: %v, %s", command, err, out)
		}
	}
}

func FuzzQuestion(f *testing.F) {
	f.Add([]byte(conf(prevResult)), "eth0", "K8S_POD_NAME=x")
	f.Add([]byte(conf("null")), "", ";=;")
	f.Add([]byte(conf(`{"cniVersion":"0.3.1","ips":[{"version":"4","address":"1.2.3.4/24"}]}`)), "eth0", "")
	f.Fuzz(func(t *testing.T, stdin []byte, name, env string) {
		c, err := parseConf(stdin)
		if err != nil {
			return
		}
		a := args("")
		a.IfName, a.Args = name, env
		r, err := c.question(a)
		if err != nil {
			return
		}
		for _, p := range r.Addresses {
			if !p.IsValid() {
				t.Errorf("address %s", p)
			}
		}
	})
}
