// SPDX-License-Identifier: Apache-2.0

package front

import (
	"slices"
	"strings"
	"testing"
)

func TestCommandLinesOfContainerdAreUnderstood(t *testing.T) {
	const global = "--root /run/containerd/runc/k8s.io --log /b/log.json --log-format json --systemd-cgroup"
	base := invocation{root: "/run/containerd/runc/k8s.io", log: "/b/log.json", logFormat: "json"}
	with := func(change func(*invocation)) invocation {
		i := base
		change(&i)
		return i
	}
	create := with(func(i *invocation) { i.command, i.id, i.bundle = "create", "c1", "/b" })
	exec := with(func(i *invocation) { i.command, i.id, i.process = "exec", "c1", "/p" })
	for line, want := range map[string]invocation{
		global + " create --bundle /b --pid-file /b/init.pid c1":                                                                   create,
		global + " create --bundle /b --pid-file /b/init.pid --console-socket /s --pidfd-socket /t --no-pivot --no-new-keyring c1": create,
		global + " create --bundle=/b c1":                                                 create,
		global + " create -b /b c1":                                                       create,
		global + " --rootless=false create --bundle /b c1":                                create,
		global + " --debug create --bundle /b c1":                                         create,
		global + " exec --process /p --console-socket /s --detach --pid-file /b/x.pid c1": exec,
		global + " exec -p /p -d c1":                                                      exec,
		global + " state c1":                                                              with(func(i *invocation) { i.command = "state" }),
		global + " kill --all c1 9":                                                       with(func(i *invocation) { i.command = "kill" }),
		global + " delete --force c1":                                                     with(func(i *invocation) { i.command = "delete" }),
		"features":                                                                        {logFormat: "text", command: "features"},
		"--version":                                                                       {logFormat: "text"},
	} {
		if got, err := parse(strings.Fields(line)); err != nil || got != want {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", line, got, err, want)
		}
	}
}

func TestWhatIsNotUnderstoodIsRefused(t *testing.T) {
	for _, line := range []string{
		"", "--root /r", "--root", "--root /r --root /s state c", "--unknown state c", "--root=/r=x --bad state c", "--debug=true state c",
		"--log-format xml state c", "--version state c", "-- state c", "- state c", "--log --root state c",
		"run -b /b c", "checkpoint c", "restore c", "help", "h", "init", "creat", "state--", "CREATE -b /b c",
		"--root /r create c", "--root /r create --bundle /b", "--root /r create --bundle /b c d", "--root /r create --bundle /b c --bundle /e",
		"--root /r create --bundle /b --bundle /e c", "--root /r create --bundle /b -b /e c", "--root /r create --bundle b c", "--root /r create --bundle= c",
		"--root /r create --bundle /b ../c", "--root /r create --bundle /b a/b", "--root /r create --bundle /b ..", "--root /r create --bundle /b --preserve-fds 3 c",
		"--root /r create --bundle /b -- c", "--root /r create --bundle /b --no-pivot=true c", "create --bundle /b c", "--root r create --bundle /b c",
		"--root /r exec c", "--root /r exec c sh", "--root /r exec --process /p c sh", "--root /r exec --process /p --cap CAP_SYS_ADMIN c",
		"--root /r exec --process /p --cgroup / c", "--root /r exec --process /p --env A=b c", "--root /r exec --process /p --user 0 c",
		"--root /r exec --process /p --ignore-paused c", "--root /r exec --tty --process /p c", "--root /r exec --process p c",
	} {
		if got, err := parse(strings.Fields(line)); err == nil {
			t.Errorf("%q is accepted as %+v", line, got)
		}
	}
}

// TestRefusalsKnowWhereToSpeak: what could be read of the command line before
// the fault says where the reason goes.
func TestRefusalsKnowWhereToSpeak(t *testing.T) {
	got, err := parse(strings.Fields("--root /r --log /l --log-format json --new-flag run c"))
	if err == nil || got.log != "/l" || got.logFormat != "json" {
		t.Errorf("parse = %+v, %v", got, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"--root\x00/r\x00--log\x00/l\x00create\x00--bundle\x00/b\x00c", "--root=/r\x00exec\x00-p\x00/p\x00c", "state\x00c", "--version", "run\x00c", "--\x00create", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		args := strings.Split(text, "\x00")
		inv, err := parse(args)
		if err != nil {
			return
		}
		switch {
		case inv.command == "create" || inv.command == "exec":
			if file := inv.bundle + inv.process; file == "" || !validID(inv.id) || args[len(args)-1] != inv.id || !strings.HasPrefix(inv.root, "/") {
				t.Errorf("%q is accepted as %+v", args, inv)
			}
		case inv.command == "":
			if len(args) != 1 {
				t.Errorf("%q is accepted without a command", args)
			}
		case !passed(inv.command) || !slices.Contains(args, inv.command):
			t.Errorf("%q is accepted as %+v", args, inv)
		}
	})
}
