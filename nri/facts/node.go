// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"os"

	"golang.org/x/sys/unix"
)

// The folders that nobody moved.
const (
	DefaultKubelet = "/var/lib/kubelet"

	defaultPersistent = "/var/lib/containerd/io.containerd.grpc.v1.cri"
	defaultVolatile   = "/run/containerd/io.containerd.grpc.v1.cri"
)

// DefaultContainerd are the folders of containerd's CRI plugin.
func DefaultContainerd() []string { return []string{defaultPersistent, defaultVolatile} }

// Local describes the node through the files of a process in the node's own
// mount namespace: "/proc/1" from a container that sees the node's processes,
// "/proc/self" from outside of any container.
func Local(process, kubelet string, containerd []string) *Node {
	root := process + "/root"
	unified, err := onFileSystem(root+"/sys/fs/cgroup", unix.CGROUP2_SUPER_MAGIC)
	return &Node{
		Kubelet: kubelet, Containerd: containerd, CgroupNamespaces: unified && err == nil,
		OnTmpfs: func(path string) (bool, error) { return onFileSystem(root+path, unix.TMPFS_MAGIC) },
		Mounts:  func() ([]byte, error) { return os.ReadFile(process + "/mountinfo") },
	}
}

func onFileSystem(path string, magic int64) (bool, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return false, err
	}
	return int64(s.Type) == magic, nil
}
