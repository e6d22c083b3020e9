// SPDX-License-Identifier: Apache-2.0

package nodecmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/host"
	"github.com/c8s-dev/c8s/host/ctrd"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/nri/gate"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// table is a folder with a node's root and what is to be installed on it.
type table struct {
	dir, root string
}

func newTable(t *testing.T) *table {
	t.Helper()
	d := &table{dir: t.TempDir()}
	d.root = filepath.Join(d.dir, "root")
	m := policytest.New(t)
	operators, err := json.Marshal(m.Operators)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"operators.json": operators, "manifest.json": m.Envelope, "c8s-cni": []byte("cni"), "c8s-runtime": []byte("runtime"), "c8s-runtime-alone": []byte("alone"),
		"root/etc/containerd/config.toml": []byte("version = 3\n"), "root/usr/bin/runc": []byte("runc"),
		"root/etc/cni/net.d/10-a.conflist": []byte(`{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"ptp"}]}`),
	} {
		file := filepath.Join(d.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func (d *table) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	root := &cobra.Command{Use: "node", SilenceUsage: true, SilenceErrors: true}
	root.SetFlagErrorFunc(desk.FlagError)
	root.AddCommand(New(func() Kernel {
		return Kernel{func(*cobra.Command) {}, func(*slog.Logger) loader.Config {
			t.Error("the kernel was to be changed")
			return loader.Config{}
		}}
	})...)
	out := new(bytes.Buffer)
	root.SetOut(out)
	root.SetArgs(append(args, "--host-root", d.root))
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func (d *table) install(t *testing.T, more ...string) (string, error) {
	t.Helper()
	return d.run(t, append([]string{
		"install", "--from", d.dir, "--operators", filepath.Join(d.dir, "operators.json"), "--manifest", filepath.Join(d.dir, "manifest.json"),
	}, more...)...)
}

func TestInstallSaysWhatItDid(t *testing.T) {
	d := newTable(t)
	dropIn := filepath.Join(d.root, "/etc/containerd/conf.d/zz-c8s.toml")
	out, err := d.install(t, "--dry-run")
	if err != nil || !strings.Contains(out, "9 files would change") || !strings.Contains(out, "+++ /etc/cni/net.d/10-a.conflist") {
		t.Errorf("dry run: %v\n%s", err, out)
	}
	if _, err := os.Stat(dropIn); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the dry run wrote the drop-in")
	}
	out, err = d.install(t)
	if err != nil || !strings.Contains(out, "9 files changed") || !strings.Contains(out, "restart containerd") {
		t.Errorf("install: %v\n%s", err, out)
	}
	if _, err := os.Stat(dropIn); err != nil {
		t.Error(err)
	}
	if out, err = d.install(t); err != nil || !strings.Contains(out, "0 files changed") {
		t.Errorf("once more: %v\n%s", err, out)
	}
	if err := os.WriteFile(dropIn, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err = d.install(t); err != nil || !strings.Contains(out, "zz-c8s.toml had been changed by others") {
		t.Errorf("over a change of others: %v\n%s", err, out)
	}
	if out, err = d.install(t, "--restart-containerd"); !errors.Is(err, errNoSystemd) || !strings.Contains(err.Error(), "not in force") {
		t.Errorf("restart without systemd: %v\n%s", err, out)
	}
}

func TestInstallRefusesBeforeItChangesAnything(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*testing.T, *table)
		args   []string
		code   int
		say    string
	}{
		"no manifest given":     {args: []string{"--manifest", ""}, code: exit.Misuse, say: "--manifest is required"},
		"no operators given":    {args: []string{"--operators", ""}, code: exit.Misuse, say: "--operators is required"},
		"no programs":           {args: []string{"--from", "."}, code: exit.Refused, say: "--from"},
		"no root":               {args: []string{"--containerd-config", "relative"}, code: exit.Refused, say: "absolute"},
		"an unsigned manifest":  {change: func(t *testing.T, d *table) { d.write(t, "manifest.json", `{"schema":"c8s.dev/manifest/v1"}`) }, code: exit.Refused, say: "manifest.json"},
		"an empty program":      {change: func(t *testing.T, d *table) { d.write(t, "c8s-cni", "") }, code: exit.Refused, say: "no program"},
		"containerd of the old": {change: func(t *testing.T, d *table) { d.write(t, "root/etc/containerd/config.toml", "version = 1\n") }, code: exit.Refused, say: "containerd 2.0"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTable(t)
			if c.change != nil {
				c.change(t, d)
			}
			_, err := d.install(t, c.args...)
			if err == nil || exit.Code(err) != c.code || !strings.Contains(err.Error(), c.say) {
				t.Errorf("got %v (exit %d), expected %q (%d)", err, exit.Code(err), c.say, c.code)
			}
			if _, err := os.Stat(filepath.Join(d.root, "etc/c8s")); !errors.Is(err, fs.ErrNotExist) {
				t.Error("something was written")
			}
		})
	}
}

func (d *table) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestUninstallAsksFirst(t *testing.T) {
	d := newTable(t)
	if _, err := d.run(t, "uninstall"); exit.Code(err) != exit.Misuse || !strings.Contains(err.Error(), "--yes") {
		t.Errorf("got %v", err)
	}
}

// A daemon would put back what uninstalling takes away.
func TestUninstallLeavesANodeAloneWhileItsDaemonRuns(t *testing.T) {
	d := newTable(t)
	dir := filepath.Join(d.root, "run/c8s")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := gate.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- (&gate.Server{Log: slog.New(slog.DiscardHandler)}).Serve(ctx, ln) }()
	for _, args := range [][]string{{"uninstall", "--yes"}, {"uninstall", "--yes", "--kernel-only"}} {
		if _, err := d.run(t, args...); err == nil || !strings.Contains(err.Error(), "the node daemon runs") {
			t.Errorf("%v: %v", args, err)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestVerdict(t *testing.T) {
	pass, fail, unknown := host.Finding{Result: host.Pass}, host.Finding{Result: host.Fail}, host.Finding{Result: host.Unknown}
	for _, c := range []struct {
		all  []host.Finding
		code int
	}{
		{[]host.Finding{pass, pass}, exit.OK},
		{[]host.Finding{pass, unknown}, exit.Partial},
		{[]host.Finding{unknown, fail, pass}, exit.Refused},
		{[]host.Finding{{}}, exit.Refused}, // a finding that nobody made is no pass
	} {
		if got := exit.Code(verdict(c.all)); got != c.code {
			t.Errorf("%v: exit %d, expected %d", c.all, got, c.code)
		}
	}
}

func TestCheckExplainsWhatDoesNotHold(t *testing.T) {
	d := newTable(t)
	out, err := d.run(t, "check")
	if exit.Code(err) != exit.Refused {
		t.Errorf("a node without C8s: %v", err)
	}
	for _, want := range []string{"FAIL     installation", "remedy: run 'c8s node install'", "FAIL     node daemon", "UNKNOWN  containerd"} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if _, err := d.run(t, "check", "-o", "yaml"); exit.Code(err) != exit.Misuse {
		t.Errorf("an unknown format: %v", err)
	}
	out, err = d.run(t, "check", "-o", "json", "--kernel-only")
	var all []host.Finding
	if jsonErr := json.Unmarshal([]byte(out), &all); jsonErr != nil || len(all) == 0 || !strings.HasPrefix(all[0].Name, "kernel: ") {
		t.Errorf("as JSON: %v, %v\n%s", err, jsonErr, out)
	}
}

func TestCgroup2Mount(t *testing.T) {
	for text, want := range map[string]string{
		"30 1 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n":                                                                     "/sys/fs/cgroup",
		"31 1 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n36 31 0:28 /x /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup rw,nsdelegate": "/sys/fs/cgroup/unified",
		"31 1 0:27 / /sys/fs/cgroup rw - cgroup cgroup rw,cpu\n":                                                                          "",
		"": "", "- cgroup2 x": "",
	} {
		if got, err := cgroup2Mount(strings.NewReader(text)); err != nil || got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

func TestWhatATrialProves(t *testing.T) {
	made := new(ctrd.Refused)
	ours := ctrd.Refused{Step: "CreateContainer", Text: "c8s-runtime: refused (image-unlisted)"}
	other := ctrd.Refused{Step: "StartContainer", Text: "no such file"}
	for name, c := range map[string]struct {
		out  ctrd.Outcome
		want [4]host.Result
	}{
		"all refused":              {ctrd.Outcome{Sandbox: made, Unlisted: &ours, Waived: &ours, Command: &ours}, [4]host.Result{host.Pass, host.Pass, host.Pass, host.Pass}},
		"started":                  {ctrd.Outcome{Sandbox: made, Unlisted: made, Waived: &ours, Command: &ours}, [4]host.Result{host.Pass, host.Fail, host.Pass, host.Pass}},
		"failed by itself":         {ctrd.Outcome{Sandbox: made, Unlisted: &ours, Waived: &ours, Command: &other}, [4]host.Result{host.Pass, host.Pass, host.Pass, host.Fail}},
		"waived with success":      {ctrd.Outcome{Sandbox: made, Unlisted: &ours, Waived: made, Command: &ours}, [4]host.Result{host.Pass, host.Pass, host.Fail, host.Pass}},
		"no listed image":          {ctrd.Outcome{Sandbox: made, Unlisted: &ours, Waived: &ours}, [4]host.Result{host.Pass, host.Pass, host.Pass, host.Unknown}},
		"sandbox refused by C8s":   {ctrd.Outcome{Sandbox: &ctrd.Refused{Step: "RunPodSandbox", Text: "c8s-cni: no"}}, [4]host.Result{host.Pass, host.Unknown, host.Unknown, host.Unknown}},
		"sandbox failed by itself": {ctrd.Outcome{Sandbox: &other}, [4]host.Result{host.Unknown, host.Unknown, host.Unknown, host.Unknown}},
		"nothing happened":         {ctrd.Outcome{}, [4]host.Result{host.Unknown, host.Unknown, host.Unknown, host.Unknown}},
	} {
		all := judgeTrial(c.out)
		for i, f := range all {
			if f.Result != c.want[i] {
				t.Errorf("%s: %+v, expected %s", name, f, c.want[i])
			}
		}
	}
}

func TestRuntimesAsTheyRun(t *testing.T) {
	f := wrappedRuntimes(&ctrd.InForce{Runtimes: map[string]string{"runc": host.RuntimeProg, "vendor": ""}})
	if f.Result != host.Fail || !strings.Contains(f.Actual, "vendor") || strings.Contains(f.Actual, "runc starts") {
		t.Errorf("%+v", f)
	}
	if f := wrappedRuntimes(&ctrd.InForce{Runtimes: map[string]string{"runc": host.RuntimeProg}}); f.Result != host.Pass {
		t.Errorf("%+v", f)
	}
	for network, want := range map[string]host.Result{"": host.Unknown, "bridge c8s-cni": host.Pass, "c8s-cni bridge": host.Fail, "bridge": host.Fail} {
		if f := lastPlugin(&ctrd.InForce{Network: strings.Fields(network)}); f.Result != want {
			t.Errorf("%q: %+v", network, f)
		}
	}
}
