// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/c8s-dev/c8s/policy"
)

func TestMountsAreTakenForWhatTheyAre(t *testing.T) {
	volumes := "/var/lib/kubelet/pods/" + podUID + "/volumes/"
	subPaths := "/var/lib/kubelet/pods/" + podUID + "/volume-subpaths/"
	for _, tc := range []struct {
		source, destination, kind string
	}{
		{volumes + "kubernetes.io~empty-dir/data", "/data", policy.MountEmptyDir},
		{volumes + "kubernetes.io~empty-dir/fast", "/data", policy.MountMemory},
		{volumes + "kubernetes.io~configmap/cfg", "/etc/app", policy.MountConfigMap},
		{volumes + "kubernetes.io~secret/key", "/etc/app", policy.MountSecret},
		{volumes + "kubernetes.io~projected/all", "/etc/app", policy.MountProjected},
		{volumes + "kubernetes.io~projected/kube-api-access-x", "/etc/app", policy.MountProjected},
		{volumes + "kubernetes.io~projected/kube-api-access-x", serviceAccountPath, policy.MountServiceAccount},
		{volumes + "kubernetes.io~downward-api/pod", "/etc/pod", policy.MountDownwardAPI},
		{volumes + "kubernetes.io~csi/pvc-1/mount", "/data", policy.MountCSI},
		{volumes + "kubernetes.io~nfs/share", "/data", policy.MountPersistentVolume},
		{"/var/lib/kubelet/pods/" + podUID + "/etc-hosts", "/etc/hosts", policy.MountRuntime},
		{"/var/lib/kubelet/pods/" + podUID + "/containers/app/1a2b", "/dev/termination-log", policy.MountRuntime},
		{"/var/lib/kubelet/pods/" + podUID + "/containers/app/1a2b", "/etc/passwd", policy.MountEmptyDir},
		{"/var/lib/containerd/cri/sandboxes/" + sandboxID + "/resolv.conf", "/etc/resolv.conf", policy.MountRuntime},
		{"/run/containerd/cri/sandboxes/" + sandboxID + "/shm", "/dev/shm", policy.MountRuntime},
		{"/var/lib/containerd/cri/containers/" + own + "/volumes/9f", "/var/cache", policy.MountImageVolume},
		{"/run/containerd/cri/image-volumes/" + sandboxID + "/sha256:1", "/models", policy.MountImage},
		{subPaths + "data/app/0", "/data/sub", policy.MountEmptyDir},
		{subPaths + "fast/app/1", "/fast", policy.MountMemory},
		{subPaths + "cfg/app/2", "/etc/nginx.conf", policy.MountConfigMap},

		// Tricks.
		{subPaths + "host/app/3", "/x", policy.MountHostPath},  // a subPath of a path of the node
		{subPaths + "other/app/4", "/x", policy.MountHostPath}, // of another pod's volume
		{subPaths + "none/app/5", "/x", policy.MountHostPath},  // nothing is mounted there
		{volumes + "kubernetes.io~empty-dir/data/../../../../..", "/x", policy.MountHostPath},
		{volumes + "kubernetes.io~empty-dir/data/sub", "/x", policy.MountHostPath}, // symlinks may lead out
		{volumes + "kubernetes.io~empty-dir", "/x", policy.MountHostPath},
		{volumes + "example.com~flex/data", "/x", policy.MountHostPath},
		{volumes + "kubernetes.io~csi/pvc-1", "/x", policy.MountCSI},
		{volumes + "kubernetes.io~csi/pvc-1/vol_data.json", "/x", policy.MountHostPath},
		{"//var/lib/kubelet/pods/" + podUID + "/volumes/kubernetes.io~empty-dir/data", "/x", policy.MountHostPath},
		{"/var/lib/kubelet/pods/99999999-2222/volumes/kubernetes.io~secret/key", "/x", policy.MountHostPath},
		{"/var/lib/kubelet/pods/99999999-2222/etc-hosts", "/etc/hosts", policy.MountHostPath},
		{"/var/lib/kubelet/pods/" + podUID + "/etc-hosts", "/etc/passwd", policy.MountHostPath},
		{"/var/lib/containerd/cri/sandboxes/other/resolv.conf", "/etc/resolv.conf", policy.MountHostPath},
		{"/var/lib/containerd/cri/sandboxes/" + sandboxID + "/resolv.conf", "/etc/passwd", policy.MountHostPath},
		{"/var/lib/containerd/cri/containers/other/volumes/9f", "/var/cache", policy.MountHostPath},
		{"/run/containerd/cri/image-volumes/other/sha256:1", "/models", policy.MountHostPath},
		{"/dev/shm", "/dev/shm", policy.MountHostPath},
		{"/etc", "/etc/hosts", policy.MountHostPath},
		{"relative", "/x", policy.MountHostPath},
	} {
		s := ordinary(t)
		s.Mounts = []specs.Mount{{Destination: tc.destination, Type: "bind", Source: tc.source, Options: []string{"rbind", "rprivate", "rw"}}}
		m := testNode().Container(s, testPod()).Mounts[0]
		if m.Source != tc.kind || (m.HostPath != "") != (tc.kind == policy.MountHostPath) {
			t.Errorf("%s at %s is %q (%q), want %q", tc.source, tc.destination, m.Source, m.HostPath, tc.kind)
		}
	}
}

func TestFileSystemsAreTheRuntimesAtTheirPlacesOnly(t *testing.T) {
	for _, tc := range []struct {
		m    specs.Mount
		kind string
	}{
		{specs.Mount{Destination: "/proc", Type: "proc", Source: "proc"}, policy.MountRuntime},
		{specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup"}, policy.MountRuntime},
		{specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"}, policy.MountTmpfs},
		{specs.Mount{Destination: "/mnt", Type: "proc", Source: "proc"}, "a file system of type proc"},
		{specs.Mount{Destination: "/proc", Type: "tmpfs", Source: "tmpfs"}, policy.MountTmpfs},
		{specs.Mount{Destination: "/mnt", Type: "ext4", Source: "/dev/vda"}, "a file system of type ext4"},
		{specs.Mount{Destination: "/mnt", Type: "overlay", Options: []string{"lowerdir=/"}}, "a file system of type overlay"},
		{specs.Mount{Destination: "/proc", Type: "proc", Source: "/etc", Options: []string{"rbind"}}, policy.MountHostPath},
	} {
		s := ordinary(t)
		s.Mounts = []specs.Mount{tc.m}
		if m := testNode().Container(s, testPod()).Mounts[0]; m.Source != tc.kind {
			t.Errorf("%+v is %q, want %q", tc.m, m.Source, tc.kind)
		}
	}
}

func TestTheSharedMemoryOfANodeIsItsOwnOnlyInItsNamespace(t *testing.T) {
	s := ordinary(t)
	without(specs.IPCNamespace)(s)
	s.Mounts = []specs.Mount{{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"rbind"}}}
	if m := testNode().Container(s, testPod()).Mounts[0]; m.Source != policy.MountRuntime {
		t.Errorf("%+v", m)
	}
}

func TestAVolumeOfUnknownFileSystemIsNotInMemory(t *testing.T) {
	n := testNode()
	n.OnTmpfs = func(string) (bool, error) { return true, errors.New("gone") }
	s := ordinary(t)
	s.Mounts = []specs.Mount{{Destination: "/d", Type: "bind", Source: "/var/lib/kubelet/pods/" + podUID + "/volumes/kubernetes.io~empty-dir/fast"}}
	if m := n.Container(s, testPod()).Mounts[0]; m.Source != policy.MountEmptyDir {
		t.Errorf("%+v", m)
	}
}

func TestMountTablesAreRead(t *testing.T) {
	table := parseMounts([]byte("36 35 98:0 /a\\040b /mnt\\134x rw - ext4 /dev/root rw\nshort line\n"))
	if d := cmp.Diff(mountTable{{"98:0", "/a b", `/mnt\x`}}, table, cmp.AllowUnexported(mountPoint{})); d != "" {
		t.Error(d)
	}
	if origins := table.origins("/nowhere"); origins != nil {
		t.Errorf("%v", origins)
	}
}
