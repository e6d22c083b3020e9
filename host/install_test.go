// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\n%s", name, got)
	}
}

func TestInstallWritesWhatTheDryRunShows(t *testing.T) {
	n := machine(t, ordinary())
	before := tree(t, n)
	p, err := n.Plan(files())
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "after a dry run", tree(t, n), before)
	golden(t, "dry-run.diff", p.Diff())

	install(t, n)
	for _, f := range []string{"/etc/containerd/config.toml", "/etc/containerd/conf.d/zz-c8s.toml", "/etc/cni/net.d/10-pods.conflist", "/etc/c8s/runtime.json"} {
		golden(t, filepath.Base(f), get(t, n, f))
	}
	if get(t, n, RuntimeProg) != string(files().Runtime) || get(t, n, "/opt/c8s/bin/c8s-runtime-alone") != string(files().Alone) || get(t, n, "/opt/cni/bin/c8s-cni") != string(files().CNI) {
		t.Error("the programs are not in place")
	}
}

func TestASecondInstallChangesNothing(t *testing.T) {
	n := machine(t, ordinary())
	install(t, n)
	once := tree(t, n)
	install(t, n)
	equal(t, "after the second", tree(t, n), once)
	p, err := n.Plan(files())
	if err != nil {
		t.Fatal(err)
	}
	if p.Changes() || p.Diff() != "" {
		t.Errorf("the plan has changes:\n%s", p.Diff())
	}
}

// Machines differ in what is there; each must come back as it was.
func machines() map[string]map[string]string {
	all := map[string]map[string]string{"ordinary": ordinary()}
	bare := map[string]string{"/usr/bin/runc": "real"}
	all["no configuration at all"] = bare

	single := ordinary()
	delete(single, "/etc/cni/net.d/10-pods.conflist")
	single["/etc/cni/net.d/05-one.conf"] = `{"cniVersion":"0.3.1","name":"one","type":"ptp"}`
	all["a single plugin"] = single

	imports := ordinary()
	imports["/etc/containerd/config.toml"] = "imports = [\n  'a.toml', # mine\n]\n" + mainConfig
	imports["/etc/containerd/a.toml"] = "version = 3\n[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.other]\nruntime_type = 'io.containerd.runc.v2'\noptions = { BinaryName = '/usr/local/sbin/runc' }\n"
	all["imports of its own"] = imports

	second := ordinary()
	second["/etc/c8s/notes.txt"] = "the operator's"
	second[RuntimeProg] = "an older copy"
	all["things where ours go"] = second
	return all
}

func TestUninstallGivesBackEveryByte(t *testing.T) {
	for name, files := range machines() {
		t.Run(name, func(t *testing.T) {
			n := machine(t, files)
			before := tree(t, n)
			install(t, n)
			uninstall(t, n)
			equal(t, "after uninstalling", tree(t, n), before)
			uninstall(t, n) // once more does no harm
			equal(t, "after uninstalling twice", tree(t, n), before)
		})
	}
}

func TestACrashAtAnyStepLosesNothing(t *testing.T) {
	for name, fileset := range machines() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ref := machine(t, fileset)
			install(t, ref)
			installed := tree(t, ref)
			for step := 0; ; step++ {
				n := machine(t, fileset)
				before, real := tree(t, n), n.disk
				n.disk = &faulty{real, step}
				_, err := n.Install(files())
				if err != nil && !errors.Is(err, errFault) {
					t.Fatal(err)
				}
				n.disk = real
				if step%2 == 0 { // half of them go on
					install(t, n)
					equal(t, "installed after a crash", tree(t, n), installed)
				}
				uninstall(t, n)
				equal(t, "uninstalled after a crash", tree(t, n), before)
				if t.Failed() {
					t.Fatalf("at step %d", step)
				}
				if err == nil {
					return
				}
			}
		})
	}
}

func TestACrashOfUninstallIsMadeGoodByAnother(t *testing.T) {
	for name, fileset := range machines() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for step := 0; ; step++ {
				n := machine(t, fileset)
				before, real := tree(t, n), n.disk
				install(t, n)
				n.disk = &faulty{real, step}
				_, err := n.Uninstall(false)
				if err != nil && !errors.Is(err, errFault) {
					t.Fatal(err)
				}
				n.disk = real
				uninstall(t, n)
				equal(t, "uninstalled after a crash", tree(t, n), before)
				if t.Failed() {
					t.Fatalf("at step %d", step)
				}
				if err == nil {
					return
				}
			}
		})
	}
}

func TestWhatOthersChangedIsToldAndKept(t *testing.T) {
	n := machine(t, ordinary())
	install(t, n)
	edited := get(t, n, "/etc/containerd/config.toml") + "oom_score = 1\n"
	put(t, n, "/etc/containerd/config.toml", edited)
	put(t, n, n.DropIn(), "version = 3\n# meddled with\n")
	rewritten := strings.Replace(get(t, n, "/etc/cni/net.d/10-pods.conflist"), "1450", "9000", 1)
	put(t, n, "/etc/cni/net.d/10-pods.conflist", rewritten)

	first, err := n.RestoreConfig()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Uninstall(false); err != nil {
		t.Fatal(err)
	}
	if len(first.Changed) != 3 {
		t.Errorf("told %q, expected the three files", first.Changed)
	}
	after := tree(t, n)
	if got := get(t, n, "/etc/containerd/config.toml"); got != edited {
		t.Errorf("the operator's edit is gone:\n%s", got)
	}
	if _, there := after[n.DropIn()]; there {
		t.Error("the drop-in is still there, and what it names is not")
	}
	if !strings.Contains(after[n.DropIn()+changedSuffix], "meddled") {
		t.Error("no copy was kept of what others wrote")
	}
	if got := get(t, n, "/etc/cni/net.d/10-pods.conflist"); strings.Contains(got, cniProgName) || !strings.Contains(got, "9000") {
		t.Errorf("the rewritten configuration is now\n%s", got)
	}
}

func TestTheRealRuntimeStandsInWhileContainersNeedIt(t *testing.T) {
	n := machine(t, ordinary())
	before := tree(t, n)
	install(t, n)
	if _, err := n.RestoreConfig(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		rep, err := n.Uninstall(true)
		if err != nil {
			t.Fatal(err)
		}
		if !rep.InUse {
			t.Error("the report does not say that the runtime is in use")
		}
		if got, want := get(t, n, RuntimeProg), get(t, n, "/usr/local/sbin/runc"); got != want {
			t.Errorf("in its place stands %q, expected %q", got, want)
		}
	}
	uninstall(t, n)
	equal(t, "after the containers had gone", tree(t, n), before)
}

func TestAnUpgradeKeepsTheFirstOriginal(t *testing.T) {
	n := machine(t, ordinary())
	before := tree(t, n)
	install(t, n)
	newer := files()
	newer.Runtime, newer.Manifest = []byte("\x7fELF\x00 newer"), []byte("{\"m\":2}\n")
	if _, err := n.Install(newer); err != nil {
		t.Fatal(err)
	}
	if get(t, n, RuntimeProg) != string(newer.Runtime) {
		t.Error("the program was not replaced")
	}
	uninstall(t, n)
	equal(t, "after uninstalling", tree(t, n), before)
}

func TestLinksAreFollowedInsideTheNode(t *testing.T) {
	set := ordinary()
	set["/srv/containerd.toml"] = set["/etc/containerd/config.toml"]
	delete(set, "/etc/containerd/config.toml")
	set["/etc/containerd/keep"] = ""
	n := machine(t, set)
	if err := os.Symlink("/srv/containerd.toml", filepath.Join(n.Root, "/etc/containerd/config.toml")); err != nil {
		t.Fatal(err)
	}
	before := tree(t, n)
	install(t, n)
	after := tree(t, n)
	if after["/etc/containerd/config.toml"] != before["/etc/containerd/config.toml"] {
		t.Error("the link was replaced")
	}
	if !strings.Contains(after["/srv/containerd.toml"], "conf.d/*.toml") {
		t.Error("the file behind the link was not edited")
	}
	uninstall(t, n)
	equal(t, "after uninstalling", tree(t, n), before)
}

func TestALinkLoopIsAnError(t *testing.T) {
	n := machine(t, ordinary())
	if err := os.Symlink("loop", filepath.Join(n.Root, "loop")); err != nil {
		t.Fatal(err)
	}
	if _, err := n.disk.read("/loop"); err == nil {
		t.Error("a loop was read")
	}
}

func TestInstallRefusesWhatItCannotGuard(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(map[string]string)
		say  string
	}{
		"containerd 1": {func(m map[string]string) { m["/etc/containerd/config.toml"] = "version = 1\n" }, "containerd 2.0 or newer"},
		"another shim": {func(m map[string]string) {
			m["/etc/containerd/config.toml"] += "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.kata]\nruntime_type = 'io.containerd.kata.v2'\n"
		}, `"kata"`},
		"a shim of one's own": {func(m map[string]string) {
			m["/etc/containerd/config.toml"] = strings.Replace(mainConfig, "runtime_type =", "runtime_path = '/x'\n  runtime_type =", 1)
		}, "/x"},
		"two runtimes": {func(m map[string]string) {
			m["/etc/containerd/config.toml"] += "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.crun]\nruntime_type = 'io.containerd.runc.v2'\noptions = { BinaryName = '/usr/bin/crun' }\n"
		}, "--runc"},
		"no NRI": {func(m map[string]string) {
			m["/etc/containerd/config.toml"] = "version = 3\ndisabled_plugins = ['io.containerd.nri.v1.nri']\n"
		}, "disabled_plugins"},
		"no runtime": {func(m map[string]string) { delete(m, "/usr/local/sbin/runc") }, "not there"},
		"several networks": {func(m map[string]string) {
			m["/etc/containerd/config.toml"] += "[plugins.'io.containerd.cri.v1.runtime'.cni]\nmax_conf_num = 2\n"
		}, "max_conf_num"},
		"an old CNI": {func(m map[string]string) {
			m["/etc/cni/net.d/10-pods.conflist"] = `{"cniVersion":"0.2.0","name":"x","plugins":[{"type":"bridge"}]}`
		}, "0.3.0"},
		"a broken network":    {func(m map[string]string) { m["/etc/cni/net.d/10-pods.conflist"] = "{" }, "10-pods.conflist"},
		"a broken containerd": {func(m map[string]string) { m["/etc/containerd/config.toml"] = "version = [" }, "config.toml"},
		"a list and its single": {func(m map[string]string) {
			m["/etc/cni/net.d/10-pods.conf"] = `{"cniVersion":"1.0.0","name":"x","type":"ptp"}`
		}, "remove one"},
	} {
		t.Run(name, func(t *testing.T) {
			set := maps.Clone(ordinary())
			c.edit(set)
			n := machine(t, set)
			before := tree(t, n)
			_, err := n.Install(files())
			if err == nil || !strings.Contains(err.Error(), c.say) {
				t.Errorf("got %v, expected a refusal that says %q", err, c.say)
			}
			equal(t, "after the refusal", tree(t, n), before)
		})
	}
}

func TestTheDropInHasTheVersionOfTheMainFile(t *testing.T) {
	for _, v := range []string{"2", "3", "4"} {
		set := ordinary()
		section := sectionCRI
		if v == "2" {
			section = sectionCRIv2
		}
		set["/etc/containerd/config.toml"] = strings.ReplaceAll(strings.Replace(mainConfig, "version = 3", "version = "+v, 1), sectionCRI, section)
		n := machine(t, set)
		install(t, n)
		got := get(t, n, n.DropIn())
		for _, want := range []string{"version = " + v + "\n", `[plugins."` + section + `".containerd.runtimes."runc".options]`} {
			if !strings.Contains(got, want) {
				t.Errorf("version %s: the drop-in lacks %s:\n%s", v, want, got)
			}
		}
	}
}

func TestTheOperatorsRequiredPluginsStay(t *testing.T) {
	set := ordinary()
	set["/etc/containerd/config.toml"] += "[plugins.'io.containerd.nri.v1.nri'.default_validator]\nrequired_plugins = ['theirs', 'c8s']\n"
	n := machine(t, set)
	install(t, n)
	if got := get(t, n, n.DropIn()); !strings.Contains(got, `required_plugins = ["c8s", "theirs"]`) {
		t.Errorf("the drop-in is\n%s", got)
	}
}
