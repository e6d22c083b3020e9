// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
)

// FuzzConfig: whatever the bytes say, no mount of the node goes by another name,
// and every setting that is read is accounted for.
func FuzzConfig(f *testing.F) {
	seed, err := os.ReadFile(filepath.Join("testdata", "container.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"process":{"args":["a"],"cwd":"/"},"root":{"path":"r"},"linux":{},"mounts":[{"destination":"/x","source":"/etc","options":["bind"]}]}`))
	f.Add([]byte(`{"process":{"args":[]},"root":{},"linux":{"seccomp":{"defaultAction":"","syscalls":[{"names":["socket"],"args":[{"index":9}]}]},"resources":{"devices":[{"allow":true}]}},"hooks":{"poststop":[{}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b)
		if err != nil {
			return
		}
		got := testNode().Container(s, testPod())
		if len(got.Mounts) != len(s.Mounts) || got.Privileges == nil || got.Seccomp == nil {
			t.Fatalf("left out: %+v", got)
		}
		for i, m := range got.Mounts {
			if !isBind(s.Mounts[i]) {
				continue
			}
			ours := slices.ContainsFunc([]string{"/var/lib/kubelet/pods/" + podUID + "/", "/var/lib/containerd/cri/", "/run/containerd/cri/"}, func(p string) bool { return strings.HasPrefix(s.Mounts[i].Source, p) })
			if !ours && s.Mounts[i].Source != "/dev/shm" && m.Source != policy.MountHostPath {
				t.Errorf("%q is taken for %s", s.Mounts[i].Source, m.Source)
			}
			if strings.Contains(s.Mounts[i].Source, "..") && m.Source != policy.MountHostPath && !strings.Contains(s.Mounts[i].Source, "/..2") && hasDotDot(s.Mounts[i].Source) {
				t.Errorf("%q is taken for %s", s.Mounts[i].Source, m.Source)
			}
		}
		r := Restrict(s.Linux.Seccomp, nil)
		if open := Open(r); len(open) > 0 {
			t.Errorf("restricted and open: %v", open)
		}
	})
}

func hasDotDot(p string) bool { return slices.Contains(strings.Split(p, "/"), "..") }

func FuzzExec(f *testing.F) {
	config, err := os.ReadFile(filepath.Join("testdata", "container.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"args":["/bin/check"],"cwd":"/srv","user":{"uid":65535,"gid":65535}}`))
	f.Add([]byte(`{"args":["a"],"capabilities":{"bounding":["CAP_SYS_ADMIN"]},"env":["LD_PRELOAD=x"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Exec(b, config)
		if err == nil && len(got.Args) == 0 {
			t.Error("a process without arguments")
		}
	})
}

func FuzzAccount(f *testing.F) {
	f.Add("web:log", []byte("root:x:0:0::/:/bin/sh\nweb:x:101:102::/:/bin/false\n"), []byte("log:x:200:web,root\n"))
	f.Add("", []byte(":::"), []byte("a:b:c:d"))
	f.Fuzz(func(_ *testing.T, user string, passwd, group []byte) { Account(user, passwd, group) })
}

func FuzzMounts(f *testing.F) {
	table, err := os.ReadFile(filepath.Join("testdata", "mountinfo"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(table, "/var/lib/kubelet/pods/"+podUID+"/volume-subpaths/data/app/0")
	f.Add([]byte(`1 1 8:1 / \057 rw - a b c`), "/")
	f.Fuzz(func(t *testing.T, table []byte, source string) {
		n := testNode()
		n.Mounts = func() ([]byte, error) { return table, nil }
		if kind := n.subPath(source, testPod()); kind != "" && !slices.Contains(policy.MountKinds(), kind) {
			t.Errorf("%q", kind)
		}
	})
}

func BenchmarkContainer(b *testing.B) {
	config, err := os.ReadFile(filepath.Join("testdata", "container.json"))
	if err != nil {
		b.Fatal(err)
	}
	n, pod := testNode(), testPod()
	for b.Loop() {
		s, err := Parse(config)
		if err != nil {
			b.Fatal(err)
		}
		n.Container(s, pod)
	}
}
